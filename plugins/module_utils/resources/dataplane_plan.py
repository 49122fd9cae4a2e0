# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane of a node: what is there, and the steps to what is wished. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import FastpathError
from ..kernel.datapath import FROM_CONTAINER, FROM_HOST, FROM_NETKIT, FROM_WIRE
from ..kernel.links import Route
from ..kernel.uplinks import Uplink
from ..plan import Step
from . import fields

ROUTER = "fastpath0"
LINK_LOCAL = "fe80::1/64"  # from here the host solicits containers when a packet's own source is on another interface
ROUTER_HOOK = "router"
UPLINK_HOOK, CONTAINER_HOOK, NETKIT_HOOK = "uplink-", "at-", "nk-"  # what follows is an uplink or an attachment
SETTINGS = (("ipv4", "forwarding", "1"), ("ipv4", "rp_filter", "2"), ("ipv6", "forwarding", "1"))


@dataclass(frozen=True)
class Wish:
    """A checked config. Uplinks are names of interfaces that exist."""

    uplinks: tuple[str, ...]
    prefixes: tuple[str, ...]
    routing: str
    routes: frozenset[Route]

    @property
    def gateways(self) -> tuple[str, ...]:
        return tuple(fields.gateway(prefix) for prefix in self.prefixes)


@dataclass(frozen=True)
class Request:
    """What the caller asks for. `object_id` names the object file's content, "" when the file is not there."""

    config: Mapping[str, Any]
    state: str
    object_id: str


@dataclass(frozen=True)
class Router:
    up: bool
    mtu: int
    addresses: frozenset[str]
    settings: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class State:
    """hooks: key -> (interface or "" when it is gone, generation or "" when unknown);
    generations: name -> was it loaded for the router device that is there now;
    strangers: interface -> ids of foreign programs at its ingress."""

    router: Router | None = None
    router_taken: bool = False
    routes: frozenset[Route] = frozenset()
    generations: Mapping[str, bool] = field(default_factory=dict)
    hooks: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    maps: bool = False
    attachments: frozenset[str] = frozenset()
    uplinks: tuple[Uplink, ...] = ()
    strangers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    document: dict[str, Any] | None = None


# Operations


@dataclass(frozen=True)
class CreateRouter:
    mtu: int

    def effect(self, state: State) -> State:
        # programs of an earlier router device know its old number
        stale = dict.fromkeys(state.generations, False)
        return replace(state, router=Router(False, self.mtu, frozenset(), ()), generations=stale)


@dataclass(frozen=True)
class DeleteRouter:
    def effect(self, state: State) -> State:
        hooks = {key: ("" if key == ROUTER_HOOK else name, gen) for key, (name, gen) in state.hooks.items()}
        routes = frozenset(route for route in state.routes if route.via)
        return replace(state, router=None, routes=routes, hooks=hooks)


@dataclass(frozen=True)
class ConfigureRouter:
    """Give the router device exactly these properties."""

    router: Router

    def effect(self, state: State) -> State:
        return replace(state, router=self.router)


@dataclass(frozen=True)
class AddRoute:
    """via "": a prefix of this node, behind the router device."""

    route: Route

    def effect(self, state: State) -> State:
        return replace(state, routes=state.routes | {self.route})


@dataclass(frozen=True)
class ReplaceRoute:
    """Another gateway for the same prefix, in one step of the kernel."""

    route: Route
    old: Route

    def effect(self, state: State) -> State:
        return replace(state, routes=(state.routes - {self.old}) | {self.route})


@dataclass(frozen=True)
class DeleteRoute:
    route: Route

    def effect(self, state: State) -> State:
        return replace(state, routes=state.routes - {self.route})


@dataclass(frozen=True)
class Load:
    generation: str
    gateways: tuple[str, ...]

    def effect(self, state: State) -> State:
        # hooks that run an older load of this name no longer run what is pinned
        hooks = {key: (name, "" if gen == self.generation else gen) for key, (name, gen) in state.hooks.items()}
        return replace(state, generations={**state.generations, self.generation: True}, hooks=hooks, maps=True)


@dataclass(frozen=True)
class Unload:
    generation: str

    def effect(self, state: State) -> State:
        rest = {name: fresh for name, fresh in state.generations.items() if name != self.generation}
        return replace(state, generations=rest)


