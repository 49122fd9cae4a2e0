# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong elsewhere when NICs were moved to switchdev: each test names where, as project#number.

SNO is sriov-network-operator. Here NICs are in memory; what can be is also done on the emulated NIC, below tests/nic.

| breakage | source | here | on the emulated NIC |
| --- | --- | --- | --- |
| the order of mlx5 | SNO#1015, #1019, one-deploy#214 | test_all_vfs_have_appeared_and... | check_breakages, pairs |
| the order of ice | SNO#757, ice_eswitch.c | test_eswitch_pairs | check_eswitch, pairs |
| the order of bnxt | systemd#40739, bnxt_vfr.c | test_bnxt_is_brought_up_first... | check_breakages, pairs |
| mlx5 takes switchdev before VFs | SNO#1015, #1017 | test_switchdev_before_there_are_vfs | check_eswitch, pairs |
| returning to legacy | SNO#40 | test_back_to_legacy | check_breakages |
| stale representors in bridges | SNO#1048 | test_vfs_whose_representors... | check_breakages |
| after a reboot all is gone | SNO#1048, #1124 | test_after_a_reboot... | molecule, test_nics_power_cut |
| incomplete list of VFs | SNO#1015 | test_vfs_that_have_not_appeared... | check_breakages |
| 4 of 5 VFs appear | SNO#233 | test_four_of_five..., test_a_vf_without... | check_breakages |
| netdevice and vfio by turns | SNO#244, #802 | test_vf_driver_there_and_back... | check_breakages |
| VF LAG wants the mode first | SNO#202 | test_a_nic_in_a_bond..., test_eswitch_lag | check_breakages |
| 100 s to unbind 60 VFs | netplan#439, SNO#214 | test_no_driver_is_bound_only... | check_breakages |
| NetworkManager takes the qdisc | openshift/enhancements#296 | test_network_manager_is_told... | check_managers |
| races of names | SNO#29 | test_names_need_no_script... | check_breakages |
| RDMA devices renamed | SNO#668 | test_eswitch_node | it has no RDMA |
| PF renamed | sriov-network-device-plugin#383 | test_a_renamed_pf... | check_breakages |
| a MAC is read when bound | rdma-cni | test_a_new_mac_is_read... | check_breakages |
"""

from __future__ import annotations

import copy
import errno
import itertools
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.eswitch import naming
from ansible_collections.fastpath.node.plugins.module_utils.eswitch.naming import Names
from ansible_collections.fastpath.node.plugins.module_utils.plan import StepFailed, converge
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Request

from .eswitch_nic import LEGACY, SWITCHDEV, Nic, Node
from .test_eswitch_pairs import HANDLE, Item, fresh, run, seen


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eswitch, "_PAUSE", 0)


def item(driver: str = "mlx5_core", **given: Any) -> Item:
    return {"device": {"driver": driver}, **given}


def nic_of(node: Node) -> Nic:
    return node.nics[HANDLE]


def names(node: Node) -> list[str]:
    return [change.split()[0] for change in node.changes]


def test_all_vfs_have_appeared_and_none_is_bound_when_the_mode_changes() -> None:
    """sriov-network-operator#1015, one-deploy#214: one of eight VFs was unbound, the mode failed with EINVAL."""
    node = fresh("mlx5_core")
    nic_of(node).late = 7
    run(node, item(mode=SWITCHDEV, vfs=8), patience=60)
    assert names(node)[:2] == ["set_vfs", "set_mode"]
    assert (nic_of(node).mode, len(nic_of(node).vfs)) == (SWITCHDEV, 8)


def test_four_of_five_vfs_appear() -> None:
    """sriov-network-operator#233: said, and taken back; nothing goes on with four."""
    node = fresh("mlx5_core")
    nic_of(node).late = 1000
    before = seen(node)
    said: list[str] = []
    request = Request((item(mode=SWITCHDEV, vfs=5),), "replaced")
    resource = Eswitch(node, 0.0)
    resource._waiting = said.append
    with pytest.raises(StepFailed, match="0 of 5 VFs have appeared") as caught:
        converge(resource, request, allow_disruption=True)
    nic_of(node).pending = 0
    assert not caught.value.stuck
    assert seen(node) == before
    nic_of(node).late = 1
    with pytest.raises(StepFailed, match="4 of 5 VFs have appeared"):
        run(node, item(mode=SWITCHDEV, vfs=5))


