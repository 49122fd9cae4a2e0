# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode counts on the VFs that NICs will have. From any NIC to any other it says what the run then does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run as runs
from ansible_collections.fastpath.node.plugins.module_utils import store
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, sriov
from ansible_collections.fastpath.node.plugins.module_utils.kernel.sriov import Physical
from ansible_collections.fastpath.node.plugins.module_utils.plan import predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_plan as plan
from ansible_collections.fastpath.node.plugins.module_utils.resources import (
    attachments_read,
    eswitch_node,
    eswitch_state,
)
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish
from ansible_collections.fastpath.node.plugins.module_utils.resources.attachments_nics import foreseen
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_change import Change

from .attachments_life import BARE, NIC, destroyed, example
from .eswitch_nic import Nic, Node
from .test_eswitch_pairs import HANDLE, Item, fresh, impossible, run, targets

KINDS = (("mlx5_core", False), ("mlx5_core", True), ("ice", False), ("bnxt_en", False), ("unknown", False))
PLACES = Physical(HANDLE, "", 8, 0, True, {}, (), offset=2, stride=1)
NAMES = {"uplink": "pf0", "representors": "pf0r"}
BOTH: tuple[dict[str, Any], ...] = (
    {**example("web-1", 0, "10.128.3.7"), "kind": "vf"},
    {**example("web-2", 1, "10.128.3.8"), "kind": "vf", "vf": PLACES.address(1)},
    example("web-3", 2, "10.128.3.9"),
)


@dataclass
class Card(Nic):
    """What the kernel does with VFs that containers have. marked: whose a representor says it is, by the VF's number;
    away: VFs whose interfaces are in containers."""

    marked: dict[int, str] = field(default_factory=dict)
    away: set[int] = field(default_factory=set)

    def set_vfs(self, count: int) -> None:
        before = self.vfs
        super().set_vfs(count)
        if self.vfs is not before:
            self.marked, self.away = {}, set()

    def set_mode(self, mode: str) -> None:
        super().set_mode(mode)
        self.marked = {}
        for vf in self.vfs:
            vf.user = ""

    def unbind(self, index: int) -> None:
        super().unbind(index)
        self.away.discard(index)


def plugged(kind: tuple[str, bool], item: Item) -> tuple[Node, Card]:
    """A node with a NIC that is what the item says."""
    node = fresh(*kind)
    card = Card(**vars(node.nics[HANDLE]))
    node.nics[HANDLE] = card
    run(node, item)
    return node, card


def found(state: pure.State, card: Card) -> pure.State:
    """What attachments find on the node now, where `state` was before."""
    present = {name: number for number, name in card.marked.items()}
    left = destroyed(state, frozenset(name for name, end in state.links.items() if end.vf and name not in present))
    parted = {name for name, number in present.items() if number not in card.away}
    lent = {name: state.vfs[end.vf].mac for name, end in state.links.items() if end.vf}
    vfs = {
        PLACES.address(number): pure.Vf(
            nic=NIC,
            mac=(vf.address or "") if vf.interface else lent.get(card.marked.get(number, ""), ""),
            user=card.marked.get(number, ""),
            home=vf.interface and number not in card.away,
            driver=vf.driver,
            representor=vf.representor,
        )
        for number, vf in enumerate(card.vfs)
    }
    return replace(
        left,
        links={name: replace(end, connected=end.connected and name not in parted) for name, end in left.links.items()},
        interfaces={name: interface for name, interface in left.interfaces.items() if name not in parted},
        vfs=vfs,
        foreign=frozenset({*BARE.foreign, card.uplink, *(vf.representor for vf in card.vfs)} - {""}),
    )


def attached(node: Node, card: Card, *items: Item) -> pure.State:
    """With those of the attachments that get a VF there."""
    state = found(replace(BARE, vfs={}), card)
    end = predict(state, wish.plan(state, pure.Request(items or BOTH, "overridden", skip_absent=True)))
    for number, vf in enumerate(card.vfs):
        user = end.vfs[PLACES.address(number)].user
        if user:
            card.marked[number], vf.user = user, f"container {end.links[user].container}"
            card.away.add(number)
    return end


def change(node: Node, item: Item, places: Physical = PLACES) -> Change:
    resource = Eswitch(node, 0)
    have = resource.have()
    steps = resource.plan(have, eswitch_state.Request((item,), "overridden"))
    return Change(have, steps, lambda _handle, vf: places.address(vf))


