# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of attachments by example: what is done and said in a case of interest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel.datapath import SLOTS
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish

from .attachments_life import (
    ADDRESSES,
    BARE,
    CONTAINERS,
    REFERENCES,
    SERVED,
    SERVING,
    assert_serves,
    carry_out,
    example,
    meaning,
    reached,
    upgraded,
    vanish,
)


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
