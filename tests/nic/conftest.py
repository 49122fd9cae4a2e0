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
from tests.vm.conftest import name

__all__ = ["HOME", "Guest", "copy", "copy_collection", "guest", "name"]
_REPOSITORY = Path(__file__).resolve().parents[2]
HOME = "/root/checks"
_SECONDS = 4 * 3600


@dataclass(frozen=True)
class Guest:
    """A node; what the compiler said about the module for it."""

    node: Node
    said: str

    def check(self, words: str) -> subprocess.CompletedProcess[str]:
        """Run checks in the machine, by its own pytest: a file and options; whatever the exit code."""
        tool = "python3 -m pytest -q -o python_files='check_*.py'"
        command = f"cd {HOME} && PYTHONPATH=. exec {tool} tests/nic/inside/{words}"
        return self.node.run(["sh", "-c", command], check=False, timeout=_SECONDS)


def copy(node: Node, directory: str, target: str) -> None:
    """A directory of this repository to below a directory of the node."""
    pack = ["tar", "-c", "--exclude=__pycache__", "-C", str(_REPOSITORY), directory]
    archive = subprocess.run(pack, capture_output=True, check=True).stdout
    unpack = node.place().command(["sh", "-c", f"mkdir -p {target} && tar -x -m -C {target}"])
    subprocess.run(unpack, input=archive, capture_output=True, check=True)


def copy_collection(node: Node) -> None:
    """What checks import of the collection."""
    copy(node, "plugins", f"{HOME}/ansible_collections/fastpath/node")


@pytest.fixture(scope="session")
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A fresh virtual machine of the kernel that is the parameter."""
    chosen = f"tn{os.getpid()}"
    try:
        lab = Lab.up(chosen, nodes=1, containers=0, kind="vm", kernels=(request.param,))
        node = lab.nodes[0]
        said = kmod.install(node)
        copy(node, "tests/nic/inside", HOME)
        yield Guest(node, said)
    finally:
        down(chosen)
