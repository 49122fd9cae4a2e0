# SPDX-License-Identifier: GPL-3.0-or-later
"""Which first packets pass: each rule, each way through the node, both families. What passes is forwarded as ever."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.bpf import packets
from tests.bpf.dataplane import REDIRECT, Dataplane
from tests.bpf.frames import FAMILIES, V4, V6, Family, from_container
from tests.bpf.packets import HOP_BY_HOP, ICMP, ICMPV6, TCP, UDP
from tests.bpf.policies import (
    ACK,
    CLIENT,
    FAR,
    HOST,
    ONE,
    RST,
    SERVER,
    SYN,
    TWO,
    Policed,
    Talk,
    Who,
    policed,
    policy,
    rule,
    tcp,
)
from tests.bpf.test_deliver import forwarded
from tests.bpf.topology import C1, GATEWAY4, GATEWAY6

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
WAYS = {"container": ONE, "wire": FAR, "host": HOST}
PORT = {"port": SERVER}
GRE, SCTP, ROUTING, OPTIONS, AUTHENTICATION = 47, 132, 43, 60, 51


@pytest.fixture
def node(plane: Dataplane) -> Iterator[Policed]:
    with policed(plane) as made:
        yield made


def opened(node: Policed, family: Family, src: Who, dst: Who, port: int = SERVER) -> str:
    return Talk(node, family, src, dst, server=port).tcp(SYN)


@both
def test_without_policies_nothing_is_tracked(node: Policed, family: Family) -> None:
    for who in (ONE, FAR, HOST):
        talk = Talk(node, family, who, TWO)
        assert [*talk.connect(), talk.udp(), talk.ping(), talk.tcp(RST, back=True)] == [""] * 6
    assert (node.states(), node.counts()) == ([], [0] * 6)


@both
@pytest.mark.parametrize("way", ["container", "wire"])
def test_ingress(node: Policed, family: Family, way: str) -> None:
    peer = {"container": "c1", "wire": f"{family.far}/{32 if family is V4 else 128}"}[way]
    node.hold(policy("c2", ingress=[rule(peer, ports=[PORT])]))
    assert opened(node, family, WAYS[way], TWO) == ""
    assert opened(node, family, WAYS[way], TWO, SERVER + 1) == "POLICY"
    assert Talk(node, family, WAYS[way], TWO).udp() == "POLICY"
    node.hold(policy("c2", ingress=[]))
    assert opened(node, family, WAYS[way], TWO) == "POLICY"
    assert opened(node, family, TWO, WAYS[way]) == "", "egress is free"
    assert opened(node, family, WAYS[way], ONE) == "" or way == "container"


@both
def test_egress(node: Policed, family: Family) -> None:
    node.hold(policy("c1", egress=[rule("c2", ports=[PORT], side="to")]))
    assert opened(node, family, ONE, TWO) == ""
    assert opened(node, family, ONE, TWO, SERVER + 1) == "POLICY"
    assert opened(node, family, ONE, FAR) == "POLICY"
    assert opened(node, family, FAR, ONE) == ""
    assert opened(node, family, TWO, ONE) == ""
    assert opened(node, family, TWO, FAR) == ""


@both
def test_both_ends_must_allow(node: Policed, family: Family) -> None:
    """And are asked at once, where the sending container's packet comes in."""
    out, into = policy("c1", egress=[rule("c2", ports=[PORT], side="to")]), policy("c2", ingress=[rule("c1")])
    for documents, port, verdict in (
        ([out, into], SERVER, ""),
        ([out, into], 80, "POLICY"),
        ([out, policy("c2", ingress=[])], SERVER, "POLICY"),
        ([policy("c1", egress=[]), into], SERVER, "POLICY"),
    ):
        node.hold(*documents)
        assert opened(node, family, ONE, TWO, port) == verdict


@both
def test_the_node_itself_may_always(node: Policed, family: Family) -> None:
    node.hold(policy("c2", ingress=[], egress=[]))
    assert opened(node, family, HOST, TWO) == ""
    assert Talk(node, family, HOST, TWO).tcp(SYN | ACK, back=True) == ""
    assert Talk(node, family, TWO, HOST).udp() == ""
    assert Talk(node, family, HOST, TWO).tcp(RST | ACK) == ""
    node.hold(policy("c2", ingress=[], egress=[]))
    node.plane.run("from_container", from_container(family, family.node).frame())
    # what the node forwards is another's
    frame = node.frame(family, HOST, TWO, tcp(SYN, CLIENT, SERVER), TCP, src=family.far)
    assert node.run(HOST, frame).dropped == "POLICY"


