# SPDX-License-Identifier: GPL-3.0-or-later
"""The lives of a dataplane: what a node can be in, what can happen to it, and what its kernel objects to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel.uplinks import Uplink
from ansible_collections.fastpath.node.plugins.module_utils.plan import Op, Step, predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_wish

from . import life

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
Steps = tuple[Step[pure.State], ...]
Case = tuple[pure.State, pure.Request, Steps]


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


def states() -> st.SearchStrategy[pure.State]:
    """Mostly from a node that serves."""
    starts = [SERVING, with_attachment(SERVING), SERVING, BARE]
    return life.lives(starts, st.lists(st.sampled_from(LIFE), max_size=2), REQUESTS, planned)


def plans() -> st.SearchStrategy[Case]:
    return life.cases(states(), REQUESTS, planned)


# What a kernel would say to an operation


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


def assert_safe(state: pure.State) -> None:
    assert state.router or not [route for route in state.routes if not route.via], "a prefix leads nowhere"
    assert len({route.to for route in state.routes}) == len(state.routes), "the kernel keeps one route for each prefix"
    assert state.maps or not state.generations, "programs without their maps"


_KERNEL = life.Kernel(why_not, assert_safe)
carry_out, walk, reached = _KERNEL.carry_out, _KERNEL.walk, _KERNEL.reached


def settled(state: pure.State) -> pure.State:
    """Without what a rollback cannot or need not bring back: dead links, loaded programs."""
    hooks = {key: (name, "") for key, (name, _gen) in state.hooks.items() if name}
    return replace(state, hooks=hooks, generations={}, maps=False, owner="", shelf=False)