def planned(state: pure.State, request: pure.Request) -> Any:
    try:
        steps = wish.plan(state, request)
    except InvalidConfig as error:
        return str(error)
    return [step.public() for step in steps], plan.public(state), plan.public(predict(state, steps))


def unnamed(state: pure.State) -> pure.State:
    """Without what only the kernel decides."""
    vfs = {pci: replace(vf, representor=str(bool(vf.representor))) for pci, vf in state.vfs.items()}
    return replace(state, vfs=vfs)


def moves(kind: tuple[str, bool]) -> Iterator[tuple[Item, Item]]:
    found = [{**item, "names": NAMES} for item in targets(kind[0]) if not impossible(kind, item)]
    yield from itertools.product(found, found)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_foreseen_is_what_comes(kind: tuple[str, bool]) -> None:
    accepted = 0
    for start, end in moves(kind):
        node, card = plugged(kind, start)
        before = attached(node, card)
        ahead = foreseen(before, change(node, end))
        run(node, end, state="overridden")
        after = found(before, card)
        for skip in (False, True):
            request = pure.Request(BOTH, "overridden", skip)
            assert planned(ahead, request) == planned(after, request), (start, end)
            accepted += not skip and not isinstance(planned(ahead, request), str)
        assert unnamed(ahead) == unnamed(after), (start, end)
    assert accepted > 10


SWITCHED: Item = {"device": {"driver": "mlx5_core"}, "mode": "switchdev", "vfs": 2}


def test_hooks_go_with_their_interfaces_where_nothing_pins_them() -> None:
    node, card = plugged(("mlx5_core", False), SWITCHED)
    before, ahead = attached(node, card), change(node, {**SWITCHED, "vfs": 3})
    assert foreseen(before, ahead).programs == {"web-1": False, "web-2": False, "web-3": True}
    assert foreseen(before, replace(ahead, pinned=False)).programs == {"web-3": True}


def test_names_that_nics_will_have_are_foreign() -> None:
    node, card = plugged(("mlx5_core", False), {**SWITCHED, "vfs": 0})
    items = ({**example("pf0r1", 0, "10.128.3.7"), "kind": "vf"},)
    ahead = foreseen(attached(node, card), change(node, {**SWITCHED, "names": NAMES}))
    with pytest.raises(InvalidConfig, match="no foreign interface has"):
        wish.plan(ahead, pure.Request(items, "overridden"))


def test_addresses_that_only_the_hardware_knows_are_not_guessed() -> None:
    node, card = plugged(("mlx5_core", False), {**SWITCHED, "vfs": 0})
    unknown = change(node, SWITCHED, replace(PLACES, offset=0))
    with pytest.raises(FastpathError, match="tells their PCI addresses only when they are there"):
        foreseen(attached(node, card), unknown)


def test_check_and_rendered_count_on_it_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    node, card = plugged(("mlx5_core", False), {**SWITCHED, "vfs": 0})
    present = attached(node, card)
    monkeypatch.setattr(eswitch_node, "Node", lambda: node)
    monkeypatch.setattr(sriov, "physical", lambda: (PLACES,))
    monkeypatch.setattr(bpf, "has_tcx", lambda: True)
    monkeypatch.setattr(store, "locked", nullcontext)
    asked = []

    def read(_references: object, vfs: bool) -> attachments_read.Found:
        asked.append(vfs)
        return attachments_read.Found(present, {}, {})

    monkeypatch.setattr(attachments_read, "read", read)
    absent = {"device": {"serial": "MT9"}, "mode": "switchdev", "vfs": 2}
    ahead = runs.Ahead(nics=[SWITCHED, absent])
    checked = runs.run_attachments(BOTH, "overridden", ahead=ahead, check=True)
    rendered = runs.run_attachments(BOTH, "rendered", ahead=ahead)
    for found in (checked["after"], rendered["rendered"]):
        assert [one.get("vf") for one in found] == [PLACES.address(0), PLACES.address(1), None]
    assert [one["name"] for one in runs.run_attachments([], "gathered", ahead=ahead, check=True)["gathered"]] == [
        "web-3"
    ]
    with pytest.raises(InvalidConfig, match="this node"):
        runs.run_attachments(BOTH, "overridden", ahead=ahead)
    assert asked == [True, True, False, True]
