# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of attachments by example: what is done and said in a case of interest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel.datapath import SLOTS
from ansible_collections.fastpath.node.plugins.module_utils.plan import Step
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish

from .attachments_life import (
    ADDRESSES,
    BARE,
    CONTAINERS,
    REFERENCES,
    SERVED,
    SERVING,
    VETHS,
    assert_serves,
    carry_out,
    example,
    half_made,
    half_moved,
    meaning,
    reached,
    switched_off,
    tampered,
    upgraded,
    vanish,
)

VETHS_ON_NEW = replace(VETHS, netkit=True)


def test_slots_run_out_before_anything_is_done() -> None:
    full = {f"10.129.{n >> 8}.{n & 255}": pure.Endpoint(f"x{n}", n, "", 1500) for n in range(SLOTS)}
    request = pure.Request(({"name": "web-1", "container": CONTAINERS[0], "addresses": [ADDRESSES[0]]},), "merged")
    with pytest.raises(FastpathError, match=f"all {SLOTS} rows"):
        wish.plan(replace(BARE, endpoints=full), request)


@pytest.mark.parametrize("order", [1, -1])
def test_addresses_and_containers_move_between_attachments(order: int) -> None:
    first = (example("web-1", 0, "10.128.3.7", "10.128.3.9"), example("web-2", 1, "10.128.3.8"))
    then = (example("web-1", 0, "10.128.3.9"), example("web-2", 1, "10.128.3.7", "10.128.3.8"))
    swapped = (example("web-1", 1, "10.128.3.9"), example("web-2", 0, "10.128.3.7", "10.128.3.8"))
    state = BARE
    for config in (first, then, swapped, first):
        request = pure.Request(config[::order], "replaced")
        state = reached(state, wish.plan(state, request))
        assert wish.plan(state, request) == ()
        owners = {address: point.attachment for address, point in state.endpoints.items()}
        assert owners == {address: item["name"] for item in config for address in item["addresses"]}


def test_stale_programs_are_replaced() -> None:
    request = pure.Request((example("web-1", 0, "10.128.3.7"),), "replaced")
    state = upgraded(reached(BARE, wish.plan(BARE, request)), "new")
    steps = wish.plan(state, request)
    assert [step.do for step in steps] == [pure.Attach("web-1", "g-new")]
    assert not any(step.disrupts for step in steps)


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"mtu": 1500, "routes": [{"to": "10.0.0.0/8"}]}, {""}),
        ({"addresses": ["10.128.3.7", "fd00:128:3::7", "10.128.3.9"]}, {""}),
        ({"mac": "02:00:00:00:00:02"}, {"", "container netns:/run/netns/a"}),
        ({"addresses": ["10.128.3.7"]}, {"", "traffic to fd00:128:3::7", "container netns:/run/netns/a"}),
        ({"container": CONTAINERS[2]}, {"", "container netns:/run/netns/a"}),
    ],
)
def test_what_disrupts_says_so(changes: dict[str, Any], flags: set[str]) -> None:
    steps = wish.plan(SERVING, pure.Request(({"name": "web-1", **changes},), "merged"))
    assert {step.disrupts for step in steps} == flags


def test_merged_keeps_what_it_does_not_name() -> None:
    request = pure.Request(({"name": "web-1", "mtu": 1280},), "merged")
    end = reached(SERVING, wish.plan(SERVING, request))
    assert end.document == ({**SERVED[0], "mtu": 1280}, SERVED[1])
    assert end.interfaces["web-1"] == replace(SERVING.interfaces["web-1"], mtu=1280)
    assert end.interfaces["web-2"] == SERVING.interfaces["web-2"]


@pytest.mark.parametrize("changes", [{"mtu": 1280}, {"mac": "02:00:00:00:00:02"}, {"container": CONTAINERS[2]}])
def test_change_of_a_serving_attachment_is_undone(changes: dict[str, Any]) -> None:
    steps = wish.plan(SERVING, pure.Request(({"name": "web-1", **changes},), "merged"))
    state = reached(SERVING, steps)
    for step in reversed(steps):
        for op in step.undo:
            state = carry_out(state, op)
    assert state == SERVING


def test_another_interface_while_a_container_has_ended() -> None:
    state = vanish(SERVING, REFERENCES[1])
    request = pure.Request(({"name": "web-1", "interface": "eth1"},), "merged")
    steps = wish.plan(state, request)
    end = reached(state, steps)
    assert_serves(end, meaning({**SERVED[0], "interface": "eth1"}, pure.NETKIT))
    assert end.interfaces["web-1"].name == "eth1"
    assert set(end.programs) == set(end.links) == {"web-1"}
    assert [step.do.fresh for step in steps if isinstance(step.do, pure.Publish)] == [True]


# Kinds


def merged(state: pure.State, name: str, **changes: Any) -> tuple[Step[pure.State], ...]:
    """The steps beside the one that records the list."""
    steps = wish.plan(state, pure.Request(({"name": name, **changes},), "merged"))
    assert any(isinstance(step.do, pure.Record) for step in steps)
    return tuple(step for step in steps if not isinstance(step.do, pure.Record))


