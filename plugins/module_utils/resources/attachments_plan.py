# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps from the attachments that are there to those that are wished. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import FastpathError
from ..kernel.datapath import SLOTS
from ..plan import Step, predict
from ..policy import members
from . import fields, policies_switch
from .attachments_state import (
    NO_MAC,
    Attach,
    Attachment,
    Configure,
    CreateLink,
    DeleteLink,
    Detach,
    Endpoint,
    Endpoints,
    Forget,
    HostEnd,
    Interface,
    Move,
    Publish,
    Record,
    SetUp,
    State,
    Withdraw,
    bare,
    without,
)
from .policies_switch import Policing


@dataclass(frozen=True)
class Want:
    """The request, checked: what shall be, what shall go, and the list to keep."""

    attachments: tuple[Attachment, ...]
    remove: frozenset[str]
    document: tuple[Mapping[str, Any], ...] | None


def steps(have: State, want: Want, generation: str) -> Iterator[Step[State]]:
    """From what is there to what is wanted: all that goes before anything that comes, so that names, addresses and
    interfaces can move from one attachment to another. In between the list is recorded, so that it always has what is
    published, and policies are told: whoever comes is restricted from the first packet on."""
    going, coming = _changes(have, want, generation)
    yield from going
    if have.unreadable or (have.document or None) != (want.document or None):
        undo = (Record(have.document),)
        reason = "the node restores them at boot" if want.document else "none is left"
        yield Step("record the attachments in /etc/fastpath", reason, Record(want.document or None), undo)
    yield from _policing(have, want, predict(have, [*going, *coming]), planned=not generation)
    yield from coming


def _changes(have: State, want: Want, generation: str) -> tuple[list[Step[State]], list[Step[State]]]:
    published = _by_attachment(have.endpoints)
    gone = _gone(have, want)
    going = [step for name in sorted(gone) for step in _removal(have, published.get(name, {}), name, gone[name])]
    left = replace(
        have,
        links=without(have.links, *gone),
        interfaces=without(have.interfaces, *gone),
        programs=without(have.programs, *gone),
    )
    going += _garbage(left, published.get("", {}))
    slots = _slots(have, want)
    served = {item.name: {} if item.name in gone else published.get(item.name, {}) for item in want.attachments}
    coming: list[Step[State]] = []
    for item in want.attachments:
        going += _withdrawing(served[item.name], item)
        coming += _attachment(left, served[item.name], item, generation, slots[item.name])
    return going, coming


def _policing(have: State, want: Want, then: State, planned: bool) -> Iterator[Step[State]]:
    """Policies for the containers that there are then. Nobody is attached where they cannot be put in force.

    planned: the dataplane will be there when this is carried out.
    """
    policing = replace(have.policing, able=have.policing.able or (planned and bool(want.attachments)))
    try:
        yield from policies_switch.following(policing, _owners(then.endpoints), want.document or ())
    except FastpathError:
        if want.attachments:
            raise


def policing_at(have: State, epoch: int) -> Policing:
    """What a change of the policies will have left for those that are attached; see Request."""
    return policies_switch.expected(have.policing, epoch, _owners(have.endpoints), have.document or ())


def _owners(endpoints: Endpoints) -> dict[str, tuple[str, int]]:
    return {address: (point.attachment, point.slot) for address, point in endpoints.items() if point.attachment}


def _gone(have: State, want: Want) -> dict[str, str]:
    """What is to be removed, and why."""
    half_made = [name for name, end in have.links.items() if not end.container]
    returned = [name for name, end in have.links.items() if end.vf in have.vfs and have.vfs[end.vf].home]
    replaced = {item.name: _why_anew(have, item) for item in want.attachments if item.name in have.links}
    return {
        **dict.fromkeys(want.remove & known(have), "it is not wanted"),
        **{name: reason for name, reason in replaced.items() if reason},
        **dict.fromkeys(half_made, "a run was killed while it made it"),
        **dict.fromkeys(returned, "its container has ended, or a run was killed while it got its VF"),
    }


def _why_anew(have: State, item: Attachment) -> str:
    """Why the link that is there will not do, "" when it will. Only pairs that are made can stand side by side."""
    end = have.links[item.name]
    if not have.connects(item.name, item.container, item.interface):
        return "its container or interface is another one now"
    if end.vf != item.vf:
        return "another VF is wanted" if end.vf and item.vf else "another kind is wanted"
    return ""


