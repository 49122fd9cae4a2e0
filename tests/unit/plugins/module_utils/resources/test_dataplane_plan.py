# SPDX-License-Identifier: GPL-3.0-or-later
"""Any plan of the dataplane, from any state that a node can be in: it converges, can be cut anywhere, and undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.plan import predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_plan, dataplane_wish
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_state as pure

from .dataplane_life import (
    BARE,
    CONFIG,
    OBJECTS,
    UPLINKS,
    Case,
    carry_out,
    planned,
    plans,
    reached,
    settled,
    states,
    walk,
)
from .life import CUT, prefix


@given(plans(), CUT)
def test_killed_run_is_completed_by_the_next(case: Case, cut: float) -> None:
    state, request, steps = case
    killed = reached(state, prefix(steps, cut))
    again = reached(killed, dataplane_wish.plan(killed, request))
    through = predict(state, steps)
    assert dataplane_wish.plan(again, request) == ()
    assert dataplane_plan.public(again) == dataplane_plan.public(through)
    assert replace(again, hooks={}) == replace(through, hooks={})
    assert {k: v for k, v in again.hooks.items() if v[0]} == {k: v for k, v in through.hooks.items() if v[0]}


@given(plans())
def test_operations_may_be_repeated(case: Case) -> None:
    state, _request, steps = case
    for step in steps:
        state = step.do.effect(state)
        if not isinstance(step.do, pure.CreateRouter):
            assert step.do.effect(state) == state


@given(plans(), CUT, st.booleans())
def test_undo_leads_back_safely(case: Case, cut: float, last_was_done: bool) -> None:
    """As the engine undoes: newest first, the failed step included, whether or not it had an effect."""
    start, request, steps = case
    tried = prefix(steps, cut)
    assume(not any(isinstance(step.do, (pure.Unload, pure.RemoveMaps, pure.Forget)) for step in tried))
    state = reached(start, tried if last_was_done else tried[:-1])
    for step in reversed(tried):
        for op in step.undo:
            if not last_was_done and step == tried[-1] and isinstance(op, pure.CreateRouter) and state.router:
                break  # the kernel refuses: it is still there
            state = carry_out(state, op)
    lost = {key for key, (_name, gen) in start.hooks.items() if gen not in start.generations}
    expected, found = settled(start), settled(state)
    if request.state == "deleted":  # a hook that ran unknown programs cannot come back
        expected = replace(expected, hooks={k: v for k, v in expected.hooks.items() if k not in lost})
        found = replace(found, hooks={k: v for k, v in found.hooks.items() if k not in lost})
    assert found == expected


@given(plans())
def test_plan_without_a_disruptive_step_keeps_what_works(case: Case) -> None:
    """Every uplink and route that serves containers goes on to, in each state on the way."""
    state, request, steps = case
    assume(request.state != "deleted")
    assume(not any(step.disrupts for step in steps))
    kept = {key for key, (name, gen) in state.hooks.items() if name and gen}
    prefixes = {route.to for route in state.routes}
    addresses = state.router.addresses if state.router else frozenset()
    for after in walk(state, steps):
        assert all(after.hooks[key][0] for key in kept)
        assert prefixes <= {route.to for route in after.routes}
        assert after.router
        assert addresses <= after.router.addresses


@given(plans())
def test_foreign_interfaces_are_in_no_operation(case: Case) -> None:
    _state, _request, steps = case
    for step in steps:
        for op in (step.do, *step.undo):
            assert getattr(op, "interface", "") not in ("docker0", "lo")


@given(CONFIG, OBJECTS)
def test_fresh_node_is_never_disturbed(config: dict[str, Any], object_id: str) -> None:
    steps = planned(BARE, pure.Request(config, "replaced", object_id))
    assume(steps is not None)
    assert not any(step.disrupts for step in steps or ())


@given(states())
def test_removal_is_refused_while_attachments_are_there(state: pure.State) -> None:
    assert (planned(state, pure.Request({}, "deleted", "")) is None) == bool(state.attachments)


def goal(state: pure.State, request: pure.Request) -> str:
    """The object that shall run."""
    if request.state != "rolled_back":
        return request.object_id
    assert state.programs
    return state.programs.current if state.programs.rolled_back else state.programs.previous


@given(plans())
def test_plan_leads_safely_to_what_the_request_means(case: Case) -> None:
    state, request, steps = case
    end = reached(state, steps)
    assert dataplane_wish.plan(end, request) == ()
    if request.state == "deleted":
        assert end == BARE
        return
    given_now: dict[str, Any] = dict((state.document or {}) if request.state == "rolled_back" else request.config)
    if request.state == "merged":
        assume(state.document is not None or {"uplinks", "prefixes", "routing", "routes"} <= set(given_now))
        given_now = {**(state.document or {}), **given_now}
    by = {"pci": "eth0", "mac": "eth1"}
    names = {by.get(key, value) for uplink in given_now["uplinks"] for key, value in uplink.items()}
    prefixes = {text.lower().replace(":0::", "::") for text in given_now["prefixes"]}

    def order(text: str) -> tuple[bool, str]:
        return ":" in text, text

    assert dataplane_plan.public(end) == {
        "uplinks": [{"name": name} for name in sorted(names)],
        "prefixes": sorted(prefixes, key=order),
        "routing": given_now.get("routing", "fabric"),
        "routes": sorted(given_now.get("routes", []), key=lambda route: order(route["to"])),
    }
    assert end.document == {"routing": "fabric", "routes": [], **given_now}
    assert end.programs
    assert end.programs.current == goal(state, request)
    assert end.objects <= {end.programs.current, end.programs.previous}
    generation = end.owner
    assert generation.startswith(end.programs.current)
    assert all(end.generations.values())
    assert {name.partition("_")[0] for name in end.generations} <= {end.programs.current, end.programs.previous}
    attached = {key: name for key, (name, _gen) in state.hooks.items() if key.startswith(pure.CONTAINER_HOOK) and name}
    assert {key: hook for key, hook in end.hooks.items() if hook[0] or not key.startswith(pure.CONTAINER_HOOK)} == {
        key: (name, generation)
        for key, name in {"router": pure.ROUTER, **{f"uplink-{name}": name for name in names}, **attached}.items()
    }
    assert end.router
    assert end.router.up
    assert end.router.mtu == min(uplink.mtu for uplink in UPLINKS if uplink.name in names)
