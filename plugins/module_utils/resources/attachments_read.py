# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads which attachments a node has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .. import store
from ..errors import FastpathError, InvalidConfig
from ..kernel import bpf, containers, datapath, hooks, links, rtnl, sriov
from ..kernel.links import Link
from . import attachments_links as whose
from . import attachments_wish, fields, policies_node
from .attachments_state import Endpoint, HostEnd, Interface, Node, State, Vf
from .dataplane_state import CONTAINER_HOOK, NETKIT_HOOK, ROUTER, ROUTER_HOOK

_ROUTER_PEER = "fastpath1"


@dataclass(frozen=True)
class Found:
    """hooks: the keys of an attachment's hooks, dead ones too; paths: container -> its namespace."""

    state: State
    hooks: Mapping[str, frozenset[str]]
    paths: Mapping[str, str]


class _Ends(NamedTuple):
    """The host ends of an attachment. spare: the other one of a move."""

    serving: Link
    spare: Link | None = None

    @property
    def unfinished(self) -> str:
        """What a killed move has left, in words."""
        if self.spare is not None:
            return f"a run was killed while it moved, {whose.pair(self.spare)} stands beside it"
        return "a run was killed while it moved" if whose.owner(self.serving).moving else ""


def read(references: Iterable[str], vfs: bool) -> Found:
    """references: containers to look up beside those that are attached; vfs: a VF is asked for."""
    kept, unreadable = document()
    points, moves = datapath.endpoints(), datapath.moves()
    with rtnl.Netlink() as netlink:
        present = links.links(netlink)
        ours = {name: link for name, link in present.items() if link.group == links.GROUP}
        router = ours.pop(ROUTER, None)
        ours.pop(_ROUTER_PEER, None)
        ends = _ends(ours.values(), frozenset(point.ifindex for point in points.values()))
        owners = {name: whose.owner(pair.serving) for name, pair in ends.items()}
        attached = [owner.container for owner in owners.values() if owner.container]
        paths = containers.locate([*references, *attached, *attachments_wish.references(kept or ())])
        interfaces = {
            name: interface
            for name, owner in owners.items()
            for interface in [_interface(netlink, ends[name].serving, paths.get(owner.container, ""))]
            if interface is not None
        }
    running, generations = hooks.read(), datapath.generations()
    generation = _generation(running, generations)
    names = {link.index: whose.owner(link).attachment for link in ours.values()}
    by_attachment = _by_attachment(running, names)
    state = State(
        policing=policies_node.read(),
        node=_node(router, generation),
        links={name: _host_end(pair, name in interfaces) for name, pair in ends.items()},
        interfaces=interfaces,
        endpoints={
            address: Endpoint(names.get(point.ifindex, ""), point.slot, point.mac, point.mtu)
            for address, point in points.items()
        },
        programs={
            name: name in ends and _runs(ends[name], found, generations.get(generation))
            for name, found in by_attachment.items()
        },
        containers=frozenset(paths),
        foreign=frozenset(name for name in present if name not in ours or whose.owner(ours[name]).vf),
        strays=_strays(moves, ends.values()),
        vfs=_vfs(present, owners) if vfs or attachments_wish.asks_for_vfs(kept or ()) or _lent(owners) else {},
        netkit=bpf.has_netkit(),
        document=kept,
        unreadable=unreadable,
    )
    return Found(state, {name: frozenset(found) for name, found in by_attachment.items()}, paths)


def document() -> tuple[tuple[Mapping[str, object], ...] | None, str]:
    """The list that this node keeps, and why it cannot be read."""
    try:
        found = store.read("attachments")
        attachments_wish.check_document(found or ())
    except InvalidConfig as error:
        return None, f"{store.path('attachments')}: {error}"
    except FastpathError as error:
        return None, f"{error.object}: {error.cause}"
    return (None if found is None else tuple(found)), ""


def _host_end(pair: _Ends, connected: bool) -> HostEnd:
    link = pair.serving
    owner = whose.owner(link)
    vf = owner.vf.pci if owner.vf else ""
    return HostEnd(owner.container, whose.pair(link), link.up, connected, pair.unfinished, vf)


def _vfs(present: Mapping[str, Link], owners: Mapping[str, whose.Owner]) -> dict[str, Vf]:
    """All of the node. owners: of the attachments."""
    users = _lent(owners)
    return {
        function.pci: _vf(one, number, function, users.get(function.pci), present)
        for one in sriov.physical()
        for number, function in one.vfs.items()
    }


