# SPDX-License-Identifier: GPL-3.0-or-later
"""The attachments of a node: what is there, and the steps to what is wished. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import FastpathError
from ..kernel.datapath import SLOTS
from ..kernel.links import Route
from ..plan import Step
from . import fields


@dataclass(frozen=True)
class Node:
    """What attachments need of the node's dataplane. generation "": it is only planned (check mode)."""

    prefixes: tuple[str, ...]
    mtu: int
    generation: str

    @property
    def gateways(self) -> dict[int, str]:
        return fields.gateways(self.prefixes)


@dataclass(frozen=True)
class Attachment:
    """A checked item of the config. container: a reference, see kernel/containers.py."""

    name: str
    container: str
    interface: str
    addresses: frozenset[str]
    mtu: int
    mac: str
    routes: frozenset[Route]


@dataclass(frozen=True)
class HostEnd:
    """connected: its other end is in the namespace that the container has now."""

    container: str
    up: bool
    connected: bool


@dataclass(frozen=True)
class Interface:
    """The container end."""

    name: str
    mac: str
    mtu: int
    up: bool
    addresses: frozenset[str]
    routes: frozenset[Route]


@dataclass(frozen=True)
class Endpoint:
    """A published address (host form, no prefix length is kept). attachment "": nobody's any more."""

    attachment: str
    slot: int
    mac: str
    mtu: int


Endpoints = Mapping[str, Endpoint]  # by address


@dataclass(frozen=True)
class Request:
    """assume: the dataplane to count on where none is installed yet (check mode), else None."""

    config: tuple[Mapping[str, Any], ...]
    state: str
    skip_absent: bool = False
    assume: Node | None = None


@dataclass(frozen=True)
class State:
    """programs: attachment -> does its host end run the node's present generation?
    containers: references whose container exists; foreign: names of interfaces that are not ours."""

    node: Node | None = None
    links: Mapping[str, HostEnd] = field(default_factory=dict)
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    programs: Mapping[str, bool] = field(default_factory=dict)
    containers: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()
    document: tuple[Mapping[str, Any], ...] | None = None


# Operations


@dataclass(frozen=True)
class CreateLink:
    """A pair, both ends down, the far end inside the container."""

    name: str
    container: str
    interface: str
    mac: str
    mtu: int

    def effect(self, state: State) -> State:
        end = HostEnd(self.container, up=False, connected=True)
        interface = Interface(self.interface, self.mac, self.mtu, False, frozenset(), frozenset())
        return replace(
            state, links={**state.links, self.name: end}, interfaces={**state.interfaces, self.name: interface}
        )


@dataclass(frozen=True)
class DeleteLink:
    name: str

    def effect(self, state: State) -> State:
        return replace(state, links=_without(state.links, self.name), interfaces=_without(state.interfaces, self.name))


@dataclass(frozen=True)
class Attach:
    """Run from_container on the host end."""

    name: str
    generation: str

    def effect(self, state: State) -> State:
        return replace(state, programs={**state.programs, self.name: True})


@dataclass(frozen=True)
class Detach:
    name: str

    def effect(self, state: State) -> State:
        return replace(state, programs=_without(state.programs, self.name))


@dataclass(frozen=True)
class Publish:
    """Deliver these addresses to the attachment. fresh: its row of statistics starts from zero."""

    name: str
    endpoints: tuple[tuple[str, Endpoint], ...]
    fresh: bool = False

    def effect(self, state: State) -> State:
        return replace(state, endpoints={**state.endpoints, **dict(self.endpoints)})


@dataclass(frozen=True)
class Withdraw:
    addresses: tuple[str, ...]

    def effect(self, state: State) -> State:
        return replace(state, endpoints=_without(state.endpoints, *self.addresses))


@dataclass(frozen=True)
class Configure:
    """Give the container end exactly these properties; a route or address of somebody else is left alone."""

    name: str
    interface: Interface

    def effect(self, state: State) -> State:
        return replace(state, interfaces={**state.interfaces, self.name: self.interface})


@dataclass(frozen=True)
class SetUp:
    name: str
    up: bool

    def effect(self, state: State) -> State:
        end = replace(state.links[self.name], up=self.up)
        return replace(state, links={**state.links, self.name: end})


@dataclass(frozen=True)
class Record:
    """Keep the list as this node's desired state; None removes it."""

    document: tuple[Mapping[str, Any], ...] | None

    def effect(self, state: State) -> State:
        return replace(state, document=self.document)


def _without(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in names}


# The plan


@dataclass(frozen=True)
class Want:
    """The request, checked: what shall be, what shall go, and the list to keep."""

    attachments: tuple[Attachment, ...]
    remove: frozenset[str]
    document: tuple[Mapping[str, Any], ...] | None


