# SPDX-License-Identifier: GPL-3.0-or-later
"""The frames that tests start from: both families, from each of the three sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.bpf import packets
from tests.bpf.packets import DF, ICMP, ICMPV6, IPV4, IPV6, UDP
from tests.bpf.topology import (
    C1,
    C2,
    FAR4,
    FAR6,
    GATEWAY4,
    GATEWAY6,
    GATEWAY_MAC,
    LONELY4,
    LONELY6,
    NODE4,
    NODE6,
    UPLINK_MAC,
    WIRE_MAC,
)


@dataclass(frozen=True)
class Family:
    """One address family: who is who, and how its packets are made."""

    name: str
    ethertype: int
    header: int
    icmp: int
    c1: str
    c2: str
    gateway: str
    node: str
    far: str
    lonely: str

    def __str__(self) -> str:
        return self.name


V4 = Family("v4", IPV4, 20, ICMP, C1.v4, C2.v4, GATEWAY4, NODE4, FAR4, LONELY4)
V6 = Family("v6", IPV6, 40, ICMPV6, C1.v6, C2.v6, GATEWAY6, NODE6, FAR6, LONELY6)
FAMILIES = (V4, V6)


@dataclass(frozen=True)
class Flow:
    """A UDP datagram on its way into one hook."""

    src: str
    dst: str
    src_mac: str = C1.mac
    dst_mac: str = GATEWAY_MAC
    ttl: int = 64
    size: int = 64
    fragment: int = DF

    def frame(self) -> bytes:
        payload = packets.udp(self.src, self.dst, bytes(range(256)) * (self.size // 256) + bytes(self.size % 256))
        return self.carrying(payload, UDP)

    def carrying(self, payload: bytes, proto: int) -> bytes:
        if ":" in self.dst:
            packet = packets.ipv6(self.src, self.dst, payload, proto, ttl=self.ttl)
            return packets.frame(self.dst_mac, self.src_mac, IPV6, packet)
        packet = packets.ipv4(self.src, self.dst, payload, proto, ttl=self.ttl, fragment=self.fragment)
        return packets.frame(self.dst_mac, self.src_mac, IPV4, packet)

    def with_(self, **changes: str | int) -> Flow:
        return replace(self, **changes)  # type: ignore[arg-type]


def from_container(family: Family, dst: str | None = None) -> Flow:
    """Container 1 to container 2, or to dst."""
    return Flow(family.c1, dst or family.c2)


def from_wire(family: Family, dst: str | None = None) -> Flow:
    """From far away to container 2, or to dst."""
    return Flow(family.far, dst or family.c2, WIRE_MAC, UPLINK_MAC)


def from_host(family: Family, dst: str | None = None) -> Flow:
    """The node itself to container 2, or to dst."""
    return Flow(family.gateway, dst or family.c2, GATEWAY_MAC, GATEWAY_MAC)


FLOWS: dict[str, Callable[[Family], Flow]] = {
    "from_container": from_container,
    "from_wire": from_wire,
    "from_host": from_host,
}
