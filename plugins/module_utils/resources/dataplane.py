# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane on a real node: reads its state, carries out the operations of dataplane_state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Callable

from .. import store, versions
from ..errors import FastpathError, Unsupported
from ..kernel import btf, datapath, health, hooks, links, policy, rtnl, selftest, sysctl, uplinks
from ..kernel.links import Link, Route
from ..plan import Op, Step
from . import attachments_links as whose
from . import dataplane_plan, dataplane_wish, fields
from . import dataplane_state as pure
from .dataplane_plan import SETTINGS
from .dataplane_state import ROUTER, Programs, Request, Router, State

_PEER = "fastpath1"


class Dataplane:
    """For plan.converge(). path: a compiled object, read only when it is to be kept.

    foresee: what others will have made of the node by then (check mode).
    """

    def __init__(
        self, path: str = versions.OBJECT, foresee: Callable[[State], State] = lambda present: present
    ) -> None:
        self._path, self._foresee = path, foresee
        self._before: health.Traffic | None = None  # of those that served before an upgrade
        self._do: dict[type, Callable[[Any], None]] = {
            pure.CreateRouter: self._create_router,
            pure.DeleteRouter: lambda op: self._with_netlink(links.delete_link, ROUTER),
            pure.ConfigureRouter: self._configure_router,
            pure.AddRoute: lambda op: self._add_route(op.route),
            pure.ReplaceRoute: lambda op: self._with_netlink(links.replace_route, op.route),
            pure.DeleteRoute: lambda op: self._with_netlink(links.delete_route, op.route, self._output(op.route)),
            pure.Keep: lambda op: versions.keep(op.object_id, self._path),
            pure.Forget: lambda op: versions.forget(op.objects),
            pure.Test: self._test,
            pure.Load: self._load,
            pure.Fill: self._fill,
            pure.Hook: self._hook,
            pure.Check: self._check,
            pure.HandOver: lambda op: datapath.hand_over(op.generation, op.sources),
            pure.Unload: lambda op: datapath.unload(op.generation),
            pure.Unhook: lambda op: hooks.detach(op.key),
            pure.RemoveMaps: lambda op: datapath.remove_maps(),
            pure.Choose: self._choose,
            pure.Record: lambda op: store.write("dataplane", op.document),
        }

    def plan(self, have: State, want: Request) -> tuple[Step[State], ...]:
        return dataplane_wish.plan(have, want)

    def public(self, state: State) -> dict[str, Any]:
        return dataplane_plan.public(state)

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
        attached, kept = hooks.read(), versions.kept()
        present = State(
            router=router,
            router_taken=taken,
            routes=routes,
            generations={name: _is_fresh(generation, ours) for name, generation in generations.items()},
            hooks=_hooks(attached, generations, ours, found),
            owner=datapath.owner(),
            maps=datapath.is_there(),
            objects=kept,
            shelf=versions.is_there(),
            programs=_recorded(),
            blind=self._blind(kept, ours.values()),
            attachments=frozenset(ours) - {ROUTER, _PEER},
            uplinks=found,
            strangers=_strangers(found, attached, generations),
            document=store.salvaged("dataplane", {}),
        )
        return self._foresee(present)

    def _blind(self, kept: frozenset[str], ours: Iterable[Link]) -> dict[str, str]:
        """Of the objects that may come to run, those that do not know what this node has."""
        needed = {pure.POLICIES} if store.salvaged("policies", {}) is not None or policy.epoch() else set()
        needed |= {pure.VFS} if any(whose.owner(link).vf for link in ours) else set()
        if not needed:
            return {}
        found = {object_id: versions.path(object_id) for object_id in kept}
        found[versions.object_id(self._path)] = self._path
        unknown = {name: sorted(needed - _known(path)) for name, path in found.items() if name}
        return {name: missing[0] for name, missing in unknown.items() if missing}

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

    def _test(self, op: pure.Test) -> None:
        obj = versions.read(op.object_id)
        with rtnl.Netlink() as netlink:
            router, present = links.need(netlink, ROUTER).index, links.links(netlink).values()
        node = selftest.Node(
            router,
            tuple({":" in gateway: gateway for gateway in reversed(op.gateways)}.values()),
            {link.index: link.mac for link in present if link.name in op.uplinks},
            {link.index: _end(link) for link in present if link.group == links.GROUP},
            datapath.endpoints(),
        )
        selftest.run(obj, datapath.configuration(obj, router, op.gateways), node)

    def _load(self, op: pure.Load) -> None:
        obj = versions.read(op.object_id)
        with rtnl.Netlink() as netlink:
            router = links.need(netlink, ROUTER).index
        self._remember(op.generation)
        datapath.load(op.generation, obj, datapath.configuration(obj, router, op.gateways))

    def _fill(self, op: pure.Fill) -> None:
        self._remember(op.generation)
        datapath.fill(op.generation, op.idle)

    def _remember(self, successor: str) -> None:
        """How traffic goes as long as the owner serves."""
        if self._before is None and datapath.owner() not in ("", successor):
            self._before = health.watch(datapath.owner())

    def _check(self, op: pure.Check) -> None:
        programs = datapath.generations()[op.generation].programs.values()
        wrong = [key for key, hook in hooks.read().items() if hook.ifindex and hook.program_id not in programs]
        if wrong:
            raise FastpathError("find", f"programs {op.generation}", f"others run at {', '.join(sorted(wrong))}")
        now = health.watch(op.generation)
        if health.is_worse(self._before, now):
            reasons = ", ".join(f"{count} as {name}" for name, count in sorted(now.suspicious.items()))
            cause = f"of {now.seen} packets they dropped {reasons}; the programs before them did not"
            raise FastpathError("trust", f"programs {op.generation}", cause)

    def _choose(self, op: pure.Choose) -> None:
        chosen = op.programs
        store.write("programs", chosen and {
            "current": chosen.current, "previous": chosen.previous, "rolled_back": chosen.rolled_back
        })  # fmt: skip

    def _hook(self, op: pure.Hook) -> None:
        with rtnl.Netlink() as netlink:
            index = links.need(netlink, op.interface).index
        datapath.hook(op.key, index, op.generation, op.program)


