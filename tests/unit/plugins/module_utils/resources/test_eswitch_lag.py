# SPDX-License-Identifier: GPL-3.0-or-later
"""LAGs: from any state of two NICs to any other, what is refused, and whom it disturbs."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.plan import Result, StepFailed, converge
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Device, Lag, Request

from .eswitch_nic import LEGACY, SWITCHDEV, Killed, Nic, Node
from .test_eswitch_pairs import Item

FIRST, SECOND = "pci/0000:3b:00.0", "pci/0000:3b:00.1"
BACKUP, LACP = {"name": "bond0", "mode": "active-backup"}, {"name": "bond0", "mode": "802.3ad"}


def fresh(driver: str = "mlx5_core") -> Node:
    names = {FIRST: "ens1f0np0", SECOND: "ens1f1np1"}
    return Node({handle: Nic(driver, uplink=name, settings={"mtu": 1500}) for handle, name in names.items()})


def items(first: Item, second: Item) -> tuple[Item, ...]:
    return {"device": {"pci": FIRST[4:]}, **first}, {"device": {"pci": SECOND[4:]}, **second}


def run(node: Node, wished: tuple[Item, ...], check: bool = False, state: str = "overridden") -> Result:
    return converge(Eswitch(node, 0), Request(wished, state), check=check, allow_disruption=True)


def states(driver: str) -> Iterator[tuple[Item, ...]]:
    on: Item = {"mode": SWITCHDEV, "vfs": 2, "vf_driver": "kernel"}
    off = {**on, "mode": LEGACY}
    yield ()
    yield items(off, off)
    yield items(on, {**on, "vfs": 0})
    yield items({**on, "lag": BACKUP}, {**on, "lag": BACKUP})
    yield items({**on, "lag": BACKUP, "vfs": 3}, {**on, "vf_driver": "vfio-pci", "lag": BACKUP})
    yield items({**on, "lag": BACKUP, "mtu": 9000}, {**on, "vfs": 0, "lag": BACKUP})
    yield items({**on, "lag": {**BACKUP, "name": "bond1"}}, {**on, "lag": {**BACKUP, "name": "bond1"}})
    if driver == "ice":
        yield items({**off, "lag": BACKUP}, {**on, "lag": BACKUP})
    else:
        yield items({**on, "lag": LACP}, {**on, "lag": LACP})


def seen(node: Node) -> tuple[dict[str, Device], dict[str, Lag]]:
    """All of it but names that the kernel or udev chooses, and MTUs that nobody has asked for."""
    devices = node.devices()
    for handle, device in devices.items():
        devices[handle] = replace(device, vfs=tuple(replace(vf, representor="") for vf in device.vfs))
    return devices, node.lags()


def assert_is(node: Node, wished: tuple[Item, ...]) -> None:
    found = {handle: nic.master for handle, nic in node.nics.items() if nic.master}
    lags = {f"pci/{item['device']['pci']}": item["lag"] for item in wished if "lag" in item}
    assert found == {handle: lag["name"] for handle, lag in lags.items()}
    assert {(lag.name, lag.mode) for lag in node.bonds.values()} == {
        (lag["name"], lag["mode"]) for lag in lags.values()
    }
    for item in wished:
        nic = node.nics[f"pci/{item['device']['pci']}"]
        assert (nic.mode, len(nic.vfs)) == (item["mode"], item["vfs"])
        assert {vf.driver for vf in nic.vfs} <= {item["vf_driver"]}
        assert nic.up
        assert "mtu" not in item or all(nic.settings["mtu"] == item["mtu"] for nic in node.nics.values())


DRIVERS = ("mlx5_core", "ice")


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_pair(driver: str) -> None:
    for start, end in itertools.permutations(states(driver), 2):
        node = fresh(driver)
        run(node, start)
        before = copy.deepcopy((node.nics, node.bonds))
        promised = run(node, end, check=True)
        assert (node.nics, node.bonds) == before
        done = run(node, end)
        assert (done.steps, done.after) == (promised.steps, promised.after), (start, end)
        assert_is(node, end)
        assert run(node, end).steps == ()


def moves(driver: str) -> list[tuple[tuple[Item, ...], tuple[Item, ...]]]:
    """Pairs to break at each of their changes: every seventh, all with FASTPATH_EXAMPLES."""
    pairs = list(itertools.permutations(states(driver), 2))
    return pairs if os.environ.get("FASTPATH_EXAMPLES") else pairs[::7]


def failure(node: Node, wished: tuple[Item, ...]) -> StepFailed | None:
    try:
        run(node, wished)
    except StepFailed as failed:
        return failed
    return None


@pytest.mark.parametrize("half", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_change_that_fails_is_taken_back(driver: str, half: bool) -> None:
    for start, end in moves(driver):
        for number in itertools.count(1):
            node = fresh(driver)
            run(node, start)
            before = seen(node)
            node.fail_at, node.half = len(node.changes) + number, half
            failed = failure(node, end)
            if failed is None:
                break
            assert not failed.stuck, (start, end, number, failed)
            assert seen(node) == before, (start, end, number)


@pytest.mark.parametrize("half", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_killed_run_is_finished_or_taken_back_by_the_next(driver: str, half: bool) -> None:
    for start, end in moves(driver):
        for number in itertools.count(1):
            node = fresh(driver)
            run(node, start)
            node.kill_at, node.half = len(node.changes) + number, half
            try:
                run(node, end)
            except Killed:
                back = copy.deepcopy(node)
                run(node, end)
                assert_is(node, end)
                assert run(node, end).steps == ()
                if start:  # a NIC that no run has recorded is nobody's
                    run(back, start)
                    assert_is(back, start)
            else:
                break


def test_a_reboot_makes_the_same_again() -> None:
    for wished in states("mlx5_core"):
        node, booted = fresh(), fresh()
        run(node, wished)
        run(booted, tuple(dict(one) for one in node.kept or ()))
        assert seen(booted) == seen(node)


def test_gathered_leads_there() -> None:
    for wished in states("mlx5_core"):
        node, other = fresh(), fresh()
        run(node, wished)
        resource = Eswitch(node, 0)
        run(other, tuple(resource.public(resource.have())))
        assert seen(other) == seen(node)


def test_an_uplink_that_leaves_its_lag_for_good_stays_up() -> None:
    for gone, state in ((items({"vfs": 2}, {"vfs": 2}), "overridden"), ((), "overridden"), ((), "deleted")):
        node = fresh()
        run(node, both())
        run(node, gone, state=state)
        assert all(nic.up and not nic.master for nic in node.nics.values())


def both(first: Any = None, second: Any = None, **more: Any) -> tuple[Item, ...]:
    base = {"mode": SWITCHDEV, "vfs": 2, "vf_driver": "kernel", "lag": BACKUP, **more}
    return items({**base, **(first or {})}, {**base, **(second or {})})


@pytest.mark.parametrize(
    ("driver", "wished", "words"),
    [
        ("mlx5_core", both({"lag": {"name": "bond0", "mode": "broadcast"}}), "one of active-backup, 802.3ad"),
        ("mlx5_core", both({"lag": {"mode": "802.3ad"}}), "an interface name"),
        ("mlx5_core", both({"lag": LACP}), "the same mode in all NICs of bond0"),
        ("mlx5_core", both({"lag": None}), "a LAG of 2 to 4 NICs, not 1"),
        ("mlx5_core", both({"mode": LEGACY}), "all its NICs in switchdev mode"),
        ("mlx5_core", both({"mtu": 9000}, {"mtu": 1500}), "the same MTU in all NICs of bond0"),
        ("ice", both(lag=LACP), "one of active-backup, for ice"),
        ("ice", both(mode=LEGACY), "one of its NICs in switchdev mode"),
        ("bnxt_en", both(), "bnxt_en has no VF LAG"),
        ("unknown", both(vfs=0), "unknown has no VF LAG"),
        ("mlx5_core", both(lag={"name": "eth0", "mode": "802.3ad"}), "bonds of others stay theirs"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused(driver: str, wished: tuple[Item, ...], words: str) -> None:
    node = fresh(driver)
    node.others = frozenset(["eth0"])
    with pytest.raises(InvalidConfig, match=words):
        run(node, wished)
    assert node.changes == []


def test_the_agent_that_ice_wants_off() -> None:
    """intel/ice/ice_lag.c ice_lag_chk_comp: "FW LLDP agent active - VF LAG disabled", until the uplinks leave."""
    node = fresh("ice")
    node.nics[SECOND].flags = frozenset(["fw-lldp-agent"])
    with pytest.raises(InvalidConfig, match=r"a NIC with fw-lldp-agent off, by 'ethtool .* ens1f1np1 .* off'"):
        run(node, both())
    assert node.changes == []
    node.nics[SECOND].flags = frozenset()
    run(node, both())


def test_ports_of_two_cards() -> None:
    """intel/ice/ice_lag.c ice_lag_chk_comp: not over two PCI devices; mlx5 decides that by itself."""
    for driver in ("ice", "mlx5_core"):
        node = fresh(driver)
        node.nics["pci/0000:af:00.0"] = node.nics.pop(SECOND)
        wished = [dict(item) for item in both()]
        wished[1]["device"] = {"pci": "0000:af:00.0"}
        if driver == "ice":
            with pytest.raises(InvalidConfig, match="functions of one card"):
                run(node, tuple(wished))
        else:
            run(node, tuple(wished))
            assert len(node.bonds) == 1


def test_a_bond_of_others_is_left_alone() -> None:
    node = fresh()
    node.nics[FIRST].master, node.others = "bond7", frozenset(["bond7"])
    with pytest.raises(InvalidConfig, match="ens1f0np0 is in bond7, which others have made; take it out first"):
        run(node, both())
    run(node, items({"vfs": 2}, {"vfs": 2}))
    assert node.nics[FIRST].master == "bond7"


def test_nobody_is_disturbed_without_leave() -> None:
    node = fresh()
    run(node, both())
    with pytest.raises(FastpathError, match=r"traffic of bond0.*allow_disruption"):
        converge(Eswitch(node, 0), Request(items({"vfs": 2}, {"vfs": 2}), "overridden"))
    node.nics[SECOND].vfs[1].user = "container podman:web-1"
    with pytest.raises(FastpathError, match="VF 1 of container podman:web-1"):
        converge(Eswitch(node, 0), Request(both({"vfs": 3}), "overridden"))


def test_one_uplink_carries_on_while_the_other_changes() -> None:
    """VFs of both lose their drivers, since VF LAG ends (mlx5/core/lag/lag.c); the bond keeps the other uplink."""
    node = fresh()
    run(node, both())
    node.changes.clear()
    run(node, both(None, {"vfs": 3}))
    assert [change for change in node.changes if change.startswith(("leave", "join"))] == [
        f"leave {SECOND}",
        f"join {SECOND} bond0",
    ]
    first = node.changes.index(f"leave {SECOND}")
    assert sorted(node.changes[:first]) == ["unbind 0", "unbind 0", "unbind 1", "unbind 1"]


@pytest.mark.parametrize("timeout", [0, 60])
def test_the_connection_does_not_lose_its_addresses(timeout: int) -> None:
    """Not even where the node would go back: the bond would come back without them."""
    node = fresh()
    lacp = both({"lag": LACP}, {"lag": LACP})
    alone = items({"vfs": 2}, {"vfs": 2})
    for start, end, words in (
        (alone, lacp, "into bond0"),
        (lacp, alone, "out of bond0"),
        (both(), lacp, "out of bond0"),
    ):
        run(node, start)
        for nic in node.nics.values():
            nic.carries = True
        before = seen(node)
        request = Request(end, "overridden", timeout)
        with pytest.raises(FastpathError, match=f"connection comes in over it, and addresses do not follow it {words}"):
            converge(Eswitch(node, 0), request, allow_disruption=True)
        assert seen(node) == before
        for nic in node.nics.values():
            nic.carries = False


def test_an_uplink_of_the_bond_that_the_connection_comes_in_by_may_change_if_it_is_confirmed() -> None:
    node = fresh()
    run(node, both())
    for nic in node.nics.values():
        nic.carries = True
    with pytest.raises(FastpathError, match=r"connection comes in over it.*confirm_timeout"):
        run(node, both({"vfs": 3}))
    converge(Eswitch(node, 0), Request(both({"vfs": 3}), "overridden", 60), allow_disruption=True)
    assert_is(node, both({"vfs": 3}))


def test_others_keep_off_the_uplinks_of_a_lag() -> None:
    """systemd.network, KeepMaster=: by default networkd takes an interface out of what its file does not name."""
    node = fresh()
    run(node, both(None, {"names": {"uplink": "pf1"}}))
    lines = [line for line in node.file.splitlines() if '"p[0-9]*"' in line]
    assert [("NAME:=" in line, "NM_UNMANAGED" in line) for line in lines] == [
        (False, True),
        (True, False),
        (False, True),
    ]
    assert all('ACTION!="remove"' in line for line in lines if "NM_UNMANAGED" in line)
    run(node, items({"vfs": 2}, {"vfs": 2}))
    assert '"p[0-9]*"' not in node.file


def test_a_nic_that_is_late_at_boot_finds_its_place() -> None:
    node, booted = fresh(), fresh()
    run(node, both())
    late = booted.nics.pop(SECOND)
    booted.kept = node.kept
    run(booted, tuple(dict(one) for one in (node.kept or ())[:1]), state="replaced")
    assert booted.nics[FIRST].master == "bond0"
    booted.nics[SECOND] = late
    run(booted, tuple(dict(one) for one in node.kept or ()), state="replaced")
    assert_is(booted, both())


def test_a_lag_of_nics_that_are_not_there_stays() -> None:
    node = fresh()
    run(node, both())
    node.nics.clear()
    node.nics["pci/0000:af:00.0"] = Nic("mlx5_core", settings={"mtu": 1500})
    run(node, ({"device": {"pci": "0000:af:00.0"}, "vfs": 1},), state="merged")
    assert set(node.bonds) == {"bond0"}
