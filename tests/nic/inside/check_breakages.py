# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong elsewhere when NICs were moved to switchdev, on the emulated NIC: each check names where.

The list of all is in tests/unit/plugins/module_utils/resources/test_eswitch_breakages.py.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import plan, store
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Request
from tests.nic.inside.device import CommandError, Nic, load, run
from tests.nic.inside.eswitch import HANDLE, KERNEL, PCI, VFIO, converge, item, seen

NAMES = {"uplink": "nic0", "representors": "nic0r"}
BRIDGE = "brk0"


class Told:
    """The node; keeps the names of the changes that were made."""

    def __init__(self) -> None:
        self._node, self.changes = eswitch_node.Node(), list[str]()

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("set_", "bind", "unbind", "rename")):
            self.changes.append(name)
        return getattr(self._node, name)


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    run("modprobe", "vfio-pci")
    yield
    with contextlib.suppress(CommandError):
        run("ip", "link", "del", BRIDGE)
    store.write(eswitch_node.DOCUMENT, None)
    eswitch_node.Node().write_rules("")


@pytest.fixture
def bridge() -> str:
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    return BRIDGE


def asked(wished: dict[str, Any]) -> plan.Result:
    """As an operator does it who does not allow to disturb anybody."""
    return plan.converge(Eswitch(eswitch_node.Node(), patience=20), Request((wished,), "replaced"))


def test_representors_in_a_bridge_are_somebodys_and_none_is_left_in_it(bridge: str) -> None:
    """sriov-network-operator#1048: representors stayed in bridges when VFs were made anew."""
    nic = load(profile="mlx5", vfs=4)
    converge(item("switchdev", 2))
    run("ip", "link", "set", nic.near("pf0vf1"), "master", bridge)
    with pytest.raises(FastpathError, match=rf"VF 1 of {bridge}, where its representor is"):
        asked(item("switchdev", 3))
    converge(item("switchdev", 3))
    assert run("ip", "-o", "link", "show", "master", bridge) == ""


def test_an_uplink_in_a_bridge_does_not_change_its_mode(bridge: str) -> None:
    """sriov-network-operator#1048: the uplink is taken out of bridges first; #202: LAG wants the mode first."""
    nic = load(profile="mlx5", vfs=4)
    run("ip", "link", "set", nic.uplink, "master", bridge)
    before = seen()
    with pytest.raises(FastpathError, match=rf"{nic.uplink} is in {bridge}.*Take it out first"):
        converge(item("switchdev", 2))
    assert seen() == before
    run("ip", "link", "set", nic.uplink, "nomaster")
    converge(item("switchdev", 2))
    run("ip", "link", "set", nic.uplink, "master", bridge)
    assert not converge(item("switchdev", 2)).changed


def test_no_vf_is_bound_while_the_mode_changes() -> None:
    """sriov-network-operator#1015, one-deploy#214: one VF was still bound; netplan#439: 100 s to unbind 60."""
    load(profile="mlx5", vfs=8)
    node = Told()
    converge(item("switchdev", 8), node)
    order = [change for change in node.changes if change in ("set_vfs", "set_mode", "bind", "unbind")]
    assert order == ["set_vfs", "set_mode", *["bind"] * 8]


def test_from_the_kernels_driver_to_vfio_and_back() -> None:
    """sriov-network-operator#244: a daemon bound VFs to the one driver and to the other, for ever."""
    load(profile="mlx5", vfs=4)
    for driver in (KERNEL, VFIO, KERNEL):
        converge(item("switchdev", 2, driver))
        assert not converge(item("switchdev", 2, driver)).changed


def test_names_hold_though_somebody_renames_what_appears() -> None:
    """sriov-network-operator#29: scripts that name representors as they appear lose races."""
    nic, ended = load(profile="mlx5", vfs=8), threading.Event()

    def rename() -> None:
        while not ended.is_set():
            for port, name in nic.nears().items():
                if port.startswith("pf") and not name.startswith("race"):
                    with contextlib.suppress(CommandError):
                        run("ip", "link", "set", name, "name", f"race{port[5:]}")

    racing = threading.Thread(target=rename)
    racing.start()
    wished = item("switchdev", 8, names=NAMES)
    try:
        with contextlib.suppress(FastpathError):  # told, and taken back
            converge(wished)
    finally:
        ended.set()
        racing.join()
    converge(wished)
    assert nic.nears() == {"p0": "nic0", **{f"pf0vf{vf}": f"nic0r{vf}" for vf in range(8)}}
    assert not converge(wished).changed


def test_a_renamed_pf_is_the_same_nic() -> None:
    """sriov-network-device-plugin#383: by its name a representor was taken for the PF."""
    nic = load(profile="mlx5", vfs=4)
    converge(item("switchdev", 2))
    found = eswitch_node.Node().devices()[HANDLE]
    run("ip", "link", "set", nic.uplink, "name", "other0")
    for by in ({"mac": found.mac}, {"serial": found.serial}, {"switch_id": found.switch_id}, {"pci": PCI}):
        result = asked({**item("switchdev", 2), "device": by})
        assert [step["action"] for step in result.steps] in ([], ["record the NICs in /etc/fastpath"]), by