def _router(netlink: rtnl.Netlink, link: Link) -> Router:
    settings = tuple((family, name, sysctl.read(family, ROUTER, name)) for family, name, _value in SETTINGS)
    addresses = links.addresses(netlink, link.index, link_local=True)
    peer = links.link(netlink, _PEER)
    used = {"ipv6" if ":" in address else "ipv4" for address in addresses}
    up = link.up and peer is not None and peer.up
    return Router(up, link.mtu, addresses, tuple(setting for setting in settings if setting[0] in used))


def _known(path: str) -> set[str]:
    """What came later and the object knows. All of it, if it is no dataplane's: that is refused when it is loaded."""
    try:
        structs = btf.parse(Path(path).read_bytes()).structs
    except (OSError, ValueError):
        structs = {}
    if "fp_config" not in structs:
        return {pure.POLICIES, pure.VFS}
    endpoint = structs["fp_endpoint"].fields if "fp_endpoint" in structs else ()
    has_flags = any(field.name == "flags" for field in endpoint)
    return {what for what, known in ((pure.POLICIES, "fp_policy_state" in structs), (pure.VFS, has_flags)) if known}


def _end(link: Link) -> selftest.End:
    """Of a container, or of the router device, where no container sends. A representor has no kind, and its own MAC."""
    mac = link.mac if link.kind else datapath.GATEWAY_MAC
    return selftest.End(datapath.FROM_NETKIT if link.kind == "netkit" else datapath.FROM_CONTAINER, mac)


def _recorded() -> Programs | None:
    found = store.salvaged("programs", {})
    if found is None:
        return None
    return Programs(str(found.get("current", "")), str(found.get("previous", "")), bool(found.get("rolled_back")))


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
