# SPDX-License-Identifier: GPL-3.0-or-later
"""From any state to any other: modes, numbers of VFs, their drivers and parameters, on every driver that is known.

Each pair converges or is taken back; check mode says what the run does; a second run does nothing; a run that fails at
any change leaves what was; one that is killed at any change is finished by the next.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.plan import Result, StepFailed, converge
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Device, Request

from .eswitch_nic import LEGACY, SWITCHDEV, Killed, Nic, Node

HANDLE = "pci/0000:3b:00.0"
DEVICE = {"driver": "mlx5_core"}
KINDS = (
    ("mlx5_core", False), ("mlx5_core", True), ("ice", False), ("bnxt_en", False), ("bnxt_en", True), ("igb", False),
    ("netdevsim", False), ("unknown", False),
)  # fmt: skip
Item = dict[str, Any]


def fresh(driver: str, old: bool = False, up: bool = True) -> Node:
    nic = Nic(driver, old, up=up, settings={"mtu": 1500, "hw_tc_offload": False})
    if driver == "mlx5_core":
        nic.params = {"flow_steering_mode": "dmfs", "esw_multiport": False}
        nic.settings.update(inline_mode="none", encap_mode="basic")
    return Node({HANDLE: nic})


def targets(driver: str) -> Iterator[Item]:
    """Every state that the driver knows, as an item of a config."""
    modes = (LEGACY,) if driver == "igb" else (LEGACY, SWITCHDEV)
    steering: tuple[Item, ...] = ({},)
    if driver == "mlx5_core":
        steering = tuple({"params": {"flow_steering_mode": mode}} for mode in ("dmfs", "smfs"))
    mine = [{"index": 1, "mac": "02:00:00:00:00:77"}]
    shapes = [(0, "kernel", []), (2, "kernel", []), (2, "vfio-pci", []), (3, "kernel", []), (3, "kernel", mine)]
    for mode, (vfs, bound, own), params in itertools.product(modes, shapes, steering):
        if bound == "kernel" or driver != "netdevsim":
            yield {"device": {"driver": driver}, "mode": mode, "vfs": vfs, "vf_driver": bound, "vf": own, **params}


def run(node: Node, *items: Item, check: bool = False, state: str = "replaced", patience: float = 0) -> Result:
    request = Request(items, state)
    return converge(Eswitch(node, patience), request, check=check, allow_disruption=True)


def seen(node: Node) -> Device:
    """What can be compared after a change: without names that the kernel or udev chooses."""
    device = node.devices()[HANDLE]
    return replace(device, vfs=tuple(replace(vf, representor="") for vf in device.vfs))


def impossible(kind: tuple[str, bool], item: Item) -> bool:
    """Drivers of old kernels have no switchdev mode without VFs."""
    return kind in (("mlx5_core", True), ("bnxt_en", True)) and item["mode"] == SWITCHDEV and not item["vfs"]


def reached(kind: tuple[str, bool], item: Item) -> Node:
    node = fresh(*kind)
    run(node, item)
    return node


PAIRS = [
    (kind, start, end)
    for kind in KINDS
    for start, end in itertools.product(
        [item for item in targets(kind[0]) if not impossible(kind, item)], targets(kind[0])
    )
]


def assert_is(node: Node, item: Item) -> None:
    """The NIC is what the item says; each VF's driver has read the MAC that the VF has."""
    nic = node.nics[HANDLE]
    assert (nic.mode, len(nic.vfs), nic.autoprobe) == (item["mode"], item["vfs"], True)
    assert nic.params.get("flow_steering_mode") == item.get("params", {}).get("flow_steering_mode")
    for index, vf in enumerate(nic.vfs):
        assert vf.driver == (item["vf_driver"] if nic.binds else "")
        assert bool(vf.representor) == (nic.mode == SWITCHDEV)
        assert vf.attributes.mac is not None
        assert vf.address == vf.attributes.mac or not nic.binds
        assert vf.interface == (vf.driver == "kernel")
        if item["vf"] and index == 1:
            assert vf.attributes.mac == "02:00:00:00:00:77"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_pair_converges_as_check_mode_says(kind: tuple[str, bool]) -> None:
    pairs = [(start, end) for one, start, end in PAIRS if one == kind and not impossible(kind, end)]
    assert len(pairs) >= 16
    for start, end in pairs:
        node = reached(kind, start)
        before = copy.deepcopy(node.nics)
        promised = run(node, end, check=True)
        assert node.nics == before
        done = run(node, end)
        assert (done.steps, done.before, done.after) == (promised.steps, promised.before, promised.after)
        assert_is(node, end)
        changes = len(node.changes)
        assert run(node, end).steps == ()
        assert len(node.changes) == changes


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gathered_is_a_config_that_changes_nothing_there_and_makes_the_same_elsewhere(kind: tuple[str, bool]) -> None:
    for item in targets(kind[0]):
        if impossible(kind, item):
            continue
        node = reached(kind, item)
        again = fresh(*kind)
        run(again, *gathered(node))
        assert seen(again) == seen(node)
        steps = run(node, *gathered(node)).steps
        assert [step["action"] for step in steps] in ([], ["record the NICs in /etc/fastpath"])


def gathered(node: Node) -> list[Item]:
    """As state: gathered reports it; a NIC that has no address is named by its driver here."""
    resource = Eswitch(node, 0)
    items = resource.public(resource.have())
    for item in items:
        if "pci" not in item["device"]:
            item["device"] = {"driver": node.nics[HANDLE].driver}
    return items


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_was_gathered_before_a_run_leads_back(kind: tuple[str, bool]) -> None:
    """What a node would do that takes a run back later, because nobody confirmed it."""
    for start, end in _moves(kind):
        node = reached(kind, start)
        before, way_back = seen(node), gathered(node)
        run(node, end)
        run(node, *way_back)
        assert seen(node) == before


