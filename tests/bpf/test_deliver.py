# SPDX-License-Identifier: GPL-3.0-or-later
"""What reaches a container or a route, and how it is changed on the way."""

from __future__ import annotations

import pytest

from tests.bpf import packets
from tests.bpf.dataplane import PASS, REDIRECT, SHOT, Dataplane, Outcome
from tests.bpf.frames import FAMILIES, FLOWS, V4, V6, Family, from_container, from_host, from_wire
from tests.bpf.packets import FRAGMENT, IPV4, MF, mac
from tests.bpf.topology import C1, C2, FAR4, FAR6, GATEWAY_MAC, UPLINK_MAC, WIRE_MAC

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
everywhere = pytest.mark.parametrize("hook", FLOWS)


def forwarded(frame: bytes, dst: str = C2.mac, src: str = GATEWAY_MAC, hops: int = 1) -> bytes:
    """The frame as a router sends it on: other MACs, one hop less, nothing else."""
    packet = bytearray(frame[14:])
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        packet[8] -= hops
        packet[10:12] = bytes(2)
        packet[10:12] = packets.checksum(packet[:size]).to_bytes(2, "big")
    else:
        packet[7] -= hops
    return mac(dst) + mac(src) + frame[12:14] + bytes(packet)


def assert_delivered(out: Outcome, hook: str, frame: bytes) -> None:
    assert (out.verdict, out.dropped, out.reply) == (REDIRECT, None, None)
    assert out.packet == forwarded(frame, hops=0 if hook == "from_host" else 1)
    assert out.counted.endpoints["c2"] == (1, len(frame), 0, 0)
    if hook == "from_container":
        assert out.counted.endpoints["c1"] == (0, 0, 1, len(frame))
    else:
        assert "c1" not in out.counted.endpoints


@both
@everywhere
@pytest.mark.parametrize("size", [0, 1, 18, 1400])
def test_container_gets_it(plane: Dataplane, family: Family, hook: str, size: int) -> None:
    frame = FLOWS[hook](family).with_(size=size).frame()
    assert_delivered(plane.run(hook, frame), hook, frame)


@everywhere
@pytest.mark.parametrize("ttl", [2, 3, 255])
@pytest.mark.parametrize("ident", [0, 0xFE00, 0xFF00, 0xFFFF])
def test_checksum_is_right_whatever_it_was(plane: Dataplane, hook: str, ttl: int, ident: int) -> None:
    """The carry of the incremental update has its corners at 0xfeff and 0xffff."""
    frame = bytearray(FLOWS[hook](V4).with_(ttl=ttl).frame())
    frame[18:20] = ident.to_bytes(2, "big")
    for check in (0xFFFF, 0xFEFF, 0xFF00, 0x0000, 0x00FF, 0x1234):
        # choose the type of service so that the header sums up to this checksum
        frame[24:26] = bytes(2)
        frame[18:20] = bytes(2)
        rest = packets.checksum(bytes(frame[14:34])) ^ 0xFFFF
        wanted = (check ^ 0xFFFF) - rest
        frame[18:20] = (wanted % 0xFFFF).to_bytes(2, "big")
        frame[24:26] = packets.checksum(bytes(frame[14:34])).to_bytes(2, "big")
        out = plane.run(hook, bytes(frame))
        assert packets.checksum(out.packet[14:34]) == 0
        assert_delivered(out, hook, bytes(frame))


@everywhere
def test_header_options_stay(plane: Dataplane, hook: str) -> None:
    flow = FLOWS[hook](V4)
    packet = packets.ipv4(flow.src, flow.dst, packets.udp(flow.src, flow.dst, b"data"), options=b"\x01" * 39 + b"\0")
    frame = packets.frame(flow.dst_mac, flow.src_mac, IPV4, packet)
    assert_delivered(plane.run(hook, frame), hook, frame)


@everywhere
@pytest.mark.parametrize("fragment", [MF, MF | 10, 100, 0])
def test_fragments_are_like_anything(plane: Dataplane, hook: str, fragment: int) -> None:
    frame = FLOWS[hook](V4).with_(fragment=fragment).frame()
    assert_delivered(plane.run(hook, frame), hook, frame)


@everywhere
def test_v6_extension_headers_do_not_matter(plane: Dataplane, hook: str) -> None:
    fragment = bytes([17, 0]) + (800 | 1).to_bytes(2, "big") + bytes(4)
    frame = FLOWS[hook](V6).carrying(fragment + b"rest of a datagram", FRAGMENT)
    assert_delivered(plane.run(hook, frame), hook, frame)
    for proto in (0, 43, 50, 51, 59, 60, 132):
        frame = FLOWS[hook](V6).carrying(bytes(24), proto)
        assert_delivered(plane.run(hook, frame), hook, frame)


@both
@everywhere
def test_padding_of_the_frame_is_no_error(plane: Dataplane, family: Family, hook: str) -> None:
    frame = FLOWS[hook](family).with_(size=1).frame() + bytes(17)
    assert_delivered(plane.run(hook, frame), hook, frame)