def _by_attachment(endpoints: Endpoints) -> dict[str, dict[str, Endpoint]]:
    found: dict[str, dict[str, Endpoint]] = {}
    for address, endpoint in endpoints.items():
        found.setdefault(endpoint.attachment, {})[address] = endpoint
    return found


def _garbage(left: State, ownerless: Endpoints) -> Iterator[Step[State]]:
    if ownerless:
        addresses = tuple(sorted(ownerless))
        yield Step(f"withdraw {_list(addresses)}", "the interface behind it has gone", Withdraw(addresses))
    for name in sorted(set(left.programs) - set(left.links)):
        yield Step(f"unpin the program of {name}", "its interface has gone", Detach(name))
    if left.strays:
        yield Step("forget the links of a move", "a run was killed while it moved", Forget(left.strays))


def known(have: State) -> frozenset[str]:
    owners = {endpoint.attachment for endpoint in have.endpoints.values()}
    return frozenset(have.links) | frozenset(have.programs) | owners - {""}


def _slots(have: State, want: Want) -> dict[str, int]:
    """A row of statistics for each attachment: the one that it has, else the first free one."""
    owned: dict[str, int] = {}
    for endpoint in have.endpoints.values():
        if endpoint.attachment and endpoint.attachment not in want.remove:
            owned.setdefault(endpoint.attachment, endpoint.slot)
    used = set(owned.values())
    free = (slot for slot in range(SLOTS) if slot not in used)
    for item in want.attachments:
        if item.name not in owned:
            slot = next(free, None)
            if slot is None:
                raise FastpathError("attach", item.name, f"all {SLOTS} rows of statistics are in use")
            owned[item.name] = slot
    return owned


def _attachment(left: State, served: Endpoints, item: Attachment, generation: str, slot: int) -> Iterator[Step[State]]:
    name, new = item.name, not left.connects(item.name, item.container, item.interface)
    if new:
        link = CreateLink(name, item.container, item.interface, item.mac, item.mtu, item.pair, item.vf)
        given = f"give VF {item.vf} to {item.container} for {name}"
        action = given if item.vf else f"create link {name} to {item.container}"
        yield Step(action, "it is not there", link, (DeleteLink(name),))
        left = link.effect(left)
    elif left.links[name].pair != item.pair or left.links[name].unfinished:
        move = Move(name, item.pair, _moved_mac(left.interfaces[name].mac, item), generation)
        yield _moving(left, move)
        left = move.effect(left)
        served = {address: replace(point, mac=move.mac) for address, point in served.items()}
    end, before = left.links[name], left.interfaces[name]
    runs = None if new else left.programs.get(name)
    if not runs:
        reason = "packets of the container pass it" if runs is None else "it runs another version"
        undo = (Detach(name),) if runs is None else ()
        yield Step(f"attach {end.pair.program} to {name}", reason, Attach(name, generation), undo)
    yield from _publishing(served, item, slot)
    wanted = Interface(item.interface, item.mac, item.mtu, True, item.addresses, item.routes)
    if before != wanted:
        cut = before.addresses - wanted.addresses or before.mac != wanted.mac
        action = f"set {_difference(before, wanted)} of {item.interface} in {name}"
        undo_configure = (Configure(name, before),)
        disrupts = f"container {item.container}" if cut else ""
        yield Step(action, "it differs", Configure(name, wanted), undo_configure, disrupts)
    if not end.up:
        yield Step(f"bring up {name}", "it is down", SetUp(name, True), (SetUp(name, False),))


def _moved_mac(before: str, item: Attachment) -> str:
    """The MAC stays where there is one; another that is wished is set after the move, as it disturbs."""
    return item.mac if NO_MAC in (before, item.mac) else before


def _moving(left: State, move: Move) -> Step[State]:
    end, before = left.links[move.name], left.interfaces[move.name]
    undo: list[Any] = [Move(move.name, end.pair, before.mac, move.generation)]
    undo += [] if before.up else [Configure(move.name, before)]
    undo += [] if end.up else [SetUp(move.name, False)]
    words = f"finish the move of {move.name}" if end.pair == move.pair else f"move {move.name} from {end.pair}"
    return Step(f"{words} to {move.pair}", end.unfinished or "another kind is wanted", move, tuple(undo))


