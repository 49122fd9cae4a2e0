# SPDX-License-Identifier: GPL-3.0-or-later
"""The NICs of a node, put together from sysfs, devlink and their interfaces; and where changes go."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import store
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.eswitch import naming
from ansible_collections.fastpath.node.plugins.module_utils.eswitch.attributes import Attributes
from ansible_collections.fastpath.node.plugins.module_utils.kernel import (
    bonds,
    devlink,
    ethtool,
    links,
    rtnl,
    vflinks,
    way,
)
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node, eswitch_plan
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_node import Node
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import State, Vf

from ..kernel import trees
from ..kernel.trees import Tree, tree

HANDLE = "pci/0000:3b:00.0"


class World:
    """The kernel beside sysfs: links by name, VFs of the PF, devlink's answer, and what was asked of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.up = {"ens1np0"}
        self.vfs: dict[int, Attributes] = {}
        self.devlink: dict[str, devlink.Instance] = {}
        self.asked: list[tuple[Any, ...]] = []

    def link(self, name: str) -> links.Link:
        return links.Link(
            hash(name) & 0xFFFF, name, "", "02:00:00:00:00:01", 1500, name in self.up, False, 0, "", 0, None
        )

    def links(self, _netlink: object) -> dict[str, links.Link]:
        here = [path.name for path in (self.root / "class/net").iterdir()]
        vfs = [path.name for path in self.root.glob("bus/pci/devices/*/net/ens1v*")]
        return {name: self.link(name) for name in (*here, *vfs)}

    def node(self, connection: str = "") -> Node:
        return Node(connection, str(self.root))

    def ask(self, *request: Any) -> None:
        self.asked.append(request)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(rtnl.Netlink, "__init__", lambda _self, _protocol=0: None)
    monkeypatch.setattr(rtnl.Netlink, "__exit__", lambda _self, *_exc: None)
    monkeypatch.setattr(links, "links", made.links)
    monkeypatch.setattr(links, "need", lambda netlink, name: made.links(netlink)[name])
    monkeypatch.setattr(links, "set_link", lambda _netlink, index, **given: made.ask("link", index, given))
    monkeypatch.setattr(links, "rename", lambda _netlink, index, name: made.ask("rename", index, name))
    monkeypatch.setattr(
        vflinks, "read", lambda _netlink, _index: vflinks.Uplink("02:aa:00:00:00:01", "aabb", "p0", made.vfs)
    )
    monkeypatch.setattr(vflinks, "write", lambda _netlink, index, vfs: made.ask("vfs", index, vfs))
    monkeypatch.setattr(devlink, "instances", lambda: made.devlink)
    for name in ("set_port_mac", "set_mode", "set_inline", "set_encap", "set_param"):
        monkeypatch.setattr(devlink, name, lambda *request, name=name: made.ask(name, *request))
    monkeypatch.setattr(ethtool, "feature", lambda interface, _name: interface == "ens1np0")
    monkeypatch.setattr(ethtool, "flags", lambda _interface: frozenset(["fw-lldp-agent", "link-down-on-close"]))
    monkeypatch.setattr(ethtool, "driver", lambda interface: "ice" if interface == "ens1np0" else "")
    monkeypatch.setattr(ethtool, "set_feature", lambda *request: made.ask("feature", *request))
    monkeypatch.setattr(way, "interfaces", lambda connection: frozenset(connection.split()))
    return made


def switchdev(world: World, vfs: int = 2) -> Tree:
    made = tree(world.root, "mlx5_core", vfs, representors="ens1npf0vf", vf_driver="mlx5_core")
    eswitch = devlink.Eswitch("switchdev", "none", "basic")
    world.devlink = {HANDLE: devlink.Instance(HANDLE, "mlx5_core", "MT1", eswitch, {"flow_steering_mode": "smfs"})}
    world.vfs = {vf: Attributes(f"02:00:00:00:00:{vf:02x}", 0, False, True, 0, 0) for vf in range(vfs)}
    return made


def test_a_nic_in_switchdev_mode(world: World) -> None:
    switchdev(world)
    found = world.node().devices()[HANDLE]
    assert (found.driver, found.mac, found.serial, found.switch_id) == ("mlx5_core", "02:aa:00:00:00:01", "MT1", "aabb")
    assert (found.uplink, found.up, found.mtu, found.hw_tc_offload) == ("ens1np0", True, 1500, True)
    assert (found.mode, found.inline_mode, found.encap_mode, found.switchable) == ("switchdev", "none", "basic", True)
    assert found.params == {"flow_steering_mode": "smfs"}
    # what mlx5 does not enforce in this mode is not reported, though the kernel tells a value
    own = Attributes("02:00:00:00:00:01", None, None, None, 0, 0)
    assert found.vfs[1] == Vf("kernel", own, representor="ens1npf0vf1")
    (public,) = eswitch_plan.public(State({HANDLE: found}))
    assert public["device"] == {"pci": "0000:3b:00.0"}
    assert public["vf"][1] == {"index": 1, "driver": "kernel", "mac": "02:00:00:00:00:01", "min_rate": 0, "max_rate": 0}


