# SPDX-License-Identifier: GPL-3.0-or-later
"""What an item of a config means for a NIC, what is refused and how it is told, and whose plan does what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.eswitch import profiles
from ansible_collections.fastpath.node.plugins.module_utils.eswitch.attributes import Attributes
from ansible_collections.fastpath.node.plugins.module_utils.eswitch.profiles import LEGACY, SWITCHDEV
from ansible_collections.fastpath.node.plugins.module_utils.plan import predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_plan
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_wish as wish
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import (
    Device,
    Request,
    State,
    Vf,
)

FIRST = Device(
    "pci/0000:3b:00.0", "mlx5_core", mac="02:aa:00:00:00:01", serial="MT1", switch_id="aa01", uplink="ens1np0", up=True,
    total_vfs=8, switchable=True, inline_mode="none", encap_mode="basic", hw_tc_offload=True, mtu=1500,
    params={"flow_steering_mode": "dmfs", "esw_multiport": False, "limit": 5},
)  # fmt: skip
SECOND = replace(FIRST, handle="pci/0000:3b:00.1", mac="02:aa:00:00:00:02", serial="MT2", uplink="ens1f1np1")
PLAIN = Device("pci/0000:04:00.0", "igb", mac="02:bb:00:00:00:01", uplink="eno1", total_vfs=7, mtu=1500)
NODE = State({one.handle: one for one in (FIRST, SECOND, PLAIN)})
PCI = {"pci": "0000:3b:00.0"}


def goal(have: State = NODE, state: str = "replaced", **given: Any) -> Device:
    (found,) = wish.want(have, Request(({"device": PCI, **given},), state)).goals
    return found


@pytest.mark.parametrize(
    ("given", "field", "allowed"),
    [
        ({"device": {"pci": "3b:00.0"}}, "config[0].device.pci", "a PCI address"),
        ({"device": {"pci": "0000:99:00.0"}}, "config[0].device.pci", "there are: 0000:04:00.0, 0000:3b:00.0"),
        ({"device": {"driver": "mlx5_core"}}, "config[0].device.driver", "one NIC with VFs; there are: igb, mlx5_core"),
        ({"device": {"pci": "0000:3b:00.0", "mac": "02:aa:00:00:00:01"}}, "config[0].device", "exactly one of pci"),
        ({"device": None}, "config[0].device", "a dictionary"),
        ({"mode": "fast"}, ".mode", "one of legacy, switchdev"),
        ({"device": {"driver": "igb"}, "mode": SWITCHDEV}, ".mode", "igb of this kernel cannot change it"),
        ({"vfs": 9}, ".vfs", "a number from 0 to 8"),
        ({"vfs": -1}, ".vfs", "a number from 0 to 8"),
        ({"inline_mode": "all"}, ".inline_mode", "one of none, link, network, transport"),
        ({"device": {"driver": "igb"}, "inline_mode": "none"}, ".inline_mode", "igb has no such setting"),
        ({"hw_tc_offload": "on"}, ".hw_tc_offload", "true or false"),
        ({"mtu": 100}, ".mtu", "a number from 1280"),
        ({"params": {"speed": 1}}, ".params.speed", "there are esw_multiport, flow_steering_mode, limit"),
        ({"params": {"esw_multiport": 1}}, ".params.esw_multiport", "true or false"),
        ({"params": {"limit": "many"}}, ".params.limit", "a number"),
        ({"vf_driver": "igb_uio"}, ".vf_driver", "one of kernel, vfio-pci"),
        ({"vfs": 2, "vf": [{"index": 2}]}, ".vf[0].index", "a number from 0 to 1"),
        ({"vfs": 2, "vf": [{"mac": "02:00:00:00:00:01"}]}, ".vf[0].index", "a number from 0 to 1"),
        ({"vfs": 2, "vf": [{"index": 1}, {"index": 1}]}, ".vf[1].index", "each VF once"),
        ({"vfs": 2, "vf": [{"index": 1, "mac": "01:00:00:00:00:01"}]}, ".vf[0].mac", "a unicast MAC"),
        ({"vfs": 2, "vf": [{"index": 1, "vlan": 4095}]}, ".vf[0].vlan", "a number from 0 to 4094"),
        ({"vfs": 2, "mode": SWITCHDEV, "vf": [{"index": 1, "vlan": 5}]}, ".vf[0].vlan", "none in switchdev mode"),
        ({"vfs": 2, "mode": SWITCHDEV, "vf": [{"index": 1, "trust": True}]}, ".vf[0].trust", "mlx5_core has none"),
        ({"device": {"driver": "igb"}, "vfs": 1, "vf": [{"index": 0, "max_rate": 1}]}, ".max_rate", "igb has none"),
        ({"names": {"representors": "far-too-long-a-name"}}, ".names.representors", "1 to 15 characters"),
        ({"names": {"uplink": "a/b"}}, ".names.uplink", "no space, slash or colon"),
        ({"colour": "red"}, "config[0].colour", "no such key"),
    ],
)  # fmt: skip
def test_what_is_refused_names_field_and_what_is_allowed(given: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        wish.plan(NODE, Request(({"device": PCI, **given},), "replaced"))
    assert field in caught.value.field
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "mode", "without"),
    [
        ("mlx5_core", LEGACY, set()),
        ("mlx5_core", SWITCHDEV, {"vlan", "trust", "spoofcheck"}),
        ("ice", SWITCHDEV, {"trust"}),
        ("bnxt_en", SWITCHDEV, set()),
        ("igb", LEGACY, {"min_rate", "max_rate"}),
        ("netdevsim", SWITCHDEV, {"min_rate", "max_rate", "driver"}),
        ("unheard-of", SWITCHDEV, {"vlan", "trust", "spoofcheck", "min_rate", "max_rate"}),
    ],
)
def test_what_a_driver_does_not_enforce_is_refused(driver: str, mode: str, without: set[str]) -> None:
    """As the NICs of eswitch_nic.py refuse it, which are written from the drivers' sources."""
    have = State({FIRST.handle: replace(FIRST, driver=driver)})
    values = {"mac": "02:00:00:00:00:09", "vlan": 9, "trust": True, "spoofcheck": False, "min_rate": 1, "max_rate": 9}
    refused = set()
    for name, value in {**values, "driver": "vfio-pci"}.items():
        try:
            goal(have, vfs=1, mode=mode, vf=[{"index": 0, name: value}])
        except InvalidConfig as error:
            refused.add(error.field.rpartition(".vf[0].")[2])
    assert refused == without