@pytest.mark.parametrize("dst", [FAR4, FAR6, "192.0.2.1", "fd00:192::1"])
def test_routed_out(plane: Dataplane, dst: str) -> None:
    """The neighbour is left to the kernel: the frame keeps its MACs here, and gets them there."""
    frame = from_container(V6 if ":" in dst else V4, dst).frame()
    out = plane.run("from_container", frame)
    assert (out.verdict, out.dropped, out.sender, out.receiver) == (REDIRECT, None, "c1", None)
    assert out.packet == forwarded(frame, GATEWAY_MAC, C1.mac)
    assert out.counted.endpoints["c1"] == (0, 0, 1, len(frame))


@both
def test_node_itself(plane: Dataplane, family: Family) -> None:
    for dst in (family.gateway, family.node):
        for ttl in (64, 1):
            frame = from_container(family, dst).with_(ttl=ttl).frame()
            out = plane.run("from_container", frame)
            assert (out.verdict, out.dropped, out.reply, out.sender) == (REDIRECT, None, None, "c1")
            assert out.packet == frame


@pytest.mark.parametrize("dst", ["203.0.113.7", "2001:db8::7"])
def test_no_route_is_the_hosts_to_answer(plane: Dataplane, dst: str) -> None:
    plane.net.ip("node", "route del default", "route del ::/0")
    try:
        frame = from_container(V6 if ":" in dst else V4, dst).frame()
        out = plane.run("from_container", frame)
    finally:
        plane.net.ip("node", "route add default via 192.0.2.1", "route add ::/0 via fd00:192::1")
    assert (out.verdict, out.dropped, out.packet) == (REDIRECT, None, frame)


@both
def test_wire_passes_what_is_no_endpoints(plane: Dataplane, family: Family) -> None:
    for dst in (family.node, family.lonely, family.gateway, family.far):
        for ttl in (64, 1):
            assert_passed(plane, from_wire(family, dst).with_(ttl=ttl).frame())


@both
def test_wire_passes_what_is_not_for_this_node(plane: Dataplane, family: Family) -> None:
    """A switch floods frames for others; a router that forwards those makes copies."""
    for other in (WIRE_MAC, GATEWAY_MAC, C2.mac, packets.BROADCAST, "01:00:5e:00:00:01"):
        assert_passed(plane, from_wire(family).with_(dst_mac=other).frame())


def test_wire_passes_all_else(plane: Dataplane) -> None:
    inner = from_wire(V4).frame()
    tagged = inner[:12] + b"\x81\x00\x00\x05" + inner[12:]
    for frame in (
        tagged,
        packets.frame(UPLINK_MAC, WIRE_MAC, 0x88CC, bytes(50)),
        packets.frame(UPLINK_MAC, WIRE_MAC, 50, bytes(50)),
        packets.arp(WIRE_MAC, "192.0.2.1", C2.v4),
        packets.solicitation(WIRE_MAC, "fd00:192::1", C2.v6),
    ):
        assert_passed(plane, frame)


def test_wire_v6_packet_never_finds_a_v4_endpoint(plane: Dataplane) -> None:
    assert_passed(plane, from_wire(V6, f"::ffff:{C2.v4}").frame())
    assert_passed(plane, from_wire(V6, f"::{C2.v4}").frame())


def assert_passed(plane: Dataplane, frame: bytes) -> None:
    out = plane.run("from_wire", frame)
    assert (out.verdict, out.packet) == (PASS, frame)
    assert (out.counted.drops, out.counted.replies, out.counted.endpoints) == ({}, {}, {})


def test_a_withdrawn_endpoint_gets_nothing(plane: Dataplane) -> None:
    """Its packets are somebody else's from then on, and it cannot send."""
    extra4, extra6 = "10.128.3.77", "fd00:128:3::77"
    for family, extra in ((V4, extra4), (V6, extra6)):
        with plane.published(C2, extra):
            assert plane.run("from_wire", from_wire(family, extra).frame()).receiver == "c2"
        assert plane.run("from_wire", from_wire(family, extra).frame()).verdict == PASS
        out = plane.run("from_host", from_host(family, extra).frame())
        assert (out.dropped, out.receiver) == ("NO_ENDPOINT", None)
        sent = from_container(family).with_(src=extra, src_mac=C2.mac).frame()
        out = plane.run("from_container", sent, device="c2")
        assert (out.verdict, out.dropped) == (SHOT, "SPOOFED")


def test_statistics_without_a_row(plane: Dataplane) -> None:
    """A slot beyond the table counts nowhere and hurts nobody."""
    stray = C2.__class__("c2", C2.mac, C2.v4, C2.v6, 4096)
    with plane.published(stray, "10.128.3.78"):
        out = plane.run("from_wire", from_wire(V4, "10.128.3.78").frame())
    assert (out.verdict, out.counted.endpoints) == (REDIRECT, {})