@pytest.mark.parametrize(
    ("state", "changes", "words", "mac"),
    [
        (VETHS, {"kind": "netkit"}, "move web-2 from veth to netkit", wish.derived_mac("web-2")),
        (VETHS, {"kind": "netkit", "mode": "l3"}, "move web-2 from veth to netkit l3", pure.NO_MAC),
        (SERVING, {"kind": "netkit", "mode": "l3"}, "move web-2 from netkit to netkit l3", pure.NO_MAC),
        (SERVING, {"kind": "veth"}, "move web-2 from netkit to veth", wish.derived_mac("web-2")),
    ],
)
def test_another_kind_is_one_step_that_disturbs_nobody(
    state: pure.State, changes: dict[str, Any], words: str, mac: str
) -> None:
    (step,) = merged(replace(state, netkit=True), "web-2", **changes)
    pair = pure.Pair(changes["kind"], changes.get("mode", "l2") if changes["kind"] == "netkit" else "")
    assert step.do == pure.Move("web-2", pair, mac, "g1")
    assert (step.action, step.reason, step.disrupts) == (words, "another kind is wanted", "")
    assert step.undo == (pure.Move("web-2", state.links["web-2"].pair, state.interfaces["web-2"].mac, "g1"),)


@pytest.mark.parametrize("kind", [{}, {"kind": "auto"}])
def test_auto_leaves_a_running_container_where_it_is(kind: dict[str, Any]) -> None:
    new = replace(VETHS, netkit=True)
    assert wish.plan(new, pure.Request(({**SERVED[1], **kind}, SERVED[0]), "replaced")) == (
        () if not kind else wish.plan(new, pure.Request(({**SERVED[1], **kind}, SERVED[0]), "replaced"))[-1:]
    )
    fresh = wish.plan(
        replace(new, links={}, interfaces={}, programs={}, endpoints={}), pure.Request(SERVED, "replaced")
    )
    assert {step.do.pair for step in fresh if isinstance(step.do, pure.CreateLink)} == {pure.NETKIT}


def test_mac_comes_back_after_a_mode_without_one() -> None:
    bare = reached(SERVING, merged(SERVING, "web-2", kind="netkit", mode="l3"))
    assert {point.mac for point in bare.endpoints.values() if point.attachment == "web-2"} == {pure.NO_MAC}
    assert reached(bare, merged(bare, "web-2", kind="netkit", mode="l2")).interfaces == SERVING.interfaces


def test_another_mac_is_set_after_the_move_and_disturbs() -> None:
    steps = merged(VETHS_ON_NEW, "web-1", kind="netkit", mac="02:00:00:00:00:02")
    kinds = [type(step.do) for step in steps]
    assert kinds == [pure.Move, pure.Publish, pure.Configure]
    assert [bool(step.disrupts) for step in steps] == [False, False, True]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"kind": "netkit", "mode": "l2"}, "finish the move of web-1 to netkit"),
        ({"kind": "auto"}, "finish the move of web-1 to netkit"),
        ({"kind": "veth"}, "move web-1 from netkit to veth"),
    ],
)
def test_killed_move_is_finished_or_taken_back_and_says_why(wanted: dict[str, Any], words: str) -> None:
    half = half_moved(VETHS_ON_NEW, REFERENCES[0])
    (step,) = merged(half, "web-1", **wanted)
    assert (step.action, step.reason) == (words, "veth stands beside it")
    end = reached(half, [step])
    assert (end.links["web-1"].unfinished, end.programs["web-1"]) == ("", True)


def test_move_of_what_was_taken_down_is_undone_to_that() -> None:
    down = switched_off(tampered(VETHS_ON_NEW, REFERENCES[0]), REFERENCES[0])
    step = next(step for step in merged(down, "web-1", kind="netkit") if isinstance(step.do, pure.Move))
    state = reached(down, [step])
    assert state.links["web-1"].up
    assert state.interfaces["web-1"].up
    for op in step.undo:
        state = carry_out(state, op)
    assert state == down


def test_what_a_killed_run_has_made_half_goes_with_any_run() -> None:
    half = half_made(SERVING, "")
    (step,) = wish.plan(half, pure.Request((), "merged"))
    assert step.do == pure.DeleteLink("web-3")


def test_half_moved_attachment_is_removed_whole() -> None:
    half = half_moved(VETHS_ON_NEW, REFERENCES[0])
    steps = wish.plan(half, pure.Request(({"name": "web-1"},), "deleted"))
    assert not any(isinstance(step.do, pure.Move) for step in steps)
    assert "web-1" not in reached(half, steps).links


def test_mode_goes_with_the_kind_that_it_was_given_with() -> None:
    bare = reached(
        SERVING, wish.plan(SERVING, pure.Request(({"name": "web-2", "kind": "netkit", "mode": "l3"},), "merged"))
    )
    end = reached(bare, wish.plan(bare, pure.Request(({"name": "web-2", "kind": "veth"},), "merged")))
    assert end.document is not None
    assert end.document[1] == {**SERVED[1], "kind": "veth"}
    assert end.links["web-2"].pair == pure.VETH


def test_leftovers_of_moves_are_forgotten_by_any_run() -> None:
    stray = replace(SERVING, strays=frozenset([17, 18]))
    (step,) = wish.plan(stray, pure.Request((), "merged"))
    assert step.do == pure.Forget(frozenset([17, 18]))
