# SPDX-License-Identifier: GPL-3.0-or-later
"""How somebody has come in, from the processes that have started this one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import way

SSH = b"SSH_CONNECTION=192.0.2.1 50000 192.0.2.11 22\0"


def process(proc: Path, pid: int, parent: int, environment: bytes) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 1 1 0\n")
    (proc / str(pid) / "environ").write_bytes(b"PATH=/bin\0" + environment)


@pytest.mark.parametrize("who", [0, 1, 2])
def test_sudo_hides_nothing(tmp_path: Path, who: int) -> None:
    """The shell that sshd has started still has it."""
    for place, (pid, parent) in enumerate(((os.getpid(), 20), (20, 10), (10, 0))):
        process(tmp_path, pid, parent, SSH if place == who else b"")
    assert way.connection(str(tmp_path)) == "192.0.2.1 50000 192.0.2.11 22"


def test_nobody_has_come_in(tmp_path: Path) -> None:
    process(tmp_path, os.getpid(), 1, b"")
    assert way.connection(str(tmp_path)) == ""
