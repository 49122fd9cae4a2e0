# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies as a resource of a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import store
from ..kernel import containers, datapath, links, rtnl
from ..plan import Op, Step, predict
from . import attachments_links as whose
from . import attachments_read, policies_node, policies_wish
from .policies_state import Record, Request, State


class Policies:
    """For plan.converge()."""

    def __init__(self) -> None:
        self._containers: dict[str, str] = {}  # published address -> reference
        self.enforcer = policies_node.Enforcer(self._namespaces)
        self.epoch = 0  # after what was planned last

    def plan(self, have: State, want: Request) -> tuple[Step[State], ...]:
        steps = policies_wish.plan(have, want)
        installed = predict(have, steps).policing.installed
        self.epoch = installed.epoch if installed else 0
        return steps

    def public(self, state: State) -> list[Any]:
        return policies_wish.public(state)

    def execute(self, op: Op[State]) -> None:
        if isinstance(op, Record):
            store.write("policies", op.document)
        else:
            self.enforcer.operations[type(op)](op)

    def have(self) -> State:
        points = datapath.endpoints()
        with rtnl.Netlink() as netlink:
            ours = {link.index: link for link in links.links(netlink).values() if link.group == links.GROUP}
        owners = {address: whose.owner(ours[p.ifindex]) for address, p in points.items() if p.ifindex in ours}
        self._containers = {address: owner.container for address, owner in owners.items()}
        document, unreadable = attachments_read.document()
        return State(
            policies_node.read(),
            endpoints={address: (owner.attachment, points[address].slot) for address, owner in owners.items()},
            attachments=None if unreadable else document or (),
        )

    def _namespaces(self) -> Mapping[str, str]:
        paths = containers.locate(self._containers.values())
        return {address: paths[name] for address, name in self._containers.items() if name in paths}