def _lent(owners: Mapping[str, whose.Owner]) -> dict[str, whose.Owner]:
    """Those that have a VF, by its PCI address."""
    return {owner.vf.pci: owner for owner in owners.values() if owner.vf}


def _vf(
    one: sriov.Physical, number: int, function: sriov.Function, user: whose.Owner | None, present: Mapping[str, Link]
) -> Vf:
    representor, lent = one.representor(number), user.vf if user else None
    netdev = next((present[name] for name in function.netdevs if name in present), None)
    return Vf(
        nic=one.handle.partition("/")[2],
        mac=(netdev.permanent if netdev else "") or (lent.mac if lent else netdev.mac if netdev else ""),
        user=user.attachment if user else "",
        home=netdev is not None,
        busy=netdev.name if netdev and netdev.up else "",
        driver=function.driver,
        representor=representor.name,
        master=representor.master,
    )


def _ends(ours: Iterable[Link], published: frozenset[int]) -> dict[str, _Ends]:
    found: dict[str, list[Link]] = {}
    for link in sorted(ours, key=lambda link: whose.owner(link).moving):
        found.setdefault(whose.owner(link).attachment, []).append(link)
    return {name: _Ends(*_serving_first(links, published)) for name, links in found.items()}


def _serving_first(present: list[Link], published: frozenset[int]) -> list[Link]:
    """The old end serves as long as addresses lead to it."""
    moved = len(present) > 1 and present[1].index in published and present[0].index not in published
    return present[::-1] if moved else present


def _strays(moves: Mapping[int, int], ends: Iterable[_Ends]) -> frozenset[int]:
    needed = {link.index for pair in ends if pair.unfinished for link in pair if link is not None}
    return frozenset(index for entry in moves.items() if not needed & set(entry) for index in entry)


def _interface(netlink: rtnl.Netlink, host: Link, path: str) -> Interface | None:
    """The container end; None when it is not in the namespace at `path`."""
    if not path:
        return None
    owner = whose.owner(host)
    try:
        with whose.opened(owner.container, path) as descriptor:
            if not owner.vf and (host.peer_nsid is None or links.nsid(netlink, descriptor) != host.peer_nsid):
                return None
    except FastpathError:
        return None
    with whose.inside(path) as there:
        if owner.vf and links.link_of_device(there, owner.vf.pci) is None:
            return None
        link = whose.far_end(there, host)
        addresses, routes = links.addresses(there, link.index), links.routes(there, link.index)
    return Interface(owner.interface or link.name, link.mac, link.mtu, link.up, addresses, routes)


def _node(router: Link | None, generation: str) -> Node | None:
    """None where there is none, or its document does not tell the prefixes."""
    document = store.salvaged("dataplane", None)
    if router is None or not generation or document is None:
        return None
    try:
        given = fields.sequence(document.get("prefixes"), "prefixes")
        return Node(tuple(fields.network(prefix, "prefixes") for prefix in given), router.mtu, generation)
    except InvalidConfig:
        return None


def _generation(attached: Mapping[str, hooks.Hook], generations: Mapping[str, datapath.Generation]) -> str:
    """The generation that the router device runs; new attachments get the same."""
    program = attached[ROUTER_HOOK].program_id if ROUTER_HOOK in attached else 0
    found = [name for name, one in generations.items() if program in one.programs.values()]
    return found[0] if found else ""


def _by_attachment(attached: Mapping[str, hooks.Hook], names: Mapping[int, str]) -> dict[str, dict[str, hooks.Hook]]:
    """The hooks of each attachment. names: host end's number -> attachment; a dead hook's is told by its key."""
    temporary = {whose.temporary(name): name for name in names.values()}
    found: dict[str, dict[str, hooks.Hook]] = {}
    for key, hook in attached.items():
        prefix = next((prefix for prefix in (CONTAINER_HOOK, NETKIT_HOOK) if key.startswith(prefix)), None)
        if prefix is not None:
            link = key[len(prefix) :]
            name = names.get(hook.ifindex) or temporary.get(link, link)
            found.setdefault(name, {})[key] = hook
    return found


def _runs(ends: _Ends, found: Mapping[str, hooks.Hook], generation: datapath.Generation | None) -> bool:
    """One hook and no other, on the serving end, with the present program."""
    link = ends.serving
    wanted = generation.programs.get(whose.pair(link).program) if generation else None
    return wanted is not None and dict(found) == {whose.key(link): hooks.Hook(link.index, wanted)}
