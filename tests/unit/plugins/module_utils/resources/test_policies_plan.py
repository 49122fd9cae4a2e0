# SPDX-License-Identifier: GPL-3.0-or-later
"""Any plan of policies, from any state that a node can be in: it converges, can be cut anywhere, and undone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.plan import predict
from ansible_collections.fastpath.node.plugins.module_utils.policy import documents
from ansible_collections.fastpath.node.plugins.module_utils.resources import policies_wish as wish
from ansible_collections.fastpath.node.plugins.module_utils.resources.policies_state import Request, State

from .life import CUT, prefix
from .policies_life import KERNEL, Case, plans


@given(plans())
def test_plan_leads_to_what_the_request_means(case: Case) -> None:
    state, request, steps = case
    end = KERNEL.reached(state, steps)
    assert wish.plan(end, request) == ()
    kept = {documents.identity(item, ""): item for item in (state.policing.document or {}).get("policies", ())}
    named = {documents.identity(item, ""): item for item in request.config}
    if request.state == "deleted":
        wanted = {key: item for key, item in kept.items() if named and key not in named}
    else:
        wanted = {**({} if request.state == "overridden" else kept), **named}
    assert wish.public(end) == [wanted[key] for key in sorted(wanted)]
    in_force(end)


def in_force(state: State) -> None:
    """What holds is what is kept, for the containers and addresses that there are."""
    policing = state.policing
    if policing.document is None:
        assert policing.installed is None
        return
    now = policing.installed
    assert now is not None
    assert (now.epoch > 0, now.settled, now.intact) == (True, True, True)
    assert now.input == wish.source(state, policing.document).digest()


@given(plans())
def test_any_run_mends_what_is_kept(case: Case) -> None:
    state, _request, steps = case
    end = predict(state, steps)
    assert wish.plan(end, Request((), "merged")) == ()


@given(plans(), CUT)
def test_killed_run_is_completed_by_the_next(case: Case, cut: float) -> None:
    state, request, steps = case
    killed = KERNEL.reached(state, prefix(steps, cut))
    again = KERNEL.reached(killed, wish.plan(killed, request))
    assert again.policing.document == predict(state, steps).policing.document
    in_force(again)


@given(plans(), CUT)
def test_killed_run_is_completed_at_boot(case: Case, cut: float) -> None:
    """What is kept is recorded first, and forgotten last: whoever comes next goes on with one or the other."""
    state, _request, steps = case
    killed = predict(state, prefix(steps, cut))
    if killed.policing.document is None:
        assert killed.policing.installed is None or killed == state
    else:
        in_force(predict(killed, wish.plan(killed, Request((), "merged"))))


@given(plans(), CUT, st.booleans())
def test_undo_leads_back(case: Case, cut: float, last_was_done: bool) -> None:
    start, _request, steps = case
    tried = prefix(steps, cut)
    state = KERNEL.reached(start, tried if last_was_done else tried[:-1])
    for step in reversed(tried):
        for op in step.undo:
            state = KERNEL.carry_out(state, op)
    assert state.policing.document == start.policing.document
    before, now = start.policing.installed, state.policing.installed
    if before is None:
        assert now is None or state == start
    elif before.epoch and before.intact and before.settled and start.policing.document is not None:
        assert now is not None
        assert (now.settled, now.intact) == (True, True)
        # taken away and put back: for what there is now, which may be more than what there was
        same = {before.input, wish.source(start, start.policing.document).digest()}
        assert now.input in same


@given(plans())
def test_operations_may_be_repeated(case: Case) -> None:
    state, _request, steps = case
    for step in steps:
        state = step.do.effect(state)
        assert step.do.effect(state) == state


@given(plans())
def test_nothing_has_to_be_allowed(case: Case) -> None:
    _state, _request, steps = case
    assert not any(step.disrupts for step in steps)


@given(plans())
def test_order_of_documents_is_nobody_s_business(case: Case) -> None:
    state, request, steps = case
    assert wish.plan(state, replace(request, config=list(request.config)[::-1])) == steps
