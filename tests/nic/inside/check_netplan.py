# SPDX-License-Identifier: GPL-3.0-or-later
"""What netplan makes of a broad file, on a node whose NIC is ours: names, marks, MTUs and MACs are not netplan's.

The files are those that its generator (0.106) writes for a NIC with set-name, as cloud-init does it, for a match by
driver with an MTU, and for NetworkManager as renderer of all names.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import store
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from tests.nic.inside.device import Nic, load, run, until
from tests.nic.inside.eswitch import converge, item

_UDEV, _NETWORK = Path("/run/udev/rules.d"), Path("/run/systemd/network")
_THEIRS = {
    _UDEV / "90-netplan.rules": 'SUBSYSTEM=="net", ACTION=="add|change|move", ENV{ID_NET_NAME}=="*", '
    'ENV{NM_UNMANAGED}="0"\n',
    _UDEV / "99-netplan-cloud0.rules": 'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="%s", '
    'NAME="cloud0"\n',
    _NETWORK
    / "10-netplan-vfs.link": "[Match]\nDriver=mlx5_core fastpath_nic_vf\n\n[Link]\nWakeOnLan=off\nMTUBytes=1400\n",
    _NETWORK / "10-netplan-vfs.network": "[Match]\nDriver=mlx5_core fastpath_nic_vf\n\n[Network]\nDHCP=ipv4\n",
}
_OURS = {
    "05-fastpath.network": Path("/etc/systemd/network"),
    "05-fastpath.link": Path("/etc/systemd/network"),
    "99-fastpath.rules": Path("/etc/udev/rules.d"),
}


@pytest.fixture
def nic() -> Iterator[Nic]:
    made = load(profile="mlx5", vfs=4)
    run("udevadm", "settle")
    address = (made.sysfs / "net" / made.uplink / "address").read_text().strip()
    for name, directory in _OURS.items():
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).with_name(name), directory)
    for path, text in _THEIRS.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("%s", address))
    reload()
    yield made
    for path in (*_THEIRS, *(directory / name for name, directory in _OURS.items())):
        path.unlink()
    store.write(eswitch_node.DOCUMENT, None)
    eswitch_node.Node().write_rules("")
    reload()


def reload() -> None:
    run("udevadm", "control", "--reload")
    run("networkctl", "reload")


def told(name: str) -> dict[str, str]:
    run("udevadm", "settle")
    lines = run("udevadm", "info", "--query=property", f"/sys/class/net/{name}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_netplan(nic: Nic) -> None:
    names = {"uplink": "nic0", "representors": "nic0r"}
    converge(item("switchdev", 3, names=names, vf=[{"index": 1, "mac": "02:00:00:00:00:77"}]))
    ours = [nic.vf(1), "nic0r0", "nic0r2"]
    for name in ours:
        until(lambda name=name: told(name).get("NM_UNMANAGED") == "1", f"{name} is marked")  # type: ignore[misc]
        assert told(name)["ID_NET_MANAGED_BY"] == "fastpath"
        assert (Path("/sys/class/net") / name / "mtu").read_text().strip() == "1500"
    assert (Path("/sys/class/net") / nic.vf(1) / "address").read_text().strip() == "02:00:00:00:00:77"
    lines = run("networkctl", "--no-legend", "--no-pager", "list").splitlines()
    states = {line.split()[1]: line.split()[-1] for line in lines}
    assert {states[name] for name in ours} == {"unmanaged"}


def test_a_name_by_mac_is_not_taken(nic: Nic) -> None:
    """As the NIC appears at boot: cloud-init's name is the last rule, and ours is final."""
    converge(item("switchdev", 2, names={"uplink": "nic0", "representors": "nic0r"}))
    run("ip", "link", "set", "nic0", "down")
    run("ip", "link", "set", "nic0", "name", "eth42")
    run("udevadm", "trigger", "--action=add", "--settle", "/sys/class/net/eth42")
    assert nic.uplink == "nic0"
