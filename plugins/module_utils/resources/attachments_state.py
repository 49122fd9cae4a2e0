# SPDX-License-Identifier: GPL-3.0-or-later
"""The attachments of a node: what can be there, and the operations that change it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..eswitch.profiles import KERNEL
from ..kernel.datapath import FROM_CONTAINER, FROM_NETKIT
from ..kernel.links import Route
from ..kernel.sriov import FOR_USER_SPACE
from . import fields
from .policies_switch import Policed

NO_MAC = "00:00:00:00:00:00"  # of both ends of a netkit in mode l3


@dataclass(frozen=True)
class Pair:
    """What connects a container to the host. kind: veth, netkit or vf; mode: l2 or l3 of a netkit, else ""."""

    kind: str
    mode: str = ""

    @property
    def program(self) -> str:
        """What runs on the host end."""
        return FROM_NETKIT if self.kind == "netkit" else FROM_CONTAINER

    def __str__(self) -> str:
        return f"{self.kind} {self.mode}" if self.mode == "l3" else self.kind


VETH, NETKIT, VF = Pair("veth"), Pair("netkit", "l2"), Pair("vf")


@dataclass(frozen=True)
class Vf:
    """A virtual function of a NIC. nic: the PCI address of its PF; mac: its own, "" where it cannot be told.

    user: the attachment that has it; home: its interface is on the node, where the kernel brings it when a container
    ends; busy: the name of that interface where it is up; driver: "" for none; representor: its name, "" where it has
    none; master: the bridge or bond that the representor is in.
    """

    nic: str
    mac: str
    user: str = ""
    home: bool = True
    busy: str = ""
    driver: str = KERNEL
    representor: str = ""
    master: str = ""

    @property
    def obstacle(self) -> str:
        """Why no attachment can have it, in words; "" where one can."""
        if self.master:
            return f"its representor {self.representor} is in {self.master}"
        if self.driver in ("", *FOR_USER_SPACE):
            return f"it is bound to {self.driver or 'no driver'}"
        if self.user:
            return ""
        if not self.representor:
            return "its NIC is not in switchdev mode"
        if not self.home:
            return "its interface is in another network namespace"
        return f"its interface {self.busy} is up" if self.busy else ""


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
    """A checked item of the config. container: a reference, see kernel/containers.py; vf: PCI address of its VF."""

    name: str
    container: str
    pair: Pair
    interface: str
    addresses: frozenset[str]
    mtu: int
    mac: str
    routes: frozenset[Route]
    vf: str = ""


@dataclass(frozen=True)
class HostEnd:
    """connected: its other end is in the namespace that the container has now; vf: PCI address of that end's VF.

    unfinished: what a killed move has left, in words. Then two links may serve the attachment, and this is the one to
    which its addresses lead.
    """

    container: str
    pair: Pair
    up: bool
    connected: bool
    unfinished: str = ""
    vf: str = ""


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
    """epoch: the one of other policies that will be in force by then, 0: of none; None: those that are."""

    config: tuple[Mapping[str, Any], ...]
    state: str
    skip_absent: bool = False
    epoch: int | None = None


@dataclass(frozen=True)
class State(Policed):
    """programs: attachment -> does its host end run the node's present generation?
    containers: references whose container exists; foreign: names of interfaces that are not ours;
    strays: numbers of interfaces that no move needs, but the dataplane still takes for moving;
    vfs: the node's, by PCI address, taken or not, where a VF is asked for or had;
    netkit: does the kernel have it? unreadable: what is wrong with the document that is there, else ""."""

    node: Node | None = None
    links: Mapping[str, HostEnd] = field(default_factory=dict)
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    programs: Mapping[str, bool] = field(default_factory=dict)
    containers: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()
    strays: frozenset[int] = frozenset()
    vfs: Mapping[str, Vf] = field(default_factory=dict)
    netkit: bool = False
    document: tuple[Mapping[str, Any], ...] | None = None
    unreadable: str = ""

    def connects(self, name: str, container: str, interface: str) -> bool:
        """Does the link of this name lead to this interface of the container? Else it has to be made anew."""
        end, inside = self.links.get(name), self.interfaces.get(name)
        if end is None or inside is None:  # the latter where the container has another namespace now
            return False
        return end.container == container and inside.name == interface


# Operations


@dataclass(frozen=True)
class CreateLink:
    """A pair, both ends down, the far end inside the container: one that is made, or a VF and its representor."""

    name: str
    container: str
    interface: str
    mac: str
    mtu: int
    pair: Pair
    vf: str = ""

    def effect(self, state: State) -> State:
        end = HostEnd(self.container, self.pair, up=False, connected=True, vf=self.vf)
        interface = Interface(self.interface, self.mac, self.mtu, False, frozenset(), frozenset())
        return replace(
            state,
            links={**state.links, self.name: end},
            interfaces={**state.interfaces, self.name: interface},
            vfs=_used(state.vfs, self.vf, self.name),
        )


@dataclass(frozen=True)
class DeleteLink:
    """Delete the pair; a VF goes back to the node."""

    name: str

    def effect(self, state: State) -> State:
        end = state.links.get(self.name)
        return replace(
            state,
            links=without(state.links, self.name),
            interfaces=without(state.interfaces, self.name),
            vfs=_used(state.vfs, end.vf if end else "", ""),
        )


@dataclass(frozen=True)
class Attach:
    """Run from_container or from_netkit on the host end."""

    name: str
    generation: str

    def effect(self, state: State) -> State:
        return replace(state, programs={**state.programs, self.name: True})


@dataclass(frozen=True)
class Detach:
    name: str

    def effect(self, state: State) -> State:
        return replace(state, programs=without(state.programs, self.name))


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
        return replace(state, endpoints=without(state.endpoints, *self.addresses))


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
class Move:
    """Put another pair in the place of the attachment's while it serves, also from wherever a killed move stopped."""

    name: str
    pair: Pair
    mac: str
    generation: str

    def effect(self, state: State) -> State:
        end = replace(state.links[self.name], pair=self.pair, up=True, unfinished="")
        interface = replace(state.interfaces[self.name], mac=self.mac, up=True)
        return replace(
            state,
            links={**state.links, self.name: end},
            interfaces={**state.interfaces, self.name: interface},
            endpoints={
                address: replace(point, mac=self.mac) if point.attachment == self.name else point
                for address, point in state.endpoints.items()
            },
            programs={**state.programs, self.name: True},
        )


@dataclass(frozen=True)
class Forget:
    """Take these interfaces for moving no longer."""

    strays: frozenset[int]

    def effect(self, state: State) -> State:
        return replace(state, strays=state.strays - self.strays)


@dataclass(frozen=True)
class Record:
    """Keep the list as this node's desired state; None removes it."""

    document: tuple[Mapping[str, Any], ...] | None

    def effect(self, state: State) -> State:
        return replace(state, document=self.document, unreadable="")


def _used(vfs: Mapping[str, Vf], pci: str, user: str) -> Mapping[str, Vf]:
    return {**vfs, pci: replace(vfs[pci], user=user, home=not user)} if pci in vfs else vfs


def without(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in names}


def bare(address: str) -> str:
    return address.partition("/")[0]
