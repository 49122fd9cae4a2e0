# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames as bytes, right or deliberately wrong. Nothing here knows the dataplane."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

IPV4, IPV6, ARP, VLAN = 0x0800, 0x86DD, 0x0806, 0x8100
ICMP, TCP, UDP, ICMPV6, FRAGMENT, HOP_BY_HOP = 1, 6, 17, 58, 44, 0
DF, MF = 0x4000, 0x2000
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes | bytearray) -> int:
    """The Internet checksum of RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo(src: str, dst: str, proto: int, length: int) -> bytes:
    if ":" in dst:
        return IPv6Address(src).packed + IPv6Address(dst).packed + struct.pack("!II", length, proto)
    return IPv4Address(src).packed + IPv4Address(dst).packed + struct.pack("!HH", proto, length)


def frame(dst: str, src: str, ethertype: int, payload: bytes) -> bytes:
    return mac(dst) + mac(src) + struct.pack("!H", ethertype) + payload


def ipv4(
    src: str,
    dst: str,
    payload: bytes,
    proto: int = UDP,
    *,
    ttl: int = 64,
    fragment: int = DF,
    version: int = 4,
    options: bytes = b"",
    words: int | None = None,
    length: int | None = None,
) -> bytes:
    """words: the header's length in its own unit; length: of the whole packet. Both right if None."""
    size = 20 + len(options)
    first = version << 4 | (size // 4 if words is None else words)
    total = min(size + len(payload), 0xFFFF) if length is None else length
    addresses = IPv4Address(src).packed + IPv4Address(dst).packed
    fields = (first, 0, total, 0x1234, fragment, ttl, proto)
    bare = struct.pack("!BBHHHBBH", *fields, 0) + addresses + options
    return struct.pack("!BBHHHBBH", *fields, checksum(bare)) + addresses + options + payload


def ipv6(
    src: str, dst: str, payload: bytes, proto: int = UDP, *, ttl: int = 64, version: int = 6, length: int | None = None
) -> bytes:
    """length: of the payload; right if None."""
    size = min(len(payload), 0xFFFF) if length is None else length
    addresses = IPv6Address(src).packed + IPv6Address(dst).packed
    return struct.pack("!IHBB", version << 28, size, proto, ttl) + addresses + payload


def udp(src: str, dst: str, data: bytes, sport: int = 4000, dport: int = 4001) -> bytes:
    length = 8 + len(data)
    header = struct.pack("!HHHH", sport, dport, length & 0xFFFF, 0)
    total = checksum(pseudo(src, dst, UDP, length) + header + data) or 0xFFFF
    return struct.pack("!HHHH", sport, dport, length & 0xFFFF, total) + data


def tcp(data: bytes, options: bytes = b"") -> bytes:
    """A segment whose checksum nobody has filled in, as a sender leaves it to the NIC."""
    words = 5 + len(options) // 4
    return struct.pack("!HHIIBBHHH", 4000, 4001, 1, 1, words << 4, 0x10, 512, 0, 0) + options + data


def icmp(type: int, code: int = 0, data: bytes = b"ping") -> bytes:
    bare = struct.pack("!BBHI", type, code, 0, 0x00010001) + data
    return struct.pack("!BBHI", type, code, checksum(bare), 0x00010001) + data


def icmpv6(src: str, dst: str, type: int, code: int = 0, data: bytes = bytes(4)) -> bytes:
    bare = struct.pack("!BBH", type, code, 0) + data
    total = checksum(pseudo(src, dst, ICMPV6, len(bare)) + bare)
    return struct.pack("!BBH", type, code, total) + data


def arp(
    sender_mac: str, sender: str, target: str, *, operation: int = 1, dst: str = BROADCAST, src: str | None = None
) -> bytes:
    """A whole frame; src: the frame's own source, if it is not the sender's."""
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + mac(sender_mac) + IPv4Address(sender).packed
    return frame(dst, src or sender_mac, ARP, body + bytes(6) + IPv4Address(target).packed)


def solicitation(
    src_mac: str, src: str, target: str, *, dst: str | None = None, ttl: int = 255, type: int = 135, option: bool = True
) -> bytes:
    """A neighbour solicitation as a whole frame, to the target's solicited-node group if dst is None."""
    last = IPv6Address(target).packed[-3:]
    group = str(IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + last))
    data = bytes(4) + IPv6Address(target).packed + (b"\x01\x01" + mac(src_mac) if option else b"")
    to = dst or group
    to_mac = "33:33:ff:" + last.hex(":") if dst is None else dst_mac(dst)
    return frame(to_mac, src_mac, IPV6, ipv6(src, to, icmpv6(src, to, type, 0, data), ICMPV6, ttl=ttl))


def dst_mac(_address: str) -> str:
    """Whoever is written to directly is behind the gateway."""
    return "0e:fa:57:00:00:01"
