# SPDX-License-Identifier: GPL-3.0-or-later
"""What says itself not to which flow it belongs: ICMP errors, by what they quote, and fragments, by their first one."""

from __future__ import annotations

import struct

import pytest

from tests.bpf import packets
from tests.bpf.frames import FAMILIES, V4, V6, Family
from tests.bpf.packets import FRAGMENT, ICMP, ICMPV6, MF, TCP, UDP
from tests.bpf.policies import (
    ACK,
    CLIENT,
    FAR,
    HOST,
    ONE,
    SERVER,
    SYN,
    TWO,
    Policed,
    Talk,
    Who,
    policy,
    rule,
    tcp,
)
from tests.bpf.topology import WIRE4, WIRE6

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
ROUTER = {"v4": WIRE4, "v6": WIRE6}  # somebody on the way
UNREACHABLE = {"v4": 3, "v6": 1}
KINDS = {"v4": (3, 4, 11, 12), "v6": (1, 2, 3, 4)}


def ip(family: Family, src: str, dst: str, payload: bytes, proto: int) -> bytes:
    make = packets.ipv4 if family is V4 else packets.ipv6
    return make(src, dst, payload, proto)


def error(
    node: Policed, family: Family, sender: Who, receiver: Who, quoted: bytes, kind: int = 0, src: str = ""
) -> str:
    """An error about these bytes; src: its sender's address if it is not his own."""
    ends = src or sender.address(family), receiver.address(family)
    kind = kind or UNREACHABLE[family.name]
    payload = packets.icmp(kind, 1, quoted) if family is V4 else packets.icmpv6(*ends, kind, 1, bytes(4) + quoted)
    return node.send(family, sender, receiver, payload, family.icmp, **({"src": src} if src else {}))


def quotes(family: Family, src: str, dst: str, sport: int, dport: int) -> dict[str, bytes]:
    """What errors quote of a segment: eight bytes of it, or more."""
    segment = tcp(ACK, sport, dport, b"data")
    return {
        "short": ip(family, src, dst, segment, TCP)[: family.header + 8],
        "long": ip(family, src, dst, segment, TCP),
    }


CLOSED = policy("c2", ingress=[rule(ports=[{"port": SERVER}])], egress=[])


@both
@pytest.mark.parametrize("size", ["short", "long"])
def test_errors_of_a_flow(node: Policed, family: Family, size: str) -> None:
    """From the other end or any router on the way, about what the container has sent."""
    node.hold(CLOSED)
    quoted = quotes(family, family.c2, family.far, SERVER, CLIENT)[size]
    other = quotes(family, family.c2, family.far, SERVER, CLIENT + 1)[size]
    assert error(node, family, FAR, TWO, quoted) == "POLICY", "no such flow yet"
    Talk(node, family, FAR, TWO).connect()
    for kind in KINDS[family.name]:
        for source in (family.far, ROUTER[family.name]):
            assert error(node, family, FAR, TWO, quoted, kind, source) == ""
            assert error(node, family, FAR, TWO, other, kind, source) == "POLICY"
    assert [name for name, _flags in node.states()] == ["flows"]


@both
def test_errors_by_a_container(node: Policed, family: Family) -> None:
    """About what it got; it is no router, so it may not speak for another's flow."""
    node.hold(CLOSED, policy("c1", egress=[], ingress=[rule(ports=[{"port": SERVER}])]))
    for dst in (TWO, ONE):
        Talk(node, family, FAR, dst).connect()
    got = {who: quotes(family, family.far, who.address(family), CLIENT, SERVER)["short"] for who in (ONE, TWO)}
    assert error(node, family, TWO, FAR, got[TWO]) == ""
    assert error(node, family, ONE, FAR, got[TWO]) == "POLICY"
    assert error(node, family, ONE, FAR, got[ONE]) == ""


@both
def test_an_error_goes_to_who_has_sent_what_it_quotes(node: Policed, family: Family) -> None:
    node.hold(CLOSED)
    Talk(node, family, FAR, TWO).connect()
    got = quotes(family, family.far, family.c2, CLIENT, SERVER)["short"]
    assert error(node, family, FAR, TWO, got) == "POLICY"