def test_an_interface_that_is_renamed_while_we_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """sriov-network-operator#29: udev is at work as soon as something appears; then it is looked for again."""
    node, whole, looks = fresh("mlx5_core"), Node.devices, itertools.count()

    def every_other(self: Node) -> Any:
        return whole(self) if next(looks) % 2 else never(self)

    def never(_self: Node) -> Any:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(Node, "devices", every_other)
    run(node, item(mode=SWITCHDEV, vfs=3))
    assert nic_of(node).mode == SWITCHDEV
    monkeypatch.setattr(Node, "devices", never)
    with pytest.raises(OSError, match="No such device"):
        run(node, item(mode=SWITCHDEV, vfs=3))


def test_a_vf_without_an_interface_is_bound_again() -> None:
    """sriov-network-operator#233: the driver took the VF and made no interface of it; binding it again helps."""
    node = fresh("ice")
    nic_of(node).lost = {3}
    run(node, item("ice", mode=SWITCHDEV, vfs=5), patience=60)
    assert all(vf.interface for vf in nic_of(node).vfs)
    assert [change for change in node.changes if change.startswith("unbind")] == ["unbind 3"]


@pytest.mark.parametrize("mode", [LEGACY, SWITCHDEV])
def test_vfs_that_have_not_appeared_when_a_run_begins_are_made_anew(mode: str) -> None:
    """sriov-network-operator#1015: the list of VFs was read while it was incomplete."""
    node = fresh("mlx5_core")
    run(node, item(mode=mode, vfs=3))
    nic_of(node).pending = 1
    steps = run(node, item(mode=mode, vfs=3), check=True).steps
    assert {"remove the 3 VFs of pci/0000:3b:00.0": "1 of 3 VFs have not appeared"}.items() <= {
        step["action"]: step["reason"] for step in steps
    }.items()


def test_a_representor_that_is_missing_is_made_anew() -> None:
    """sriov-network-operator#29: representors were counted by names that they did not have yet."""
    node = fresh("ice")
    run(node, item("ice", mode=SWITCHDEV, vfs=3))
    nic_of(node).vfs[2].representor = ""
    reasons = [step["reason"] for step in run(node, item("ice", mode=SWITCHDEV, vfs=3)).steps]
    assert "1 of 3 representors have not appeared" in reasons
    assert all(vf.representor for vf in nic_of(node).vfs)


@pytest.mark.parametrize("driver", ["mlx5_core", "ice", "igb"])
def test_vf_driver_there_and_back_without_a_loop(driver: str) -> None:
    """sriov-network-operator#244: from vfio-pci to netdevice a daemon waited for ever; #802: no default driver."""
    node = fresh(driver)
    for bound in ("kernel", "vfio-pci", "kernel", "vfio-pci"):
        run(node, item(driver, vfs=2, vf_driver=bound))
        assert [vf.driver for vf in nic_of(node).vfs] == [bound] * 2
        assert run(node, item(driver, vfs=2, vf_driver=bound)).steps == ()


def test_no_driver_is_bound_only_to_be_unbound() -> None:
    """netplan#439: 100 s to unbind 60 VFs; sriov-network-operator#214: keep drivers from taking them."""
    node = fresh("mlx5_core")
    nic_of(node).total = 64
    run(node, item(mode=SWITCHDEV, vfs=60))
    assert names(node).count("unbind") == 0
    assert names(node).count("bind") == 60
    assert nic_of(node).autoprobe


def test_a_nic_in_a_bond_or_bridge_does_not_change_its_mode() -> None:
    """sriov-network-operator#202: VF LAG wants the mode first, then the bond."""
    node = fresh("mlx5_core")
    nic_of(node).master = "bond0"
    before = seen(node)
    with pytest.raises(FastpathError, match=r"ens1np0 is in bond0.*Take it out first"):
        run(node, item(mode=SWITCHDEV, vfs=2))
    assert seen(node) == before
    run(node, item(vfs=2))
    assert len(nic_of(node).vfs) == 2


