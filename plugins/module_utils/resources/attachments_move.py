# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves an attachment from one pair of interfaces to another while it serves.

For a moment both pairs stand side by side with the same addresses: the new one under temporary names, its alias telling
what it is for. Each of the two is treated alike and each change may be repeated, so that a move that was killed
anywhere is finished, or taken back, by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import FastpathError
from ..kernel import datapath, hooks, links
from ..kernel.links import GROUP, Link
from ..kernel.rtnl import Netlink
from . import attachments_links as whose
from .attachments_links import Owner
from .attachments_state import Move

_IN_FLIGHT = 0.2  # seconds for the packets that are on their way over the old pair, also on a busy node
_ATTEMPTS, _PAUSE = 200, 0.01  # two seconds in all


def move(op: Move, locate: Callable[[str], str]) -> None:
    """Whatever there is of the attachment: afterwards it is one pair of the wanted kind. locate: container -> path."""
    with Netlink() as host:
        first = whose.owner(whose.end(host, op.name))
        path = locate(first.container)
        with whose.inside(path) as there, whose.opened(first.container, path) as netns:
            _Move(op, host, there, netns, first.container).run()


@dataclass(frozen=True)
class _Move:
    """host, there: sockets in the node's namespace and in the container's, which the descriptor netns means as well."""

    op: Move
    host: Netlink
    there: Netlink
    netns: int
    container: str

    def run(self) -> None:
        self._remove_half_made()
        present = whose.ends(self.host, self.op.name)
        keep = next((end for end in present if whose.pair(end) == self.op.pair), present[0])
        for other in present:
            if other != keep:
                self._switch(other, keep)
                links.delete_link(self.host, other.name)
        keep = self._settle(keep)
        if whose.pair(keep) != self.op.pair:
            new = self._create(keep)
            self._switch(keep, new)
            links.delete_link(self.host, keep.name)
            self._settle(new)

    def _remove_half_made(self) -> None:
        """A run was killed before it wrote whose link it is."""
        link = links.link(self.host, whose.temporary(self.op.name))
        if link is not None and link.group == GROUP and not link.alias:
            links.delete_link(self.host, link.name)

    def _create(self, old: Link) -> Link:
        far = whose.far_end(self.there, old)
        name = whose.temporary(self.op.name)
        near, inner = links.End(name, datapath.GATEWAY_MAC), links.End(name, self.op.mac)
        links.add_pair(self.host, self.op.pair.kind, near, inner, far.mtu, self.netns, self.op.pair.mode or "l2")
        link = links.need(self.host, name)
        alias = Owner(self.op.name, self.container, far.name).alias
        links.set_link(self.host, link.index, alias=alias, link_local=False)
        return links.need(self.host, name)

    def _switch(self, old: Link, new: Link) -> None:
        """First the container may send on both, then it sends on the new one, then it receives there."""
        datapath.hook(whose.hook_key(new.kind, new.name), new.index, self.op.generation, whose.pair(new).program)
        datapath.move(new.index, old.index)
        far_old, far = whose.far_end(self.there, old), whose.far_end(self.there, new)
        links.set_link(self.host, new.index, up=True)
        links.set_link(self.there, far.index, up=True)
        for address in sorted(links.addresses(self.there, far_old.index) - links.addresses(self.there, far.index)):
            links.add_address(self.there, far.index, address)
        self._wait(new)
        links.move_routes(self.there, far_old.index, far.index)
        datapath.move(old.index, new.index)
        rows = {address: row for address, row in datapath.endpoints().items() if row.ifindex == old.index}
        datapath.publish({a: replace(row, ifindex=new.index, mac=far.mac) for a, row in rows.items()})
        time.sleep(_IN_FLIGHT)

    def _wait(self, new: Link) -> None:
        """The kernel opens the queue of an interface some time after it has come up; until then it drops."""
        for _attempt in range(_ATTEMPTS):
            if links.need(self.host, new.name).running and whose.far_end(self.there, new).running:
                return
            time.sleep(_PAUSE)
        raise FastpathError("bring up", f"the new interface of {self.op.name}", "it does not get ready")

    def _settle(self, keep: Link) -> Link:
        """The right names, and nothing left of the move; the alias comes last, by which an unfinished one is found."""
        owner = whose.owner(keep)
        key = whose.hook_key(keep.kind, self.op.name)
        whose.end_moves([keep.index])
        if owner.moving:
            far = whose.far_end(self.there, keep)
            if far.name != owner.interface:
                links.rename(self.there, far.index, owner.interface)
            if keep.name != self.op.name:
                links.rename(self.host, keep.index, self.op.name)
            hooks.rename(whose.hook_key(keep.kind, whose.temporary(self.op.name)), key)
        for other in whose.hook_keys(self.op.name) - {key}:
            hooks.detach(other)
        if owner.moving:
            links.set_link(self.host, keep.index, alias=self.container)
        return links.need(self.host, self.op.name)