def _withdrawing(served: Endpoints, item: Attachment) -> Iterator[Step[State]]:
    extra = tuple(sorted(set(served) - set(map(bare, item.addresses))))
    if extra:
        undo = (Publish(item.name, tuple((address, served[address]) for address in extra)),)
        disrupts = f"traffic to {_list(extra)}"
        yield Step(f"withdraw {_list(extra)} of {item.name}", "it is not wanted", Withdraw(extra), undo, disrupts)


def _publishing(served: Endpoints, item: Attachment, slot: int) -> Iterator[Step[State]]:
    wanted = {bare(address): Endpoint(item.name, slot, item.mac, item.mtu) for address in item.addresses}
    differing = tuple(
        (address, wanted[address]) for address in sorted(wanted) if served.get(address) != wanted[address]
    )
    if differing:
        addresses = tuple(address for address, _endpoint in differing)
        new = tuple(address for address in addresses if address not in served)
        old = tuple((address, served[address]) for address in addresses if address in served)
        undo: list[Any] = [Withdraw(new)] if new else []
        undo += [Publish(item.name, old)] if old else []
        publish = Publish(item.name, differing, fresh=not served)
        action = f"publish {_list(addresses)} of {item.name}"
        yield Step(action, "the dataplane does not know it so", publish, tuple(undo))


def _removal(have: State, published: Endpoints, name: str, reason: str) -> Iterator[Step[State]]:
    end, interface = have.links.get(name), have.interfaces.get(name)
    disrupts = f"container {end.container}" if end is not None and end.up and end.connected else ""
    if end is not None and end.up:
        yield Step(f"take down {name}", reason, SetUp(name, False), (SetUp(name, True),), disrupts)
    rows = tuple(sorted(published.items()))
    if rows:
        addresses = tuple(address for address, _endpoint in rows)
        yield Step(f"withdraw {_list(addresses)} of {name}", reason, Withdraw(addresses), (Publish(name, rows),))
    if name in have.programs:
        generation = have.node.generation if have.node else ""
        undo = (Attach(name, generation),) if end is not None and generation else ()
        action = f"detach {end.pair.program} from {name}" if end is not None else f"unpin the program of {name}"
        yield Step(action, reason, Detach(name), undo)
    if end is not None:
        undo_link: tuple[Any, ...] = ()
        if interface is not None and end.connected:
            link = CreateLink(name, end.container, interface.name, interface.mac, interface.mtu, end.pair, end.vf)
            undo_link = (link, Configure(name, interface))
        action = f"take VF {end.vf} back from {name}" if end.vf else f"delete link {name}"
        yield Step(action, reason, DeleteLink(name), undo_link)


def _difference(before: Interface, wanted: Interface) -> str:
    parts = [name for name in ("mac", "mtu", "addresses", "routes") if getattr(before, name) != getattr(wanted, name)]
    return ", ".join(parts) or "state up"


def _list(addresses: tuple[str, ...]) -> str:
    return ", ".join(addresses)


def _public_pair(end: HostEnd) -> dict[str, str]:
    own = {"mode": end.pair.mode, "vf": end.vf}
    return {"kind": end.pair.kind, **{key: value for key, value in own.items() if value}}


def public(state: State) -> list[dict[str, Any]]:
    """What is attached, in the config's shape."""
    written = {str(item["name"]): item for item in state.document or ()}
    return [
        {
            "name": name,
            "container": dict([end.container.split(":", 1)]) if end.container else {},
            **_public_pair(end),
            "interface": interface.name,
            "addresses": sorted(interface.addresses),
            "mtu": interface.mtu,
            **({} if interface.mac == NO_MAC or end.vf else {"mac": interface.mac}),
            "routes": [fields.public_route(route) for route in sorted(interface.routes, key=fields.by_prefix)],
            **{key: written[name][key] for key in members.KEYS if key in written.get(name, {})},
        }
        for name, end in sorted(state.links.items())
        for interface in [state.interfaces.get(name)]
        if interface is not None
    ]
