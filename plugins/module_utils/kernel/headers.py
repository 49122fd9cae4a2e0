# SPDX-License-Identifier: GPL-3.0-or-later
"""IP packets and their checksums, for those that this library writes itself. Addresses are packed, of either family."""

from __future__ import annotations

import struct

_IPV4, _IPV6, _PSEUDO = struct.Struct("!BBHHHBBH"), struct.Struct("!IHBB"), struct.Struct("!II")


def packet(source: bytes, target: bytes, protocol: int, payload: bytes, hops: int = 64) -> bytes:
    if len(source) == 16:
        return _IPV6.pack(6 << 28, len(payload), protocol, hops) + source + target + payload
    ends = source + target
    fields = (0x45, 0, _IPV4.size + len(ends) + len(payload), 0, 0, hops, protocol)
    return _IPV4.pack(*fields, checksum(_IPV4.pack(*fields, 0) + ends)) + ends + payload


def pseudo(source: bytes, target: bytes, protocol: int, payload: bytes) -> bytes:
    """What checksums of TCP, UDP and ICMPv6 are about besides the payload."""
    return source + target + _PSEUDO.pack(len(payload), protocol)


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
