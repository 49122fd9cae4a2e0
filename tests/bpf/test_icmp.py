# SPDX-License-Identifier: GPL-3.0-or-later
"""ICMP errors: what they say, whom they quote, when there are none, and how many at most."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.all import ICMP, IP, Ether, IPv6

from tests.bpf import packets
from tests.bpf.dataplane import REDIRECT, SHOT, Dataplane, Outcome
from tests.bpf.frames import FAMILIES, FLOWS, V4, V6, Family, Flow, from_container, from_wire
from tests.bpf.judge import checksums_hold
from tests.bpf.packets import DF, FRAGMENT, ICMPV6, IPV4, IPV6, MF, TCP, UDP, mac
from tests.bpf.topology import C2, GATEWAY_MAC

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
routers = pytest.mark.parametrize("hook", ["from_container", "from_wire"])

TIME_EXCEEDED = {"v4": (11, 0), "v6": (3, 0)}
TOO_BIG = {"v4": (3, 4), "v6": (2, 0)}
NO_ENDPOINT = {"v4": (3, 1), "v6": (1, 3)}
UNREACHABLE = {"v4": (3, 1), "v6": (1, 0)}
PROHIBITED = {"v4": (3, 13), "v6": (1, 1)}
QUOTE = {"v4": 548, "v6": 1232}


def assert_error(
    out: Outcome, frame: bytes, reason: str, kind: dict[str, tuple[int, int]], src: str | None = None, mtu: int = 0
) -> None:
    """The error that `frame` got; src: where it comes from if not from the gateway."""
    family = V4 if frame[12:14] == b"\x08\x00" else V6
    assert (out.verdict, out.dropped, out.reply, out.counted.endpoints) == (REDIRECT, reason, "ICMP_ERROR", {})
    assert out.packet[:14] == frame[6:12] + frame[:6] + frame[12:14]
    error = Ether(out.packet)
    if family is V4:
        ip, icmp = error[IP], error[ICMP]
        assert (ip.version, ip.ihl, ip.ttl, ip.tos, ip.frag) == (4, 5, 64, 0xC0, 0)
        assert ip.len == len(out.packet) - 14
        quoted = out.packet[14 + 28 :]
        told = int.from_bytes(out.packet[40:42], "big")
        length = int.from_bytes(frame[16:18], "big")
    else:
        ip, icmp = error[IPv6], error[IPv6].payload
        assert (ip.version, ip.hlim, ip.nh, ip.tc) == (6, 64, ICMPV6, 0)
        assert ip.plen == len(out.packet) - 54
        quoted = out.packet[14 + 48 :]
        told = int.from_bytes(out.packet[58:62], "big")
        length = 40 + int.from_bytes(frame[18:20], "big")
    assert (icmp.type, icmp.code) == kind[family.name]
    assert told == mtu
    assert ip.src == (src or family.gateway)
    assert ip.dst == Ether(frame).payload.src
    assert quoted == frame[14:][: min(length, QUOTE[family.name])]
    assert checksums_hold(out.packet)


def assert_no_error(out: Outcome, reason: str) -> None:
    assert (out.verdict, out.dropped, out.reply) == (SHOT, reason, None)


@both
@routers
@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 31, 32, 33, 63, 300, 519, 520, 521, 1183, 1184, 1185, 1400])
def test_time_exceeded(plane: Dataplane, family: Family, hook: str, ttl: int, size: int) -> None:
    frame = FLOWS[hook](family).with_(ttl=ttl, size=size).frame()
    assert_error(plane.run(hook, frame), frame, "TTL", TIME_EXCEEDED)


@both
def test_time_exceeded_on_the_way_out(plane: Dataplane, family: Family) -> None:
    frame = from_container(family, family.far).with_(ttl=1).frame()
    assert_error(plane.run("from_container", frame), frame, "TTL", TIME_EXCEEDED)


@both
def test_host_is_no_hop(plane: Dataplane, family: Family) -> None:
    out = plane.run("from_host", FLOWS["from_host"](family).with_(ttl=1).frame())
    assert (out.verdict, out.receiver) == (REDIRECT, "c2")


@both
def test_padding_is_not_quoted(plane: Dataplane, family: Family) -> None:
    frame = from_wire(family).with_(ttl=1, size=0).frame()
    assert_error(plane.run("from_wire", frame + bytes(18)), frame, "TTL", TIME_EXCEEDED)


def test_header_options_are_quoted(plane: Dataplane) -> None:
    flow = from_wire(V4)
    packet = packets.ipv4(flow.src, flow.dst, bytes(700), ttl=1, options=b"\x01" * 40)
    frame = packets.frame(flow.dst_mac, flow.src_mac, IPV4, packet)
    assert_error(plane.run("from_wire", frame), frame, "TTL", TIME_EXCEEDED)


def sized(family: Family, flow: Flow, length: int) -> bytes:
    """A frame with an IP packet of this length."""
    return flow.with_(size=length - family.header - 8).frame()


@both
@routers
@pytest.mark.parametrize("mtu", [1280, 1400, 1500])
def test_too_big_for_the_container(plane: Dataplane, family: Family, hook: str, mtu: int) -> None:
    with plane.published(C2, family.c2, mtu=mtu):
        fits = sized(family, FLOWS[hook](family), mtu)
        assert plane.run(hook, fits).receiver == "c2"
        frame = sized(family, FLOWS[hook](family), mtu + 1)
        assert_error(plane.run(hook, frame), frame, "TOO_BIG", TOO_BIG, mtu=mtu)


@both
def test_too_big_from_the_host(plane: Dataplane, family: Family) -> None:
    """From the address that was written to: the host's stack believes no error from its own address."""
    for fragment in (DF, 0):  # the host could have fragmented it
        frame = sized(family, FLOWS["from_host"](family).with_(fragment=fragment), 1501)
        assert_error(plane.run("from_host", frame), frame, "TOO_BIG", TOO_BIG, src=family.c2, mtu=1500)


