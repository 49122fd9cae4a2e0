# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests that need a kernel, on each of the kernels that people have: run in there, told here."""

from __future__ import annotations

import pytest

from tests.vm.guest import Guest

_MOVE = "tests/integration/test_move.py"
# What molecule's scenario `kernels` does on each of them is not done again.
SMOKE = {
    "what talks to the kernel": ("tests/kernel",),
    "the programs": ("tests/bpf/test_deliver.py", "tests/bpf/test_moves.py"),
    "a move": (
        f"{_MOVE}::test_a_move_loses_no_packet_and_no_connection",
        f"{_MOVE}::test_auto_takes_netkit_and_leaves_what_there_is",
        f"{_MOVE}::test_netkit_where_there_is_none",
    ),
}
FULL = {
    # what looks into the object itself needs the compiler's tools
    "all of the programs": ("tests/bpf", "--ignore=tests/bpf/test_object.py"),
    # the one has nodes of its own, the other wants more memory and time than such a machine has
    "all of a node": (
        "tests/integration",
        "--ignore=tests/integration/test_lab.py",
        "--ignore=tests/integration/test_scale.py",
    ),
}


def _params() -> list[object]:
    smoke = [pytest.param(paths, id=name) for name, paths in SMOKE.items()]
    return [*smoke, *(pytest.param(paths, id=name, marks=pytest.mark.full) for name, paths in FULL.items())]


@pytest.mark.parametrize("paths", _params())
def test_inside(guest: Guest, paths: tuple[str, ...]) -> None:
    done = guest.pytest(paths)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