@both
@pytest.mark.parametrize("source", ["node", "gateway", "c1"])
def test_nobody_on_the_wire_is_the_node_or_a_container(node: Policed, family: Family, source: str) -> None:
    node.hold(policy("c2", ingress=[rule()]))
    frame = node.frame(family, FAR, TWO, tcp(SYN, CLIENT, SERVER), TCP, src=getattr(family, source))
    assert node.run(FAR, frame).dropped == "SPOOFED"
    assert node.states() == []


@both
@pytest.mark.parametrize("source", ["gateway", "c1"])
def test_nor_later(node: Policed, family: Family, source: str) -> None:
    """When the flow is known."""
    node.hold(policy("c2", ingress=[rule("c1", ports=[PORT])]))
    who = ONE if source == "c1" else HOST
    assert Talk(node, family, who, TWO).connect() == ["", "", ""]
    frame = node.frame(family, FAR, TWO, tcp(ACK, CLIENT, SERVER), TCP, src=getattr(family, source))
    assert node.run(FAR, frame).dropped == "SPOOFED"
    assert Talk(node, family, who, TWO).tcp(ACK) == ""


def test_addresses_that_look_like_ipv4(node: Policed) -> None:
    node.hold(policy("c2", ingress=[rule(f"{V4.far}/32")]))
    for source in (f"::ffff:{V4.far}", "::1", "::"):
        frame = node.frame(V6, FAR, TWO, tcp(SYN, CLIENT, SERVER), TCP, src=source)
        assert node.run(FAR, frame).dropped == "SPOOFED"


@both
def test_messages_of_icmp_by_type_and_code(node: Policed, family: Family) -> None:
    protocol = "ICMP" if family is V4 else "ICMPv6"
    echo, other = (8, 13) if family is V4 else (128, 144)
    node.hold(policy("c2", ingress=[rule(ports=[{"protocol": protocol, "type": other, "code": 1}])], audit=False))
    assert Talk(node, family, FAR, TWO).ping() == "POLICY"

    def message(kind: int, code: int) -> str:
        if family is V4:
            return node.send(family, FAR, TWO, packets.icmp(kind, code), ICMP)
        return node.send(family, FAR, TWO, packets.icmpv6(family.far, family.c2, kind, code), ICMPV6)

    assert [message(other, 1), message(other, 0), message(echo, 1)] == ["", "POLICY", "POLICY"]
    odd = {"protocol": protocol, "type": echo, "code": 1}
    node.hold(policy("c2", ingress=[rule(ports=[odd])], audit=False))
    assert message(echo, 1) == ""
    assert node.states() == [], "only an echo without a code is a flow"


@both
def test_protocols_without_ports(node: Policed, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule(ports=[PORT])]))
    assert node.send(family, FAR, TWO, bytes(20), GRE) == "POLICY"
    node.hold(policy("c2", ingress=[rule()]))
    assert node.send(family, FAR, TWO, bytes(20), GRE) == ""
    node.hold(policy("c1", ingress=[]))
    assert node.send(family, TWO, ONE, bytes(1), GRE) == "POLICY"


@both
def test_sctp(node: Policed, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule(ports=[{"protocol": "SCTP", "port": SERVER}])]))
    for port, verdict in ((SERVER, ""), (SERVER + 1, "POLICY")):
        assert node.send(family, FAR, TWO, struct.pack("!HHII", CLIENT, port, 0, 0), SCTP) == verdict
    assert opened(node, family, FAR, TWO) == "POLICY"


@both
def test_named_ranges_and_pages(node: Policed, family: Family) -> None:
    """So many ports that they do not fit into a row."""
    ports = [{"port": port} for port in range(1000, 1060, 2)] + [{"port": 2000, "endPort": 2999}]
    node.hold(policy("c2", ingress=[rule("c1", ports=ports), rule(ports=[{"port": 1001}])]))
    for port, verdict in (
        (1000, ""),
        (1001, ""),
        (1003, "POLICY"),
        (1058, ""),
        (2000, ""),
        (2999, ""),
        (3000, "POLICY"),
    ):
        assert opened(node, family, ONE, TWO, port) == verdict, port
    assert opened(node, family, FAR, TWO, 1001) == ""
    assert opened(node, family, FAR, TWO, 1000) == "POLICY"


