# SPDX-License-Identifier: GPL-3.0-or-later
"""What a frame's first bytes say, whole or cut anywhere."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils import packet

MACS = bytes.fromhex("0efa570000010e0000000101")
SAID = {"src_mac": "0e:00:00:00:01:01", "dst_mac": "0e:fa:57:00:00:01"}
A4, B4, A6, B6 = "10.128.3.11", "10.128.3.12", "fd00:128:3::11", "fd00:128:3::12"
PORTS = struct.pack("!HHHH", 4000, 53, 8, 0)


def ipv4(proto: int, payload: bytes, fragment: int = 0, options: bytes = b"", first: int | None = None) -> bytes:
    words = 0x45 + len(options) // 4 if first is None else first
    header = struct.pack("!BBHHHBBH", words, 0, 20 + len(options) + len(payload), 7, fragment, 64, proto, 0)
    return MACS + b"\x08\x00" + header + IPv4Address(A4).packed + IPv4Address(B4).packed + options + payload


def ipv6(proto: int, payload: bytes) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(payload), proto, 64)
    return MACS + b"\x86\xdd" + header + IPv6Address(A6).packed + IPv6Address(B6).packed + payload


def arp(operation: int) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return MACS + b"\x08\x06" + head + bytes(6) + IPv4Address(A4).packed + bytes(6) + IPv4Address(B4).packed


V4, V6 = {"src": A4, "dst": B4}, {"src": A6, "dst": B6}
UDP_PORTS = {"src_port": 4000, "dst_port": 53}


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (ipv4(17, PORTS), {"protocol": "udp", **V4, **UDP_PORTS}),
        (ipv4(6, PORTS, options=bytes(12)), {"protocol": "tcp", **V4, **UDP_PORTS}),
        (ipv4(132, PORTS), {"protocol": "sctp", **V4, **UDP_PORTS}),
        (ipv4(1, b"\x08\x01"), {"protocol": "icmp", **V4, "type": 8, "code": 1}),
        (ipv4(89, PORTS), {"protocol": "89", **V4}),
        (ipv4(17, PORTS, fragment=0x4000), {"protocol": "udp", **V4, **UDP_PORTS}),
        (ipv4(17, PORTS, fragment=0x2000), {"protocol": "udp", **V4, "fragment": 0, **UDP_PORTS}),
        (ipv4(17, PORTS, fragment=0x2003), {"protocol": "udp", **V4, "fragment": 24}),
        (ipv4(1, b"\x08\x01", fragment=0x1FFF), {"protocol": "icmp", **V4, "fragment": 65528}),
        (ipv4(17, PORTS, first=0x44), {"protocol": "udp", **V4}),
        (ipv4(17, PORTS, first=0x4F), {"protocol": "udp", **V4}),
        (ipv4(17, PORTS[:3]), {"protocol": "udp", **V4}),
        (ipv4(1, b"\x08"), {"protocol": "icmp", **V4}),
        (ipv4(17, b"")[:-1], {"protocol": "ipv4"}),
        (ipv6(17, PORTS), {"protocol": "udp", **V6, **UDP_PORTS}),
        (ipv6(58, b"\x80\x00"), {"protocol": "icmpv6", **V6, "type": 128, "code": 0}),
        (ipv6(0, bytes([17, 0]) + bytes(6) + PORTS), {"protocol": "udp", **V6, **UDP_PORTS}),
        (
            ipv6(43, bytes([60, 1]) + bytes(14) + bytes([6, 0]) + bytes(6) + PORTS),
            {"protocol": "tcp", **V6, **UDP_PORTS},
        ),
        (ipv6(51, bytes([17, 4]) + bytes(22) + PORTS), {"protocol": "udp", **V6, **UDP_PORTS}),
        (ipv6(44, bytes([17, 9, 0, 1]) + bytes(4) + PORTS), {"protocol": "udp", **V6, "fragment": 0, **UDP_PORTS}),
        (ipv6(44, bytes([17, 0, 0, 25]) + bytes(4) + PORTS), {"protocol": "udp", **V6, "fragment": 24}),
        (ipv6(44, bytes([60, 0, 0, 8]) + bytes(4) + PORTS), {"protocol": "60", **V6, "fragment": 8}),
        (ipv6(0, bytes([17, 0]) + bytes(5)), {"protocol": "0", **V6}),
        (ipv6(17, b"")[:-1], {"protocol": "ipv6"}),
        (arp(1), {"protocol": "arp", **V4, "operation": "request"}),
        (arp(2), {"protocol": "arp", **V4, "operation": "reply"}),
        (arp(9), {"protocol": "arp", **V4, "operation": "9"}),
        (arp(1)[:-1], {"protocol": "arp"}),
        (MACS + b"\x88\xcc" + bytes(50), {"protocol": "0x88cc"}),
        (MACS + b"\x81\x00\x00\x05" + ipv4(17, PORTS)[12:], {"protocol": "udp", **V4, **UDP_PORTS}),
        (MACS + b"\x88\xa8\x00\x05\x81\x00\x00\x06" + arp(1)[12:], {"protocol": "arp", **V4, "operation": "request"}),
        (MACS + b"\x81\x00\x00\x05", {"protocol": "0x8100"}),
        (MACS + b"\x81\x00", {"protocol": "0x8100"}),
    ],
)
def test_fields(frame: bytes, said: packet.Fields) -> None:
    found = packet.describe(frame)
    assert found == {**SAID, **said}
    assert list(found) == [name for name in ORDER if name in found]


ORDER = (
    "src_mac",
    "dst_mac",
    "protocol",
    "src",
    "dst",
    "fragment",
    "src_port",
    "dst_port",
    "type",
    "code",
    "operation",
)


@pytest.mark.parametrize("size", [0, 1, 12, 13])
def test_no_frame(size: int) -> None:
    assert packet.describe(bytes(size)) == {}


KINDS = st.sampled_from([b"\x08\x00\x45", b"\x86\xdd\x60", b"\x08\x06", b"\x81\x00", b""])


@given(st.binary(min_size=12, max_size=12), KINDS, st.binary(max_size=120))
@example(MACS, b"\x86\xdd\x60", bytes(40))
def test_any_bytes(macs: bytes, kind: bytes, rest: bytes) -> None:
    """It ends, does not fail, and says nothing that JSON could not."""
    found = packet.describe(macs + kind + rest)
    assert set(map(type, found.values())) <= {str, int}
    assert not set(found) - set(ORDER)


@given(st.sampled_from([ipv4(6, PORTS), ipv6(44, bytes([17, 0, 0, 1]) + bytes(4) + PORTS), arp(1)]), st.integers(0, 70))
def test_cut_anywhere(frame: bytes, size: int) -> None:
    """A shorter frame says less, and nothing else."""
    whole, part = packet.describe(frame), packet.describe(frame[:size])
    part.pop("protocol", None)
    assert part.items() <= whole.items()