def test_each_nic_once_however_it_is_named() -> None:
    config = ({"device": PCI}, {"device": {"serial": "MT1"}})
    with pytest.raises(InvalidConfig, match="each NIC once"):
        wish.plan(NODE, Request(config, "replaced"))


@pytest.mark.parametrize(
    "device", [{"pci": "0000:3B:00.0"}, {"mac": "02:AA:00:00:00:01"}, {"serial": "MT1"}, {"driver": "igb"}]
)
def test_ways_to_name_a_nic(device: dict[str, str]) -> None:
    (found,) = wish.want(NODE, Request(({"device": device, "vfs": 1},), "replaced")).goals
    assert found.handle == (PLAIN if "driver" in device else FIRST).handle


def test_what_is_not_named_stays() -> None:
    assert goal() == FIRST
    steps = wish.plan(NODE, Request(({"device": PCI},), "merged"))
    assert [step.action for step in steps][1:] == ["record the NICs in /etc/fastpath"]
    assert goal(vfs=1).mode == LEGACY
    assert goal(params={"limit": 7}).params == {**FIRST.params, "limit": 7}


def test_a_vf_gets_a_mac_of_its_own_that_does_not_change() -> None:
    macs = [vf.attributes.mac for device in ("0000:3b:00.0", "0000:3b:00.1") for vf in _vfs(device)]
    assert len(set(macs)) == 16
    assert macs == [vf.attributes.mac for device in ("0000:3b:00.0", "0000:3b:00.1") for vf in _vfs(device)]
    assert all(mac and mac.startswith("02:") for mac in macs)


