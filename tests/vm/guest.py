# SPDX-License-Identifier: GPL-3.0-or-later
"""This repository inside a virtual machine, tested by the distribution's own Python and pytest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import Node
from tests.integration import flood, variants

REPOSITORY = Path(__file__).resolve().parents[2]
BUILT = ("roles/runtime/files/fastpath.bpf.o", "build/test-objects")
PURE = ("scapy",)  # packages that tests need and that run from a copy
HOME = "/root/fastpath"
LIBRARIES = "/root/libraries"
_SECONDS = 1800


@dataclass(frozen=True)
class Guest:
    """A node with a copy of the repository."""

    node: Node

    def pytest(self, paths: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run these tests in the machine; whatever the exit code."""
        command = f"cd {HOME} && PYTHONPATH={LIBRARIES} exec python3 -m pytest -q {' '.join(paths)}"
        return self.node.run(["sh", "-c", command], check=False, timeout=_SECONDS)


def copy_repository(node: Node) -> Guest:
    """The files as they are now, and what was built of them for a machine that has no compiler."""
    _compile()
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    files = [name for name in listed if name and (REPOSITORY / name).exists()]
    _copy(node, REPOSITORY, [*files, *BUILT], HOME)
    libraries = next(Path(path) for path in sys.path if (Path(path) / PURE[0]).is_dir())
    _copy(node, libraries, PURE, LIBRARIES)
    collections = f"{HOME}/build/ansible_collections/fastpath"
    node.run(["sh", "-c", f"mkdir -p {collections} && ln -s {HOME} {collections}/node"])
    return Guest(node)


def _compile() -> None:
    """Run the tests here that compile programs for the kernel: they keep them in build/test-objects."""
    variants.build()
    flood.compiled()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/kernel"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _copy(node: Node, source: Path, names: Sequence[str], target: str) -> None:
    pack = ["tar", "-cz", "--exclude=__pycache__", "-C", str(source), "-T", "-"]
    archive = subprocess.run(pack, input="\n".join(names).encode(), capture_output=True, check=True).stdout
    unpack = node.place().command(["sh", "-c", f"mkdir -p {target} && tar -xz -C {target}"])
    subprocess.run(unpack, input=archive, capture_output=True, check=True)
