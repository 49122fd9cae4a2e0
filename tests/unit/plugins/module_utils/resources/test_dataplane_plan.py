# SPDX-License-Identifier: GPL-3.0-or-later
"""Any plan of the dataplane, from any state that a node can be in: it converges, can be cut anywhere, and undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel.links import Route
from ansible_collections.fastpath.node.plugins.module_utils.kernel.uplinks import Uplink
from ansible_collections.fastpath.node.plugins.module_utils.plan import Op, Step, predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_plan, dataplane_wish
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_state as pure

UPLINKS = (
    Uplink("eth0", 2, "02:00:00:00:01:00", "0000:3b:00.0", 1500, True),
    Uplink("eth1", 3, "02:00:00:00:01:01", "", 9000, True),
    Uplink("docker0", 4, "02:00:00:00:01:02", "", 1500, True),
)
BARE = pure.State(uplinks=UPLINKS, strangers={"docker0": (7,)})
UPLINK = st.sampled_from([{"name": "eth0"}, {"pci": "0000:3b:00.0"}, {"name": "eth1"}, {"mac": "02:00:00:00:01:01"}])
PREFIX = st.sampled_from(["10.128.3.0/24", "10.129.0.0/16", "fd00:128:3::/64", "FD00:129:0::/64"])
ROUTE = st.sampled_from(
    [
        {"to": "10.128.4.0/24", "via": "192.0.2.14"},
        {"to": "10.128.4.0/24", "via": "192.0.2.99"},
        {"to": "fd00:128:4::/64", "via": "fd00:192::14"},
        {"to": "10.129.0.0/16", "via": "192.0.2.15"},
    ]
)
CONFIG = st.fixed_dictionaries(
    {
        "uplinks": st.lists(UPLINK, min_size=1, max_size=2),
        "prefixes": st.lists(PREFIX, min_size=1, max_size=3),
        "routing": st.just("direct"),
    },
    optional={"routes": st.lists(ROUTE, max_size=2)},
) | st.fixed_dictionaries(
    {"uplinks": st.lists(UPLINK, min_size=1, max_size=2), "prefixes": st.lists(PREFIX, min_size=1, max_size=3)},
    optional={"routing": st.just("fabric"), "routes": st.just([])},
)
PART = CONFIG.flatmap(lambda c: st.sets(st.sampled_from(sorted(c))).map(lambda keys: {k: c[k] for k in c if k in keys}))
OBJECTS = st.sampled_from(["0123456789ab", "ba9876543210"])
REQUESTS = st.one_of(
    st.builds(pure.Request, CONFIG, st.sampled_from(["merged", "replaced"]), OBJECTS),
    st.builds(pure.Request, PART, st.just("merged"), OBJECTS),
    st.builds(pure.Request, st.just({}), st.sampled_from(["deleted", "rolled_back"]), OBJECTS),
)
CUT = st.floats(0, 1)
Steps = tuple[Step[pure.State], ...]
Case = tuple[pure.State, pure.Request, Steps]


def prefix(steps: Sequence[Step[pure.State]], cut: float) -> Sequence[Step[pure.State]]:
    return steps[: round(cut * len(steps))]


# What happens to a node


def without_router(state: pure.State) -> pure.State:
    """Somebody deletes the router device; the kernel takes its routes along."""
    if state.router is None:
        return state
    return replace(pure.DeleteRouter().effect(state), generations=dict.fromkeys(state.generations, False))


def with_attachment(state: pure.State) -> pure.State:
    router_runs = state.hooks.get(pure.ROUTER_HOOK, ("", ""))[1]
    if not router_runs:
        return state
    hooks = {**state.hooks, "at-web-1": ("web-1", router_runs)}
    return replace(state, hooks=hooks, attachments=frozenset(["web-1"]))


def without_attachment(state: pure.State) -> pure.State:
    """A container ends; its pin stays."""
    hooks = {key: ("" if key == "at-web-1" else name, gen) for key, (name, gen) in state.hooks.items()}
    return replace(state, hooks=hooks, attachments=frozenset())


def half_loaded(state: pure.State) -> pure.State:
    """Killed while programs were pinned."""
    return replace(state, generations=dict.fromkeys(state.generations, False), maps=True)


def tampered(state: pure.State) -> pure.State:
    """Somebody takes the router device down and its addresses and settings away."""
    if state.router is None:
        return state
    return replace(state, router=pure.Router(False, 1300, frozenset(), (("ipv4", "forwarding", "0"),)))


def rerouted(state: pure.State) -> pure.State:
    return replace(state, routes=frozenset(sorted(state.routes, key=str)[:-1]))


def unplugged(state: pure.State) -> pure.State:
    """An uplink comes again with another number: the old link is dead."""
    hooks = {key: ("" if key == "uplink-eth1" else name, gen) for key, (name, gen) in state.hooks.items()}
    return replace(state, hooks=hooks)


def unknown(state: pure.State) -> pure.State:
    """Somebody removes the pins of programs and maps; hooks go on to run them."""
    return replace(
        state, generations={}, owner="", hooks={key: (name, "") for key, (name, _gen) in state.hooks.items()}
    )


def forgotten(state: pure.State) -> pure.State:
    return replace(state, document=None)


def unrecorded(state: pure.State) -> pure.State:
    """A node of the time before versions were kept."""
    return replace(state, programs=None, objects=frozenset(), shelf=False)


def half_kept(state: pure.State) -> pure.State:
    """Killed while it kept the first object, or forgot the last one."""
    return replace(state, objects=frozenset(), shelf=True)


def rebooted(state: pure.State) -> pure.State:
    """Only what is on disk survives."""
    return replace(BARE, objects=state.objects, shelf=state.shelf, programs=state.programs, document=state.document)


def other_gateway(state: pure.State) -> pure.State:
    """Somebody changes the gateway of the routes to other nodes."""
    return replace(
        state, routes=frozenset(replace(r, via="192.0.2.77") if r.via and ":" not in r.to else r for r in state.routes)
    )


LIFE: list[Callable[[pure.State], pure.State]] = [
    without_router, with_attachment, without_attachment, half_loaded, tampered,
    rerouted, other_gateway, unplugged, unknown, forgotten, unrecorded, half_kept, rebooted,
]  # fmt: skip


def planned(state: pure.State, request: pure.Request) -> Steps | None:
    """None when the wish is refused."""
    try:
        return dataplane_wish.plan(state, request)
    except FastpathError:
        return None


CONFIGURED: dict[str, Any] = {
    "uplinks": [{"name": "eth0"}, {"name": "eth1"}],
    "prefixes": ["10.128.3.0/24", "fd00:128:3::/64"],
    "routing": "direct",
    "routes": [{"to": "10.128.4.0/24", "via": "192.0.2.14"}],
}
SERVING = predict(BARE, dataplane_wish.plan(BARE, pure.Request(CONFIGURED, "replaced", "0123456789ab")))


@st.composite
def states(draw: st.DrawFn) -> pure.State:
    """Where the life of a node leads to, and requests, each killed at any step; mostly from a node that serves."""
    state = draw(st.sampled_from([SERVING, with_attachment(SERVING), SERVING, BARE]))
    killed = draw(st.lists(st.tuples(REQUESTS, CUT | st.just(1.0)), max_size=2))
    for happenings in [draw(st.lists(st.sampled_from(LIFE), max_size=2)) for _life in range(len(killed) + 1)]:
        for happen in happenings:
            state = happen(state)
        if killed:
            request, cut = killed.pop()
            state = predict(state, prefix(planned(state, request) or (), cut))
    return state


@st.composite
def plans(draw: st.DrawFn) -> Case:
    state, request = draw(states()), draw(REQUESTS)
    steps = planned(state, request)
    assume(steps is not None)
    assert steps is not None
    event(f"{request.state}, {len(steps) if len(steps) < 4 else 'many'} steps")
    return state, request, steps


# What a kernel would say to an operation


class Refused(Exception):
    """The kernel does not do this in this state."""


def why_not(state: pure.State, op: Op[pure.State]) -> str:
    """What the kernel would object to; "" for nothing."""
    problems: dict[str, bool] = {}
    if isinstance(op, pure.CreateRouter):
        problems = {"the router device exists": state.router is not None}
    elif isinstance(op, pure.ConfigureRouter):
        problems = {"there is no router device": state.router is None}
    elif isinstance(op, (pure.Load, pure.Test)):
        problems = {
            "there is no router device": state.router is None,
            f"object {op.object_id} is not kept": op.object_id not in state.objects,
        }
    elif isinstance(op, (pure.Fill, pure.Check, pure.HandOver)):
        others = {gen for name, gen in state.hooks.values() if name} - {op.generation}
        problems = {
            f"{op.generation} is not loaded": op.generation not in state.generations,
            f"{others} run": not isinstance(op, pure.Fill) and bool(others - {""}),
        }
    elif isinstance(op, pure.AddRoute):
        taken = [route for route in state.routes if route.to == op.route.to and route != op.route]
        problems = {
            "there is no router device": state.router is None and not op.route.via,
            f"there is {taken} already": bool(taken),
        }
    elif isinstance(op, pure.Hook):
        problems = {
            f"{op.interface} is not there": op.interface == pure.ROUTER and state.router is None,
            f"{op.generation} is not loaded": op.generation not in state.generations,
        }
    elif isinstance(op, pure.RemoveMaps):
        problems = {"programs use them": bool(state.generations)}
    return ", ".join(words for words, true in problems.items() if true)


def carry_out(state: pure.State, op: Op[pure.State]) -> pure.State:
    reason = why_not(state, op)
    if reason:
        raise Refused(reason)
    return op.effect(state)


def assert_safe(state: pure.State) -> None:
    assert state.router or not [route for route in state.routes if not route.via], "a prefix leads nowhere"
    assert len({route.to for route in state.routes}) == len(state.routes), "the kernel keeps one route for each prefix"
    assert state.maps or not state.generations, "programs without their maps"


def reached(state: pure.State, steps: Sequence[Step[pure.State]]) -> pure.State:
    for after in walk(state, steps):
        state = after
    return state


def walk(state: pure.State, steps: Sequence[Step[pure.State]]) -> Iterator[pure.State]:
    """The states that the steps pass, each checked for safety."""
    assert_safe(state)
    for step in steps:
        state = carry_out(state, step.do)
        assert_safe(state)
        yield state


# Properties


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


def settled(state: pure.State) -> pure.State:
    """Without what a rollback cannot or need not bring back: dead links, loaded programs."""
    hooks = {key: (name, "") for key, (name, _gen) in state.hooks.items() if name}
    return replace(state, hooks=hooks, generations={}, maps=False, owner="", shelf=False)


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


def test_new_object_replaces_programs_without_a_gap() -> None:
    config = {"uplinks": [{"name": "eth0"}], "prefixes": ["10.128.3.0/24"]}
    old = predict(BARE, dataplane_wish.plan(BARE, pure.Request(config, "replaced", "old")))
    old = with_attachment(old)
    steps = dataplane_wish.plan(old, pure.Request(config, "replaced", "new"))
    assert kinds(steps) == "Keep Test Load Hook Hook Hook Check HandOver Choose"
    assert not any(step.disrupts for step in steps)
    end = predict(old, steps)
    assert set(end.hooks) == {"at-web-1", "router", "uplink-eth0"}
    assert {gen for _name, gen in end.hooks.values()} == {"new_10-128-3-1"}
    assert end.generations == {"old_10-128-3-1": True, "new_10-128-3-1": True}


def kinds(steps: Sequence[Step[pure.State]]) -> str:
    return " ".join(type(step.do).__name__ for step in steps)


def upgraded(*objects: str) -> pure.State:
    """A node that ran one after the other."""
    state = with_attachment(SERVING)
    for name in objects:
        state = predict(state, dataplane_wish.plan(state, pure.Request(CONFIGURED, "replaced", name)))
    return state


BACK = pure.Request({}, "rolled_back", "")


def test_previous_version_stays_until_the_next_upgrade() -> None:
    steps = dataplane_wish.plan(upgraded("bb"), pure.Request(CONFIGURED, "replaced", "cc"))
    assert kinds(steps).endswith("Choose Unload Forget")
    end = predict(upgraded("bb"), steps)
    assert end.programs == pure.Programs("cc", "bb")
    assert end.objects == {"bb", "cc"}
    assert {name.partition("_")[0] for name in end.generations} == {"bb", "cc"}


def test_rollback_only_updates_links_and_is_done_once() -> None:
    state = upgraded("bb")
    steps = dataplane_wish.plan(state, BACK)
    assert kinds(steps) == "Test Fill Hook Hook Hook Hook Check HandOver Choose"
    end = predict(state, steps)
    assert end.programs == pure.Programs("0123456789ab", "bb", rolled_back=True)
    assert set(end.generations) == set(state.generations)
    assert dataplane_wish.plan(end, BACK) == ()
    again = dataplane_wish.plan(end, pure.Request(CONFIGURED, "replaced", "bb"))
    assert kinds(again) == kinds(steps)
    assert predict(end, again).programs == pure.Programs("bb", "0123456789ab")


def test_rollback_after_a_reboot_loads_what_is_kept() -> None:
    state = rebooted(upgraded("bb"))
    assert "Keep" not in kinds(dataplane_wish.plan(state, BACK))
    end = predict(state, dataplane_wish.plan(state, BACK))
    assert end.owner.startswith("0123456789ab")


@pytest.mark.parametrize("state", [BARE, SERVING, unrecorded(SERVING)])
def test_without_a_previous_version_there_is_no_way_back(state: pure.State) -> None:
    with pytest.raises(FastpathError, match="cannot go back to the previous version"):
        dataplane_wish.plan(state, BACK)


def test_new_version_that_was_never_checked_is_left_on_a_failed_check() -> None:
    """A run was killed after the last hook: what the next one finds wrong it puts right."""
    state = upgraded("bb")
    request = pure.Request(CONFIGURED, "replaced", "cc")
    steps = dataplane_wish.plan(state, request)
    ends = [index for index, step in enumerate(steps) if isinstance(step.do, (pure.Check, pure.HandOver))]
    for end in (ends[0], ends[1] + 1):  # before the check, and after the maps were handed over
        killed = predict(state, steps[:end])
        rest = dataplane_wish.plan(killed, request)
        check = next(index for index, step in enumerate(rest) if isinstance(step.do, pure.Check))
        left = predict(killed, rest[:check])
        for step in reversed(rest[: check + 1]):
            for op in step.undo:
                left = carry_out(left, op)
        assert {gen.partition("_")[0] for _name, gen in left.hooks.values()} == {"bb"}
        assert left.owner.startswith("bb")
        assert left.programs == pure.Programs("bb", "0123456789ab")


@given(st.floats(0, 1))
def test_killed_rollback_can_go_either_way(cut: float) -> None:
    state = upgraded("bb")
    killed = predict(state, prefix(dataplane_wish.plan(state, BACK), cut))
    for request, name in ((BACK, "0123456789ab"), (pure.Request(CONFIGURED, "replaced", "bb"), "bb")):
        end = reached(killed, dataplane_wish.plan(killed, request))
        assert end.owner.startswith(name)
        assert {gen for _name, gen in end.hooks.values()} == {end.owner}
        assert dataplane_wish.plan(end, request) == ()


def test_prefix_leads_to_the_router_device() -> None:
    config = {"uplinks": [{"name": "eth0"}], "prefixes": ["10.128.3.0/24", "fd00:128:3::/64"]}
    end = predict(BARE, dataplane_wish.plan(BARE, pure.Request(config, "replaced", "new")))
    assert end.routes == {Route("10.128.3.0/24"), Route("fd00:128:3::/64")}
    assert end.router
    assert {"10.128.3.1/32", "fd00:128:3::1/128"} <= end.router.addresses
    assert end.router.settings == dataplane_plan.SETTINGS
    assert end.router.mtu == 1500


def requested(**changes: Any) -> Steps:
    return dataplane_wish.plan(SERVING, pure.Request(changes, "merged", "0123456789ab"))


def test_new_gateway_of_a_route_replaces_it_and_is_undone() -> None:
    old, new = Route("10.128.4.0/24", "192.0.2.14"), Route("10.128.4.0/24", "192.0.2.99")
    steps = requested(routes=[{"to": new.to, "via": new.via}])
    assert [step.do for step in steps[:-1]] == [pure.ReplaceRoute(new, old)]
    assert not any(step.disrupts for step in steps)
    state = reached(SERVING, steps)
    assert state.routes == SERVING.routes - {old} | {new}
    for step in reversed(steps):
        for op in step.undo:
            state = carry_out(state, op)
    assert state == SERVING


@pytest.mark.parametrize("known", [True, False])
def test_programs_are_loaded_for_a_new_router_device(known: bool) -> None:
    """Whatever the old ones are said to be: they know the number of the old device."""
    gone = pure.DeleteRouter().effect(SERVING)
    gone = replace(gone, generations=dict.fromkeys(gone.generations, known))
    steps = dataplane_wish.plan(gone, pure.Request(CONFIGURED, "replaced", "0123456789ab"))
    types = [type(step.do) for step in steps]
    assert types.index(pure.CreateRouter) < types.index(pure.Load) < types.index(pure.Hook)
    assert types.count(pure.Hook) == len(SERVING.hooks)
    assert reached(gone, steps) == SERVING


def test_routes_of_a_router_that_has_gone_are_made_again() -> None:
    steps = dataplane_wish.plan(replace(SERVING, router=None), pure.Request(CONFIGURED, "replaced", "0123456789ab"))
    made = {step.do.route for step in steps if isinstance(step.do, pure.AddRoute)}
    assert made == {Route("10.128.3.0/24"), Route("fd00:128:3::/64")}


def test_what_disrupts_says_so() -> None:
    prefixes = {type(step.do): step.disrupts for step in requested(prefixes=["10.128.3.0/24"])}
    assert "fd00:128:3::1" in prefixes[pure.ConfigureRouter]
    assert prefixes[pure.DeleteRoute] == "traffic to fd00:128:3::/64"
    uplinks = {type(step.do): step.disrupts for step in requested(uplinks=[{"name": "eth0"}])}
    assert uplinks[pure.Unhook] == "container traffic over eth1"
    added = requested(prefixes=[*CONFIGURED["prefixes"], "10.129.0.0/16"])
    assert not any(step.disrupts for step in added)


def test_removal_is_undone_as_long_as_programs_are_loaded() -> None:
    steps = dataplane_wish.plan(SERVING, pure.Request({}, "deleted", ""))
    tried = [step for step in steps if isinstance(step.do, (pure.Unhook, pure.DeleteRoute, pure.DeleteRouter))]
    state = reached(SERVING, tried)
    for step in reversed(tried):
        for op in step.undo:
            state = carry_out(state, op)
    assert settled(state) == settled(SERVING)
