# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes to converge: a namespace of its own for each test, compiled objects, and the machine left as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from tests.integration.sandbox import Sandbox, sandbox

REPOSITORY = Path(__file__).resolve().parents[2]
OBJECT = REPOSITORY / "roles/runtime/files/fastpath.bpf.o"


@pytest.fixture
def node() -> Iterator[Sandbox]:
    """A bare node with the containers c1, c2 and c3."""
    with sandbox(OBJECT, 3) as made:
        yield made


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another object with the same behaviour: an ELF file may have a tail."""
    target = tmp_path_factory.mktemp("object") / "newer.bpf.o"
    target.write_bytes(OBJECT.read_bytes() + b"newer")
    return target


@pytest.fixture(autouse=True, scope="session")
def untouched_machine() -> Iterator[None]:
    """Nothing that a sandbox does may be seen outside of it."""
    bpf.version()

    def seen() -> tuple[str, list[bool], list[str]]:
        mounts = Path("/proc/self/mounts").read_text()
        ours = [Path(path).exists() for path in ("/etc/fastpath", "/usr/lib/fastpath")]
        return mounts.partition(" /sys/fs/bpf ")[1], ours, sorted(os.listdir("/sys/fs/bpf"))

    before = seen()
    yield
    assert seen() == before
