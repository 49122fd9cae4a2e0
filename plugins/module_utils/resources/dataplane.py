# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane on a real node: reads its state, carries out the operations of dataplane_plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Callable

from .. import store
from ..errors import FastpathError, Unsupported
from ..kernel import datapath, hooks, links, rtnl, sysctl, uplinks
from ..kernel.links import Link, Route
from ..plan import Op, Step
from . import dataplane_plan as pure
from . import dataplane_wish, fields
from .dataplane_plan import ROUTER, Request, Router, State

OBJECT = "/usr/lib/fastpath/fastpath.bpf.o"
_PEER = "fastpath1"
DIGITS = 12


def object_id(path: str) -> str:
    """The start of the file's SHA-1, which is also what Ansible's copy returns; "" when there is no file."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha1(file.read(), usedforsecurity=False).hexdigest()[:DIGITS]
    except FileNotFoundError:
        return ""


class Dataplane:
    """For plan.converge(). path: the compiled object, read only when programs are loaded."""

    def __init__(self, path: str = OBJECT) -> None:
        self._path = path
        self._do: dict[type, Callable[[Any], None]] = {
            pure.CreateRouter: self._create_router,
            pure.DeleteRouter: lambda op: self._with_netlink(links.delete_link, ROUTER),
            pure.ConfigureRouter: self._configure_router,
            pure.AddRoute: lambda op: self._add_route(op.route),
            pure.ReplaceRoute: lambda op: self._with_netlink(links.replace_route, op.route),
            pure.DeleteRoute: lambda op: self._with_netlink(links.delete_route, op.route, self._output(op.route)),
            pure.Load: self._load,
            pure.Unload: lambda op: datapath.unload(op.generation),
            pure.Hook: self._hook,
            pure.Unhook: lambda op: hooks.detach(op.key),
            pure.RemoveMaps: lambda op: datapath.remove_maps(),
            pure.Record: lambda op: store.write("dataplane", op.document),
        }

    def plan(self, have: State, want: Request) -> tuple[Step[State], ...]:
        return dataplane_wish.plan(have, want)

    def public(self, state: State) -> dict[str, Any]:
        return pure.public(state)

    def execute(self, op: Op[State]) -> None:
        self._do[type(op)](op)

    def have(self) -> State:
        with rtnl.Netlink() as netlink:
            ours = {name: link for name, link in links.links(netlink).items() if link.group == links.GROUP}
            taken = links.link(netlink, ROUTER) is not None and ROUTER not in ours
            found = uplinks.candidates(netlink)
            router = _router(netlink, ours[ROUTER]) if ROUTER in ours else None
            routes = links.routes(netlink)
        generations = datapath.generations()
        attached = hooks.read()
        return State(
            router=router,
            router_taken=taken,
            routes=routes,
            generations={name: _is_fresh(generation, ours) for name, generation in generations.items()},
            hooks=_hooks(attached, generations, ours, found),
            maps=datapath.is_there(),
            attachments=frozenset(ours) - {ROUTER, _PEER},
            uplinks=found,
            strangers=_strangers(found, attached, generations),
            document=store.read("dataplane"),
        )

    def _create_router(self, op: pure.CreateRouter) -> None:
        with rtnl.Netlink() as netlink:
            router, peer = links.End(ROUTER, datapath.GATEWAY_MAC), links.End(_PEER)
            links.add_pair(netlink, "veth", router, peer, op.mtu)

    def _configure_router(self, op: pure.ConfigureRouter) -> None:
        with rtnl.Netlink() as netlink:
            router, peer = links.need(netlink, ROUTER), links.need(netlink, _PEER)
            for link in (peer, router):
                links.set_link(netlink, link.index, up=op.router.up, mtu=op.router.mtu, link_local=False)
            present = links.addresses(netlink, router.index, link_local=True)
            for address in sorted(op.router.addresses - present):
                links.add_address(netlink, router.index, address)
            for address in sorted(present - op.router.addresses):
                links.delete_address(netlink, router.index, address)
        for family, name, value in op.router.settings:
            sysctl.write(family, ROUTER, name, value)

    def _add_route(self, route: Route) -> None:
        source = "" if route.via else fields.gateway(route.to)
        self._with_netlink(links.add_route, route, self._output(route), source)

    def _output(self, route: Route) -> int:
        """A prefix of our own leaves by the router device; for others the kernel finds the way to the gateway."""
        if route.via:
            return 0
        with rtnl.Netlink() as netlink:
            return links.need(netlink, ROUTER).index

    def _with_netlink(self, function: Callable[..., None], *arguments: Any) -> None:
        with rtnl.Netlink() as netlink:
            function(netlink, *arguments)

    def _load(self, op: pure.Load) -> None:
        try:
            with open(self._path, "rb") as file:
                obj = file.read()
        except FileNotFoundError as error:
            raise FastpathError(
                "read", self._path, "there is no such file", "The role runtime puts it there"
            ) from error
        with rtnl.Netlink() as netlink:
            index = links.need(netlink, ROUTER).index
        datapath.load(op.generation, obj, index, op.gateways)

    def _hook(self, op: pure.Hook) -> None:
        with rtnl.Netlink() as netlink:
            index = links.need(netlink, op.interface).index
        datapath.hook(op.key, index, op.generation, op.program)


def _router(netlink: rtnl.Netlink, link: Link) -> Router:
    settings = tuple((family, name, sysctl.read(family, ROUTER, name)) for family, name, _value in pure.SETTINGS)
    addresses = links.addresses(netlink, link.index, link_local=True)
    peer = links.link(netlink, _PEER)
    used = {"ipv6" if ":" in address else "ipv4" for address in addresses}
    up = link.up and peer is not None and peer.up
    return Router(up, link.mtu, addresses, tuple(setting for setting in settings if setting[0] in used))


def _is_fresh(generation: datapath.Generation, ours: Mapping[str, Link]) -> bool:
    """All programs are pinned, and they know the router device that is there."""
    return generation.complete and ROUTER in ours and generation.router_ifindex == ours[ROUTER].index


def _hooks(
    attached: Mapping[str, hooks.Hook],
    generations: Mapping[str, datapath.Generation],
    ours: Mapping[str, Link],
    found: tuple[uplinks.Uplink, ...],
) -> dict[str, tuple[str, str]]:
    names = {link.index: link.name for link in ours.values()}
    names.update({uplink.index: uplink.name for uplink in found})
    by_program = {program: name for name, gen in generations.items() for program in gen.programs.values()}
    return {key: (names.get(hook.ifindex, ""), by_program.get(hook.program_id, "")) for key, hook in attached.items()}


def _strangers(
    found: tuple[uplinks.Uplink, ...],
    attached: Mapping[str, hooks.Hook],
    generations: Mapping[str, datapath.Generation],
) -> dict[str, tuple[int, ...]]:
    ours = [hook.program_id for hook in attached.values()]
    ours += [program for generation in generations.values() for program in generation.programs.values()]
    try:
        foreign = {uplink.name: hooks.strangers(uplink.index, ours) for uplink in found}
    except Unsupported:  # no libbpf yet: a check on a fresh node still plans, a real run fails when it loads
        return {}
    return {name: ids for name, ids in foreign.items() if ids}


def current(state: State) -> str | None:
    """The generation that the router device runs; what new attachments get."""
    return state.hooks.get(pure.ROUTER_HOOK, ("", ""))[1] or None