@dataclass(frozen=True)
class Hook:
    """Run a program of the generation on the interface, in place of one of ours."""

    key: str
    interface: str
    generation: str

    @property
    def program(self) -> str:
        if self.key == ROUTER_HOOK:
            return FROM_HOST
        if self.key.startswith(UPLINK_HOOK):
            return FROM_WIRE
        return FROM_NETKIT if self.key.startswith(NETKIT_HOOK) else FROM_CONTAINER

    def effect(self, state: State) -> State:
        return replace(state, hooks={**state.hooks, self.key: (self.interface, self.generation)})


@dataclass(frozen=True)
class Unhook:
    key: str

    def effect(self, state: State) -> State:
        return replace(state, hooks={key: value for key, value in state.hooks.items() if key != self.key})


@dataclass(frozen=True)
class RemoveMaps:
    def effect(self, state: State) -> State:
        return replace(state, maps=False)


@dataclass(frozen=True)
class Record:
    """Keep the document as this node's desired state; None removes it."""

    document: dict[str, Any] | None

    def effect(self, state: State) -> State:
        return replace(state, document=self.document)


# The plan


def smallest_mtu(have: State, want: Wish) -> int:
    """What fits through every uplink."""
    return min(uplink.mtu for uplink in have.uplinks if uplink.name in want.uplinks)


def installation(have: State, want: Wish, config: dict[str, Any], object_id: str) -> Iterator[Step[State]]:
    mtu = smallest_mtu(have, want)
    if have.router is None:
        yield Step(f"create router device {ROUTER}", "it is not there", CreateRouter(mtu), (DeleteRouter(),))
    router = Router(True, mtu, _router_addresses(want), _settings(want))
    before = have.router or Router(False, mtu, frozenset(), ())
    if before != router:
        gone = before.addresses - router.addresses
        yield Step(
            f"configure {ROUTER} with {', '.join(want.gateways)}",
            "it has another configuration" if have.router else "it is new",
            ConfigureRouter(router),
            (ConfigureRouter(before),) if have.router else (),
            f"containers that use the gateway {', '.join(sorted(gone))}" if gone else "",
        )
    yield from _routing(have, want)
    generation = _generation(object_id, want)
    loading = not have.generations.get(generation) or have.router is None
    if loading:
        known = generation in have.generations
        reason = "its router device is new" if known else "this version is not loaded"
        undo = () if known else (Unload(generation),) if have.maps else (Unload(generation), RemoveMaps())
        yield Step(f"load programs {generation}", reason, Load(generation, want.gateways), undo)
    yield from _hooking(have, want, generation, loading)
    if have.document != config:
        reason = "the node restores it at boot"
        yield Step("record the dataplane in /etc/fastpath", reason, Record(config), (Record(have.document),))
    for name in sorted(set(have.generations) - {generation}):
        yield Step(f"unload programs {name}", "no hook runs them any more", Unload(name))


def _routing(have: State, want: Wish) -> Iterator[Step[State]]:
    wanted = frozenset(Route(prefix) for prefix in want.prefixes) | want.routes
    kept = have.routes if have.router else frozenset(route for route in have.routes if route.via)
    for route in sorted(kept - wanted, key=fields.by_prefix):
        if not any(route.to == other.to for other in wanted):  # else it is replaced in place
            action, disrupts = f"remove route {_describe(route)}", f"traffic to {route.to}"
            yield Step(action, "it is not wanted", DeleteRoute(route), (AddRoute(route),), disrupts)
    for route in sorted(wanted - kept, key=fields.by_prefix):
        old = tuple(other for other in kept if other.to == route.to)
        do = ReplaceRoute(route, old[0]) if old else AddRoute(route)
        undo: tuple[Any, ...] = (ReplaceRoute(old[0], route),) if old else (DeleteRoute(route),)
        yield Step(f"route {_describe(route)}", "it is not there", do, undo)


