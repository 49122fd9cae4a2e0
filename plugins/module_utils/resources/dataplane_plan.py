# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps from the dataplane that is there to the one that is wished. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import FastpathError
from ..kernel.links import Route
from ..plan import Step
from . import fields
from .dataplane_state import (
    CONTAINER_HOOK,
    NETKIT_HOOK,
    ROUTER,
    ROUTER_HOOK,
    UPLINK_HOOK,
    AddRoute,
    Check,
    Choose,
    ConfigureRouter,
    CreateRouter,
    DeleteRoute,
    DeleteRouter,
    Fill,
    Forget,
    HandOver,
    Hook,
    Keep,
    Load,
    Programs,
    Record,
    RemoveMaps,
    ReplaceRoute,
    Router,
    State,
    Test,
    Unhook,
    Unload,
)

LINK_LOCAL = "fe80::1/64"  # from here the host solicits containers when a packet's own source is on another interface
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


def smallest_mtu(have: State, want: Wish) -> int:
    """What fits through every uplink."""
    return min(uplink.mtu for uplink in have.uplinks if uplink.name in want.uplinks)


def installation(
    have: State, want: Wish, config: dict[str, Any], object_id: str, back: bool = False
) -> Iterator[Step[State]]:
    """back: to programs that ran before."""
    chosen = _chosen(have.programs, object_id, back)
    yield from _router(have, want)
    yield from _routing(have, want)
    yield from _programs(have, want, chosen)
    if have.document != config:
        reason = "the node restores it at boot"
        yield Step("record the dataplane in /etc/fastpath", reason, Record(config), (Record(have.document),))
    if have.programs != chosen:
        action, reason = f"record programs {chosen.current} in /etc/fastpath", "the node loads them at boot"
        yield Step(action, reason, Choose(chosen), (Choose(have.programs),))
    yield from _leftovers(have, want, chosen)


def _chosen(now: Programs | None, object_id: str, back: bool) -> Programs:
    if now is None:
        return Programs(object_id)
    return now if now.current == object_id else Programs(object_id, now.current, back)


def _router(have: State, want: Wish) -> Iterator[Step[State]]:
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


def _programs(have: State, want: Wish, chosen: Programs) -> Iterator[Step[State]]:
    """Another version is tested, loaded beside the running one, filled with its state and put in its place hook by
    hook; the running one stays whole until the new one has served."""
    object_id, generation = chosen.current, _generation(chosen.current, want)
    loading = have.router is None or not have.generations.get(generation)
    hooking = tuple(_hooking(have, want, generation, loading))
    running = {have.owner} | {gen for name, gen in have.hooks.values() if name}
    sources = tuple(sorted(running & set(have.generations) - {generation}))
    old = _fallback(have, want, generation)
    back = (HandOver(old, (generation,)),) if old else ()
    if object_id not in have.objects:
        keep, forget = Keep(object_id), Forget(frozenset([object_id]))
        yield Step(f"keep object {object_id}", "it is not kept on the node", keep, (forget,))
    if loading or generation not in running:
        test = Test(object_id, want.gateways, want.uplinks)
        yield Step(f"test programs {object_id} on sample packets", "they are to serve", test)
    if loading:
        known = generation in have.generations
        reason = "its router device is new" if known else "this version is not loaded"
        gone = () if known else (Unload(generation),) if have.maps else (Unload(generation), RemoveMaps())
        load = Load(generation, object_id, want.gateways)
        yield Step(f"load programs {generation}", reason, load, (*back, *gone))
    elif have.owner in sources:
        fill = Fill(generation, generation not in running)
        yield Step(f"fill the maps of {generation}", "others have served meanwhile", fill, back)
    yield from hooking
    if old and (hooking or have.owner != generation or have.programs != chosen):
        action, reason = f"check programs {generation}", "they serve in the place of others"
        yield Step(action, reason, Check(generation), _way_back(have, want, generation, old))
    if sources or have.owner != generation:
        reason = "what programs write is in them" if sources else "they run"
        yield Step(f"hand the maps over to {generation}", reason, HandOver(generation, sources))


def _fallback(have: State, want: Wish, generation: str) -> str:
    """The generation that can take over again at once, "" when there is none."""
    known = [have.owner, _generation(have.programs.current, want)] if have.programs else [have.owner]
    usable = [name for name in known if name != generation and have.generations.get(name)]
    return usable[0] if usable and have.router else ""


def _way_back(have: State, want: Wish, generation: str, old: str) -> tuple[Any, ...]:
    """For hooks that an earlier run, killed before its end, has replaced; those of this run have a way of their own."""
    wanted = {*_wanted(have, want)}
    replaced = {key: name for key, (name, gen) in have.hooks.items() if name and gen == generation and key in wanted}
    hooks = tuple(Hook(key, name, old) for key, name in sorted(replaced.items()))
    idle = old not in {gen for name, gen in have.hooks.values() if name}
    return (Fill(old, idle), *hooks, HandOver(old, (generation,))) if hooks else ()


def _leftovers(have: State, want: Wish, chosen: Programs) -> Iterator[Step[State]]:
    """The version before stays loaded, as long as it fits, and its object is kept."""
    kept = {_generation(chosen.current, want)}
    previous = _generation(chosen.previous, want)
    if chosen.previous and have.router and have.generations.get(previous):
        kept.add(previous)
    for name in sorted(set(have.generations) - kept):
        yield Step(f"unload programs {name}", "no hook runs them any more", Unload(name))
    unused = have.objects - {chosen.current, chosen.previous}
    if unused:
        yield Step(f"forget object {', '.join(sorted(unused))}", "it is not used any more", Forget(unused))


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
    wanted = _wanted(have, want)
    for key, interface in sorted(wanted.items()):
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


def _wanted(have: State, want: Wish) -> dict[str, str]:
    """Interfaces by the key of their hook; containers are those that are attached."""
    attached = (CONTAINER_HOOK, NETKIT_HOOK)
    containers = {key: name for key, (name, _gen) in have.hooks.items() if key.startswith(attached) and name}
    return {ROUTER_HOOK: ROUTER, **{UPLINK_HOOK + name: name for name in want.uplinks}, **containers}


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
    if have.programs is not None:
        yield Step("forget the programs in /etc/fastpath", "they are to go", Choose(None), (Choose(have.programs),))
    if have.document is not None:
        yield Step("forget the dataplane in /etc/fastpath", "it is to go", Record(None), (Record(have.document),))
    if have.shelf:
        yield Step("forget the objects that are kept", "the dataplane is to go", Forget(have.objects))


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