@both
def test_errors_about_an_echo(node: Policed, family: Family) -> None:
    protocol = "ICMP" if family is V4 else "ICMPv6"
    node.hold(policy("c1", ingress=[], egress=[rule(side="to", ports=[{"protocol": protocol}])], audit=False))
    assert Talk(node, family, ONE, FAR).ping() == ""
    if family is V4:
        asked, answered, other = packets.icmp(8), packets.icmp(0), packets.icmp(13)
    else:  # with the number 0, which other messages seem to have, too
        asked, answered, other = (packets.icmpv6(family.c1, family.far, kind) for kind in (128, 129, 144))
    assert error(node, family, FAR, ONE, ip(family, family.c1, family.far, asked, family.icmp)) == ""
    for quoted in (answered, other):
        assert error(node, family, FAR, ONE, ip(family, family.c1, family.far, quoted, family.icmp)) == "POLICY"


@both
def test_errors_that_quote_nothing_known(node: Policed, family: Family) -> None:
    """Errors about errors, later fragments, or cut off: by type and code."""
    node.hold(CLOSED)
    Talk(node, family, FAR, TWO).connect()
    whole = quotes(family, family.c2, family.far, SERVER, CLIENT)["long"]
    about = packets.icmp(3) if family is V4 else packets.icmpv6(family.c2, family.far, 1)
    bad = [whole[: family.header + 3], whole[:8], b"", ip(family, family.c2, family.far, about, family.icmp)]
    bad.append(bytes([whole[0] ^ 0x20]) + whole[1:])
    if family is V4:
        bad.append(packets.ipv4(family.c2, family.far, tcp(ACK, SERVER, CLIENT), TCP, fragment=1))
    for quoted in bad:
        assert error(node, family, FAR, TWO, quoted) == "POLICY"
    kind = UNREACHABLE[family.name]
    allowed = {"protocol": "ICMP" if family is V4 else "ICMPv6", "type": kind, "code": 1}
    node.hold(policy("c2", ingress=[rule(ports=[allowed])], audit=False))
    unknown = quotes(family, family.c2, family.far, SERVER, CLIENT + 1)["long"]
    for quoted in (*bad, unknown):
        assert error(node, family, FAR, TWO, quoted) == ""
    assert len(node.states()) == 1, "an error starts no flow"


@both
def test_errors_of_a_flow_that_is_denied_now(node: Policed, family: Family) -> None:
    """Whether the flow was decided again before, or the error is the first one to notice."""
    quoted = quotes(family, family.c2, family.far, SERVER, CLIENT)["short"]
    for first in (True, False):
        node.hold(CLOSED)
        assert Talk(node, family, FAR, TWO).connect() == ["", "", ""]
        node.hold(policy("c2", ingress=[], egress=[]))
        if first:
            assert node.redecide() == 1
        assert error(node, family, FAR, TWO, quoted) == "POLICY"
        assert node.redecide() == 0
        assert Talk(node, family, FAR, TWO).tcp(ACK) == "POLICY"


@both
def test_errors_keep_no_flow_alive(node: Policed, family: Family) -> None:
    node.hold(CLOSED)
    talk = Talk(node, family, FAR, TWO)
    talk.tcp(SYN)
    node.age(40)
    assert error(node, family, FAR, TWO, quotes(family, family.c2, family.far, SERVER, CLIENT)["short"]) == ""
    node.age(40)
    assert talk.tcp(ACK, back=True) == "POLICY"


@both
def test_errors_from_the_wire_about_what_stays_on_the_node(node: Policed, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule("c1")], egress=[]))
    assert Talk(node, family, ONE, TWO).connect() == ["", "", ""]
    for who, ends in ((TWO, (family.c2, family.c1, SERVER, CLIENT)), (ONE, (family.c1, family.c2, CLIENT, SERVER))):
        quoted = quotes(family, *ends)["short"]
        assert error(node, family, FAR, who, quoted, src=ROUTER[family.name]) == "SPOOFED"


# Fragments


