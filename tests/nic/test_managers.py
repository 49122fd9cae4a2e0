# SPDX-License-Identifier: GPL-3.0-or-later
"""The real NetworkManager and systemd-networkd beside the resource eswitch, in a machine with the emulated NIC."""

from __future__ import annotations

import pytest

from lab import packages
from tests.nic.conftest import HOME, Guest, copy, copy_collection

# The links of the lab itself stay as they are.
_PREPARE = """
mkdir -p /etc/NetworkManager/conf.d
printf '[keyfile]\\nunmanaged-devices=interface-name:mgmt0;interface-name:eth0\\n' > /etc/NetworkManager/conf.d/lab.conf
"""


@pytest.mark.full
@pytest.mark.parametrize("guest", [pytest.param("6.12", marks=pytest.mark.xdist_group("6.12"))], indirect=True)
def test_inside(guest: Guest) -> None:
    guest.node.run(["sh", "-euc", _PREPARE])
    packages.install(guest.node, ("network-manager",))
    copy_collection(guest.node)
    copy(guest.node, "roles/switchdev/files", HOME)  # what tells them to keep off
    done = guest.check("check_managers.py")
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