@routers
@pytest.mark.parametrize("fragment", [0, MF, MF | 10, 10])
def test_fragmentable_goes_to_the_kernel(plane: Dataplane, hook: str, fragment: int) -> None:
    frame = sized(V4, FLOWS[hook](V4).with_(fragment=fragment), 1501)
    out = plane.run(hook, frame)
    assert (out.verdict, out.dropped, out.reply, out.receiver) == (REDIRECT, None, None, None)
    assert out.sender == ("c1" if hook == "from_container" else None)
    assert out.packet == mac(GATEWAY_MAC) + frame[6:]  # the router device takes nothing else


@both
def test_too_big_for_the_wire(plane: Dataplane, family: Family) -> None:
    frame = sized(family, from_container(family, family.far), 1501)
    assert_error(plane.run("from_container", frame), frame, "TOO_BIG", TOO_BIG, mtu=1500)
    if family is V4:
        out = plane.run("from_container", sized(family, from_container(family, family.far).with_(fragment=0), 1501))
        assert (out.verdict, out.dropped, out.sender) == (REDIRECT, None, "c1")


@contextmanager
def route(plane: Dataplane, kind: str, family: Family, options: str = "") -> Iterator[str]:
    """To a destination that the test alone uses."""
    prefix = "203.0.113.1/32" if family is V4 else "2001:db8:1::1/128"
    plane.net.ip("node", f"route add {kind} {prefix} {options}")
    try:
        yield prefix.partition("/")[0]
    finally:
        plane.net.ip("node", f"route del {kind} {prefix}")


@both
def test_too_big_for_the_route(plane: Dataplane, family: Family) -> None:
    via = "192.0.2.1" if family is V4 else "fd00:192::1"
    with route(plane, "unicast", family, f"via {via} mtu lock 1300") as dst:
        frame = sized(family, from_container(family, dst), 1301)
        assert_error(plane.run("from_container", frame), frame, "TOO_BIG", TOO_BIG, mtu=1300)
        out = plane.run("from_container", sized(family, from_container(family, dst), 1300))
        assert (out.verdict, out.dropped) == (REDIRECT, None)


@both
@pytest.mark.parametrize(
    ("kind", "reason", "error"),
    [("unreachable", "UNREACHABLE", UNREACHABLE), ("prohibit", "PROHIBITED", PROHIBITED)],
)
def test_routes_that_say_no(
    plane: Dataplane, family: Family, kind: str, reason: str, error: dict[str, tuple[int, int]]
) -> None:
    with route(plane, kind, family) as dst:
        frame = from_container(family, dst).frame()
        assert_error(plane.run("from_container", frame), frame, reason, error)