def piece(
    family: Family, src: Who, dst: Who, payload: bytes, *, place: int, more: bool, number: int, proto: int
) -> bytes:
    """A fragment as a frame; place: in bytes."""
    ends = src.address(family), dst.address(family)
    if family is V4:
        packet = bytearray(packets.ipv4(*ends, payload, proto, fragment=place // 8 | (MF if more else 0)))
        packet[4:6] = struct.pack("!H", number)
        packet[10:12] = bytes(2)
        packet[10:12] = struct.pack("!H", packets.checksum(packet[:20]))
        return packets.frame(src.gateway, src.mac, packets.IPV4, bytes(packet))
    header = struct.pack("!BxHI", proto, place | more, number)
    return packets.frame(src.gateway, src.mac, packets.IPV6, packets.ipv6(*ends, header + payload, FRAGMENT))


class Pieces:
    """A datagram or segment in three fragments."""

    def __init__(
        self, node: Policed, family: Family, src: Who, dst: Who, port: int = SERVER, number: int = 7, proto: int = UDP
    ) -> None:
        self.node, self.family, self.src, self.dst, self.number, self.proto = node, family, src, dst, number, proto
        ends = src.address(family), dst.address(family)
        udp = packets.udp(*ends, bytes(16), CLIENT, port)
        self.payload = udp if proto == UDP else tcp(SYN, CLIENT, port, bytes(4))

    def send(self, index: int) -> str:
        place, more = index * 8, index < 2
        size = 24 if index == 0 and self.proto == TCP else 8
        part = self.payload[place : place + size]
        ends = self.family, self.src, self.dst
        frame = piece(*ends, part, place=place, more=more, number=self.number, proto=self.proto)
        return self.node.run(self.src, frame).dropped or ""


OPEN = policy("c2", ingress=[rule(ports=[{"protocol": "UDP", "port": SERVER}, {"port": SERVER}])], egress=[])


@both
@pytest.mark.parametrize("proto", [UDP, TCP])
def test_fragments_in_order(node: Policed, family: Family, proto: int) -> None:
    node.hold(OPEN)
    good, bad = Pieces(node, family, FAR, TWO, proto=proto), Pieces(node, family, FAR, TWO, 80, 8, proto)
    assert [good.send(index) for index in (0, 1, 2)] == ["", "", ""]
    assert [bad.send(index) for index in (0, 1, 2)] == ["POLICY", "FRAGMENT", "FRAGMENT"]
    assert len(node.states()) == 1


@both
def test_fragments_out_of_order(node: Policed, family: Family) -> None:
    node.hold(OPEN)
    pieces = Pieces(node, family, FAR, TWO)
    assert [pieces.send(index) for index in (2, 0, 1, 2)] == ["FRAGMENT", "", "", ""]
    free = Pieces(node, family, FAR, ONE)
    assert [free.send(index) for index in (2, 1, 0)] == ["", "", ""], "no policy selects it"
    host = Pieces(node, family, HOST, TWO)
    assert [host.send(index) for index in (2, 0, 1)] == ["", "", ""], "the node itself"


@both
def test_fragments_of_another_packet(node: Policed, family: Family) -> None:
    """Every part of what tells packets apart counts; in IPv6 the protocol is none of it."""
    node.hold(OPEN)
    assert Pieces(node, family, FAR, TWO).send(0) == ""
    assert Pieces(node, family, FAR, TWO, number=8).send(1) == "FRAGMENT"
    assert Pieces(node, family, ONE, TWO).send(1) == "FRAGMENT"
    other = Pieces(node, family, FAR, TWO)
    other.proto = 47
    assert other.send(1) == ("FRAGMENT" if family is V4 else "")


@both
def test_fragments_that_come_too_late(node: Policed, family: Family) -> None:
    node.hold(OPEN)
    pieces = Pieces(node, family, FAR, TWO)
    assert pieces.send(0) == ""
    node.age(-1)
    assert pieces.send(1) == "", "another CPU's clock was ahead"
    node.age(58)
    assert pieces.send(1) == ""
    node.age(4)
    assert pieces.send(2) == "FRAGMENT"


@both
def test_fragments_after_a_change(node: Policed, family: Family) -> None:
    """The first one passed before: the others are what their flow is now."""
    node.hold(OPEN)
    first, second = Pieces(node, family, FAR, TWO), Pieces(node, family, ONE, TWO)
    assert [first.send(0), second.send(0)] == ["", ""]
    node.hold(policy("c2", ingress=[rule("c1")], egress=[]))
    assert [first.send(1), second.send(1)] == ["POLICY", ""]
    assert [first.send(2), second.send(2)] == ["POLICY", ""]


@both
def test_fragments_of_an_answer(node: Policed, family: Family) -> None:
    node.hold(policy("c1", egress=[rule(side="to", ports=[{"protocol": "UDP", "port": SERVER}])], ingress=[]))
    assert Talk(node, family, ONE, FAR).udp() == ""
    pieces = Pieces(node, family, FAR, ONE)
    pieces.payload = packets.udp(family.far, family.c1, bytes(16), SERVER, CLIENT)
    assert [pieces.send(index) for index in (0, 1, 2)] == ["", "", ""]


@both
def test_fragments_that_the_host_makes(node: Policed, family: Family) -> None:
    """Of what a container sends: in whose name they come does not make them the node's."""
    node.hold(policy("c2", ingress=[rule("c1", ports=[{"protocol": "UDP", "port": SERVER}])]))
    assert Talk(node, family, ONE, TWO).udp() == ""
    ours = Who("c1", "from_host", "fastpath0", HOST.mac, HOST.gateway)
    good, bad = Pieces(node, family, ours, TWO), Pieces(node, family, ours, TWO, 80, 9)
    assert [good.send(index) for index in (0, 1, 2)] == ["", "", ""]
    assert [bad.send(index) for index in (0, 1, 2)] == ["POLICY", "FRAGMENT", "FRAGMENT"]


@both
def test_a_first_fragment_without_its_header(node: Policed, family: Family) -> None:
    node.hold(OPEN)
    for proto, size in ((UDP, 0), (TCP, 8)):
        frame = piece(family, FAR, TWO, tcp(SYN, CLIENT, SERVER)[:size], place=0, more=True, number=5, proto=proto)
        assert node.run(FAR, frame).dropped == "MALFORMED"


@both
def test_fragments_of_an_echo(node: Policed, family: Family) -> None:
    protocol = "ICMP" if family is V4 else "ICMPv6"
    node.hold(policy("c2", ingress=[rule(ports=[{"protocol": protocol}])], egress=[], audit=False))
    request, reply = (8, 0) if family is V4 else (128, 129)
    for src, dst, kind in ((FAR, TWO, request), (TWO, FAR, reply)):
        pieces = Pieces(node, family, src, dst, proto=ICMP if family is V4 else ICMPV6)
        ends = src.address(family), dst.address(family)
        pieces.payload = packets.icmp(kind) + bytes(12) if family is V4 else packets.icmpv6(*ends, kind, 0, bytes(20))
        assert [pieces.send(index) for index in (0, 1, 2)] == ["", "", ""]


@both
def test_fragments_of_an_error(node: Policed, family: Family) -> None:
    """Only the first one quotes something; the others are asked about by type and code, whatever they look like."""
    node.hold(OPEN)
    Talk(node, family, FAR, TWO).connect()
    quoted = quotes(family, family.c2, family.far, SERVER, CLIENT)["short"] + bytes(4)
    kind = UNREACHABLE[family.name]
    if family is V4:
        message = packets.icmp(kind, 1, quoted)
    else:
        message = packets.icmpv6(family.far, family.c2, kind, 1, bytes(4) + quoted)
    message += bytes(-len(message) % 8)
    said = {"number": 5, "proto": family.icmp}
    assert node.run(FAR, piece(family, FAR, TWO, message, place=0, more=True, **said)).dropped is None
    for header in (b"", bytes(8)):  # as an error has it
        later = piece(family, FAR, TWO, header + quoted, place=len(message), more=False, **said)
        assert node.run(FAR, later).dropped == "POLICY"


def test_a_fragment_that_is_the_whole_packet(node: Policed) -> None:
    """IPv6 knows fragment headers without fragments."""
    node.hold(OPEN)
    for port, verdict in ((SERVER, None), (80, "POLICY")):
        datagram = packets.udp(V6.far, V6.c2, b"data", CLIENT, port)
        frame = piece(V6, FAR, TWO, datagram, place=0, more=False, number=3, proto=UDP)
        assert node.run(FAR, frame).dropped == verdict
    later = Pieces(node, V6, FAR, TWO, number=3)
    assert later.send(1) == "FRAGMENT", "nothing was left for others"