def test_bnxt_is_brought_up_before_its_vfs_are_made() -> None:
    """systemd#40739: with the PF down the driver makes no VF, and reports success."""
    nic = load(profile="bnxt", vfs=4)
    run("ip", "link", "set", nic.uplink, "down")
    assert converge(item("switchdev", 2)).steps[1]["action"] == f"bring up {nic.uplink}"
    assert (nic.mode(), len(seen().vfs)) == ("switchdev", 2)


def test_back_to_legacy_waits_for_nobodys_rules() -> None:
    """sriov-network-operator#40: returning to legacy; mlx5/core/eswitch_offloads.c: EBUSY while there are rules."""
    nic = load(profile="mlx5", vfs=4)
    converge(item("switchdev", 2, hw_tc_offload=True))
    representor = nic.near("pf0vf0")
    run("tc", "qdisc", "add", "dev", representor, "clsact")
    run("tc", "filter", "add", "dev", representor, "ingress", "flower", "skip_sw", "action", "drop")
    before = seen()
    with pytest.raises(plan.StepFailed, match="E-Switch is busy") as caught:
        converge(item("legacy", 2))
    assert not caught.value.stuck
    assert seen() == before
    run("tc", "qdisc", "del", "dev", representor, "clsact")
    converge(item("legacy", 2))
    assert nic.mode() == "legacy"


def test_the_driver_of_a_vf_has_read_its_mac() -> None:
    """rdma-cni, README: the MAC has to be set before, and the VF bound again."""
    nic = load(profile="ice", vfs=4)
    converge(item("switchdev", 2))
    mac = "02:00:00:00:00:99"
    converge(item("switchdev", 2, vf=[{"index": 0, "mac": mac}]))
    assert address(nic, 0) == mac
    assert address(nic, 1) == seen().vfs[1].attributes.mac


def address(nic: Nic, number: int) -> str:
    return (nic.sysfs / f"virtfn{number}" / "net" / nic.vf(number) / "address").read_text().strip()


def test_four_of_five_vfs_appear() -> None:
    """sriov-network-operator#233: one VF is not taken by its driver; told, and nothing goes on with four."""
    nic = load(profile="mlx5", vfs=8)
    converge(item("legacy", 1))
    before = seen()
    nic.knob("vf_missing", 3)
    with pytest.raises(plan.StepFailed, match="no driver took") as caught:
        converge(item("switchdev", 5))
    assert not caught.value.stuck
    assert seen() == before
    nic.knob("vf_missing", 0)
    converge(item("switchdev", 5))
    assert len(seen().vfs) == 5


@pytest.mark.parametrize("late", ["vf_delay_ms", "representor_delay_ms"])
def test_what_is_late_is_waited_for_and_what_never_comes_is_told(late: str) -> None:
    """sriov-network-operator#1015: what was made was looked at before all of it was there."""
    nic = load(profile="mlx5", vfs=8)
    converge(item("legacy", 2))
    before = seen()
    nic.knob(late, 300_000)
    with pytest.raises(plan.StepFailed, match="after 1 s 0 of 5 ") as caught:
        converge(item("switchdev", 5), patience=1)
    nic.knob(late, 0)
    assert all(words.startswith("unbind") for words in caught.value.stuck), "what was before is late too"
    for vfs in (0, 2):  # those that are there have drivers, and are left alone
        converge(item("legacy", vfs))
    assert seen() == before
    nic.knob(late, 500)
    converge(item("switchdev", 5))
    assert all(vf.representor for vf in eswitch_node.Node().devices()[HANDLE].vfs)
    assert len(eswitch_node.Node().interfaces(HANDLE)) == 5


def test_a_mode_that_fails_is_taken_back() -> None:
    """one-deploy#214: the mode failed, and the node was left without VFs."""
    nic = load(profile="mlx5", vfs=8)
    converge(item("legacy", 2))
    before = seen()
    nic.knob("fail_mode", 1)
    with pytest.raises(plan.StepFailed, match="firmware failed to change the mode") as caught:
        converge(item("switchdev", 5))
    assert not caught.value.stuck
    assert seen() == before


def test_representors_that_stay_in_legacy_mode_do_no_harm() -> None:
    """sriov-network-operator#1048: stale representors, with names that the new ones were to have."""
    nic = load(profile="mlx5", vfs=4)
    converge(item("switchdev", 3, names=NAMES))
    nic.knob("stale_representors", 1)
    converge(item("legacy", 0, names=NAMES))
    assert not converge(item("legacy", 0, names=NAMES)).changed
    nic.knob("stale_representors", 0)
    converge(item("switchdev", 3, names=NAMES))
    assert not converge(item("switchdev", 3, names=NAMES)).changed
    assert {f"nic0r{vf}" for vf in range(3)} <= set(nic.nears().values())