def _vfs(pci: str) -> tuple[Vf, ...]:
    (found,) = wish.want(NODE, Request(({"device": {"pci": pci}, "vfs": 8},), "replaced")).goals
    return found.vfs


def test_new_vfs_are_checked_for_spoofing_and_not_trusted() -> None:
    (vf,) = goal(vfs=1).vfs
    assert vf == Vf("kernel", Attributes(vf.attributes.mac, 0, False, True, 0, 0))
    (vf,) = goal(vfs=1, mode=SWITCHDEV).vfs
    assert vf.attributes == Attributes(vf.attributes.mac, None, None, None, 0, 0)


def test_a_vf_that_somebody_has_keeps_what_nobody_named() -> None:
    own = Attributes("02:00:00:00:00:42", 7, True, False, 10, 20)
    used = State({FIRST.handle: replace(FIRST, vfs=(Vf("kernel", own, "interface web0"), Vf("kernel", own)))})
    first, second = goal(used, vfs=2, vf=[{"index": 0, "vlan": 9}]).vfs
    assert first.attributes == replace(own, vlan=9)
    assert second.attributes == Attributes(wish.derived_mac(FIRST, 1), 0, False, True, 0, 0)


def test_drivers_of_vfs() -> None:
    bound = State({FIRST.handle: replace(FIRST, vfs=(Vf("vfio-pci"), Vf("kernel"), Vf("")))})
    assert [vf.driver for vf in goal(bound).vfs] == ["vfio-pci", "kernel", "kernel"]
    one = [{"index": 2, "driver": "vfio-pci"}]
    assert [vf.driver for vf in goal(bound, vf_driver="kernel", vf=one).vfs] == ["kernel", "kernel", "vfio-pci"]


def test_merged_adds_to_what_is_kept_and_replaced_does_not() -> None:
    have = replace(NODE, document=({"device": PCI, "vfs": 2, "mtu": 1400}, {"device": {"serial": "MT2"}, "vfs": 1}))
    item = {"device": PCI, "vfs": 3}
    assert goal(have, "merged", vfs=3).mtu == 1400
    assert goal(have, "replaced", vfs=3).mtu == 1500
    for state, kept in (("merged", {**item, "mtu": 1400}), ("replaced", item)):
        document = wish.want(have, Request((item,), state)).document or ()
        assert [dict(one) for one in document] == [kept, {"device": {"serial": "MT2"}, "vfs": 1}]


def test_overridden_and_deleted_touch_only_what_is_ours() -> None:
    with_vfs = {h: replace(d, vfs=(Vf("kernel"),), mode=LEGACY) for h, d in NODE.devices.items()}
    have = State(with_vfs, document=({"device": PCI, "vfs": 1},))
    overridden = wish.want(have, Request(({"device": {"serial": "MT2"}, "vfs": 1},), "overridden"))
    assert [(one.handle, len(one.vfs)) for one in overridden.goals] == [(FIRST.handle, 0), (SECOND.handle, 1)]
    deleted = wish.want(have, Request((), "deleted"))
    assert [(one.handle, len(one.vfs)) for one in deleted.goals] == [(FIRST.handle, 0)]
    assert not deleted.document


def test_a_nic_that_is_not_there_is_not_forgotten() -> None:
    """It may come later than the boot unit, or come back after a repair."""
    gone = {"device": {"pci": "0000:af:00.0"}, "vfs": 4}
    have = replace(NODE, document=(gone,))
    document = wish.want(have, Request(({"device": PCI, "vfs": 1},), "merged")).document or ()
    assert [dict(one) for one in document] == [{"device": PCI, "vfs": 1}, gone]
    assert wish.want(have, Request(({"device": PCI},), "deleted")).document == (gone,)
    assert not wish.want(have, Request((), "deleted")).document
    assert not wish.want(have, Request((), "overridden")).document


