# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests that need a kernel, on each of the kernels that people have: run in there, told here."""

from __future__ import annotations

import pytest

from lab.plan import KERNELS
from tests.vm.guest import Guest

NETKIT = tuple(kernel for kernel in KERNELS if kernel != "6.1")
_KERNEL, _NODE = "tests/kernel", "tests/integration"
# name -> kernels, what pytest gets. What molecule's scenario `kernels` does on each of them is not done again.
SMOKE = {
    "kernel": (
        KERNELS,
        [f"{_KERNEL}/test_{part}.py" for part in ("netkit", "moves", "verifier", "clsact", "bpf_attach", "sockets")],
    ),
    "programs": (KERNELS, ["tests/bpf/test_deliver.py", "tests/bpf/test_moves.py"]),
    "move": (
        NETKIT,
        [
            f"{_NODE}/test_move.py::test_a_move_loses_no_packet_and_no_connection",
            f"{_NODE}/test_move.py::test_auto_takes_netkit_and_leaves_what_there_is",
        ],
    ),
}
FULL = {
    "all of kernel": (KERNELS, [_KERNEL]),
    # the one file looks at the object only, which is the same on each kernel, by a tool that is not there
    "all of programs": (KERNELS, ["tests/bpf", "--ignore=tests/bpf/test_object.py"]),
    "upgrade": (NETKIT, [f"{_NODE}/test_upgrade_load.py", "-k", "netkit"]),
    # the one has nodes of its own, the others want more memory or time than such a machine has
    "all of node": (
        KERNELS,
        [_NODE, *(f"--ignore={_NODE}/test_{part}.py" for part in ("lab", "scale", "policy_api", "upgrade_load"))],
    ),
}


def _params() -> list[object]:
    """Kernel by kernel, so that each is booted once; with `-n 2 --dist loadgroup` each by one of two workers."""
    return [
        pytest.param(kernel, words, id=f"{kernel} {name}", marks=[pytest.mark.xdist_group(kernel), *marks])
        for kernel in KERNELS
        for suite, marks in ((SMOKE, []), (FULL, [pytest.mark.full]))
        for name, (kernels, words) in suite.items()
        if kernel in kernels
    ]


@pytest.mark.parametrize(("guest", "words"), _params(), indirect=["guest"], scope="session")
def test_inside(guest: Guest, words: list[str]) -> None:
    done = guest.pytest(words)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