def _hooking(have: State, want: Wish, generation: str, loading: bool) -> Iterator[Step[State]]:
    wanted = {ROUTER_HOOK: ROUTER, **{UPLINK_HOOK + name: name for name in want.uplinks}}
    attached = (CONTAINER_HOOK, NETKIT_HOOK)
    containers = {key: name for key, (name, _gen) in have.hooks.items() if key.startswith(attached) and name}
    for key, interface in sorted({**wanted, **containers}.items()):
        now = have.hooks.get(key)
        if now == (interface, generation) and not loading:
            continue
        hook = Hook(key, interface, generation)
        if now and now[0]:
            undo: tuple[Any, ...] = (Hook(key, interface, now[1]),) if now[1] in have.generations else ()
            yield Step(f"replace {hook.program} on {interface}", "it runs another version", hook, undo)
        else:
            yield Step(f"attach {hook.program} to {interface}", "it is not attached", hook, (Unhook(key),))
    for key, (interface, old) in sorted(have.hooks.items()):
        if key.startswith(UPLINK_HOOK) and key not in wanted:
            undo = (Hook(key, interface, old),) if interface and old in have.generations else ()
            disrupts = f"container traffic over {interface}" if interface else ""
            yield Step(f"detach from {interface or key}", "it is no uplink", Unhook(key), undo, disrupts)


def removal(have: State) -> Iterator[Step[State]]:
    if have.attachments:
        names = ", ".join(sorted(have.attachments))
        raise FastpathError(
            "remove", "the dataplane", f"it serves attachments: {names}", "Remove the attachments first"
        )
    for key, (interface, old) in sorted(have.hooks.items()):
        undo = (Hook(key, interface, old),) if interface and old in have.generations else ()
        disrupts = f"container traffic over {interface}" if interface and key.startswith(UPLINK_HOOK) else ""
        yield Step(f"detach from {interface or key}", "the dataplane is to go", Unhook(key), undo, disrupts)
    for route in sorted(have.routes, key=fields.by_prefix):
        yield Step(f"remove route {_describe(route)}", "the dataplane is to go", DeleteRoute(route), (AddRoute(route),))
    if have.router is not None:
        undo_router = (CreateRouter(have.router.mtu), ConfigureRouter(have.router))
        yield Step(f"delete router device {ROUTER}", "the dataplane is to go", DeleteRouter(), undo_router)
    for name in sorted(have.generations):
        yield Step(f"unload programs {name}", "the dataplane is to go", Unload(name))
    if have.maps:
        yield Step("remove the maps", "the dataplane is to go", RemoveMaps())
    if have.document is not None:
        yield Step("forget the dataplane in /etc/fastpath", "it is to go", Record(None), (Record(have.document),))


def _generation(object_id: str, want: Wish) -> str:
    """Programs differ by object and by the gateways written into them; bpffs refuses dots and the name tells."""
    gateways = [address for _version, address in sorted(fields.gateways(want.prefixes).items())]
    return "_".join([object_id or "unknown", *gateways]).replace(".", "-").replace(":", "-")


def _settings(want: Wish) -> tuple[tuple[str, str, str], ...]:
    families = {f"ipv{ipaddress.ip_network(prefix).version}" for prefix in want.prefixes}
    return tuple(setting for setting in SETTINGS if setting[0] in families)


def _router_addresses(want: Wish) -> frozenset[str]:
    addresses = frozenset(map(_host_prefix, want.gateways))
    return addresses | {LINK_LOCAL} if 6 in fields.gateways(want.prefixes) else addresses


def _host_prefix(address: str) -> str:
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"


def _describe(route: Route) -> str:
    return f"{route.to} via {route.via}" if route.via else f"{route.to} to {ROUTER}"


def public(state: State) -> dict[str, Any]:
    """The state in the config's shape; {} when there is no dataplane."""
    if state.router is None:
        return {}
    uplinks = sorted(key[len(UPLINK_HOOK) :] for key in state.hooks if key.startswith(UPLINK_HOOK))
    routes = sorted((route for route in state.routes if route.via), key=fields.by_prefix)
    return {
        "uplinks": [{"name": name} for name in uplinks],
        "prefixes": [route.to for route in sorted(state.routes, key=fields.by_prefix) if not route.via],
        "routing": "direct" if routes else (state.document or {}).get("routing", "fabric"),
        "routes": [fields.public_route(route) for route in routes],
    }
