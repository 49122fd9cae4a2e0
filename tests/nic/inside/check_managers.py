# SPDX-License-Identifier: GPL-3.0-or-later
"""NetworkManager and systemd-networkd on a node whose NIC is ours: they keep off, and undo nothing.

openshift/enhancements#296: a restart of NetworkManager removed the qdisc of a representor, and with it the rules.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import store
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from tests.nic.inside.device import Nic, load, rule, run, until
from tests.nic.inside.eswitch import VFIO, converge, item, seen

WISHED = item(
    "switchdev", 3, hw_tc_offload=True, names={"uplink": "nic0", "representors": "nic0r"},
    vf=[{"index": 1, "mac": "02:00:00:00:00:77"}, {"index": 2, "driver": VFIO}],
)  # fmt: skip
_NETWORKS = Path("/etc/systemd/network")
_ROLE = Path(__file__).resolve().parents[3] / "roles/switchdev/files"
_KEEP_OFF = {
    "05-fastpath.network": _NETWORKS,
    "05-fastpath.link": _NETWORKS,
    "99-fastpath.rules": Path("/etc/udev/rules.d"),
}
# Who comes after us and has an opinion of every interface.
_GREEDY = "[Match]\nDriver=mlx5_core fastpath_nic_vf\n[Link]\nMTUBytes=1400\n[Network]\nAddress=203.0.113.1/24\n"
_PROFILE = ("con-name", "greedy", "type", "ethernet", "ifname", "*", "ip4", "203.0.113.2/24", "mtu", "1300")


@pytest.fixture
def nic() -> Iterator[Nic]:
    run("modprobe", "vfio-pci")
    for name, place in _KEEP_OFF.items():
        shutil.copy(_ROLE / name, place)
    (_NETWORKS / "50-greedy.network").write_text(_GREEDY)
    run("networkctl", "reload")
    made = load(profile="mlx5", vfs=4)
    converge(WISHED)
    representor = made.near("pf0vf0")
    run("tc", "qdisc", "add", "dev", representor, "clsact")
    rule(representor, "action", "drop")
    yield made
    run("tc", "qdisc", "del", "dev", representor, "clsact")
    store.write(eswitch_node.DOCUMENT, None)
    eswitch_node.Node().write_rules("")
    for name, place in {**_KEEP_OFF, "50-greedy.network": _NETWORKS}.items():
        (place / name).unlink()
    run("networkctl", "reload")


def ours(nic: Nic) -> list[str]:
    return sorted([*(name for port, name in nic.nears().items() if port != "p0"), nic.vf(0), nic.vf(1)])


def held(nic: Nic) -> object:
    """What nobody may change."""
    links = [run("ip", "-o", "link", "show", name).replace("DOWN", "UNKNOWN") for name in ours(nic)]
    addresses = [run("ip", "-o", "-4", "address", "show", name) for name in ours(nic)]
    return seen().vfs, nic.nears(), links, addresses, rules(nic)


def rules(nic: Nic) -> int:
    return run("tc", "filter", "show", "dev", nic.near("pf0vf0"), "ingress").count("in_hw ")


def unmanaged(nic: Nic) -> bool:
    states = dict(line.split(":") for line in run("nmcli", "-t", "-f", "DEVICE,STATE", "device").splitlines())
    return all(states.get(name) == "unmanaged" for name in ours(nic))


def test_networkmanager(nic: Nic) -> None:
    until(lambda: unmanaged(nic), "NetworkManager keeps off")
    before = held(nic)
    assert rules(nic) == 1
    run("nmcli", "connection", "add", *_PROFILE)
    try:
        for command in (
            ("systemctl", "restart", "NetworkManager"),
            ("nmcli", "networking", "off"),
            ("nmcli", "networking", "on"),
            ("nmcli", "connection", "reload"),
        ):
            run(*command)
            until(lambda: unmanaged(nic), f"NetworkManager keeps off after {command}")
            assert held(nic) == before, command
        assert not converge(WISHED).changed
    finally:
        run("nmcli", "connection", "delete", "greedy")


def test_systemd_networkd(nic: Nic) -> None:
    def off() -> bool:
        lines = run("networkctl", "--no-legend", "--no-pager", "list").splitlines()
        states = {line.split()[1]: line.split()[-1] for line in lines}
        return all(states.get(name) == "unmanaged" for name in ours(nic))

    until(off, "systemd-networkd keeps off")
    before = held(nic)
    for command in (("systemctl", "restart", "systemd-networkd"), ("networkctl", "reload")):
        run(*command)
        until(off, f"systemd-networkd keeps off after {command}")
        assert held(nic) == before, command
    for name in ours(nic):  # even when it is asked to
        subprocess.run(["networkctl", "reconfigure", name], capture_output=True, check=False)
    assert held(nic) == before
    assert not converge(WISHED).changed
