# SPDX-License-Identifier: GPL-3.0-or-later
"""What the first bytes of a frame say, for people: addresses, protocol, ports. Whatever the bytes, it never fails."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Callable, Union

Fields = dict[str, Union[str, int]]

_TAGS = (b"\x81\x00", b"\x88\xa8")
_NAMES = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_WITH_PORTS, _ICMP = (6, 17, 132), (1, 58)
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _OPTIONS = 0, 43, 44, 51, 60
_EXTENSIONS = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _OPTIONS)
_OPERATIONS = {1: "request", 2: "reply"}


def describe(frame: bytes) -> Fields:
    """The fields that are there, in this order: src_mac, dst_mac, protocol (by name, else IP's number or the
    EtherType as 0x88cc), src, dst, fragment (its offset in bytes), src_port and dst_port, type and code of ICMP,
    operation of ARP. The frame may be cut anywhere."""
    if len(frame) < 14:
        return {}
    start = 12
    while frame[start : start + 2] in _TAGS and len(frame) >= start + 6:
        start += 4
    ethertype, data = frame[start : start + 2], frame[start + 2 :]
    macs: Fields = {"src_mac": frame[6:12].hex(":"), "dst_mac": frame[:6].hex(":")}
    read = _READERS.get(ethertype)
    return {**macs, **(read(data) if read else {"protocol": f"0x{ethertype.hex()}"})}


def _ipv4(data: bytes) -> Fields:
    if len(data) < 20:
        return {"protocol": "ipv4"}
    header, flags = (data[0] & 15) * 4, int.from_bytes(data[6:8], "big")
    fragment = (flags & 0x1FFF) * 8 if flags & 0x3FFF else None  # its offset, or that more follow
    ends: Fields = {"src": str(IPv4Address(data[12:16])), "dst": str(IPv4Address(data[16:20]))}
    return _ip(data[9], ends, fragment, data[header:] if header >= 20 else b"")


def _ipv6(data: bytes) -> Fields:
    if len(data) < 40:
        return {"protocol": "ipv6"}
    ends: Fields = {"src": str(IPv6Address(data[8:24])), "dst": str(IPv6Address(data[24:40]))}
    proto, rest, fragment = data[6], data[40:], None
    while proto in _EXTENSIONS and len(rest) >= 8 and not fragment:
        size = (rest[1] + 1) * 8
        if proto == _FRAGMENT:
            size, fragment = 8, int.from_bytes(rest[2:4], "big") & 0xFFF8
        elif proto == _AUTHENTICATION:
            size = (rest[1] + 2) * 4
        proto, rest = rest[0], rest[size:]
    return _ip(proto, ends, fragment, rest)


def _ip(proto: int, ends: Fields, fragment: int | None, data: bytes) -> Fields:
    """data: behind the IP headers. Only a first fragment has the header of what it carries."""
    found: Fields = {"protocol": _NAMES.get(proto, str(proto)), **ends}
    if fragment is not None:
        found["fragment"] = fragment
    if not fragment and proto in _WITH_PORTS and len(data) >= 4:
        found["src_port"], found["dst_port"] = struct.unpack_from("!HH", data)
    if not fragment and proto in _ICMP and len(data) >= 2:
        found["type"], found["code"] = data[0], data[1]
    return found


def _arp(data: bytes) -> Fields:
    if len(data) < 28:
        return {"protocol": "arp"}
    operation = int.from_bytes(data[6:8], "big")
    return {
        "protocol": "arp",
        "src": str(IPv4Address(data[14:18])),
        "dst": str(IPv4Address(data[24:28])),
        "operation": _OPERATIONS.get(operation, str(operation)),
    }


_READERS: dict[bytes, Callable[[bytes], Fields]] = {b"\x08\x00": _ipv4, b"\x86\xdd": _ipv6, b"\x08\x06": _arp}