@pytest.mark.parametrize("driver", ["bnxt_en", "unknown"])
def test_a_pf_that_is_down(driver: str) -> None:
    """It is brought up where its VFs change, stays up when that is done, and is down again when it is taken back."""
    kind = (driver, False)
    for start, end in _moves(kind):
        node = _down(kind, start)
        run(node, end)
        assert_is(node, end)
        removed = driver == "unknown" and start["mode"] != end["mode"] and bool(start["vfs"])
        assert node.nics[HANDLE].up == (start["vfs"] != end["vfs"] or removed)
        for number in range(1, _changes(kind, start, end) + 1):
            node = _down(kind, start)
            before, node.fail_at = seen(node), len(node.changes) + number
            with pytest.raises(StepFailed):
                run(node, end)
            assert seen(node) == before


def _down(kind: tuple[str, bool], item: Item) -> Node:
    node = reached(kind, item)
    node.nics[HANDLE].up = False
    return node


def test_a_nic_that_fails_takes_the_others_back() -> None:
    node = fresh("mlx5_core")
    node.nics["pci/0000:af:00.0"] = fresh("ice").nics[HANDLE]
    before = node.devices()
    node.fail_at = 8
    items = tuple({"device": {"driver": driver}, "mode": SWITCHDEV, "vfs": 2} for driver in ("mlx5_core", "ice"))
    with pytest.raises(StepFailed, match="taken back") as caught:
        run(node, *items)
    assert node.changes[:8].count("set_mode switchdev") == 2
    assert not caught.value.stuck
    assert node.devices() == before
    run(node, *items)
    assert [nic.mode for nic in node.nics.values()] == [SWITCHDEV, SWITCHDEV]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[1]], ids=str)
def test_what_an_old_driver_refuses_is_taken_back_and_told(kind: tuple[str, bool]) -> None:
    for one, start, end in PAIRS:
        if one != kind or not impossible(kind, end):
            continue
        node = reached(kind, start)
        before = seen(node)
        with pytest.raises(StepFailed, match="switchdev") as caught:
            run(node, end)
        assert not caught.value.stuck
        assert seen(node) == before


def _changes(kind: tuple[str, bool], start: Item, end: Item) -> int:
    node = reached(kind, start)
    before = len(node.changes)
    run(node, end)
    return len(node.changes) - before


def _moves(kind: tuple[str, bool]) -> list[tuple[Item, Item]]:
    """Pairs to break at each of their changes: every eleventh, all with FASTPATH_EXAMPLES."""
    moves = [(start, end) for one, start, end in PAIRS if one == kind and not impossible(kind, end) and start != end]
    return moves if os.environ.get("FASTPATH_EXAMPLES") else moves[::11]


@pytest.mark.parametrize("half", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_change_that_fails_is_taken_back(kind: tuple[str, bool], half: bool) -> None:
    for start, end in _moves(kind):
        for number in range(1, _changes(kind, start, end) + 1):
            node = reached(kind, start)
            before, kept = seen(node), node.kept
            node.fail_at, node.half = len(node.changes) + number, half
            with pytest.raises(StepFailed) as caught:
                run(node, end)
            assert not caught.value.stuck, (start, end, node.changes)
            assert seen(node) == before, (start, end, number)
            assert node.kept == kept
            assert run(node, start).steps == ()


@pytest.mark.parametrize("half", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_killed_run_is_finished_by_the_next(kind: tuple[str, bool], half: bool) -> None:
    for start, end in _moves(kind):
        through = reached(kind, start)
        run(through, end)
        for number in range(1, _changes(kind, start, end) + 1):
            node = reached(kind, start)
            node.kill_at, node.half = len(node.changes) + number, half
            with pytest.raises(Killed):
                run(node, end)
            run(node, end)
            assert_is(node, end)
            assert seen(node) == seen(through), (start, end, number)
            assert run(node, end).steps == ()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_change_may_be_made_twice(kind: tuple[str, bool]) -> None:
    for start, end in _moves(kind):
        node, twice = reached(kind, start), reached(kind, start)
        run(node, end)
        resource = Eswitch(twice, 0)
        for step in resource.plan(resource.have(), Request((end,), "replaced")):
            resource.execute(step.do)
            resource.execute(step.do)
        assert seen(twice) == seen(node)
        assert sorted(set(twice.changes)) == sorted(set(node.changes))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_deleted_leaves_a_nic_without_vfs_in_legacy_mode(kind: tuple[str, bool]) -> None:
    for item in targets(kind[0]):
        if not impossible(kind, item):
            node = reached(kind, item)
            run(node, state="deleted")
            nic = node.nics[HANDLE]
            assert (nic.mode, nic.vfs, node.kept) == (LEGACY, [], None)
            assert run(node, state="deleted").steps == ()


def test_disruption_has_to_be_allowed() -> None:
    node = fresh("mlx5_core")
    run(node, {"device": DEVICE, "vfs": 2})
    node.nics[HANDLE].vfs[1].user = "container podman:web-1"
    before, changes = seen(node), len(node.changes)
    with pytest.raises(FastpathError, match=r"VF 1 of container podman:web-1.*allow_disruption"):
        converge(Eswitch(node, 0), Request(({"device": DEVICE, "vfs": 0},), "replaced"))
    assert (seen(node), len(node.changes)) == (before, changes)
