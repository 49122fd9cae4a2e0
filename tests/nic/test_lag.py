# SPDX-License-Identifier: GPL-3.0-or-later
"""VF LAG with the kernel's bonds, and netplan beside us, in a machine with the emulated NIC."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nic.conftest import HOME, Guest, copy_collection

_FILES = Path(__file__).resolve().parents[2] / "roles/switchdev/files"


@pytest.mark.full
@pytest.mark.parametrize("guest", [pytest.param("6.12", marks=pytest.mark.xdist_group("6.12"))], indirect=True)
@pytest.mark.parametrize("words", ["check_lag.py", "check_netplan.py"])
def test_inside(guest: Guest, words: str) -> None:
    copy_collection(guest.node)
    for file in _FILES.iterdir():
        guest.node.run(["tee", f"{HOME}/tests/nic/inside/{file.name}"], stdin=file.read_text())
    done = guest.check(words)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
