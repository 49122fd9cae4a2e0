# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual machine for each kernel, with the emulated NIC and the checks in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import Lab, Node, down, kmod

_REPOSITORY = Path(__file__).resolve().parents[2]
_HOME = "/root/checks"
_SECONDS = 4 * 3600


@dataclass(frozen=True)
class Guest:
    """A node; what the compiler said about the module for it."""

    node: Node
    said: str

    def check(self, words: str) -> subprocess.CompletedProcess[str]:
        """Run checks in the machine, by its own pytest: a file and options; whatever the exit code."""
        tool = "python3 -m pytest -q -o python_files='check_*.py'"
        command = f"cd {_HOME} && PYTHONPATH=. exec {tool} tests/nic/inside/{words}"
        return self.node.run(["sh", "-c", command], check=False, timeout=_SECONDS)


@pytest.fixture(scope="session")
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A fresh virtual machine of the kernel that is the parameter."""
    chosen = f"tn{os.getpid()}"
    try:
        lab = Lab.up(chosen, nodes=1, containers=0, kind="vm", kernels=(request.param,))
        node = lab.nodes[0]
        said = kmod.install(node)
        pack = ["tar", "-c", "--exclude=__pycache__", "-C", str(_REPOSITORY), "tests/nic/inside"]
        archive = subprocess.run(pack, capture_output=True, check=True).stdout
        unpack = node.place().command(["sh", "-c", f"mkdir -p {_HOME} && tar -x -m -C {_HOME}"])
        subprocess.run(unpack, input=archive, capture_output=True, check=True)
        yield Guest(node, said)
    finally:
        down(chosen)