def test_names_of_rdma_devices_say_nothing(world: World) -> None:
    """sriov-network-operator#668: RDMA devices got other names, and whoever knew the old ones failed."""
    made = switchdev(world)
    before = world.node().devices()
    (made.device / "infiniband/mlx5_0").mkdir(parents=True)
    assert world.node().devices() == before
    (made.device / "infiniband/mlx5_0").rename(made.device / "infiniband/rocep59s0f0")
    assert world.node().devices() == before


def test_a_nic_without_an_eswitch(world: World) -> None:
    tree(world.root, "igb", 1, vf_driver="igbvf")
    found = world.node().devices()[HANDLE]
    assert (found.mode, found.switchable, found.inline_mode, found.params) == ("legacy", False, None, {})


@pytest.mark.parametrize(("driver", "flags"), [("ice", {"fw-lldp-agent", "link-down-on-close"}), ("mlx5_core", set())])
def test_flags_of_a_driver_whose_lags_want_some_off(world: World, driver: str, flags: set[str]) -> None:
    tree(world.root, driver, 1)
    assert world.node().devices()[HANDLE].flags == flags


def test_a_driver_that_goes_by_another_name(world: World) -> None:
    """The lab's NIC: what it is like is told by ethtool."""
    tree(world.root, "fastpath_nic", 1)
    assert world.node().devices()[HANDLE].profile.name == "ice"


def test_vfs_and_representors_that_are_missing(world: World) -> None:
    made = switchdev(world)
    (made.device / "sriov_numvfs").write_text("3\n")
    (made.device / "net/ens1npf0vf1").unlink()
    found = world.node().devices()[HANDLE].vfs
    assert [(vf.present, vf.representor) for vf in found] == [(True, "ens1npf0vf0"), (True, ""), (False, "")]


def test_who_has_a_vf(world: World) -> None:
    made = switchdev(world, 4)
    (made.function(0) / "driver").unlink()
    world.up.add("ens1v1")
    shutil.rmtree(made.function(2) / "net/ens1v2")  # moved into a container
    (made.function(3) / "driver").unlink()
    trees.give(made, 3, "vfio-pci")
    assert [vf.user for vf in world.node().devices()[HANDLE].vfs] == [
        "",
        "interface ens1v1",
        f"whoever has the interface of {made.vfs[2]}",
        f"whoever uses {made.vfs[3]} by vfio-pci",
    ]
    trees.join(made, "ens1npf0vf0", "br0")
    assert world.node().devices()[HANDLE].vfs[0].user == "br0, where its representor is"


def test_the_connection_is_found_below_a_bridge(world: World) -> None:
    made = switchdev(world)
    trees.join(made, "ens1np0", "bond0")
    trees.join(made, "bond0", "br0")
    assert world.node("br0").devices()[HANDLE].carries
    assert not world.node("").devices()[HANDLE].carries
    assert world.node("ens1npf0vf1").devices()[HANDLE].carries
    by_vf = world.node("ens1v1").devices()[HANDLE]
    assert (by_vf.carries, [vf.carries for vf in by_vf.vfs]) == (False, [False, True])
    assert world.node().devices()[HANDLE].master == "bond0"


def test_where_changes_go(world: World) -> None:
    made = switchdev(world)
    node, index = world.node(), world.link("ens1np0").index
    node.set_mode(HANDLE, "legacy")
    node.set_setting(HANDLE, "inline_mode", "link")
    node.set_setting(HANDLE, "encap_mode", "none")
    node.set_setting(HANDLE, "hw_tc_offload", False)
    node.set_setting(HANDLE, "mtu", 9000)
    node.set_param(HANDLE, "flow_steering_mode", "dmfs")
    node.set_up(HANDLE, up=True)
    node.set_attributes(HANDLE, {1: Attributes(vlan=7)})
    node.rename(HANDLE, None, "pf0")
    node.rename(HANDLE, 1, "pf0r1")
    assert world.asked == [
        ("set_mode", HANDLE, "legacy"), ("set_inline", HANDLE, "link"), ("set_encap", HANDLE, "none"),
        ("feature", "ens1np0", "hw-tc-offload", False), ("link", index, {"mtu": 9000}),
        ("set_param", HANDLE, "flow_steering_mode", "dmfs"), ("link", index, {"up": True}),
        ("vfs", index, {1: Attributes(vlan=7)}), ("rename", index, "pf0"),
        ("rename", world.link("ens1npf0vf1").index, "pf0r1"),
    ]  # fmt: skip
    node.set_vfs(HANDLE, 0)
    node.set_autoprobe(HANDLE, on=False)
    assert (made.device / "sriov_numvfs").read_text().startswith("0")
    assert (made.device / "sriov_drivers_autoprobe").read_text().startswith("0")
    node.unbind(HANDLE, 1)
    assert made.written("bus/pci/drivers/mlx5_core/unbind") == made.vfs[1]
    node.bind(HANDLE, 0, "kernel")
    assert made.written("bus/pci/drivers_probe") == made.vfs[0]
    assert node.interfaces(HANDLE) == {0, 1}