@both
@pytest.mark.parametrize("ttl", [1, 64])
def test_no_endpoint(plane: Dataplane, family: Family, ttl: int) -> None:
    frame = from_container(family, family.lonely).with_(ttl=ttl).frame()
    assert_error(plane.run("from_container", frame), frame, "NO_ENDPOINT", NO_ENDPOINT)
    frame = FLOWS["from_host"](family, family.lonely).with_(ttl=ttl).frame()  # type: ignore[call-arg]
    assert_error(plane.run("from_host", frame), frame, "NO_ENDPOINT", NO_ENDPOINT, src=family.lonely)


@routers
def test_never_about_errors_v4(plane: Dataplane, hook: str) -> None:
    flow = FLOWS[hook](V4).with_(ttl=1)
    for type in range(256):
        frame = flow.carrying(packets.icmp(type), 1)
        out = plane.run(hook, frame)
        if type in (0, 8, 13, 14):
            assert_error(out, frame, "TTL", TIME_EXCEEDED)
            plane.refill()
        else:
            assert_no_error(out, "TTL")


@routers
def test_never_about_errors_v6(plane: Dataplane, hook: str) -> None:
    flow = FLOWS[hook](V6).with_(ttl=1)
    for type in (*range(128, 133), *range(138, 256)):
        frame = flow.carrying(packets.icmpv6(flow.src, flow.dst, type), ICMPV6)
        assert_error(plane.run(hook, frame), frame, "TTL", TIME_EXCEEDED)
        plane.refill()
    for type in (*range(128), 137):
        if hook == "from_wire" or type != 137:
            assert_no_error(plane.run(hook, flow.carrying(packets.icmpv6(flow.src, flow.dst, type), ICMPV6)), "TTL")


def chain(*headers: tuple[int, bytes], last: int) -> bytes:
    """Extension headers in order: (its own protocol number, its content from the third byte on)."""
    numbers = [number for number, _ in headers[1:]] + [last]
    parts = []
    for (number, content), following in zip(headers, numbers, strict=True):
        length = 0 if number == FRAGMENT else (len(content) + 2) // 8 - 1
        parts.append(bytes([following, length]) + content)
    return b"".join(parts)


PAD6 = b"\x01\x04" + bytes(4)
PAD14 = b"\x01\x0c" + bytes(12)
FIRST, LATER = bytes([0, 1]) + bytes(4), bytes([0, 9]) + bytes(4)


@pytest.mark.parametrize("hook", ["from_wire", "from_container"])
@pytest.mark.parametrize(
    ("headers", "deserved"),
    [
        ([(0, PAD6)], True),
        ([(60, PAD14), (43, PAD14)], True),
        ([(FRAGMENT, FIRST)], True),
        ([(FRAGMENT, LATER)], False),
        ([(0, PAD14), (FRAGMENT, LATER)], False),
        ([(60, PAD6)] * 7, True),
        ([(60, PAD6)] * 8, False),  # who hides that well is not told
    ],
)
def test_behind_extension_headers(
    plane: Dataplane, hook: str, headers: list[tuple[int, bytes]], deserved: bool
) -> None:
    flow = FLOWS[hook](V6).with_(ttl=1)
    datagram = packets.udp(flow.src, flow.dst, b"data")
    frame = flow.carrying(chain(*headers, last=UDP) + datagram, headers[0][0])
    out = plane.run(hook, frame)
    if deserved:
        assert_error(out, frame, "TTL", TIME_EXCEEDED)
    else:
        assert_no_error(out, "TTL")
    # an error that hides there is still an error; without it the same chain is answered
    hidden = flow.carrying(chain(*headers, last=ICMPV6) + packets.icmpv6(flow.src, flow.dst, 1), headers[0][0])
    assert_no_error(plane.run(hook, hidden), "TTL")


def test_chain_beyond_the_packet(plane: Dataplane) -> None:
    flow = from_wire(V6).with_(ttl=1)
    for payload, proto in ((bytes([ICMPV6, 255]) + bytes(14), 0), (b"", ICMPV6), (b"", 60), (bytes(3), 43)):
        assert_no_error(plane.run("from_wire", flow.carrying(payload, proto)), "TTL")


@routers
def test_never_about_later_fragments(plane: Dataplane, hook: str) -> None:
    for fragment in (1, 100, MF | 1, DF | 1):
        frame = FLOWS[hook](V4).with_(ttl=1, fragment=fragment).frame()
        assert_no_error(plane.run(hook, frame), "TTL")
    frame = FLOWS[hook](V4).with_(ttl=1, fragment=MF).frame()
    assert_error(plane.run(hook, frame), frame, "TTL", TIME_EXCEEDED)


