# SPDX-License-Identifier: GPL-3.0-or-later
"""Attachments and policies: who comes is known to the policies before it can be reached, and never as somebody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel.policy import Installed
from ansible_collections.fastpath.node.plugins.module_utils.plan import predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_plan as plan
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish
from ansible_collections.fastpath.node.plugins.module_utils.resources import policies_switch as switch

from . import attachments_life as life
from . import life as lives
from .attachments_life import BARE, SERVED, example, reached
from .life import CUT, prefix
from .policies_life import DB, WEB

DOCUMENT = {"policies": [DB, WEB], "endpoints": [], "namespaces": {}}
POLICING = switch.Policing(DOCUMENT, able=True, node=("192.0.2.2",))
POLICED = replace(BARE, policing=POLICING)
LABELS = st.sampled_from([{}, {"labels": {"app": "web"}}, {"labels": {"app": "db"}, "namespace": "prod"}])
CONFIGS = st.lists(
    st.builds(lambda item, labels: {**item, **labels}, life.ITEMS, LABELS),
    max_size=3,
    unique_by=lambda item: str(item["name"]),
).map(tuple)
REQUESTS = st.builds(pure.Request, CONFIGS, st.sampled_from(["merged", "overridden", "deleted"]), st.booleans())


def planned(state: pure.State, request: pure.Request) -> Any:
    try:
        return wish.plan(state, request)
    except FastpathError:
        return None


plans = lives.cases(lives.lives([POLICED], life.HAPPEN, REQUESTS, planned), REQUESTS, planned)


def here(state: pure.State) -> Any:
    owners = {a: (point.attachment, point.slot) for a, point in state.endpoints.items() if point.attachment}
    return switch.attached(owners, state.document or ())


def known(state: pure.State, of: dict[int, switch.Source]) -> Any:
    """The containers that the tables in force know, by slot."""
    now = state.policing.installed
    return {item.slot: item for item in of[now.input].here} if now else {}


@given(plans)
def test_nobody_is_published_unknown_or_as_somebody_else(case: Any) -> None:
    """After each step, for each address that a container of ours is reached by."""
    state, _request, steps = case
    sources = {step.do.input: step.do.source for step in steps if isinstance(step.do, switch.Switch)}
    now = state.policing.installed
    if now is not None:
        sources.setdefault(now.input, switch.Source(DOCUMENT, here(state), ("192.0.2.2",)))
    published = set(state.endpoints)
    for after in life.walk(state, steps):
        for item in here(after):
            new = set(item.addresses) - published
            if new:
                told = known(after, sources)[item.slot]
                assert (told.name, told.labels, told.namespace) == (item.name, item.labels, item.namespace)
                assert new <= set(told.addresses)


@given(plans, CUT)
def test_whoever_is_published_is_in_the_list_with_its_labels(case: Any, cut: float) -> None:
    state, request, steps = case
    killed = reached(state, prefix(steps, cut))
    here(killed)  # raises where somebody is not
    end = reached(killed, wish.plan(killed, request))
    assert wish.plan(end, request) == ()
    if end.policing.installed is not None:
        assert end.policing.installed.input == switch.Source(DOCUMENT, here(end), ("192.0.2.2",)).digest()


LABELLED = (
    {**example("web-1", 0, "10.128.3.7"), "labels": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    {**example("db-1", 1, "10.128.3.8"), "labels": {"app": "db"}, "namespace": "prod"},
)
SERVING = predict(POLICED, wish.plan(POLICED, pure.Request(LABELLED, "overridden")))


def kinds(steps: Any) -> list[str]:
    return [type(step.do).__name__ for step in steps]


def test_order() -> None:
    steps = wish.plan(POLICED, pure.Request(LABELLED[:1], "merged"))
    assert kinds(steps)[:3] == ["Record", "Switch", "CreateLink"]
    # one leaves, another gets its slot
    swapped = ({**example("web-2", 2, "10.128.3.9"), "labels": {"app": "web"}}, LABELLED[1])
    steps = wish.plan(SERVING, pure.Request(swapped, "overridden"))
    order = kinds(steps)
    assert order.index("Withdraw") < order.index("Record") < order.index("Switch") < order.index("Publish")
    (published,) = [step.do for step in steps if isinstance(step.do, pure.Publish)]
    assert published.endpoints[0][1].slot == SERVING.endpoints["10.128.3.7"].slot


@given(plans, st.sampled_from([0, 7]))
def test_a_check_knows_what_follows_a_change_of_the_policies(case: Any, epoch: int) -> None:
    """That change was only checked as well, so the node has the policies of before."""
    state, request, _steps = case
    try:
        other = switch.Source({**DOCUMENT, "policies": [DB]}, here(state), POLICING.node)
    except FastpathError:
        return  # such a change is refused
    changed = replace(state.policing, document=None, installed=None)
    if epoch:
        changed = replace(changed, document=other.document, installed=Installed(epoch, True, other.digest(), True))
    really = planned(replace(state, policing=changed), request)
    checked = planned(state, replace(request, epoch=epoch))
    assert (checked is None) == (really is None)
    assert [step.public() for step in checked or ()] == [step.public() for step in really or ()]


def test_labels_do_not_touch_the_link() -> None:
    steps = wish.plan(SERVING, pure.Request(({"name": "web-1", "labels": {"app": "other"}},), "merged"))
    assert kinds(steps) == ["Record", "Switch"]
    assert not any(step.disrupts for step in steps)
    end = predict(SERVING, steps)
    assert plan.public(end)[1]["labels"] == {"app": "other"}
    assert plan.public(end)[1]["ports"] == [{"name": "http", "port": 80}]


def test_a_node_without_policies_stays_without() -> None:
    steps = wish.plan(BARE, pure.Request(LABELLED, "overridden"))
    assert "Switch" not in kinds(steps)
    assert predict(BARE, steps).policing.installed is None


def test_who_leaves_is_forgotten() -> None:
    steps = wish.plan(SERVING, pure.Request((LABELLED[1],), "deleted"))
    assert kinds(steps)[-2:] == ["Record", "Switch"]


REASONS = {
    "policies.json is broken": {"document": None, "unreadable": "policies.json is broken"},
    "programs that run know no policies": {"able": False},
    "their document in /etc/fastpath has gone": {"document": None},
    "192.0.2.2": {"node": ("10.128.3.7",)},
}


@pytest.mark.parametrize(("said", "changes"), REASONS.items(), ids=list(REASONS))
def test_nobody_is_attached_where_policies_cannot_be_put_in_force(said: str, changes: dict[str, Any]) -> None:
    state = replace(SERVING, policing=replace(SERVING.policing, **changes))
    request = pure.Request(({**example("web-3", 2, "10.128.3.9")},), "merged")
    with pytest.raises(FastpathError) as refused:
        wish.plan(state, request)
    assert said in str(refused.value) or said == "192.0.2.2"
    # but whoever is there can be removed
    assert reached(state, wish.plan(state, pure.Request((), "deleted"))).links == {}


def test_attached_by_somebody_who_forgot_to_write_it_down() -> None:
    state = replace(SERVING, document=SERVING.document[:1] if SERVING.document else None)
    with pytest.raises(FastpathError, match="web-1 is attached, but not in"):
        wish.plan(state, pure.Request((LABELLED[1],), "merged"))
    assert wish.plan(state, pure.Request(LABELLED, "overridden"))


@pytest.mark.parametrize(
    "wrong",
    [{"labels": {"app": 7}}, {"labels": {"app": None}}, {"namespace": "A"}, {"ports": [{"name": "http"}]}],
)
def test_wrong_labels_are_refused_without_policies_too(wrong: dict[str, Any]) -> None:
    (key,) = wrong
    with pytest.raises(InvalidConfig, match=rf"config\[web-1\]\.{key}"):
        wish.plan(BARE, pure.Request(({**SERVED[0], **wrong},), "merged"))
