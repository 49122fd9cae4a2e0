# SPDX-License-Identifier: GPL-3.0-or-later
"""The resource eswitch on the emulated NIC, in a machine that has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.nic.conftest import Guest

_PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
_COLLECTION = "/root/checks/ansible_collections/fastpath/node"
# One driver's every pair of states, with check mode and a second run; all else takes minutes.
CHECKS = {"pairs": "-k 'pair and mlx5'", "all else": "-k 'not (pair and mlx5)'"}


@pytest.mark.parametrize("guest", [pytest.param("6.12", marks=pytest.mark.xdist_group("6.12"))], indirect=True)
@pytest.mark.parametrize("chosen", ["pairs", pytest.param("all else", marks=pytest.mark.full)])
def test_inside(guest: Guest, chosen: str) -> None:
    pack = ["tar", "-c", "--exclude=__pycache__", "-C", str(_PLUGINS.parent), "plugins"]
    archive = subprocess.run(pack, capture_output=True, check=True).stdout
    unpack = guest.node.place().command(["sh", "-c", f"mkdir -p {_COLLECTION} && tar -x -m -C {_COLLECTION}"])
    subprocess.run(unpack, input=archive, capture_output=True, check=True)
    done = guest.check(f"check_eswitch.py {CHECKS[chosen]}")
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
