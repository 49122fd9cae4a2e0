# SPDX-License-Identifier: GPL-3.0-or-later
"""The address plan of a lab: pure functions of its name and size.

Numbers are written in decimal in IPv6 addresses too: node 12's uplink is 192.0.2.22 and fd00:192::22.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

MAX_NODES = 200
MAX_CONTAINERS = 200
FLAVOURS = ("minimal", "podman")
KINDS = ("container", "vm")
KERNELS = ("6.1", "6.12", "7.2")

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
    """Everything that is fixed about one node before it exists; pairs are (IPv4, IPv6).

    A container node shares the machine's kernel and is reached on the fabric: its kernel and management are empty.
    """

    lab: str
    number: int
    name: str
    netns: str
    mac: str
    addresses: tuple[str, str]
    prefixes: tuple[str, str]
    machine_id: str
    containers: tuple[Container, ...]
    kernel: str = ""
    management: str = ""

    @property
    def reached_at(self) -> str:
        """The address for ssh and Ansible."""
        return self.management or self.addresses[0]


@dataclass(frozen=True)
class Topology:
    """A lab's name, size and kind of nodes; the rest follows from it. Virtual nodes take turns with the kernels."""

    name: str
    nodes: int
    containers: int
    image: str
    kind: str = KINDS[0]
    kernels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", self.name):
            raise ValueError(f"lab name {self.name!r}: a lower-case letter, then up to 19 letters, digits or dashes")
        if not 1 <= self.nodes <= MAX_NODES:
            raise ValueError(f"nodes = {self.nodes}: 1 to {MAX_NODES}")
        if not 0 <= self.containers <= MAX_CONTAINERS:
            raise ValueError(f"containers = {self.containers}: 0 to {MAX_CONTAINERS}")
        if self.image not in FLAVOURS:
            raise ValueError(f"image = {self.image!r}: one of {', '.join(FLAVOURS)}")
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r}: one of {', '.join(KINDS)}")
        for kernel in self.kernels:
            if kernel not in KERNELS:
                raise ValueError(f"kernel = {kernel!r}: one of {', '.join(KERNELS)}")
        if self.kernels and self.kind != "vm":
            raise ValueError("a container node has the machine's kernel: kernels need kind = 'vm'")
        if self.kind == "vm" and not self.kernels:
            raise ValueError("kernels: at least one")

    @classmethod
    def wanted(
        cls,
        name: str,
        nodes: int | None = None,
        containers: int | None = None,
        image: str | None = None,
        kind: str | None = None,
        kernels: Sequence[str] = (),
    ) -> Topology:
        """A new lab; None is the default. Raises ValueError."""
        kind = kind or KINDS[0]
        return cls(
            name,
            3 if nodes is None else nodes,
            2 if containers is None else containers,
            image or FLAVOURS[0],
            kind,
            tuple(kernels) or (("6.12",) if kind == "vm" else ()),
        )

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
            **(self._virtual(number) if self.kind == "vm" else {}),
        )

    def _virtual(self, number: int) -> dict[str, str]:
        return {
            "kernel": self.kernels[(number - 1) % len(self.kernels)],
            # QEMU listens there, in the fabric's namespace: a broken uplink locks nobody out.
            "management": f"127.0.0.{10 + number}",
        }

    def __iter__(self) -> Iterator[NodePlan]:
        return (self.node(number) for number in range(1, self.nodes + 1))

    def grown(
        self,
        nodes: int | None,
        containers: int | None,
        image: str | None,
        kind: str | None = None,
        kernels: Sequence[str] = (),
    ) -> Topology:
        """This lab, at least as large as asked for; raises ValueError for other nodes than it has."""
        wishes = (("image", image, self.image), ("kind", kind, self.kind), ("kernels", tuple(kernels), self.kernels))
        for what, wish, has in wishes:
            if wish and wish != has:
                raise ValueError(f"lab {self.name} has {what} {has!r}; take it down first to use {wish!r}")
        return replace(self, nodes=max(self.nodes, nodes or 0), containers=max(self.containers, containers or 0))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Topology:
        """The inverse of as_dict, also after JSON, which has no tuples."""
        return cls(**values | {"kernels": tuple(values.get("kernels", ()))})

    def as_dict(self) -> dict[str, Any]:
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