@both
def test_deny_before_allow(node: Policed, family: Family) -> None:
    cidr = f"{family.far}/{32 if family is V4 else 128}"
    node.hold(policy("c2", ingress=[rule(cidr, action="deny"), rule(action="allow")], priority=1))
    assert opened(node, family, FAR, TWO) == "POLICY"
    assert opened(node, family, ONE, TWO) == ""


@both
def test_no_answer_without_a_question(node: Policed, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule()], egress=[rule(side="to")]))
    for src, dst in ((FAR, TWO), (ONE, TWO), (TWO, FAR)):
        talk = Talk(node, family, src, dst)
        answers = [talk.tcp(SYN | ACK), talk.tcp(RST), talk.tcp(RST | ACK), talk.ping(reply=True)]
        assert answers == ["NO_FLOW"] * 4
    talk = Talk(node, family, FAR, ONE)
    assert [talk.tcp(SYN | ACK), talk.tcp(RST), talk.ping(reply=True)] == [""] * 3, "no policy selects it"
    assert node.states() == []


@both
def test_denied_packets_get_no_error(node: Policed, family: Family) -> None:
    """Nobody learns anything of what is denied, not even that its hop limit ran out or that it is too big."""
    node.hold(policy("c2", ingress=[]))
    for changes in ({"ttl": 1}, {}):
        data = b"" if changes else bytes(2000)
        frame = node.frame(family, FAR, TWO, tcp(SYN, CLIENT, SERVER, data), TCP, **changes)
        out = node.run(FAR, frame)
        assert (out.dropped, out.reply) == ("POLICY", None)


@both
def test_errors_that_the_dataplane_writes_are_asked_nobody(node: Policed, family: Family) -> None:
    node.hold(policy("c1", ingress=[], egress=[rule("c2", side="to")]))
    frame = node.frame(family, ONE, TWO, tcp(SYN, CLIENT, SERVER), TCP, ttl=1)
    out = node.run(ONE, frame)
    assert (out.verdict, out.dropped, out.reply) == (REDIRECT, "TTL", "ICMP_ERROR")


def test_neighbours_are_found_whatever_holds(node: Policed) -> None:
    node.hold(policy("c1", ingress=[], egress=[]), policy("c2", ingress=[], egress=[]))
    assert node.run(ONE, packets.arp(C1.mac, C1.v4, GATEWAY4)).reply == "ARP"
    assert node.run(ONE, packets.solicitation(C1.mac, C1.v6, GATEWAY6)).reply == "NDISC"


@both
def test_what_passes_is_forwarded_as_ever(node: Policed, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule("c1")]))
    frame = node.frame(family, ONE, TWO, tcp(SYN, CLIENT, SERVER), TCP)
    out = node.run(ONE, frame)
    assert (out.verdict, out.sender, out.receiver) == (REDIRECT, "c1", "c2")
    assert out.packet == forwarded(frame)


@both
def test_to_the_host_by_egress(node: Policed, family: Family) -> None:
    """What the host forwards for a container is asked as what the container sends."""
    node.hold(policy("c1", egress=[rule(f"{family.far}/{32 if family is V4 else 128}", ports=[PORT], side="to")]))
    assert opened(node, family, ONE, FAR) == ""
    assert opened(node, family, ONE, FAR, 80) == "POLICY"
    assert opened(node, family, ONE, HOST, 80) == ""


@both
@pytest.mark.parametrize(("proto", "payload"), [(TCP, bytes(13)), (UDP, bytes(3)), (SCTP, bytes(3))])
def test_headers_that_are_cut_off(node: Policed, family: Family, proto: int, payload: bytes) -> None:
    """Whatever a rule says about other protocols."""
    node.hold(policy("c2", ingress=[rule()]))
    assert node.send(family, FAR, TWO, payload, proto) == "MALFORMED"
    assert node.send(family, FAR, ONE, payload, proto) == "MALFORMED"


