# SPDX-License-Identifier: GPL-3.0-or-later
"""Attachments on a real node: carries out the operations of attachments_state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from .. import store
from ..errors import FastpathError
from ..kernel import datapath, hooks, links, rtnl
from ..plan import Op, Step
from . import attachments_links as whose
from . import (
    attachments_move,
    attachments_plan,
    attachments_read,
    attachments_vf,
    attachments_wish,
    fields,
    policies_node,
)
from . import attachments_state as pure
from .attachments_state import VF, Request, State
from .dataplane_state import CONTAINER_HOOK, NETKIT_HOOK


class Attachments:
    """For plan.converge(). references: containers of the request, looked up beside those that are attached.

    vfs: the request asks for VFs. foresee: what others will have made of the node by then (check mode).
    """

    def __init__(
        self,
        references: Iterable[str] = (),
        vfs: bool = False,
        foresee: Callable[[State], State] = lambda present: present,
    ) -> None:
        self._references, self._vfs, self._foresee = tuple(references), vfs, foresee
        self._found = attachments_read.Found(State(), {}, {})
        self.enforcer = policies_node.Enforcer(self._namespaces)
        self._do: dict[type, Callable[[Any], None]] = {
            pure.CreateLink: self._create_link,
            pure.DeleteLink: self._delete_link,
            pure.Attach: self._attach,
            pure.Detach: self._detach,
            pure.Publish: self._publish,
            pure.Withdraw: lambda op: datapath.withdraw(op.addresses),
            pure.Configure: self._configure,
            pure.SetUp: self._set_up,
            pure.Move: lambda op: attachments_move.move(op, self._path),
            pure.Forget: lambda op: datapath.unmove(op.strays),
            pure.Record: lambda op: store.write("attachments", None if op.document is None else list(op.document)),
            **self.enforcer.operations,
        }

    def plan(self, have: State, want: Request) -> tuple[Step[State], ...]:
        return attachments_wish.plan(have, want)

    def public(self, state: State) -> list[dict[str, Any]]:
        return attachments_plan.public(state)

    def execute(self, op: Op[State]) -> None:
        self._do[type(op)](op)

    def have(self) -> State:
        self._found = attachments_read.read(self._references, self._vfs)
        return self._foresee(self._found.state)

    def without_vf(self, config: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> list[str]:
        """Who got none though the container is here: with skip_absent they are left out."""
        attached = {item["name"] for item in after}
        missing = [item for item in config if item.get("kind") == VF.kind and item["name"] not in attached]
        return [str(one["name"]) for one in missing if attachments_wish.references([one])[0] in self._found.paths]

    def _namespaces(self) -> dict[str, str]:
        """Of those that are attached already: only they have connections."""
        state, paths = self._found.state, self._found.paths
        containers = {
            address: state.links[point.attachment].container
            for address, point in state.endpoints.items()
            if point.attachment
        }
        return {address: paths[name] for address, name in containers.items() if name in paths}

    def _path(self, container: str) -> str:
        if container not in self._found.paths:
            raise FastpathError("find", f"container {container}", "its network namespace has gone")
        return self._found.paths[container]

    def _create_link(self, op: pure.CreateLink) -> None:
        if op.vf:
            attachments_vf.give(op, self._path(op.container))
            return
        with rtnl.Netlink() as netlink, whose.opened(op.container, self._path(op.container)) as netns:
            present = links.link(netlink, op.name)
            if present and present.group == links.GROUP and present.alias == op.container:
                return  # it was to be deleted, and was not
            near, far = links.End(op.name, datapath.GATEWAY_MAC), links.End(op.interface, op.mac)
            links.add_pair(netlink, op.pair.kind, near, far, op.mtu, netns, op.pair.mode or "l2")
            link = links.need(netlink, op.name)
            links.set_link(netlink, link.index, alias=op.container, link_local=False)

    def _delete_link(self, op: pure.DeleteLink) -> None:
        with rtnl.Netlink() as netlink:
            present = whose.ends(netlink, op.name)
            for link in present:
                owner = whose.owner(link)
                if owner.vf:
                    attachments_vf.take_back(netlink, link, owner.vf, self._found.paths.get(owner.container, ""))
                else:
                    links.delete_link(netlink, link.name)
        whose.end_moves(link.index for link in present)

    def _attach(self, op: pure.Attach) -> None:
        with rtnl.Netlink() as netlink:
            link = whose.end(netlink, op.name)
        key = whose.key(link)
        datapath.hook(key, link.index, op.generation, whose.pair(link).program)
        for other in self._found.hooks.get(op.name, frozenset()) - {key}:
            hooks.detach(other)

    def _detach(self, op: pure.Detach) -> None:
        own = {CONTAINER_HOOK + op.name, NETKIT_HOOK + op.name}
        for key in own | self._found.hooks.get(op.name, frozenset()):
            hooks.detach(key)

    def _publish(self, op: pure.Publish) -> None:
        with rtnl.Netlink() as netlink:
            link = whose.end(netlink, op.name)
        vf = whose.owner(link).vf is not None
        if op.fresh:
            datapath.clear_statistics(op.endpoints[0][1].slot)
        datapath.publish(
            {
                address: datapath.Endpoint(link.index, point.slot, point.mac, point.mtu, vf)
                for address, point in op.endpoints
            }
        )

    def _configure(self, op: pure.Configure) -> None:
        with rtnl.Netlink() as netlink:
            host = whose.end(netlink, op.name)
        want = op.interface
        with whose.inside(self._path(whose.owner(host).container)) as netlink:
            link = whose.far_end(netlink, host)
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
            present = [whose.end(netlink, op.name)] if op.up else whose.ends(netlink, op.name)
            for link in present:  # to be taken down, it may have gone with its container
                links.set_link(netlink, link.index, up=op.up)