def test_vfs_whose_representors_are_in_a_bridge_are_somebodys() -> None:
    """sriov-network-operator#1048: representors stayed in bridges when VFs were made anew."""
    node = fresh("mlx5_core")
    run(node, item(mode=SWITCHDEV, vfs=2))
    nic_of(node).vfs[1].user = "br-int, where its representor is"
    with pytest.raises(FastpathError, match="VF 1 of br-int"):
        converge(Eswitch(node, 0), Request((item(mode=LEGACY, vfs=0),), "replaced"))


def test_network_manager_is_told_to_keep_off_representors() -> None:
    """openshift/enhancements#296: a restart of NetworkManager removed the qdisc, and with it the rules."""
    rules = naming.rules({"0000:3b:00.0": (Names("pf0", "pf0r"), 2)})
    assert 'ACTION!="remove", KERNELS=="0000:3b:00.0", ATTR{phys_port_name}=="pf*vf*", ENV{NM_UNMANAGED}="1"' in rules
    assert 'ENV{PCI_SLOT_NAME}=="0000:3b:00.0", ENV{NM_UNMANAGED}="1"' in rules


def test_others_keep_off_a_nic_without_names_too() -> None:
    node = fresh("mlx5_core")
    run(node, item(vfs=2))
    assert "NM_UNMANAGED" in node.file
    assert "NAME:=" not in node.file
    run(node, state="deleted")
    assert node.file == ""


def test_names_need_no_script_and_are_of_one_port_each() -> None:
    """sriov-network-operator#29: a script lost a race; nic-configuration-operator#474: one got the PF's name."""
    lines = naming.rules({"0000:3b:00.0": (Names("pf0", "pf0r"), 12)}).splitlines()[1:]
    assert all("PROGRAM" not in line and "RUN" not in line for line in lines)
    assert all('KERNELS=="0000:3b:00.0"' in line for line in lines if ", NAME:=" in line)
    uplink = [line for line in lines if 'NAME:="pf0"' in line]
    assert len(uplink) == 3
    assert all('"p[0-9]*"' in line or '""' in line or "TEST!=" in line for line in uplink)
    assert [line for line in lines if line.endswith('NAME:="pf0r1"')] == [
        'SUBSYSTEM=="net", ACTION=="add", KERNELS=="0000:3b:00.0", ATTR{phys_port_name}=="pf*vf1", NAME:="pf0r1"'
    ]


def test_names_are_written_before_anything_appears_and_go_with_the_wish() -> None:
    """What udev has not named by then, or a rule of somebody else has, is renamed."""
    node = fresh("mlx5_core")
    wished = item(mode=SWITCHDEV, vfs=2, names={"uplink": "pf0", "representors": "pf0r"})
    steps = run(node, wished).steps
    assert steps[0]["action"] == "write the rules of interfaces for udev"
    assert 'NAME:="pf0r1"' in node.file
    assert (nic_of(node).uplink, [vf.representor for vf in nic_of(node).vfs]) == ("pf0", ["pf0r0", "pf0r1"])
    nic_of(node).vfs[1].representor = "enp59s0f0npf0vf1"
    (step,) = run(node, wished).steps
    assert step["action"] == "name pf0r1 of pci/0000:3b:00.0"
    run(node, state="deleted")
    assert node.file == ""


def test_udev_gives_names_first_and_one_that_it_gives_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """sriov-network-operator#29. udev goes by the interface's number: whoever comes before it is renamed again."""
    node, looks, rename = fresh("mlx5_core"), iter([False, False, True]), Node.rename

    def racing(self: Node, handle: str, vf: int | None, name: str) -> None:
        assert next(looks, None) is None  # udev was waited for
        if vf == 1 and self.nics[handle].vfs[1].representor != "late":
            self.nics[handle].vfs[1].representor = "late"
            raise FastpathError("find", "interface eth1", "it has gone")
        rename(self, handle, vf, name)

    monkeypatch.setattr(Node, "settled", lambda _self, _handle: next(looks))
    monkeypatch.setattr(Node, "rename", racing)
    run(node, item(mode=SWITCHDEV, vfs=3, names={"representors": "pf0r"}), patience=60)
    assert [vf.representor for vf in nic_of(node).vfs] == ["pf0r0", "pf0r1", "pf0r2"]


