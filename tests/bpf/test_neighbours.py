# SPDX-License-Identifier: GPL-3.0-or-later
"""ARP and IPv6 neighbour discovery: everything is behind the gateway, except what is one's own."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from scapy.all import ARP, Ether, ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6

from tests.bpf import packets
from tests.bpf.dataplane import REDIRECT, SHOT, Dataplane, Outcome
from tests.bpf.judge import checksums_hold
from tests.bpf.packets import ICMPV6
from tests.bpf.topology import C1, C2, FAR4, FAR6, GATEWAY4, GATEWAY6, GATEWAY_MAC, LONELY4, LONELY6

NOBODY4, NOBODY6 = "0.0.0.0", "::"


def assert_silent(out: Outcome, reason: str) -> None:
    assert (out.verdict, out.dropped, out.reply) == (SHOT, reason, None)
    assert out.counted.endpoints == {}


def assert_arp_answer(out: Outcome, asker_mac: str, asker: str, target: str) -> None:
    assert (out.verdict, out.dropped, out.reply) == (REDIRECT, None, "ARP")
    answer = Ether(out.packet)
    assert (answer.dst, answer.src) == (asker_mac, GATEWAY_MAC)
    arp = answer[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc) == (2, GATEWAY_MAC, target)
    assert (arp.hwdst, arp.pdst) == (asker_mac, asker)


@pytest.mark.parametrize("target", [GATEWAY4, C2.v4, FAR4, LONELY4])
@pytest.mark.parametrize("dst", [packets.BROADCAST, GATEWAY_MAC])
def test_arp_is_answered_for_anybody_else(plane: Dataplane, target: str, dst: str) -> None:
    out = plane.run("from_container", packets.arp(C1.mac, C1.v4, target, dst=dst))
    assert_arp_answer(out, C1.mac, C1.v4, target)


def test_arp_padded_to_a_whole_frame(plane: Dataplane) -> None:
    out = plane.run("from_container", packets.arp(C1.mac, C1.v4, GATEWAY4) + bytes(18))
    assert_arp_answer(out, C1.mac, C1.v4, GATEWAY4)
    assert len(out.packet) == 60


def test_arp_for_an_own_address(plane: Dataplane) -> None:
    assert_silent(plane.run("from_container", packets.arp(C1.mac, C1.v4, C1.v4)), "ARP")
    with plane.published(C1, "10.128.3.21"):
        assert_silent(plane.run("from_container", packets.arp(C1.mac, C1.v4, "10.128.3.21")), "ARP")


def test_arp_probe_meets_only_real_owners(plane: Dataplane) -> None:
    """Address conflict detection: an address that is free must look free."""
    for target in (C1.v4, LONELY4, FAR4):
        assert_silent(plane.run("from_container", packets.arp(C1.mac, NOBODY4, target)), "ARP")
    for target in (C2.v4, GATEWAY4):
        out = plane.run("from_container", packets.arp(C1.mac, NOBODY4, target))
        assert_arp_answer(out, C1.mac, NOBODY4, target)


def test_arp_spoofed(plane: Dataplane) -> None:
    for frame in (
        packets.arp(C1.mac, C2.v4, GATEWAY4),
        packets.arp(C1.mac, GATEWAY4, C2.v4),
        packets.arp(C2.mac, C1.v4, GATEWAY4, src=C1.mac),
        packets.arp(C1.mac, C1.v4, GATEWAY4, src=C2.mac),
        packets.arp(C1.mac, C2.v4, C2.v4),
        packets.arp(C1.mac, C2.v4, GATEWAY4, operation=2),
    ):
        assert_silent(plane.run("from_container", frame), "SPOOFED")


@pytest.mark.parametrize("operation", [0, 2, 3, 256])
def test_arp_that_is_no_request(plane: Dataplane, operation: int) -> None:
    assert_silent(plane.run("from_container", packets.arp(C1.mac, C1.v4, GATEWAY4, operation=operation)), "ARP")


@pytest.mark.parametrize("hook", ["from_container", "from_host"])
def test_arp_malformed(plane: Dataplane, hook: str) -> None:
    whole = packets.arp(C1.mac, C1.v4, GATEWAY4)
    for offset in (14, 15, 16, 17, 18, 19):  # hardware, protocol and their lengths
        frame = bytearray(whole)
        frame[offset] ^= 2
        assert_silent(plane.run(hook, bytes(frame)), "MALFORMED")
    for size in range(15, 42):
        assert_silent(plane.run(hook, whole[:size]), "MALFORMED")


def test_host_asks_too(plane: Dataplane) -> None:
    """Whether the router device does ARP or not, the host finds its containers."""
    out = plane.run("from_host", packets.arp(GATEWAY_MAC, GATEWAY4, C1.v4))
    assert_arp_answer(out, GATEWAY_MAC, GATEWAY4, C1.v4)
    out = plane.run("from_host", packets.solicitation(GATEWAY_MAC, GATEWAY6, C1.v6))
    assert_advertisement(out, GATEWAY_MAC, GATEWAY6, C1.v6)


def test_host_probes_its_own_addresses(plane: Dataplane) -> None:
    assert_silent(plane.run("from_host", packets.arp(GATEWAY_MAC, NOBODY4, GATEWAY4)), "ARP")
    assert_silent(plane.run("from_host", packets.arp(GATEWAY_MAC, GATEWAY4, GATEWAY4)), "ARP")
    assert_silent(plane.run("from_host", packets.solicitation(GATEWAY_MAC, NOBODY6, GATEWAY6)), "NDISC")


def assert_advertisement(out: Outcome, asker_mac: str, asker: str, target: str) -> None:
    assert (out.verdict, out.dropped, out.reply) == (REDIRECT, None, "NDISC")
    probe = asker == NOBODY6
    answer = Ether(out.packet)
    assert (answer.dst, answer.src) == (asker_mac, GATEWAY_MAC)
    ip, advert = answer[IPv6], answer[ICMPv6ND_NA]
    assert (ip.src, ip.dst, ip.hlim, ip.plen) == (target, "ff02::1" if probe else asker, 255, 32)
    assert (advert.tgt, advert.R, advert.S, advert.O, advert.code) == (target, 1, 0 if probe else 1, 1, 0)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == GATEWAY_MAC
    assert len(out.packet) == 86
    assert checksums_hold(out.packet)


@pytest.mark.parametrize("target", [GATEWAY6, C2.v6, FAR6, LONELY6, "fe80::1"])
@pytest.mark.parametrize("src", [C1.v6, "fe80::1234"])
@pytest.mark.parametrize("option", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_solicitation_is_answered(plane: Dataplane, target: str, src: str, option: bool, direct: bool) -> None:
    frame = packets.solicitation(C1.mac, src, target, option=option, dst=target if direct else None)
    assert_advertisement(plane.run("from_container", frame), C1.mac, src, target)


def test_solicitation_longer_than_its_answer(plane: Dataplane) -> None:
    data = bytes(4) + IPv6Address(GATEWAY6).packed + b"\x0e\x01" + bytes(6) + b"\x01\x01" + packets.mac(C1.mac)
    payload = packets.icmpv6(C1.v6, GATEWAY6, 135, 0, data)
    frame = packets.frame(GATEWAY_MAC, C1.mac, packets.IPV6, packets.ipv6(C1.v6, GATEWAY6, payload, ICMPV6, ttl=255))
    assert_advertisement(plane.run("from_container", frame), C1.mac, C1.v6, GATEWAY6)


def test_solicitation_of_an_own_address(plane: Dataplane) -> None:
    for src in (C1.v6, NOBODY6, "fe80::1234"):
        assert_silent(plane.run("from_container", packets.solicitation(C1.mac, src, C1.v6)), "NDISC")


def test_duplicate_detection_meets_only_real_owners(plane: Dataplane) -> None:
    for target in (C1.v6, LONELY6, FAR6, "fe80::1234"):
        assert_silent(plane.run("from_container", packets.solicitation(C1.mac, NOBODY6, target)), "NDISC")
    for target in (C2.v6, GATEWAY6):
        out = plane.run("from_container", packets.solicitation(C1.mac, NOBODY6, target))
        assert_advertisement(out, C1.mac, NOBODY6, target)


def test_router_solicitation_is_no_malformed_packet(plane: Dataplane) -> None:
    """A starting container sends these, eight bytes long; the operator shall not take it for hostile."""
    payload = packets.icmpv6("fe80::1234", "ff02::2", 133)
    routers = packets.ipv6("fe80::1234", "ff02::2", payload, ICMPV6, ttl=255)
    assert_silent(
        plane.run("from_container", packets.frame("33:33:00:00:00:02", C1.mac, packets.IPV6, routers)), "NDISC"
    )


def test_solicitation_spoofed(plane: Dataplane) -> None:
    for src in (C2.v6, GATEWAY6, FAR6, f"::ffff:{C1.v4}", "::1", "ff02::1"):
        assert_silent(plane.run("from_container", packets.solicitation(C1.mac, src, GATEWAY6)), "SPOOFED")
    assert_silent(plane.run("from_container", packets.solicitation(C2.mac, C1.v6, GATEWAY6)), "SPOOFED")


@pytest.mark.parametrize("hook", ["from_container", "from_host"])
def test_solicitations_that_deserve_no_answer(plane: Dataplane, hook: str) -> None:
    for frame in (
        packets.solicitation(C1.mac, C1.v6, GATEWAY6, ttl=254),
        packets.solicitation(C1.mac, C1.v6, "ff02::1", dst=GATEWAY6),
        packets.solicitation(C1.mac, C1.v6, "::1", dst=GATEWAY6),
        packets.solicitation(C1.mac, C1.v6, f"::ffff:{C2.v4}", dst=GATEWAY6),
        *(packets.solicitation(C1.mac, C1.v6, GATEWAY6, type=type) for type in (133, 134, 136, 137)),
    ):
        assert_silent(plane.run(hook, frame), "NDISC")
    code = bytearray(packets.solicitation(C1.mac, C1.v6, GATEWAY6))
    code[55] = 1
    assert_silent(plane.run(hook, bytes(code)), "NDISC")


@pytest.mark.parametrize("hook", ["from_container", "from_host"])
def test_solicitation_cut_short(plane: Dataplane, hook: str) -> None:
    whole = packets.solicitation(C1.mac, C1.v6, GATEWAY6, option=False)
    for size in range(54, len(whole)):
        for length in (size - 54, 24):
            frame = bytearray(whole[:size])
            frame[18:20] = length.to_bytes(2, "big")
            out = plane.run(hook, bytes(frame))
            assert out.reply != "NDISC"
            assert out.dropped is not None