def test_udev_looks_again_at_who_joins_or_leaves_a_lag(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    switchdev(world)
    for name in ("join", "leave"):
        monkeypatch.setattr(bonds, name, lambda _netlink, *request, name=name: world.ask(name, *request))
    node, link, file = world.node(), world.link("ens1np0"), world.root / "class/net/ens1np0/uevent"
    node.join(HANDLE, "bond0")
    assert file.read_text() == "change"
    file.unlink()
    node.leave(HANDLE)
    assert file.read_text() == "change"
    assert world.asked == [("join", link.index, "bond0"), ("leave", link)]


def test_macs_of_vfs_by_ports_of_devlink(world: World) -> None:
    """sfc/ef100_netdev.c has no ndo_set_vf_mac, sfc/efx_devlink.c has port_fn_hw_addr_set."""
    tree(world.root, "sfc", 2, vf_driver="sfc")
    ports = tuple(devlink.Port(7 + vf, "pcivf", 0, vf, f"02:00:00:00:00:0{vf}") for vf in range(2))
    world.devlink = {HANDLE: devlink.Instance(HANDLE, "sfc", "", devlink.Eswitch("switchdev", None, None), {}, ports)}
    node = world.node()
    assert [vf.attributes for vf in node.devices()[HANDLE].vfs] == [Attributes(port.mac) for port in ports]
    node.set_attributes(HANDLE, {1: Attributes("02:00:00:00:00:42")})
    assert world.asked == [("set_port_mac", HANDLE, 8, "02:00:00:00:00:42")]


def test_what_has_gone_is_named(world: World) -> None:
    switchdev(world)
    node = world.node()
    with pytest.raises(FastpathError, match=r"pci/0000:99:00\.0: it has gone"):
        node.interfaces("pci/0000:99:00.0")
    with pytest.raises(FastpathError, match=r"VF 7 of pci/0000:3b:00\.0"):
        node.unbind(HANDLE, 7)


def test_udev_has_looked_at_all_interfaces(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eswitch_node, "UDEV", str(tmp_path / "udev"))
    switchdev(world, 1)
    for index, name in enumerate(("ens1np0", "ens1npf0vf0")):
        (world.root / "class/net" / name / "ifindex").write_text(f"{index + 7}\n")
    node, data = world.node(), tmp_path / "udev/data"
    assert node.settled(HANDLE)  # there is no udev
    data.mkdir(parents=True)
    (tmp_path / "udev/control").touch()
    (data / "n7").touch()
    assert not node.settled(HANDLE)
    (data / "n8").touch()
    assert node.settled(HANDLE)
    (world.root / "class/net/ens1np0/ifindex").unlink()  # renamed meanwhile
    assert not node.settled(HANDLE)


def test_udev_goes_by_new_rules_when_they_are_written(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, monkeypatch)
    switchdev(world, 1)
    (world.root / "class/net/ens1v0").mkdir()
    shown = [world.root / "class/net" / name / "uevent" for name in ("ens1npf0vf0", "ens1v0")]
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    node = world.node()
    node.write_rules("# marks\n")
    assert (slept, [file.exists() for file in shown]) == ([], [False, False]), "there is no udev"
    (tmp_path / "udev").mkdir()
    (tmp_path / "udev/control").touch()
    node.write_rules("# other marks\n")
    assert slept == [3.0], "it looks for new rules every 3 s"
    assert [file.read_text() for file in shown] == ["change", "change"]


def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where changes of files go; there is no udev."""
    monkeypatch.setattr(naming, "PATH", str(tmp_path / "rules.d/70-fastpath.rules"))
    monkeypatch.setattr(store, "DIRECTORY", str(tmp_path / "etc"))
    monkeypatch.setattr(eswitch_node, "UDEV", str(tmp_path / "udev"))


def test_rules_and_document_are_files(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, monkeypatch)
    switchdev(world)
    node = world.node()
    assert (node.rules(), node.document()) == ("", None)
    node.write_rules("# names\n")
    node.record(({"device": {"pci": "0000:3b:00.0"}},))
    assert (node.rules(), node.document()) == ("# names\n", ({"device": {"pci": "0000:3b:00.0"}},))
    node.write_rules("")
    node.record(None)
    assert (node.rules(), node.document()) == ("", None)