def test_a_name_that_is_anothers_is_refused_before_anything_changes() -> None:
    """sriov-network-operator#29: a representor kept the kernel's name where its own was taken."""
    node = fresh("mlx5_core")
    node.nics["pci/0000:af:00.0"] = Nic("ice", uplink="eth9", settings={"mtu": 1500})
    node.others = frozenset(["pf0r1", "pf0r2"])
    for names, vfs in (
        ({"representors": "pf0r"}, 2),
        ({"uplink": "eth9"}, 0),
        ({"uplink": "r0", "representors": "r"}, 1),
    ):
        with pytest.raises(InvalidConfig, match=r"\.names = .*a name that is free; .* has it"):
            run(node, item(mode=SWITCHDEV, vfs=vfs, names=names))
    assert (node.changes, node.file) == ([], "")
    run(node, item(mode=SWITCHDEV, vfs=1, names={"representors": "pf0r"}))
    assert nic_of(node).vfs[0].representor == "pf0r0"


def test_a_renamed_pf_is_still_found() -> None:
    """sriov-network-device-plugin#383: a representor was taken for the PF, by its name."""
    node = fresh("mlx5_core")
    run(node, item(mode=SWITCHDEV, vfs=2))
    nic_of(node).uplink = "eth7"
    for device in ({"pci": "0000:3b:00.0"}, {"mac": "02:aa:00:00:00:01"}, {"serial": "MT1"}, {"switch_id": "aabb"}):
        assert run(node, {"device": device, "mode": SWITCHDEV, "vfs": 2}, check=True).after == [
            {"device": {"pci": "0000:3b:00.0"}, "mode": SWITCHDEV, "vfs": 2}
        ]


def test_after_a_reboot_the_document_makes_the_same_again() -> None:
    """sriov-network-operator#1048, #1124: what was there before a reboot is neither kept nor rebuilt by itself."""
    node = fresh("mlx5_core")
    run(node, item(mode=SWITCHDEV, vfs=3, params={"flow_steering_mode": "smfs"}, vf=[{"index": 2, "max_rate": 100}]))
    booted = fresh("mlx5_core")
    booted.kept, booted.file = copy.deepcopy(node.kept), node.file
    run(booted, *(dict(one) for one in node.kept or ()))
    assert seen(booted) == seen(node)


def test_switchdev_before_there_are_vfs() -> None:
    """sriov-network-operator#1015, #1017: newer firmware takes it; VFs come later, by whatever way the driver wants."""
    for driver in ("mlx5_core", "ice", "bnxt_en"):
        node = fresh(driver)
        run(node, item(driver, mode=SWITCHDEV, vfs=0))
        run(node, item(driver, mode=SWITCHDEV, vfs=4))
        assert (nic_of(node).mode, len(nic_of(node).vfs)) == (SWITCHDEV, 4)
        run(node, item(driver, mode=SWITCHDEV, vfs=0))
        assert (nic_of(node).mode, len(nic_of(node).vfs)) == (SWITCHDEV, 0)


def test_the_steering_mode_is_set_in_legacy_mode_and_without_vfs() -> None:
    """mlx5/core/fs_core.c: EOPNOTSUPP in switchdev mode."""
    node = fresh("mlx5_core")
    run(node, item(mode=SWITCHDEV, vfs=2))
    node.changes.clear()
    run(node, item(mode=SWITCHDEV, vfs=2, params={"flow_steering_mode": "smfs"}))
    order = [change for change in node.changes if not change.startswith(("bind", "unbind", "set_attributes"))]
    assert order == [
        "set_mode legacy",
        "set_vfs 0",
        "set_param flow_steering_mode smfs",
        "set_vfs 2",
        "set_mode switchdev",
    ]


