# SPDX-License-Identifier: GPL-3.0-or-later
"""Any plan of attachments, from any state that a node can be in: it converges, can be cut anywhere, and undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel.datapath import SLOTS
from ansible_collections.fastpath.node.plugins.module_utils.plan import Op, Step, predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_plan as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish

NODE = pure.Node(("10.128.3.0/24", "fd00:128:3::/64"), 1500, "g1")
NAMES = ("web-1", "web-2", "web-3", "docker0")
CONTAINERS: tuple[dict[str, Any], ...] = (*({"netns": f"/run/netns/{letter}"} for letter in "abc"), {"pid": 7})
REFERENCES = tuple(f"{kind}:{value}" for container in CONTAINERS for kind, value in container.items())
ADDRESSES = ("10.128.3.7/32", "10.128.3.8", "10.128.3.9/32", "fd00:128:3::7/128", "FD00:128:3:0::8")
FOREIGN = frozenset(["lo", "docker0", "fastpath0"])
BARE = pure.State(node=NODE, containers=frozenset(REFERENCES), foreign=FOREIGN)

# What a node can be in


def example(name: str, container: int, *addresses: str) -> dict[str, Any]:
    return {"name": name, "container": CONTAINERS[container], "addresses": list(addresses)}


SERVED: tuple[dict[str, Any], ...] = (
    {**example("web-1", 0, "10.128.3.7", "fd00:128:3::7"), "mtu": 1400, "mac": "02:00:00:00:00:01", "routes": []},
    example("web-2", 1, "10.128.3.8"),
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "container": st.sampled_from(CONTAINERS),
        "addresses": st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2, unique=True),
        "interface": st.sampled_from(["eth0", "eth1"]),
        "mtu": st.sampled_from([1280, 1400, 1500]),
        "mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"]),
        "routes": st.lists(
            st.sampled_from([{"to": "10.0.0.0/8"}, {"to": "0.0.0.0/0", "via": "10.128.3.1"}]), max_size=2
        ),
        "kind": st.sampled_from(["auto", "veth"]),
    },
)
ITEMS = st.builds(
    lambda base, changes: {**base, **changes},
    st.sampled_from([*SERVED, example("web-3", 2, "10.128.3.9")]),
    CHANGES,
)
CONFIGS = st.lists(ITEMS, max_size=3, unique_by=lambda item: str(item["name"])).map(tuple)
PARTS = ITEMS.flatmap(
    lambda item: st.sets(st.sampled_from(sorted(item))).map(
        lambda keys: {k: item[k] for k in item if k in {"name", *keys}}
    )
)
REQUESTS = st.one_of(
    st.builds(pure.Request, CONFIGS, st.sampled_from(["merged", "replaced", "overridden"]), st.booleans()),
    st.builds(pure.Request, st.tuples(PARTS), st.just("merged"), st.booleans()),
    st.builds(
        pure.Request, st.lists(ITEMS, max_size=2, unique_by=lambda i: str(i["name"])).map(tuple), st.just("deleted")
    ),
)
CUT = st.floats(0, 1)


def prefix(steps: Sequence[Step[pure.State]], cut: float) -> Sequence[Step[pure.State]]:
    return steps[: round(cut * len(steps))]


def destroyed(state: pure.State, names: frozenset[str]) -> pure.State:
    """Without these links, as the kernel leaves it: pins and rows of the map stay."""
    return replace(
        state,
        links={name: end for name, end in state.links.items() if name not in names},
        interfaces={name: interface for name, interface in state.interfaces.items() if name not in names},
        endpoints={
            address: replace(point, attachment="") if point.attachment in names else point
            for address, point in state.endpoints.items()
        },
        programs={name: fresh and name not in names for name, fresh in state.programs.items()},
    )


def vanish(state: pure.State, reference: str) -> pure.State:
    """A container ends, and its namespace with it."""
    names = frozenset(name for name, end in state.links.items() if end.container == reference and end.connected)
    return replace(destroyed(state, names), containers=state.containers - {reference})


def appear(state: pure.State, reference: str) -> pure.State:
    return replace(state, containers=state.containers | {reference})


def moved(state: pure.State, reference: str) -> pure.State:
    """The container has another namespace now, somebody keeps the old one."""
    names = {name for name, end in state.links.items() if end.container == reference}
    return replace(
        state,
        links={name: replace(end, connected=end.connected and name not in names) for name, end in state.links.items()},
        interfaces={name: interface for name, interface in state.interfaces.items() if name not in names},
    )


def upgraded(state: pure.State, reference: str) -> pure.State:
    """The dataplane runs another object; container programs do not yet."""
    return replace(
        state, node=replace(NODE, generation=f"g-{reference}"), programs=dict.fromkeys(state.programs, False)
    )


def tampered(state: pure.State, reference: str) -> pure.State:
    """Somebody in the container takes its addresses, routes and link down; also what a killed Configure leaves."""
    hit = {name for name, end in state.links.items() if end.container == reference}
    none: frozenset[Any] = frozenset()
    return replace(
        state,
        interfaces={
            name: replace(interface, up=False, mtu=1300, addresses=none, routes=none) if name in hit else interface
            for name, interface in state.interfaces.items()
        },
    )


def half_made(state: pure.State, _reference: str) -> pure.State:
    """CreateLink was killed before it wrote whose link it is."""
    name = "web-3"
    if name in state.links or name in state.foreign:
        return state
    return replace(state, links={**state.links, name: pure.HostEnd("", up=False, connected=False)})


def forgotten(state: pure.State, _reference: str) -> pure.State:
    return replace(state, document=None)


def switched_off(state: pure.State, reference: str) -> pure.State:
    """Somebody takes the host end down; also what a run leaves that was killed at its end."""
    return replace(
        state, links={n: replace(end, up=end.up and end.container != reference) for n, end in state.links.items()}
    )


EVENTS = st.sampled_from([vanish, appear, moved, upgraded, tampered, switched_off, half_made, forgotten])
HAPPEN = st.lists(st.tuples(EVENTS, st.sampled_from(REFERENCES)), max_size=2)
SERVING = predict(BARE, wish.plan(BARE, pure.Request(SERVED, "replaced")))


@st.composite
def states(draw: st.DrawFn) -> pure.State:
    """Where the life of containers leads to, and requests, each killed at any step; mostly from a node that serves."""
    state = draw(st.sampled_from([SERVING, SERVING, SERVING, BARE]))
    killed = draw(st.lists(st.tuples(REQUESTS, CUT | st.just(1.0)), max_size=2))
    for happenings in [draw(HAPPEN) for _life in range(len(killed) + 1)]:
        for happen, reference in happenings:
            state = happen(state, reference)
        if killed:
            request, cut = killed.pop()
            state = predict(state, prefix(planned(state, request) or (), cut))
    return state


def planned(state: pure.State, request: pure.Request) -> tuple[Step[pure.State], ...] | None:
    """None when the wish is refused."""
    try:
        return wish.plan(state, request)
    except InvalidConfig:
        return None


Case = tuple[pure.State, pure.Request, tuple[Step[pure.State], ...]]


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
    name = getattr(op, "name", "")
    if isinstance(op, pure.CreateLink):
        taken = {(end.container, state.interfaces[n].name) for n, end in state.links.items() if end.connected}
        problems = {
            f"{op.container} is not there": op.container not in state.containers,
            f"{name} exists": name in state.links or name in state.foreign,
            f"{op.container} has an {op.interface}": (op.container, op.interface) in taken,
        }
    elif isinstance(op, pure.Publish):
        owners = {state.endpoints[address].attachment for address, _row in op.endpoints if address in state.endpoints}
        problems = {
            f"{name} is not there": name not in state.links,
            f"its addresses are those of {owners}": bool(owners - {"", name}),
        }
    else:
        problems = {
            f"{name} is not there": isinstance(op, (pure.Attach, pure.SetUp)) and name not in state.links,
            f"the other end of {name} is not there": isinstance(op, pure.Configure) and name not in state.interfaces,
        }
    return ", ".join(words for words, true in problems.items() if true)


def carry_out(state: pure.State, op: Op[pure.State]) -> pure.State:
    reason = why_not(state, op)
    if reason:
        raise Refused(reason)
    return op.effect(state)


def assert_safe(state: pure.State) -> None:
    for name, end in state.links.items():
        assert not end.up or name in state.programs, f"{name} is up without a program"
    for address, endpoint in state.endpoints.items():
        assert endpoint.attachment in ("", *state.links), f"{address} leads to no link"
    for name in state.links:
        slots = {endpoint.slot for endpoint in state.endpoints.values() if endpoint.attachment == name}
        assert len(slots) <= 1, f"{name} has several rows of statistics"


def walk(state: pure.State, steps: Sequence[Step[pure.State]]) -> Iterator[pure.State]:
    """The states that the steps pass, each checked for safety."""
    assert_safe(state)
    for step in steps:
        state = carry_out(state, step.do)
        assert_safe(state)
        yield state


def reached(state: pure.State, steps: Sequence[Step[pure.State]]) -> pure.State:
    for after in walk(state, steps):
        state = after
    return state


# Properties


@given(plans(), CUT)
def test_killed_run_is_completed_by_the_next(case: Case, cut: float) -> None:
    state, request, steps = case
    killed = reached(state, prefix(steps, cut))
    again = reached(killed, wish.plan(killed, request))
    through = predict(state, steps)
    assert pure.public(again) == pure.public(through)
    assert again.document == through.document
    assert wish.plan(again, request) == ()


def settled(state: pure.State) -> pure.State:
    """Without what no attachment uses: rows and pins whose link is gone, and links whose container is."""
    lost = frozenset(name for name, end in state.links.items() if not end.connected)
    clean = destroyed(state, lost)
    return replace(
        clean,
        endpoints={address: point for address, point in clean.endpoints.items() if point.attachment},
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
    steps = planned(BARE, pure.Request(config, state))
    assume(steps is not None)
    assert not any(step.disrupts for step in steps or ())


@given(states(), CONFIGS)
def test_gathered_is_a_config_that_changes_nothing(state: pure.State, config: tuple[dict[str, Any], ...]) -> None:
    request = pure.Request(config, "overridden", skip_absent=True)
    steps = planned(state, request)
    assume(steps is not None)
    end = predict(state, steps or ())
    gathered = tuple(pure.public(end))
    assume({item["name"] for item in gathered} == {item["name"] for item in request.config})
    again = wish.plan(end, pure.Request(gathered, "overridden"))
    assert [type(step.do) for step in again] in ([], [pure.Record])


# A slow and simple model of the states' meaning


def meaning(written: Mapping[str, Any]) -> dict[str, Any]:
    """What an item of a config means, in the shape of `public`."""
    addresses = sorted(f"{address.partition('/')[0]}".lower().replace(":0::", "::") for address in written["addresses"])
    versions = {":" in address for address in addresses}
    default = [{"to": "0.0.0.0/0", "via": "10.128.3.1"}] if False in versions else []
    default += [{"to": "::/0", "via": "fd00:128:3::1"}] if True in versions else []
    routes = [{"via": "10.128.3.1", **route} for route in written.get("routes", default)]
    return {
        "name": written["name"],
        "container": {kind: str(value) for kind, value in written["container"].items()},
        "kind": "veth",
        "interface": written.get("interface", "eth0"),
        "addresses": sorted(f"{address}/{128 if ':' in address else 32}" for address in addresses),
        "mtu": written.get("mtu", 1500),
        "mac": written.get("mac", wish.derived_mac(written["name"])),
        "routes": sorted(routes, key=lambda route: (":" in route["to"], route["to"])),
    }


def assert_serves(state: pure.State, item: Mapping[str, Any]) -> None:
    """All that packets of this attachment need is there, exactly."""
    name = item["name"]
    reference = "".join(f"{kind}:{value}" for kind, value in item["container"].items())
    assert state.links[name] == pure.HostEnd(reference, up=True, connected=True)
    assert state.programs[name]
    assert state.interfaces[name].up
    points = {address: point for address, point in state.endpoints.items() if point.attachment == name}
    slot = min(point.slot for point in points.values())
    assert points == {
        pure.bare(address): pure.Endpoint(name, slot, item["mac"], item["mtu"]) for address in item["addresses"]
    }


@given(plans())
def test_plan_leads_safely_to_what_the_request_means(case: Case) -> None:
    state, request, steps = case
    end = reached(state, steps)
    assert wish.plan(end, request) == ()
    kept = {item["name"]: item for item in state.document or ()}
    wanted = {item["name"]: item for item in request.config}
    if request.state == "merged":
        wanted = {name: {**kept.get(name, {}), **item} for name, item in wanted.items()}
    before = {item["name"]: item for item in pure.public(state)}
    here: dict[str, Any] = {}
    if request.state == "deleted":
        expected = {name: item for name, item in before.items() if wanted and name not in wanted}
    else:
        here = {n: meaning(i) for n, i in wanted.items() if "".join(wish.references([i])) in state.containers}
        absent = {n: i for n, i in before.items() if n in wanted and n not in here}
        others = {} if request.state == "overridden" else {n: i for n, i in before.items() if n not in wanted}
        expected = {**others, **absent, **here}
    assert pure.public(end) == [expected[name] for name in sorted(expected)]
    for item in here.values():
        assert_serves(end, item)
    owners = {(point.attachment, point.slot) for point in end.endpoints.values()}
    assert len({slot for _name, slot in owners}) == len(owners), "a row of statistics has one owner"
    assert {name for name, _slot in owners} | set(end.programs) <= set(end.links), "endpoints or pins without a link"


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
    assert_serves(end, meaning({**SERVED[0], "interface": "eth1"}))
    assert end.interfaces["web-1"].name == "eth1"
    assert set(end.programs) == set(end.links) == {"web-1"}
    assert [step.do.fresh for step in steps if isinstance(step.do, pure.Publish)] == [True]
