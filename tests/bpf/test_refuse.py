# SPDX-License-Identifier: GPL-3.0-or-later
"""What is dropped, and as what it is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.bpf import packets
from tests.bpf.dataplane import PASS, REDIRECT, SHOT, Dataplane, Outcome
from tests.bpf.frames import FAMILIES, FLOWS, V4, V6, Family, from_container, from_host, from_wire
from tests.bpf.packets import ICMPV6, IPV4, IPV6
from tests.bpf.topology import C1, C2, FAR6, GATEWAY_MAC, UPLINK_MAC

both = pytest.mark.parametrize("family", FAMILIES, ids=str)


def assert_dropped(out: Outcome, reason: str) -> None:
    """Counted once, under this reason, nobody got it, and nobody is told."""
    assert (out.verdict, out.dropped, out.reply) == (SHOT, reason, None)
    assert out.counted.endpoints == {}


@both
def test_spoofed(plane: Dataplane, family: Family) -> None:
    flow = from_container(family)
    for src in (family.c2, family.gateway, family.node, family.far, family.lonely):
        assert_dropped(plane.run("from_container", flow.with_(src=src).frame()), "SPOOFED")
    for src_mac in (C2.mac, GATEWAY_MAC, "0e:00:00:00:01:00", "0f:00:00:00:01:01", "0e:00:01:00:01:01"):
        assert_dropped(plane.run("from_container", flow.with_(src_mac=src_mac).frame()), "SPOOFED")
    # another container's address and MAC, from the wrong interface
    stolen = flow.with_(src=family.c2, src_mac=C2.mac, dst=family.far).frame()
    assert_dropped(plane.run("from_container", stolen), "SPOOFED")


def test_spoofed_v4_sources_that_nobody_has(plane: Dataplane) -> None:
    for src in ("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", "169.254.1.1"):
        assert_dropped(plane.run("from_container", from_container(V4).with_(src=src).frame()), "SPOOFED")


def test_spoofed_v6_sources_that_nobody_has(plane: Dataplane) -> None:
    """An IPv4-mapped source must not pass for the IPv4 address that the container really has."""
    for src in ("::", "::1", f"::ffff:{C1.v4}", f"::{C1.v4}", "ff02::1"):
        assert_dropped(plane.run("from_container", from_container(V6).with_(src=src).frame()), "SPOOFED")


@pytest.mark.parametrize(
    ("dst", "reason"),
    [
        ("0.0.0.0", "MARTIAN"),
        ("0.1.2.3", "MARTIAN"),
        ("127.0.0.1", "MARTIAN"),
        ("127.255.255.255", "MARTIAN"),
        ("240.0.0.1", "MARTIAN"),
        ("255.255.255.254", "MARTIAN"),
        ("255.255.255.255", "MULTICAST"),
        ("224.0.0.1", "MULTICAST"),
        ("239.255.255.255", "MULTICAST"),
        ("169.254.169.254", "LINK_LOCAL"),
        ("::", "MARTIAN"),
        ("::1", "MARTIAN"),
        (f"::ffff:{C2.v4}", "MARTIAN"),
        (f"::{C2.v4}", "MARTIAN"),
        ("::ffff:8.8.8.8", "MARTIAN"),
        ("ff02::1", "MULTICAST"),
        ("ff0e::1234", "MULTICAST"),
        ("fe80::1", "LINK_LOCAL"),
        ("febf::1", "LINK_LOCAL"),
    ],
)
def test_destinations_that_no_router_forwards(plane: Dataplane, dst: str, reason: str) -> None:
    family = V6 if ":" in dst else V4
    assert_dropped(plane.run("from_container", from_container(family, dst).frame()), reason)
    assert_dropped(plane.run("from_host", from_host(family, dst).frame()), reason)


@pytest.mark.parametrize(
    "dst", ["1.0.0.1", "126.1.1.1", "128.0.0.1", "223.255.255.1", "169.253.1.1", "fec0::1", "1::1"]
)
def test_their_neighbours_are_forwarded(plane: Dataplane, dst: str) -> None:
    out = plane.run("from_container", from_container(V6 if ":" in dst else V4, dst).frame())
    assert (out.verdict, out.dropped) == (REDIRECT, None)


@both
def test_to_self(plane: Dataplane, family: Family) -> None:
    own = family.c1
    assert_dropped(plane.run("from_container", from_container(family, own).frame()), "TO_SELF")
    second = "fd00:128:3::21" if family is V6 else "10.128.3.21"
    with plane.published(C1, second):
        assert_dropped(plane.run("from_container", from_container(family, second).frame()), "TO_SELF")


@both
def test_wrong_mac_and_multicast_frames(plane: Dataplane, family: Family) -> None:
    flow = from_container(family)
    assert_dropped(plane.run("from_container", flow.with_(dst_mac=C2.mac).frame()), "WRONG_MAC")
    for group in (packets.BROADCAST, "01:00:5e:00:00:01", "33:33:00:00:00:01"):
        assert_dropped(plane.run("from_container", flow.with_(dst_mac=group).frame()), "MULTICAST")


def test_link_local_sources(plane: Dataplane) -> None:
    flow = from_container(V6).with_(src="fe80::1234")
    for dst in (C2.v6, FAR6, "fe80::1"):
        assert_dropped(plane.run("from_container", flow.with_(dst=dst).frame()), "LINK_LOCAL")
    assert_dropped(plane.run("from_wire", from_wire(V6).with_(src="fe80::1234").frame()), "LINK_LOCAL")


def test_vlan_and_other_protocols(plane: Dataplane) -> None:
    inner = from_container(V4).frame()
    for tag in (b"\x81\x00\x00\x05", b"\x88\xa8\x00\x05", b"\x81\x00\x00\x00"):
        assert_dropped(plane.run("from_container", inner[:12] + tag + inner[12:]), "VLAN")
    for ethertype in (0x88CC, 0x8847, 46, 0x0805, 0x86DE):
        frame = packets.frame(GATEWAY_MAC, C1.mac, ethertype, bytes(50))
        assert_dropped(plane.run("from_container", frame), "NOT_IP")
        assert_dropped(plane.run("from_host", frame), "NOT_IP")


MALFORMED_V4: dict[str, dict[str, Any]] = {
    "version": {"version": 5},
    "IPv6 in an IPv4 frame": {"version": 6},
    "no header": {"words": 0},
    "short header": {"words": 4},
    "header beyond the packet": {"words": 15, "length": 40},
    "length below the header": {"length": 19},
    "no length": {"length": 0},
    "length beyond the frame": {"length": 41},
    "huge length": {"length": 0xFFFF},
}
MALFORMED_V6: dict[str, dict[str, Any]] = {
    "version": {"version": 4},
    "length beyond the frame": {"length": 21},
    "huge length": {"length": 0xFFFF},
}


@pytest.mark.parametrize("hook", FLOWS)
@pytest.mark.parametrize("fault", MALFORMED_V4)
def test_malformed_v4(plane: Dataplane, hook: str, fault: str) -> None:
    flow = FLOWS[hook](V4)
    packet = packets.ipv4(flow.src, flow.dst, bytes(20), **MALFORMED_V4[fault])
    assert_dropped(plane.run(hook, packets.frame(flow.dst_mac, flow.src_mac, IPV4, packet)), "MALFORMED")


@pytest.mark.parametrize("hook", FLOWS)
@pytest.mark.parametrize("fault", MALFORMED_V6)
def test_malformed_v6(plane: Dataplane, hook: str, fault: str) -> None:
    flow = FLOWS[hook](V6)
    packet = packets.ipv6(flow.src, flow.dst, bytes(20), **MALFORMED_V6[fault])
    assert_dropped(plane.run(hook, packets.frame(flow.dst_mac, flow.src_mac, IPV6, packet)), "MALFORMED")


def test_wire_does_not_judge_what_is_not_ours(plane: Dataplane) -> None:
    flow = from_wire(V4, V4.node)
    for fault in MALFORMED_V4.values():
        frame = packets.frame(UPLINK_MAC, flow.src_mac, IPV4, packets.ipv4(flow.src, flow.dst, bytes(20), **fault))
        out = plane.run("from_wire", frame)
        assert (out.verdict, out.dropped, out.packet) == (PASS, None, frame)


ROUTES = {"blackhole": "BLACKHOLE", "unreachable": "UNREACHABLE", "prohibit": "PROHIBITED"}


@contextmanager
def special_route(plane: Dataplane, family: Family, kind: str) -> Iterator[str]:
    prefix, dst = ("2001:db8:1::/64", "2001:db8:1::1") if family is V6 else ("203.0.113.0/24", "203.0.113.1")
    plane.net.ip("node", f"route add {kind} {prefix}")
    try:
        yield dst
    finally:
        plane.net.ip("node", f"route del {kind} {prefix}")


@both
@pytest.mark.parametrize("kind", ROUTES)
def test_routes_that_refuse(plane: Dataplane, family: Family, kind: str) -> None:
    with special_route(plane, family, kind) as dst:
        out = plane.run("from_container", from_container(family, dst).frame())
    assert (out.dropped, out.sender) == (ROUTES[kind], None)
    assert out.reply == (None if kind == "blackhole" else "ICMP_ERROR")


@both
def test_no_forwarding(plane: Dataplane, family: Family) -> None:
    name = f"ip{family}__conf__fastpath0__forwarding"
    plane.net.sysctl("node", **{name: "0"})
    try:
        assert_dropped(plane.run("from_container", from_container(family, family.far).frame()), "NO_FORWARDING")
        assert plane.run("from_container", from_container(family).frame()).receiver == "c2"
    finally:
        plane.net.sysctl("node", **{name: "1"})


@both
def test_no_endpoint(plane: Dataplane, family: Family) -> None:
    for hook, flow in (("from_container", from_container), ("from_host", from_host)):
        out = plane.run(hook, flow(family, family.lonely).frame())
        assert (out.verdict, out.dropped, out.reply) == (REDIRECT, "NO_ENDPOINT", "ICMP_ERROR")


@pytest.mark.parametrize("type", [130, 131, 143])
def test_multicast_listener_reports_are_dropped_quietly(plane: Dataplane, type: int) -> None:
    for src in ("fe80::1", "::"):
        payload = packets.icmpv6(src, "ff02::16", type, 0, bytes(4))
        packet = packets.ipv6(src, "ff02::16", payload, ICMPV6, ttl=1)
        frame = packets.frame("33:33:00:00:00:16", C1.mac, IPV6, packet)
        assert_dropped(plane.run("from_container", frame), "MULTICAST")
        assert_dropped(plane.run("from_host", frame), "MULTICAST")
