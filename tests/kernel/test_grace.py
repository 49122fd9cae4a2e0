# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for programs that run."""

from __future__ import annotations

from threading import Thread

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, grace

from .conftest import Compiler

FIRST = bytes(4)
NOT_YET, ENDED = bytes(4), b"\2\0\0\0"


def test_a_program_that_runs_has_ended_when_the_wait_is_over(compiled: Compiler) -> None:
    with bpf.load(compiled("slow")) as loaded:
        said = bpf.Map(loaded.maps["said"])
        running = Thread(target=bpf.test_run, args=(loaded.programs["slow"], bytes(64)))
        running.start()
        while said.get(FIRST) == NOT_YET:
            pass
        grace.wait()  # with one processor it has ended before: nobody else runs beside it
        assert said.get(FIRST) == ENDED
        running.join()
