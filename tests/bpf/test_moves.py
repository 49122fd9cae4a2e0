# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that moves from one link to another has two ends for a while, and may send on either."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf import packets
from tests.bpf.dataplane import REDIRECT, SHOT, Dataplane, Outcome
from tests.bpf.frames import FAMILIES, V6, Family, from_container
from tests.bpf.test_deliver import forwarded
from tests.bpf.topology import C1, C2, FAR4, FAR6, GATEWAY4, GATEWAY6, GATEWAY_MAC, NO_MAC

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
SECOND = "fastpath0"  # any device with the gateway's MAC may stand for container 1's second end


@pytest.fixture
def moving(plane: Dataplane) -> Iterator[Dataplane]:
    with plane.moving(SECOND, "c1"):
        yield plane


def assert_dropped(out: Outcome, reason: str) -> None:
    assert (out.verdict, out.dropped, out.reply, out.sender) == (SHOT, reason, None, None)


@both
def test_it_sends_on_both_ends(moving: Dataplane, family: Family) -> None:
    for device in ("c1", SECOND):
        frame = from_container(family).frame()
        out = moving.run("from_container", frame, device=device)
        assert (out.verdict, out.sender, out.receiver) == (REDIRECT, "c1", "c2")
        assert out.packet == forwarded(frame)
        for dst in (family.far, family.node):
            out = moving.run("from_container", from_container(family, dst).frame(), device=device)
            assert (out.verdict, out.sender) == (REDIRECT, "c1")


@both
def test_the_second_end_may_have_another_mac(moving: Dataplane, family: Family) -> None:
    """Between L2 and L3. The published end keeps to its own."""
    frame = from_container(family).with_(src_mac=NO_MAC).frame()
    assert moving.run("from_container", frame, device=SECOND).sender == "c1"
    assert_dropped(moving.run("from_container", frame), "SPOOFED")


@both
def test_nobody_else_may(plane: Dataplane, family: Family) -> None:
    own, others = from_container(family).frame(), from_container(family, family.far).with_(src=family.c2).frame()
    assert_dropped(plane.run("from_container", own, device=SECOND), "SPOOFED")
    with plane.moving(SECOND, "c1"):
        assert_dropped(plane.run("from_container", others, device=SECOND), "SPOOFED")
        assert_dropped(plane.run("from_container", own, device="c2"), "SPOOFED")
    with plane.moving(SECOND, "c2"):
        assert_dropped(plane.run("from_container", own, device=SECOND), "SPOOFED")
    with plane.moving("c1", SECOND):  # published already with the first end: the entry means nothing
        assert plane.run("from_container", own).sender == "c1"
        assert_dropped(plane.run("from_container", own, device=SECOND), "SPOOFED")


@both
def test_its_own_addresses_are_its_own_on_both_ends(moving: Dataplane, family: Family) -> None:
    second = "fd00:128:3::21" if family is V6 else "10.128.3.21"
    with moving.published(C1, second):
        for dst in (family.c1, second):
            assert_dropped(moving.run("from_container", from_container(family, dst).frame(), device=SECOND), "TO_SELF")


@both
def test_icmp_errors_come_back(moving: Dataplane, family: Family) -> None:
    out = moving.run("from_container", from_container(family).with_(ttl=1).frame(), device=SECOND)
    assert (out.verdict, out.dropped, out.reply) == (REDIRECT, "TTL", "ICMP_ERROR")


def test_arp(moving: Dataplane) -> None:
    for target in (GATEWAY4, C2.v4, FAR4):
        out = moving.run("from_container", packets.arp(C1.mac, C1.v4, target), device=SECOND)
        assert (out.verdict, out.reply) == (REDIRECT, "ARP")
    own = packets.arp(C1.mac, "0.0.0.0", C1.v4)
    assert_dropped(moving.run("from_container", own, device=SECOND), "ARP")
    assert moving.run("from_container", own, device="up0").reply == "ARP"  # there it is somebody else's
    spoofed = packets.arp(C1.mac, C2.v4, GATEWAY4)
    assert_dropped(moving.run("from_container", spoofed, device=SECOND), "SPOOFED")
    assert_dropped(moving.run("from_container", packets.arp(C1.mac, C1.v4, GATEWAY4), device="c2"), "SPOOFED")


def test_neighbour_discovery(moving: Dataplane) -> None:
    for target in (GATEWAY6, C2.v6, FAR6):
        out = moving.run("from_container", packets.solicitation(C1.mac, C1.v6, target), device=SECOND)
        assert (out.verdict, out.reply) == (REDIRECT, "NDISC")
    own = packets.solicitation(C1.mac, "::", C1.v6)
    assert_dropped(moving.run("from_container", own, device=SECOND), "NDISC")
    assert moving.run("from_container", own, device="up0").reply == "NDISC"
    spoofed = packets.solicitation(C1.mac, C2.v6, GATEWAY6)
    assert_dropped(moving.run("from_container", spoofed, device=SECOND), "SPOOFED")
    assert_dropped(moving.run("from_container", packets.solicitation(C1.mac, C1.v6, GATEWAY6), device="c2"), "SPOOFED")


@both
def test_packets_to_it_go_to_the_published_end(moving: Dataplane, family: Family) -> None:
    """Which is all that a sender needs to know of a move."""
    frame = from_container(family, family.c1).with_(src=family.c2, src_mac=C2.mac).frame()
    out = moving.run("from_container", frame, device="c2")
    assert (out.sender, out.receiver) == ("c2", "c1")
    assert out.packet == forwarded(frame, C1.mac, GATEWAY_MAC)
