# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs as attachments, on the emulated NIC. Each run has tests/integration/test_vfs.py, with a stand-in for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.nic.conftest import HOME, Guest, copy_collection

_OBJECT = Path(__file__).resolve().parents[2] / "roles/runtime/files/fastpath.bpf.o"


@pytest.mark.full
@pytest.mark.parametrize("guest", [pytest.param("6.12", marks=pytest.mark.xdist_group("6.12"))], indirect=True)
def test_inside(guest: Guest) -> None:
    copy_collection(guest.node)
    write = guest.node.place().command(["sh", "-c", f"cat > {HOME}/fastpath.bpf.o"])
    subprocess.run(write, input=_OBJECT.read_bytes(), capture_output=True, check=True)
    done = guest.check("check_attachments.py")
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
