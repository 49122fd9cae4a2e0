# SPDX-License-Identifier: GPL-3.0-or-later
"""What policies, endpoints and packets are, once checked. Pure data; what there may be 100,000 of is a tuple."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Optional, Union

INGRESS, EGRESS = 0, 1  # towards the container, from the container
DIRECTIONS = ("ingress", "egress")

# The protocols that have ports of their own; an ICMP packet has type * 256 + code in the place of a port.
PROTOCOLS: Mapping[str, int] = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}
BITS = {4: 32, 6: 128}
NAMESPACE_LABEL = "kubernetes.io/metadata.name"  # every namespace has its own name as this label


class Prefix(NamedTuple):
    """A CIDR without host bits; sorted, a prefix comes right before all that it contains."""

    version: int  # 4 or 6
    address: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """From 10.0.0.0/8; host bits are cut off, as Kubernetes does. Raises ValueError."""
        address, slash, length = text.partition("/")
        version, number = parse_address(address)
        if not slash or not length.isascii() or not length.isdigit() or int(length) > BITS[version]:
            raise ValueError(text)
        host = BITS[version] - int(length)
        return cls(version, number >> host << host, int(length))

    @property
    def last(self) -> int:
        return self.address | ((1 << (BITS[self.version] - self.length)) - 1)

    @property
    def mapped(self) -> bool:
        """It lies within ::ffff:0:0/96, which no packet on the wire may use."""
        return self.version == 6 and self.length >= 96 and self.address >> 32 == 0xFFFF

    def contains(self, other: Prefix) -> bool:
        return self.version == other.version and self.address <= other.address and other.last <= self.last

    def __str__(self) -> str:
        return f"{format_address((self.version, self.address))}/{self.length}"


Address = tuple[int, int]  # version, number: IPv4 and IPv6 are never mixed up


def parse_address(text: str) -> Address:
    """Raises ValueError."""
    version = 6 if ":" in text else 4
    try:
        raw = socket.inet_pton(socket.AF_INET6 if version == 6 else socket.AF_INET, text)
    except OSError:
        raise ValueError(text) from None
    return version, int.from_bytes(raw, "big")


def format_address(address: Address) -> str:
    version, number = address
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    return socket.inet_ntop(family, number.to_bytes(BITS[version] // 8, "big"))


class Requirement(NamedTuple):
    key: str
    operator: str  # In, NotIn, Exists, DoesNotExist
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        return (labels.get(self.key) in self.values) == (self.operator == "In")


class Selector(NamedTuple):
    """All requirements must hold; without any it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(item.matches(labels) for item in self.requirements)


class Block(NamedTuple):
    """The addresses of a prefix without those of some smaller ones, none of which contains another."""

    cidr: Prefix
    excepts: tuple[Prefix, ...] = ()


class Pods(NamedTuple):
    """Endpoints by their labels, in one namespace by name or in all that a selector selects."""

    namespace: str | Selector
    selector: Selector = Selector()


Peer = Union[Block, Pods]
Peers = Optional[tuple[Peer, ...]]  # None: everybody


class Port(NamedTuple):
    """Ports `low` to `high` of a protocol; with a name, those that the destination calls so."""

    protocol: str
    low: int = 0
    high: int = 65535
    name: str = ""


class Rule(NamedTuple):
    peers: Peers
    ports: tuple[Port, ...] | None  # None: every protocol
    allow: bool = True


@dataclass(frozen=True)
class Policy:
    """Rules by direction; None: the policy says nothing about this direction.

    Without a priority it is one of Kubernetes: what it selects is isolated, its rules allow. With one (small comes
    first) it isolates nothing, and its rules are asked before all policies without.
    """

    kind: str
    namespace: str
    name: str
    pods: Selector
    rules: tuple[tuple[Rule, ...] | None, tuple[Rule, ...] | None]
    priority: int | None = None
    log: bool = False
    audit: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """Unique; where several rules give the same verdict, the first in this order is named."""
        return self.namespace, self.name, self.kind


class NamedPort(NamedTuple):
    name: str
    protocol: str
    port: int


@dataclass(frozen=True)
class Endpoint:
    """A container's interface. Those on this node have a slot (a row of the dataplane), others have none."""

    name: str
    addresses: tuple[str, ...]
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[NamedPort, ...] = ()
    slot: int | None = None


@dataclass(frozen=True)
class Packet:
    """The first packet of a flow. `port` is the destination's, or type * 256 + code of ICMP, or 0."""

    source: str
    destination: str
    protocol: int
    port: int = 0
