# SPDX-License-Identifier: GPL-3.0-or-later
"""Attachments on a real node: reads their state, carries out the operations of attachments_plan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable

from .. import store
from ..errors import FastpathError
from ..kernel import containers, datapath, hooks, links, netns, rtnl
from ..kernel.links import Link
from ..plan import Op, Step
from . import attachments_plan as pure
from . import attachments_wish, fields
from .attachments_plan import Endpoint, HostEnd, Interface, Node, Request, State
from .dataplane_plan import CONTAINER_HOOK, ROUTER, ROUTER_HOOK

_ROUTER_PEER = "fastpath1"


class Attachments:
    """For plan.converge(). references: containers of the request, looked up beside those that are attached."""

    def __init__(self, references: Iterable[str] = ()) -> None:
        self._references = tuple(references)
        self._paths: dict[str, str] = {}
        self._do: dict[type, Callable[[Any], None]] = {
            pure.CreateLink: self._create_link,
            pure.DeleteLink: self._delete_link,
            pure.Attach: self._attach,
            pure.Detach: lambda op: hooks.detach(CONTAINER_HOOK + op.name),
            pure.Publish: self._publish,
            pure.Withdraw: lambda op: datapath.withdraw(op.addresses),
            pure.Configure: self._configure,
            pure.SetUp: self._set_up,
            pure.Record: lambda op: store.write("attachments", None if op.document is None else list(op.document)),
        }

    def plan(self, have: State, want: Request) -> tuple[Step[State], ...]:
        return attachments_wish.plan(have, want)

    def public(self, state: State) -> list[dict[str, Any]]:
        return pure.public(state)

    def execute(self, op: Op[State]) -> None:
        self._do[type(op)](op)

    def have(self) -> State:
        with rtnl.Netlink() as netlink:
            present = links.links(netlink)
            ours = {name: link for name, link in present.items() if link.group == links.GROUP}
            router = ours.pop(ROUTER, None)
            ours.pop(_ROUTER_PEER, None)
            document = store.read("attachments")
            attached = [link.alias for link in ours.values() if link.alias]
            desired = attachments_wish.references(document or ())
            self._paths = containers.locate([*self._references, *attached, *desired])
            ends, interfaces = _ends(netlink, ours, self._paths)
        running, generations = hooks.read(), datapath.generations()
        generation = _generation(running, generations)
        names = {link.index: name for name, link in ours.items()}
        return State(
            node=_node(router, generation),
            links=ends,
            interfaces=interfaces,
            endpoints={
                address: Endpoint(names.get(point.ifindex, ""), point.slot, point.mac, point.mtu)
                for address, point in datapath.endpoints().items()
            },
            programs=_programs(running, generations, generation, ours),
            containers=frozenset(self._paths),
            foreign=frozenset(present) - frozenset(ours),
            document=None if document is None else tuple(document),
        )

    def _path(self, container: str) -> str:
        if container not in self._paths:
            raise FastpathError("find", f"container {container}", "its network namespace has gone")
        return self._paths[container]

    def _create_link(self, op: pure.CreateLink) -> None:
        try:
            descriptor = os.open(self._path(op.container), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FastpathError("open", f"the namespace of {op.container}", str(error)) from error
        try:
            with rtnl.Netlink() as netlink:
                near, far = links.End(op.name, datapath.GATEWAY_MAC), links.End(op.interface, op.mac)
                links.add_pair(netlink, "veth", near, far, op.mtu, descriptor)
                link = links.need(netlink, op.name)
                links.set_link(netlink, link.index, alias=op.container, link_local=False)
        finally:
            os.close(descriptor)

    def _delete_link(self, op: pure.DeleteLink) -> None:
        with rtnl.Netlink() as netlink:
            links.delete_link(netlink, op.name)

    def _attach(self, op: pure.Attach) -> None:
        with rtnl.Netlink() as netlink:
            index = links.need(netlink, op.name).index
        datapath.hook(CONTAINER_HOOK + op.name, index, op.generation, datapath.FROM_CONTAINER)

    def _publish(self, op: pure.Publish) -> None:
        with rtnl.Netlink() as netlink:
            index = links.need(netlink, op.name).index
        if op.fresh:
            datapath.clear_statistics(op.endpoints[0][1].slot)
        datapath.publish(
            {address: datapath.Endpoint(index, point.slot, point.mac, point.mtu) for address, point in op.endpoints}
        )

    def _configure(self, op: pure.Configure) -> None:
        with rtnl.Netlink() as netlink:
            host = links.need(netlink, op.name)
        want = op.interface
        with _inside(self._path(host.alias)) as netlink:
            link = _far_end(netlink, host)
            links.set_link(netlink, link.index, up=want.up, mtu=want.mtu, mac=want.mac if want.mac != link.mac else "")
            addresses, routes = links.addresses(netlink, link.index), links.routes(netlink, link.index)
            for route in routes - want.routes:
                links.delete_route(netlink, route, link.index)
            for address in addresses - want.addresses:
                links.delete_address(netlink, link.index, address)
            for address in sorted(want.addresses - addresses):
                links.add_address(netlink, link.index, address)
            # removing an address takes routes with it: what is wanted is added again
            for route in sorted(want.routes - links.routes(netlink, link.index), key=fields.by_prefix):
                links.add_route(netlink, route, link.index)

    def _set_up(self, op: pure.SetUp) -> None:
        with rtnl.Netlink() as netlink:
            link = links.need(netlink, op.name) if op.up else links.link(netlink, op.name)
            if link is not None:  # to be taken down, it may have gone with its container
                links.set_link(netlink, link.index, up=op.up)


@contextmanager
def _inside(path: str) -> Iterator[rtnl.Netlink]:
    """A netlink socket in another namespace; this process stays where it is."""
    with netns.entered(path):
        netlink = rtnl.Netlink()
    with netlink:
        yield netlink


def _ends(
    netlink: rtnl.Netlink, ours: Mapping[str, Link], paths: Mapping[str, str]
) -> tuple[dict[str, HostEnd], dict[str, Interface]]:
    """Host ends by name, and the container ends of those that are connected."""
    ends: dict[str, HostEnd] = {}
    interfaces: dict[str, Interface] = {}
    for name, link in ours.items():
        interface = _interface(netlink, link, paths.get(link.alias, ""))
        ends[name] = HostEnd(link.alias, link.up, interface is not None)
        if interface is not None:
            interfaces[name] = interface
    return ends, interfaces


def _interface(netlink: rtnl.Netlink, host: Link, path: str) -> Interface | None:
    """The container end; None when it is not in the namespace at `path`."""
    if not path:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if host.peer_nsid is None or links.nsid(netlink, descriptor) != host.peer_nsid:
            return None
    finally:
        os.close(descriptor)
    with _inside(path) as there:
        link = _far_end(there, host)
        addresses, routes = links.addresses(there, link.index), links.routes(there, link.index)
    return Interface(link.name, link.mac, link.mtu, link.up, addresses, routes)


def _far_end(netlink: rtnl.Netlink, host: Link) -> Link:
    link = links.link_by_index(netlink, host.peer_index)
    if link is None:
        raise FastpathError("find", f"the container's end of {host.name}", "it has gone")
    return link


def _node(router: Link | None, generation: str) -> Node | None:
    document = store.read("dataplane")
    if router is None or not generation or document is None:
        return None
    prefixes = tuple(fields.network(prefix, "prefixes") for prefix in document["prefixes"])
    return Node(prefixes, router.mtu, generation)


def _generation(attached: Mapping[str, hooks.Hook], generations: Mapping[str, datapath.Generation]) -> str:
    """The generation that the router device runs; new attachments get the same."""
    program = attached[ROUTER_HOOK].program_id if ROUTER_HOOK in attached else 0
    found = [name for name, one in generations.items() if program in one.programs.values()]
    return found[0] if found else ""


def _programs(
    attached: Mapping[str, hooks.Hook],
    generations: Mapping[str, datapath.Generation],
    generation: str,
    ours: Mapping[str, Link],
) -> dict[str, bool]:
    wanted = generations[generation].programs.get(datapath.FROM_CONTAINER) if generation else None
    found: dict[str, bool] = {}
    for key, hook in attached.items():
        if key.startswith(CONTAINER_HOOK):
            name = key[len(CONTAINER_HOOK) :]
            alive = name in ours and hook.ifindex == ours[name].index
            found[name] = alive and hook.program_id == wanted
    return found