def test_back_to_legacy() -> None:
    """sriov-network-operator#40: returning to legacy mode was forgotten."""
    for driver in ("mlx5_core", "ice", "bnxt_en"):
        node = fresh(driver)
        run(node, item(driver, mode=SWITCHDEV, vfs=2))
        run(node, item(driver, mode=LEGACY, vfs=2))
        assert (nic_of(node).mode, len(nic_of(node).vfs)) == (LEGACY, 2)


def test_bnxt_is_brought_up_first_and_down_again_when_the_change_fails() -> None:
    """systemd#40739: with the PF down the driver makes no VF and reports success."""
    node = fresh("bnxt_en", up=False)
    nic_of(node).total = 2
    assert run(node, item("bnxt_en", vfs=2)).steps[1]["action"] == "bring up ens1np0"
    assert len(nic_of(node).vfs) == 2
    node = fresh("bnxt_en", up=False)
    node.fail_at = 1
    with pytest.raises(StepFailed):
        run(node, item("bnxt_en", vfs=2))
    assert not nic_of(node).up


def test_success_that_is_none_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd#40739, and bnxt_sriov.c while its firmware resets."""
    node = fresh("bnxt_en")
    monkeypatch.setattr(Nic, "set_vfs", lambda _self, _count: None)
    with pytest.raises(StepFailed, match="reported success, and there are 0"):
        run(node, item("bnxt_en", vfs=2))


def test_offloaded_rules_keep_the_mode_and_are_told() -> None:
    """mlx5/core/eswitch_offloads.c: EBUSY; everything is as it was."""
    node = fresh("mlx5_core")
    run(node, item(mode=SWITCHDEV, vfs=2))
    nic_of(node).offloaded = 1
    before = seen(node)
    with pytest.raises(StepFailed, match="E-Switch is busy"):
        run(node, item(mode=LEGACY, vfs=0))
    assert seen(node) == before


def test_a_new_mac_is_read_by_the_vfs_driver() -> None:
    """rdma-cni, README: the MAC has to be set before, and the VF bound again."""
    node = fresh("mlx5_core")
    run(node, item(vfs=2))
    node.changes.clear()
    run(node, item(vfs=2, vf=[{"index": 0, "mac": "02:00:00:00:00:99"}]))
    assert names(node) == ["unbind", "set_attributes", "bind"]
    assert nic_of(node).vfs[0].address == "02:00:00:00:00:99"


def test_the_connection_is_not_cut_without_a_way_back() -> None:
    """linux-system-roles/network#33, #34: connectivity was lost, with no probe before commit."""
    node = fresh("mlx5_core")
    nic_of(node).carries = True
    request = Request((item(mode=SWITCHDEV, vfs=2),), "replaced")
    with pytest.raises(FastpathError, match=r"connection comes in over it.* to switchdev.*confirm_timeout"):
        converge(Eswitch(node, 0), request, allow_disruption=True)
    assert node.changes == []


@pytest.mark.parametrize("change", [{"vfs": 3}, {"mode": "legacy"}, {"vf": [{"index": 1, "mac": "02:00:00:00:00:78"}]}])
def test_a_vf_that_its_user_loses_is_like_any_other(change: Item) -> None:
    """What the user had would be kept, and the next look, without a user, would find it wrong."""
    node = fresh("mlx5_core")
    run(node, item(mode="switchdev", vfs=2, vf=[{"index": 1, "mac": "02:00:00:00:00:77", "max_rate": 100}]))
    nic_of(node).vfs[1].user = "container podman:web-1"
    wished = {**item(mode="switchdev", vfs=2), **change}
    assert [step["action"] for step in run(node, item(vfs=2)).steps] == ["record the NICs in /etc/fastpath"]
    run(node, wished)
    assert nic_of(node).vfs[1].attributes.max_rate == 0
    assert run(node, wished).steps == ()


def test_a_connection_over_a_vf_keeps_its_driver() -> None:
    node = fresh("igb")
    run(node, item("igb", vfs=3))
    nic_of(node).vfs[1].carries = True
    run(node, item("igb", vfs=3, vf=[{"index": 0, "driver": "vfio-pci"}]))
    with pytest.raises(FastpathError, match=r"connection comes in over it, and the plan would unbind VFs 0-2"):
        run(node, item("igb", vfs=2))
    assert len(nic_of(node).vfs) == 3