def steps(have: State, want: Want, generation: str) -> Iterator[Step[State]]:
    """From what is there to what is wanted: all that goes before anything that comes, so that names, addresses and
    interfaces can move from one attachment to another."""
    published = _by_attachment(have.endpoints)
    reasons = {item.name: "its container or interface is another one now" for item in want.attachments}
    replaced = {item.name for item in want.attachments if item.name in have.links and not _fits(have, item)}
    gone = (want.remove & known(have)) | replaced
    for name in sorted(gone):
        yield from _removal(have, published.get(name, {}), name, reasons.get(name, "it is not wanted"))
    left = replace(
        have,
        links=_without(have.links, *gone),
        interfaces=_without(have.interfaces, *gone),
        programs=_without(have.programs, *gone),
    )
    yield from _garbage(left, published.get("", {}))
    slots = _slots(have, want)
    served = {item.name: {} if item.name in gone else published.get(item.name, {}) for item in want.attachments}
    for item in want.attachments:
        yield from _withdrawing(served[item.name], item)
    for item in want.attachments:
        yield from _attachment(left, served[item.name], item, generation, slots[item.name])
    if (have.document or None) != (want.document or None):
        undo = (Record(have.document),)
        reason = "the node restores them at boot" if want.document else "none is left"
        yield Step("record the attachments in /etc/fastpath", reason, Record(want.document or None), undo)


def _by_attachment(endpoints: Endpoints) -> dict[str, dict[str, Endpoint]]:
    found: dict[str, dict[str, Endpoint]] = {}
    for address, endpoint in endpoints.items():
        found.setdefault(endpoint.attachment, {})[address] = endpoint
    return found


def _fits(have: State, item: Attachment) -> bool:
    """Is the link of this name the one that is wanted? Else it has to be made anew."""
    end, interface = have.links[item.name], have.interfaces.get(item.name)
    return (
        end.connected and end.container == item.container and interface is not None and interface.name == item.interface
    )


def _garbage(left: State, ownerless: Endpoints) -> Iterator[Step[State]]:
    if ownerless:
        addresses = tuple(sorted(ownerless))
        yield Step(f"withdraw {_list(addresses)}", "the interface behind it has gone", Withdraw(addresses))
    for name in sorted(set(left.programs) - set(left.links)):
        yield Step(f"unpin the program of {name}", "its interface has gone", Detach(name))


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
    end = left.links.get(item.name)
    before = left.interfaces.get(item.name)
    if end is None or before is None:
        link = CreateLink(item.name, item.container, item.interface, item.mac, item.mtu)
        yield Step(f"create link {item.name} to {item.container}", "it is not there", link, (DeleteLink(item.name),))
        before = Interface(item.interface, item.mac, item.mtu, False, frozenset(), frozenset())
    runs = left.programs.get(item.name) if end is not None else None
    if not runs:
        reason = "packets of the container pass it" if runs is None else "it runs another version"
        undo = (Detach(item.name),) if runs is None else ()
        yield Step(f"attach from_container to {item.name}", reason, Attach(item.name, generation), undo)
    yield from _publishing(served, item, slot)
    wanted = Interface(item.interface, item.mac, item.mtu, True, item.addresses, item.routes)
    if before != wanted:
        cut = before.addresses - wanted.addresses or before.mac != wanted.mac
        action = f"set {_difference(before, wanted)} of {item.interface} in {item.name}"
        undo_configure = (Configure(item.name, before),)
        disrupts = f"container {item.container}" if cut else ""
        yield Step(action, "it differs", Configure(item.name, wanted), undo_configure, disrupts)
    if end is None or not end.up:
        yield Step(f"bring up {item.name}", "it is down", SetUp(item.name, True), (SetUp(item.name, False),))


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
        yield Step(f"detach from_container from {name}", reason, Detach(name), undo)
    if end is not None:
        undo_link: tuple[Any, ...] = ()
        if interface is not None and end.connected:
            link = CreateLink(name, end.container, interface.name, interface.mac, interface.mtu)
            undo_link = (link, Configure(name, interface))
        yield Step(f"delete link {name}", reason, DeleteLink(name), undo_link)


def _difference(before: Interface, wanted: Interface) -> str:
    parts = [name for name in ("mac", "mtu", "addresses", "routes") if getattr(before, name) != getattr(wanted, name)]
    return ", ".join(parts) or "state up"


def bare(address: str) -> str:
    return address.partition("/")[0]


def _list(addresses: tuple[str, ...]) -> str:
    return ", ".join(addresses)


def public(state: State) -> list[dict[str, Any]]:
    """What is attached, in the config's shape."""
    return [
        {
            "name": name,
            "container": dict([end.container.split(":", 1)]) if end.container else {},
            "kind": "veth",
            "interface": interface.name,
            "addresses": sorted(interface.addresses),
            "mtu": interface.mtu,
            "mac": interface.mac,
            "routes": [fields.public_route(route) for route in sorted(interface.routes, key=fields.by_prefix)],
        }
        for name, end in sorted(state.links.items())
        for interface in [state.interfaces.get(name)]
        if interface is not None
    ]