@pytest.mark.parametrize(
    "src",
    ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.1.1.1", "::", "::1", "::ffff:1.2.3.4", "ff02::1"],
)
def test_never_to_what_is_no_host(plane: Dataplane, src: str) -> None:
    frame = from_wire(V6 if ":" in src else V4).with_(ttl=1, src=src).frame()
    assert_no_error(plane.run("from_wire", frame), "TTL")


@both
def test_rate_limit(plane: Dataplane, family: Family) -> None:
    """A burst of 50, then one a millisecond; what is not sent is counted too."""
    frame = from_wire(family).with_(ttl=1).frame()
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # each CPU has its own bucket
    try:
        plane.refill()
        start = time.monotonic()
        counted = plane.burst("from_wire", frame, 1000)
        elapsed = time.monotonic() - start
    finally:
        os.sched_setaffinity(0, cpus)
    assert counted.drops == {"TTL": 1000}
    assert sum(counted.replies.values()) == 1000
    assert 50 <= counted.replies["ICMP_ERROR"] <= 50 + elapsed * 1000 + 1
    assert counted.replies["ICMP_LIMITED"] > 0


@both
def test_gso_packet_is_judged_by_its_segments(plane: Dataplane, family: Family) -> None:
    """And its error quotes the big packet's head."""
    for options in (b"", b"\x01" * 12, b"\x01" * 40):
        header = family.header + 20 + len(options)
        payload = packets.tcp(bytes(3000), options)
        for hook, flow in FLOWS.items():
            frame = flow(family).carrying(payload, TCP)
            assert plane.run(hook, frame, gso_size=1500 - header).receiver == "c2"
            out = plane.run(hook, frame, gso_size=1501 - header)
            src = family.c2 if hook == "from_host" else None
            assert_error(out, frame, "TOO_BIG", TOO_BIG, src=src, mtu=1500)
        frame = from_container(family, family.far).carrying(payload, TCP)
        assert plane.run("from_container", frame, gso_size=1500 - header).sender == "c1"
        assert_error(plane.run("from_container", frame, gso_size=1501 - header), frame, "TOO_BIG", TOO_BIG, mtu=1500)


@both
def test_gso_of_udp(plane: Dataplane, family: Family) -> None:
    frame = from_wire(family).with_(size=3000).frame()
    assert plane.run("from_wire", frame, gso_size=1500 - family.header - 8).receiver == "c2"
    assert plane.run("from_wire", frame, gso_size=1501 - family.header - 8).dropped == "TOO_BIG"
    assert plane.run("from_wire", frame).dropped == "TOO_BIG"


def test_big_tcp(plane: Dataplane) -> None:
    """Longer than 16 bits can say: the length field is zero, IPv6 adds a hop-by-hop header that no segment has."""
    jumbo = bytes([TCP, 0, 0xC2, 4]) + (3020).to_bytes(4, "big")
    v6 = packets.ipv6(V6.far, V6.c2, jumbo + packets.tcp(bytes(3000)), 0, length=0)
    v4 = packets.ipv4(V4.far, V4.c2, packets.tcp(bytes(3000)), TCP, length=0)
    for family, packet, ethertype in ((V4, v4, IPV4), (V6, v6, IPV6)):
        flow = from_wire(family)
        frame = packets.frame(flow.dst_mac, flow.src_mac, ethertype, packet)
        size = 1500 - family.header - 20
        assert plane.run("from_wire", frame, gso_size=size).receiver == "c2"
        out = plane.run("from_wire", frame, gso_size=size + 1)
        assert (out.dropped, out.reply) == ("TOO_BIG", "ICMP_ERROR")
        assert out.packet[14 + family.header + 8 :] == packet[: QUOTE[family.name]]
        assert checksums_hold(out.packet)


def test_zero_length_is_only_for_big_tcp(plane: Dataplane) -> None:
    """Without GSO an IPv6 packet of length zero is one with nothing in it."""
    flow = from_wire(V6)
    frame = packets.frame(flow.dst_mac, flow.src_mac, IPV6, packets.ipv6(flow.src, flow.dst, bytes(100), 59, length=0))
    assert plane.run("from_wire", frame).receiver == "c2"
