# SPDX-License-Identifier: GPL-3.0-or-later
"""Any plan of attachments, from any state that a node can be in: it converges, can be cut anywhere, and undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.plan import predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_plan as plan
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish

from .attachments_life import (
    BARE,
    CONFIGS,
    OLD,
    Case,
    assert_safe,
    assert_serves,
    carry_out,
    destroyed,
    meaning,
    planned,
    plans,
    present,
    reached,
    states,
    walk,
)
from .life import CUT, Refused, prefix


@given(plans(), CUT)
def test_killed_run_is_completed_by_the_next(case: Case, cut: float) -> None:
    state, request, steps = case
    killed = reached(state, prefix(steps, cut))
    again = reached(killed, wish.plan(killed, request))
    through = predict(state, steps)
    assert plan.public(again) == plan.public(through)
    assert again.document == through.document
    assert wish.plan(again, request) == ()


def settled(state: pure.State) -> pure.State:
    """Without what no attachment uses: rows and pins whose link is gone, links whose container is, half of a move."""
    lost = frozenset(name for name, end in state.links.items() if not end.connected)
    clean = destroyed(state, lost)
    unfinished = {name for name, end in clean.links.items() if end.unfinished}
    users = {end.vf: name for name, end in clean.links.items() if end.vf}
    return replace(
        clean,
        vfs={
            pci: replace(vf, user=users.get(pci, ""), home=pci not in users and (vf.home or bool(vf.user)))
            for pci, vf in clean.vfs.items()
        },
        links={name: replace(end, unfinished="") for name, end in clean.links.items()},
        strays=frozenset(),
        endpoints={
            address: replace(point, mac=clean.interfaces[point.attachment].mac)
            if point.attachment in unfinished
            else point
            for address, point in clean.endpoints.items()
            if point.attachment
        },
        programs=dict.fromkeys((name for name in clean.programs if name in clean.links), True),
        document=clean.document or None,
    )


@given(plans(), CUT, st.booleans())
def test_undo_leads_back_safely(case: Case, cut: float, last_was_done: bool) -> None:
    """As the engine undoes: newest first, the failed step included, whether or not it had an effect."""
    start, _request, steps = case
    tried = prefix(steps, cut)
    state = reached(start, tried if last_was_done else tried[:-1])
    for step in reversed(tried):
        for op in step.undo:
            try:
                state = carry_out(state, op)
            except Refused:  # it is still there, or was lost before: only that cannot come back
                name = op.name  # type: ignore[attr-defined]
                assert not start.links[name].connected or state.links.get(name) == replace(start.links[name], up=False)
                break
            assert_safe(state)
    assert settled(state) == settled(start)


@given(plans())
def test_operations_may_be_repeated(case: Case) -> None:
    state, _request, steps = case
    for step in steps:
        state = step.do.effect(state)
        assert step.do.effect(state) == state


@given(plans())
def test_foreign_interfaces_are_in_no_operation(
    case: Case,
) -> None:
    state, _request, steps = case
    for step in steps:
        for op in (step.do, *step.undo):
            assert getattr(op, "name", "") not in state.foreign


def serving(state: pure.State) -> set[tuple[str, str]]:
    """(address, attachment) that packets reach and leave."""
    return {
        (address, name)
        for address, name in ((address, point.attachment) for address, point in state.endpoints.items())
        if name and state.links[name].up and name in state.interfaces and state.interfaces[name].up
        if any(pure.bare(own) == address for own in state.interfaces[name].addresses)
    }


@given(plans())
def test_plan_without_a_disruptive_step_disturbs_nobody(
    case: Case,
) -> None:
    state, _request, steps = case
    assume(not any(step.disrupts for step in steps))
    for after in walk(state, steps):
        assert serving(state) <= serving(after)


@given(CONFIGS, st.sampled_from(["merged", "replaced", "overridden"]))
def test_fresh_node_is_never_disturbed(config: tuple[dict[str, Any], ...], state: str) -> None:
    steps = planned(BARE, pure.Request(config, state)) or planned(OLD, pure.Request(config, state))
    assume(steps is not None)
    assert not any(step.disrupts for step in steps or ())


@given(states(), CONFIGS)
def test_gathered_is_a_config_that_changes_nothing(state: pure.State, config: tuple[dict[str, Any], ...]) -> None:
    request = pure.Request(config, "overridden", skip_absent=True)
    steps = planned(state, request)
    assume(steps is not None)
    end = predict(state, steps or ())
    gathered = tuple(plan.public(end))
    assume({item["name"] for item in gathered} == {item["name"] for item in request.config})
    again = wish.plan(end, pure.Request(gathered, "overridden"))
    assert [type(step.do) for step in again] in ([], [pure.Record])


@given(plans())
def test_plan_leads_safely_to_what_the_request_means(case: Case) -> None:
    state, request, steps = case
    end = reached(state, steps)
    assert wish.plan(end, request) == ()
    kept = {item["name"]: item for item in state.document or ()}
    wanted = {item["name"]: item for item in request.config}
    if request.state == "merged":
        wanted = {name: {**kept.get(name, {}), **item} for name, item in wanted.items()}
    before = {item["name"]: item for item in plan.public(state)}
    here: dict[str, Any] = {}
    if request.state == "deleted":
        expected = {name: item for name, item in before.items() if wanted and name not in wanted}
    else:
        here = {
            n: meaning(i, present(state, i), end.links[n].vf if n in end.links else "")
            for n, i in wanted.items()
            if "".join(wish.references([i])) in state.containers
            if n in end.links or not (request.skip_absent and i.get("kind") == "vf")
        }
        absent = {n: i for n, i in before.items() if n in wanted and n not in here}
        others = {} if request.state == "overridden" else {n: i for n, i in before.items() if n not in wanted}
        expected = {**others, **absent, **here}
    assert plan.public(end) == [expected[name] for name in sorted(expected)]
    for item in here.values():
        assert_serves(end, item)
    owners = {(point.attachment, point.slot) for point in end.endpoints.values()}
    assert len({slot for _name, slot in owners}) == len(owners), "a row of statistics has one owner"
    assert {name for name, _slot in owners} | set(end.programs) <= set(end.links), "endpoints or pins without a link"
