# SPDX-License-Identifier: GPL-3.0-or-later
"""A NIC that the connection comes in by: the way back is armed first, and leads back from wherever a run ends."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.plan import Op, Result, converge
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.confirm import Undo
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import RESTORED, Request, State

from .eswitch_nic import LEGACY, SWITCHDEV, Killed, Node
from .test_eswitch_pairs import HANDLE, KINDS, Item, fresh, impossible, seen, targets

TOUCHING = ("set_vfs", "set_mode", "set_setting", "set_param")
NAMES = {"uplink": "pf0", "representors": "pf0r"}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eswitch, "_PAUSE", 0)


def carrying(driver: str, old: bool = False) -> Node:
    node = fresh(driver, old)
    node.nics[HANDLE].carries = True
    return node


def item(driver: str = "mlx5_core", **given: Any) -> Item:
    return {"device": {"driver": driver}, **given}


def change(node: Node, *items: Item, timeout: int = 60, check: bool = False, resource: Eswitch | None = None) -> Result:
    request = Request(items, "overridden", timeout)
    return converge(resource or Eswitch(node, 0), request, check=check, allow_disruption=True)


def go_back(node: Node) -> None:
    """As the watcher does; the file has been through JSON."""
    assert node.waiting is not None
    before = json.loads(json.dumps(node.waiting.before))
    document: Any = before["document"]
    request = Request(tuple(before["config"]), RESTORED, document=None if document is None else tuple(document))
    converge(Eswitch(node, 0), request, allow_disruption=True)
    node.waiting = None


def everything(node: Node) -> tuple[object, ...]:
    return seen(node), node.file, node.kept, node.nics[HANDLE].uplink


class Dying(Eswitch):
    """Ends before or after its operation number `at`."""

    def __init__(self, node: Node, at: int, after: bool) -> None:
        super().__init__(node, 0)
        self.left, self._after = at, after

    def execute(self, op: Op[State]) -> None:
        self.left -= 1
        if self.left or self._after:
            super().execute(op)
        if not self.left:
            raise Killed


def moves(kind: tuple[str, bool]) -> Iterator[tuple[Item, Item]]:
    """Some pairs, with a name that changes too."""
    found = [{**one, "names": NAMES} if one["vfs"] == 2 else one for one in targets(kind[0])]
    possible = [one for one in found if not impossible(kind, one)]
    for index, start in enumerate(possible):
        yield start, possible[(index * 7 + 3) % len(possible)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_way_back_is_armed_first_exactly_if_the_uplink_is_touched(kind: tuple[str, bool]) -> None:
    armed = set()
    for start, end in moves(kind):
        for node in (fresh(*kind), carrying(*kind)):
            change(node, start)
            node.waiting = None
            node.changes.clear()
            named = node.nics[HANDLE].uplink
            promised = change(node, end, check=True)
            assert node.changes == []
            done = change(node, end)
            assert done.steps == promised.steps
            made = [one.split()[0] for one in node.changes]
            touched = set(made) & set(TOUCHING) or named != node.nics[HANDLE].uplink
            assert ("arm" in made) == (node.nics[HANDLE].carries and bool(touched))
            assert "arm" not in made[1:]
            armed.add("arm" in made)
    assert armed == {True, False}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_leads_back_from_wherever_the_run_has_ended(kind: tuple[str, bool]) -> None:
    for start, end in list(moves(kind))[::2]:
        for after in (False, True):
            at = 0
            while True:
                at += 1
                node = carrying(*kind)
                change(node, start)
                node.waiting = None
                node.changes.clear()
                before = everything(node)
                dying = Dying(node, at, after)
                with suppress(Killed):
                    change(node, end, resource=dying)
                touched = {one.split()[0] for one in node.changes} & set(TOUCHING)
                assert node.unconfirmed() or not touched
                if node.unconfirmed():
                    go_back(node)
                    assert everything(node) == before, (start, end, at)
                if dying.left > 0:
                    break


def test_a_boot_in_between_leads_back_too() -> None:
    """The hardware has forgotten all, the files have not."""
    start, end = item(mode=LEGACY, vfs=2), item(mode=SWITCHDEV, vfs=3, names=NAMES)
    node = carrying("mlx5_core")
    change(node, start)
    node.waiting = None
    before = everything(node)
    change(node, end)
    assert node.kept != before[2]
    booted = fresh("mlx5_core")
    booted.file, booted.kept, booted.waiting = node.file, node.kept, node.waiting
    booted.nics[HANDLE].uplink = "pf0"  # by the rules
    go_back(booted)
    booted.nics[HANDLE].carries = True
    assert everything(booted) == before


def test_what_waits_keeps_other_changes_out_and_not_itself() -> None:
    node = carrying("mlx5_core")
    one, other = item(mode=SWITCHDEV, vfs=2), item(mode=SWITCHDEV, vfs=3)
    change(node, one)
    before = copy.deepcopy(node.nics)
    for check in (True, False):
        with pytest.raises(FastpathError, match=r"an earlier change waits to be confirmed.*fastpath confirm"):
            change(node, other, check=check)
        assert not change(node, one, check=check).changed
    assert node.nics == before
    node.waiting = None
    assert change(node, other).changed


def test_a_way_back_that_cannot_be_armed_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Node, _undo: Undo) -> None:
        raise FastpathError("arm", "the way back", "nobody watches")

    monkeypatch.setattr(Node, "arm", refuse)
    node = carrying("mlx5_core")
    with pytest.raises(FastpathError, match="nobody watches"):
        change(node, item(mode=SWITCHDEV, vfs=2))
    assert (node.changes, node.file, node.kept) == ([], "", None)


def test_another_vlan_of_the_vf_that_carries_the_connection_needs_it_too() -> None:
    node = fresh("igb")
    change(node, item("igb", vfs=3))
    node.nics[HANDLE].vfs[1].carries = True
    for vf, needed in ((0, False), (1, True)):
        node.changes.clear()
        config = item("igb", vfs=3, vf=[{"index": vf, "vlan": 7}])
        assert ("take all back" in change(node, config, check=True).steps[0]["action"]) == needed


def test_a_driver_that_no_config_can_name_is_left() -> None:
    node = carrying("mlx5_core")
    change(node, item(mode=LEGACY, vfs=2))
    node.waiting = None
    node.nics[HANDLE].vfs[0].driver = "uio_pci_generic"
    change(node, item(mode=SWITCHDEV, vfs=2))
    go_back(node)
    assert (node.nics[HANDLE].mode, [vf.driver for vf in node.nics[HANDLE].vfs]) == (
        LEGACY,
        ["uio_pci_generic", "kernel"],
    )


def test_a_setting_that_the_nic_has_not_now_does_not_block_the_way_back() -> None:
    node = carrying("mlx5_core")
    change(node, item(mode=SWITCHDEV, vfs=2))
    assert node.waiting is not None
    settings: Mapping[str, Any] = node.waiting.before["config"][0]
    assert settings["encap_mode"] == "basic"
    node.nics[HANDLE].settings["encap_mode"] = None
    go_back(node)
    assert replace(seen(node), encap_mode="basic") == seen(carrying("mlx5_core"))
