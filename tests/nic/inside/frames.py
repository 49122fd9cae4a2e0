# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames, byte by byte."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

IPV4, IPV6, VLAN, OTHER = 0x0800, 0x86DD, 0x8100, 0x88B5
ETH_TYPE = {4: IPV4, 6: IPV6, 0: OTHER}


def mac(number: int) -> bytes:
    return bytes((2, 0, 0, 0, 0, number))


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Frame:
    """The fields that the table of the device knows; tags from the outermost on: priority, id.

    version 0 is neither IPv4 nor IPv6; for ICMP the ports are type and code.
    """

    dst_mac: bytes = mac(2)
    src_mac: bytes = mac(1)
    tags: tuple[tuple[int, int], ...] = ()
    version: int = 4
    src: str = "10.0.0.1"
    dst: str = "10.0.0.2"
    protocol: int = socket.IPPROTO_UDP
    tos: int = 0
    ttl: int = 64
    fragment: str = "no"  # no, first, later
    src_port: int = 1000
    dst_port: int = 2000
    tcp_flags: int = 0x02
    payload: bytes = b"payload of a test"

    def pack(self) -> bytes:
        tags = b"".join(struct.pack("!HH", VLAN, priority << 13 | number) for priority, number in self.tags)
        return self.dst_mac + self.src_mac + tags + struct.pack("!H", ETH_TYPE[self.version]) + self._network()

    def _network(self) -> bytes:
        if self.version == 4:
            body = self._transport()
            offset = {"no": 0, "first": 0x2000, "later": 1}[self.fragment]
            header = struct.pack(
                "!BBHHHBBH4s4s", 0x45, self.tos, 20 + len(body), 7, offset, self.ttl, self.protocol, 0,
                socket.inet_aton(self.src), socket.inet_aton(self.dst),
            )  # fmt: skip
            return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body
        if self.version == 6:
            body, protocol = self._transport(), self.protocol
            if self.fragment != "no":
                body = struct.pack("!BBHI", protocol, 0, {"first": 1, "later": 8}[self.fragment], 7) + body
                protocol = socket.IPPROTO_FRAGMENT
            return (
                struct.pack("!IHBB", 6 << 28 | self.tos << 20, len(body), protocol, self.ttl)
                + socket.inet_pton(socket.AF_INET6, self.src)
                + socket.inet_pton(socket.AF_INET6, self.dst)
                + body
            )
        return self.payload

    def _transport(self) -> bytes:
        if self.protocol == socket.IPPROTO_TCP:
            header = struct.pack("!HHIIBBHHH", self.src_port, self.dst_port, 1, 0, 0x50, self.tcp_flags, 1000, 0, 0)
        elif self.protocol == socket.IPPROTO_UDP:
            header = struct.pack("!HHHH", self.src_port, self.dst_port, 8 + len(self.payload), 0)
        else:
            header = struct.pack("!BBHHH", self.src_port & 0xFF, self.dst_port & 0xFF, 0, 1, 1)
        return header + self.payload