def options(payload: bytes, proto: int, *chain: int) -> tuple[bytes, int]:
    """The payload behind these extension headers, and the first one's number."""
    for kind in reversed(chain):
        payload = bytes([proto, 0, 1, 4, 0, 0, 0, 0]) + payload
        proto = kind
    return payload, proto


def test_extension_headers(node: Policed) -> None:
    node.hold(policy("c2", ingress=[rule(ports=[PORT])]))
    for chain in ((HOP_BY_HOP,), (OPTIONS, ROUTING), (HOP_BY_HOP, OPTIONS, ROUTING, *(OPTIONS,) * 4)):
        for port, verdict in ((SERVER, ""), (80, "POLICY")):
            payload, first = options(tcp(SYN, CLIENT, port), TCP, *chain)
            assert node.send(V6, FAR, TWO, payload, first) == verdict
    for units in (2, 31, 150):  # up to more than a kilobyte
        for port, verdict in ((SERVER, ""), (80, "POLICY")):
            longer = bytes([TCP, units]) + bytes(6 + 8 * units) + tcp(SYN, CLIENT + 1 + units, port)
            assert node.send(V6, FAR, TWO, longer, OPTIONS) == verdict


def test_too_many_extension_headers(node: Policed) -> None:
    node.hold(policy("c2", ingress=[rule()]))
    payload, first = options(tcp(SYN, CLIENT, SERVER), TCP, *(OPTIONS,) * 9)
    assert node.send(V6, FAR, TWO, payload, first) == "MALFORMED"
    assert node.send(V6, FAR, TWO, bytes([TCP, 0]), OPTIONS) == "MALFORMED", "cut off"


def test_extension_headers_that_nobody_skips(node: Policed) -> None:
    """Authentication is a protocol of its own, as in IPv4."""
    node.hold(policy("c2", ingress=[rule(ports=[PORT])]))
    payload, first = options(tcp(SYN, CLIENT, SERVER), TCP, AUTHENTICATION)
    assert node.send(V6, FAR, TWO, payload, first) == "POLICY"


def test_options_of_ipv4(node: Policed) -> None:
    node.hold(policy("c2", ingress=[rule(ports=[PORT])]))
    for port, verdict in ((SERVER, None), (80, "POLICY")):
        packet = packets.ipv4(V4.far, V4.c2, tcp(SYN, CLIENT, port), TCP, options=bytes(8))
        assert node.run(FAR, packets.frame(FAR.gateway, FAR.mac, packets.IPV4, packet)).dropped == verdict


@both
def test_a_container_that_moves(node: Policed, family: Family) -> None:
    """It has two ends, and its flows go on over either."""
    node.hold(policy("c1", egress=[rule("c2", side="to", ports=[PORT])], ingress=[]))
    assert Talk(node, family, ONE, TWO).connect() == ["", "", ""]
    second = replace(ONE, device="fastpath0")  # any device with the gateway's MAC may stand for it
    with node.plane.moving("fastpath0", "c1"):
        assert Talk(node, family, second, TWO).tcp(ACK) == ""
        assert Talk(node, family, second, TWO, client=CLIENT + 1).tcp(SYN) == ""
        assert Talk(node, family, second, TWO, server=80).tcp(SYN) == "POLICY"
    assert len(node.states()) == 2


@both
def test_packets_that_will_be_segments(node: Policed, family: Family) -> None:
    """GSO, and BIG TCP in IPv6, whose length is in an extension header."""
    node.hold(policy("c2", ingress=[rule("c1", ports=[PORT])]))
    for port, dropped in ((SERVER, None), (80, "POLICY")):
        segment = tcp(SYN, CLIENT, port, bytes(3000))
        frames = [node.frame(family, ONE, TWO, segment, TCP)]
        if family is V6:
            jumbo = struct.pack("!BBBBI", TCP, 0, 0xC2, 4, len(segment) + 8) + segment
            packet = packets.ipv6(V6.c1, V6.c2, jumbo, HOP_BY_HOP, length=0)
            frames.append(packets.frame(ONE.gateway, ONE.mac, packets.IPV6, packet))
        for frame in frames:
            assert node.plane.run("from_container", frame, gso_size=1400).dropped == dropped
