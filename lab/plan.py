# SPDX-License-Identifier: GPL-3.0-or-later
"""The address plan of a lab: pure functions of its name and size.

Numbers are written in decimal in IPv6 addresses too: node 12's uplink is 192.0.2.22 and fd00:192::22.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

MAX_NODES = 200
MAX_CONTAINERS = 200
FLAVOURS = ("minimal", "podman")

UPLINK = "eth0"
BRIDGE = "br0"
BRIDGE_MAC = "02:1a:b0:00:00:01"
FABRIC_GATEWAYS = ("192.0.2.1", "fd00:192::1")
FABRIC_LENGTHS = (24, 64)
OUTSIDE_GATEWAYS = ("198.51.100.1", "fd00:198::1")
OUTSIDE_ADDRESSES = ("198.51.100.10", "fd00:198::10")
OUTSIDE_MAC = "02:1a:b0:00:00:0a"


@dataclass(frozen=True)
class Container:
    """A container of a node: a network namespace with a sleeping process."""

    name: str
    netns: str
    addresses: tuple[str, str]


@dataclass(frozen=True)
class NodePlan:
    """Everything that is fixed about one node before it exists; pairs are (IPv4, IPv6)."""

    lab: str
    number: int
    name: str
    netns: str
    mac: str
    addresses: tuple[str, str]
    prefixes: tuple[str, str]
    machine_id: str
    containers: tuple[Container, ...]


@dataclass(frozen=True)
class Topology:
    """A lab's name and size; the rest follows from it."""

    name: str
    nodes: int
    containers: int
    image: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", self.name):
            raise ValueError(f"lab name {self.name!r}: a lower-case letter, then up to 19 letters, digits or dashes")
        if not 1 <= self.nodes <= MAX_NODES:
            raise ValueError(f"nodes = {self.nodes}: 1 to {MAX_NODES}")
        if not 0 <= self.containers <= MAX_CONTAINERS:
            raise ValueError(f"containers = {self.containers}: 0 to {MAX_CONTAINERS}")
        if self.image not in FLAVOURS:
            raise ValueError(f"image = {self.image!r}: one of {', '.join(FLAVOURS)}")

    @classmethod
    def wanted(
        cls, name: str, nodes: int | None = None, containers: int | None = None, image: str | None = None
    ) -> Topology:
        """A new lab; None is the default. Raises ValueError."""
        return cls(name, 3 if nodes is None else nodes, 2 if containers is None else containers, image or FLAVOURS[0])

    @property
    def fabric(self) -> str:
        """Name of the router's network namespace."""
        return f"{self.name}-fabric"

    @property
    def outside(self) -> str:
        """Name of the network namespace behind the router."""
        return f"{self.name}-outside"

    def node(self, number: int) -> NodePlan:
        """Plan of the node with this number, counted from 1."""
        name = f"node{number}"
        return NodePlan(
            lab=self.name,
            number=number,
            name=name,
            netns=f"{self.name}-{name}",
            mac=f"02:1a:b0:00:01:{number:02x}",
            addresses=(f"192.0.2.{10 + number}", f"fd00:192::{10 + number}"),
            prefixes=(f"10.128.{number}.0/24", f"fd00:128:{number}::/64"),
            # Fixed per lab and node, so that a node does not take its boots for first boots.
            machine_id=hashlib.sha256(f"{self.name}/{name}".encode()).hexdigest()[:32],
            containers=tuple(_container(number, index) for index in range(1, self.containers + 1)),
        )

    def __iter__(self) -> Iterator[NodePlan]:
        return (self.node(number) for number in range(1, self.nodes + 1))

    def grown(self, nodes: int | None, containers: int | None, image: str | None) -> Topology:
        """This lab, at least as large as asked for; raises ValueError for another image."""
        if image not in (None, self.image):
            raise ValueError(f"lab {self.name} runs image {self.image!r}; take it down first to use {image!r}")
        return replace(self, nodes=max(self.nodes, nodes or 0), containers=max(self.containers, containers or 0))

    def as_dict(self) -> dict[str, str | int]:
        """Shape of lab.json: the constructor's arguments."""
        return asdict(self)


def _container(node: int, index: int) -> Container:
    return Container(
        name=f"c{index}",
        netns=f"/run/netns/c{index}",
        addresses=(f"10.128.{node}.{10 + index}/32", f"fd00:128:{node}::{10 + index}/128"),
    )


def netns_of_lab(name: str, netns: str) -> bool:
    """True if a network namespace of this name belongs to the lab, whatever its size."""
    return re.fullmatch(rf"{re.escape(name)}-(fabric|outside|node[0-9]+)", netns) is not None