def test_reports_show_what_was_asked_for() -> None:
    request = Request(({"device": PCI, "vfs": 1, "mtu": 1400},), "replaced")
    after = predict(NODE, wish.plan(NODE, request))
    (shown,) = eswitch_plan.public(after, wish.shown(NODE, request))
    assert shown == {"device": PCI, "mode": LEGACY, "vfs": 1, "mtu": 1400}
    everything = eswitch_plan.public(after)
    assert [set(one) for one in everything] == [
        {"device", "mode", "vfs", "mtu"},
        {"device", "mode", "vfs", "mtu", "inline_mode", "encap_mode", "hw_tc_offload", "params", "vf"},
        {"device", "mode", "vfs", "mtu", "inline_mode", "encap_mode", "hw_tc_offload", "params"},
    ]


@pytest.mark.parametrize("profile", [*profiles.PROFILES, profiles.CAUTIOUS], ids=lambda one: str(one.name))
def test_profiles_are_whole(profile: profiles.Profile) -> None:
    """Each phase once; what a profile asks for has a source; VFs are bound after they have their attributes."""
    assert len(set(profile.order)) == len(profile.order)
    assert set(profile.order) == {
        profiles.UP, profiles.UNBIND, profiles.NO_VFS, profiles.PARAMS, profiles.VFS, profiles.MODE, profiles.SETTINGS,
        profiles.SETUP, profiles.BIND, profiles.NAMES, profiles.LEAVE, profiles.JOIN,
    } | ({profiles.TO_LEGACY} if profile.vfs_in == LEGACY else set())  # fmt: skip
    places = {phase: place for place, phase in enumerate(profile.order)}
    assert places[profiles.UNBIND] < places[profiles.NO_VFS] < places[profiles.VFS] < places[profiles.SETUP]
    assert places[profiles.MODE] < places[profiles.SETUP] < places[profiles.BIND]
    parts = [part for phase in profile.order for part, phases in enumerate(profiles.PARTS) if phase in phases]
    assert parts == sorted(parts)
    said = {"order", "attributes"}
    for name in ("vfs_in", "mode_without_vfs", "up_for_vfs", "free_for_mode", "legacy_params", "disturbs"):
        said |= {name} if getattr(profile, name) else set()
    assert said <= set(profile.sources)
    assert set(profile.attributes) == {LEGACY, SWITCHDEV}


@pytest.mark.parametrize(
    ("change", "there"),
    [({}, True), ({"driver": ""}, False), ({"uplink": ""}, False), ({"switchable": False}, False)],
)
def test_a_nic_is_ready_when_its_driver_is(change: dict[str, Any], there: bool) -> None:
    have = State({FIRST.handle: replace(FIRST, **change)})
    assert wish.ready({"device": PCI, "mode": SWITCHDEV}, have) == there
    assert not wish.ready({"device": PCI}, State())


def test_a_nic_that_is_not_there_changes_nothing_in_the_document() -> None:
    absent, there = {"device": {"serial": "gone"}}, {"device": PCI}
    steps = wish.plan(replace(NODE, document=(absent, there)), Request((there,), "replaced"))
    assert not any("record" in step.action for step in steps)


def test_a_nic_found_by_its_switch_is_kept_by_its_address() -> None:
    have = State({FIRST.handle: replace(FIRST, mode=SWITCHDEV)})
    request = Request(({"device": {"switch_id": "aa01"}, "mode": SWITCHDEV},), "overridden")
    after = predict(have, wish.plan(have, request))
    assert after.document == ({"device": PCI, "mode": SWITCHDEV},)
    assert wish.plan(after, request) == ()
