# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows: the other direction passes because the first packet did, until the flow ends; the dead push out no living."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath, flows, netns
from tests.bpf.frames import FAMILIES, V4, V6, Family
from tests.bpf.packets import TCP, UDP, udp
from tests.bpf.policies import (
    ACK,
    CLIENT,
    CLOSED,
    CREATED,
    EXPIRED,
    FAR,
    FIN,
    ONE,
    PROMOTED,
    RST,
    SERVER,
    SYN,
    TWO,
    Policed,
    Talk,
    policy,
    rule,
    tcp,
)
from tests.bpf.topology import C2

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
ANSWERED, FIN_A, FIN_B, RESET, LOCAL = 2, 4, 8, 16, 32
IDLE_TCP, IDLE, IDLE_YOUNG = 86400, 180, 60
PUBLIC, PRIVATE = (
    policy("c2", ingress=[rule(ports=[{"port": SERVER}, {"protocol": "UDP"}])], egress=[]),
    policy("c1", egress=[]),
)


@pytest.fixture
def node(node: Policed) -> Policed:
    """Container 2 serves everybody on one port and asks nobody anything."""
    node.hold(PUBLIC)
    return node


@pytest.fixture
def talk(node: Policed, family: Family) -> Talk:
    return Talk(node, family, FAR, TWO)


@both
def test_handshake(node: Policed, talk: Talk) -> None:
    assert talk.tcp(SYN) == ""
    assert talk.tcp(SYN) == "", "once more, as it was lost"
    assert node.states() == [("young", node.states()[0][1])]
    assert talk.tcp(SYN | ACK, back=True) == ""
    assert talk.tcp(SYN) == "", "the answer was lost"
    assert [name for name, _flags in node.states()] == ["young"]
    assert talk.tcp(ACK) == ""
    assert [name for name, _flags in node.states()] == ["flows"]
    assert talk.tcp(ACK, back=True) == ""
    assert node.counts()[:3] == [1, 1, 0]
    assert Talk(node, talk.family, FAR, TWO, client=CLIENT + 1).tcp(ACK, back=True) == "POLICY", "another flow"


@both
def test_close(node: Policed, talk: Talk) -> None:
    """The last segments pass; then the same ports are asked about anew."""
    talk.connect()
    assert talk.tcp(FIN | ACK) == ""
    assert [name for name, _flags in node.states()] == ["flows"], "half closed, the other end may send for long"
    assert talk.tcp(ACK, back=True) == ""
    assert [talk.tcp(FIN | ACK, back=True), talk.tcp(ACK)] == ["", ""]
    assert [name for name, _flags in node.states()] == ["young"]
    assert node.counts()[:4] == [1, 1, 1, 0]
    assert [talk.tcp(FIN | ACK), talk.tcp(ACK, back=True)] == ["", ""], "repeated, as it was lost"
    assert talk.connect() == ["", "", ""]
    ((name, flags),) = node.states()
    assert (name, flags & (FIN_A | FIN_B | RESET)) == ("flows", 0)
    assert node.counts()[:4] == [1, 2, 1, 0]


@both
@pytest.mark.parametrize("back", [False, True])
def test_reset(node: Policed, talk: Talk, back: bool) -> None:
    talk.connect()
    assert talk.tcp(RST, back=back) == ""
    ((name, flags),) = node.states()
    assert (name, flags & RESET) == ("young", RESET)
    assert talk.tcp(SYN) == ""
    assert talk.tcp(SYN | ACK, back=True) == ""
    assert talk.tcp(ACK) == ""
    ((name, flags),) = node.states()
    assert (name, flags & RESET) == ("flows", 0)


@both
def test_a_reset_that_nobody_believes(node: Policed, talk: Talk) -> None:
    """Anybody can send one with a wrong number."""
    talk.connect()
    talk.tcp(RST)
    assert talk.tcp(ACK, back=True) == ""
    ((name, flags),) = node.states()
    assert (name, flags & RESET) == ("young", 0)
    assert talk.tcp(ACK) == ""
    ((name, flags),) = node.states()
    assert (name, flags & RESET) == ("flows", 0)
    assert node.counts()[:4] == [1, 2, 1, 0]


@both
def test_in_the_middle_of_a_connection(node: Policed, talk: Talk) -> None:
    """As after an entry was pushed out: decided in the direction of the packet that comes."""
    assert talk.tcp(ACK, back=True) == "POLICY"
    assert [talk.tcp(ACK), talk.tcp(ACK, back=True), talk.tcp(ACK)] == ["", "", ""]
    assert [name for name, _flags in node.states()] == ["flows"]


@both
def test_the_other_end_opens_one_of_its_own(node: Policed, talk: Talk) -> None:
    """With the same ports. It is asked about, and does not disturb the one that is there."""
    talk.connect()
    before = node.states()
    assert talk.tcp(SYN, back=True) == "POLICY"
    assert node.states() == before
    assert talk.tcp(ACK, back=True) == ""
    node.hold()
    assert [talk.tcp(ACK), talk.tcp(SYN, back=True)] == ["", ""]
    assert node.states() == before


@both
def test_datagrams(node: Policed, talk: Talk) -> None:
    assert talk.udp(back=True) == "POLICY"
    assert [talk.udp(), talk.udp()] == ["", ""]
    assert [name for name, _flags in node.states()] == ["young"], "nobody has answered"
    assert [talk.udp(back=True), talk.udp()] == ["", ""]
    assert [name for name, _flags in node.states()] == ["flows"]
    assert Talk(node, talk.family, FAR, TWO, client=CLIENT + 1).udp(back=True) == "POLICY"
    assert Talk(node, talk.family, FAR, TWO, server=SERVER + 1).udp(back=True) == "POLICY"
    assert talk.tcp(ACK, back=True) == "POLICY", "another protocol"


@both
def test_echo(node: Policed, talk: Talk, family: Family) -> None:
    protocol = {"protocol": "ICMP" if family is V4 else "ICMPv6"}
    node.hold(policy("c2", ingress=[rule(ports=[protocol])], egress=[], audit=False))
    assert talk.ping(back=True, reply=True) == "NO_FLOW"
    assert talk.ping() == ""
    assert talk.ping(reply=True) == "NO_FLOW", "who asks does not answer"
    assert talk.ping(back=True, reply=True) == ""
    assert [name for name, _flags in node.states()] == ["flows"]
    assert talk.ping(back=True) == "POLICY", "with the same number, but it asks"
    assert talk.ping() == ""


@both
def test_both_ends_ask_with_the_same_number(node: Policed, talk: Talk) -> None:
    node.hold()
    assert [talk.ping(), talk.ping(back=True)] == ["", ""]
    assert node.counts()[CREATED] == 2
    node.hold(policy("c2", ingress=[], egress=[]))
    node.redecide()
    assert [talk.ping(back=True, reply=True), talk.ping(reply=True)] == ["POLICY", "POLICY"]


@both
def test_flows_of_protocols_without_ports(node: Policed, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule()], egress=[]))
    assert node.send(family, TWO, FAR, bytes(20), 47) == "POLICY"
    assert node.send(family, FAR, TWO, bytes(20), 47) == ""
    assert node.send(family, TWO, FAR, bytes(20), 47) == ""
    assert node.send(family, TWO, FAR, bytes(20), 50) == "POLICY"


@both
@pytest.mark.parametrize(
    ("what", "idle"),
    [("tcp", IDLE_TCP), ("udp", IDLE), ("syn", IDLE_YOUNG), ("asking", IDLE_YOUNG), ("closed", IDLE_YOUNG)],
)
def test_silence_ends_a_flow(node: Policed, talk: Talk, what: str, idle: int) -> None:
    """Then its other direction is asked about as anything else."""
    if what in ("tcp", "closed"):
        talk.connect()
        if what == "closed":
            talk.close()
    elif what == "syn":
        talk.tcp(SYN)
    else:
        talk.udp()
        if what == "udp":
            talk.udp(back=True)

    def back() -> str:
        return talk.udp(back=True) if what in ("udp", "asking") else talk.tcp(ACK, back=True)

    node.age(idle - 2)
    if what != "asking":
        assert back() == ""
        node.age(idle - 2)
        assert back() == "", "the packet before kept it alive"
    else:
        assert talk.udp() == ""
    entries = node.states()
    node.age(idle + 2)
    assert back() == "POLICY"
    assured = entries[0][0] == "flows"
    assert node.counts()[EXPIRED] == assured
    assert len(node.states()) == (0 if assured else 1)


@both
def test_a_clock_that_another_cpu_is_ahead_of(node: Policed, talk: Talk) -> None:
    """It has seen the flow in a second that has not begun here."""
    talk.connect()
    talk.udp()
    node.age(-1)
    assert [talk.tcp(ACK, back=True), talk.udp(back=True)] == ["", ""]
    assert node.counts()[EXPIRED] == 0


@both
def test_after_silence_it_starts_anew(node: Policed, talk: Talk) -> None:
    talk.connect()
    node.age(IDLE_TCP + 2)
    assert talk.connect() == ["", "", ""]
    talk.close()
    node.age(IDLE_YOUNG + 2)
    assert talk.connect() == ["", "", ""]
    assert node.counts()[:4] == [2, 3, 1, 1]
    assert [name for name, _flags in node.states()] == ["flows"]


@both
def test_between_two_containers(node: Policed, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule("c1", ports=[{"port": SERVER}])], egress=[]), policy("c1", ingress=[]))
    talk = Talk(node, family, ONE, TWO)
    assert [*talk.connect(), talk.tcp(ACK, back=True)] == [""] * 4
    ((_name, flags),) = node.states()
    assert flags & LOCAL


@both
@pytest.mark.parametrize("back", [False, True])
def test_an_end_that_is_attached_later_is_asked(node: Policed, family: Family, back: bool) -> None:
    """What was allowed while nobody here had the address does not stand for the container that has got it."""
    node.hold(policy("c2", ingress=[], egress=[]))
    talk = Talk(node, family, ONE, TWO)
    node.plane.endpoints.delete(datapath.key(family.c2))
    try:
        node.run(ONE, node.frame(family, ONE, TWO, udp(family.c1, family.c2, b"", CLIENT, SERVER), UDP))
        assert [flags & LOCAL for _name, flags in node.states()] == [0]
    finally:
        node.plane.publish(C2)
    assert [talk.udp(back=back), talk.udp(back=back), talk.udp()] == ["POLICY"] * 3
    node.hold()
    assert [talk.udp(), talk.udp(back=True)] == ["", ""]


def numbers(node: Policed) -> flows.Flows:
    return flows.read(node.maps)


def flood(node: Policed, family: Family, first: int, count: int, kind: int = SYN) -> None:
    """Segments from so many ports and addresses."""
    program = node.plane.loaded.programs["from_wire"]
    context = {"ifindex": node.plane.ifindex["up0"]}
    frame = bytearray(node.frame(family, FAR, TWO, tcp(kind, 0, SERVER), TCP))
    source, ports = 14 + (15 if family is V4 else 23), 14 + family.header
    with netns.entered(node.plane.net.path("node")):
        for number in range(first, first + count):
            frame[source] = number >> 14
            frame[ports : ports + 2] = struct.pack("!H", 1024 + (number & 0x3FFF))
            assert bpf.test_run(program, bytes(frame), ctx=context).retval == 7


@both
def test_a_flood_pushes_out_no_flow_that_is_used(node: Policed, family: Family) -> None:
    """Neither connections that nobody answers nor those that are closed; and it is counted."""
    talks = [Talk(node, family, FAR, TWO, client=CLIENT + number) for number in range(50)]
    for talk in talks:
        talk.connect()
        talk.udp()
        talk.udp(back=True)
    limit = node.young.max_entries
    flood(node, family, 0, limit + 3000)
    assert [talk.tcp(ACK, back=True) for talk in talks] == [""] * 50
    assert [talk.udp(back=True) for talk in talks] == [""] * 50
    found = numbers(node)
    assert (found.entries, found.evicted) == (100, 0)
    assert found.young <= limit
    assert found.young_evicted >= 3000
    assert found.young + found.young_evicted == limit + 3000
    for talk in talks[:25]:
        talk.close()
    assert [talk.tcp(ACK, back=True) for talk in talks[25:]] == [""] * 25
    found = numbers(node)
    assert (found.entries, found.evicted, found.counts["closed"]) == (75, 0, 25)


def test_promoted_flows_push_out_the_oldest(node: Policed) -> None:
    """Where there are too many, some go, and it is counted."""
    key, value = flows.key, flows.VALUE
    limit = node.flows.max_entries
    ours = Talk(node, V4, FAR, TWO)
    ours.connect()
    ((_kept, example),) = node.flows.items()
    epoch, seen, flags, _rule = value.unpack(example)
    far, two = (bytes(10) + b"\xff\xff" + bytes(map(int, text.split("."))) for text in (V4.far, V4.c2))
    for start in range(0, limit, 1 << 16):
        ports = (number.to_bytes(4, "big") for number in range(start, start + (1 << 16)))
        items = [(key(far, two, port[:2], port[2:], 17), value.pack(epoch, seen, flags, 0)) for port in ports]
        node.flows.set_many(items)
    found = numbers(node)
    assert found.entries <= limit
    talk = Talk(node, V4, FAR, TWO, client=CLIENT + 1)
    assert [*talk.connect(), talk.tcp(ACK, back=True)] == [""] * 4


@both
def test_what_a_denied_packet_leaves(node: Policed, talk: Talk) -> None:
    other = Talk(node, talk.family, FAR, TWO, server=SERVER + 1)
    assert [other.tcp(SYN), other.tcp(ACK)] == ["POLICY", "POLICY"]
    assert (node.states(), node.counts()[CREATED]) == ([], 0)


@both
def test_two_cpus_may_meet(node: Policed, talk: Talk) -> None:
    """A flow that another CPU has promoted, closed or removed just now: here, both maps have it."""
    talk.connect()
    ((key, value),) = node.flows.items()
    node.young.set(key, value)
    assert talk.tcp(ACK, back=True) == ""
    assert talk.close() == ["", "", ""]
    assert [name for name, _flags in node.states()] == ["young"]
    assert node.counts()[PROMOTED : CLOSED + 1] == [1, 1]


@both
def test_each_end_of_a_flow_may_have_the_larger_address(node: Policed, family: Family) -> None:
    """FINs and questions are noted for the end that they come from."""
    node.hold()
    for one, two in ((ONE, TWO), (TWO, ONE)):
        talk = Talk(node, family, one, two)
        talk.connect()
        talk.tcp(FIN | ACK)
        talk.tcp(FIN | ACK)
        assert [name for name, _flags in node.states()] == ["flows"], "one end has said it twice"
        talk.tcp(FIN | ACK, back=True)
        assert [name for name, _flags in node.states()] == ["young"]
        flows.forget(node.maps)


def test_neighbouring_addresses_and_ports(node: Policed) -> None:
    """Every part of the key counts."""
    node.hold(policy("c2", ingress=[rule(ports=[{"protocol": "UDP", "port": SERVER}])], egress=[]))
    assert Talk(node, V6, FAR, TWO).udp() == ""
    for changes in ({"client": CLIENT + 1}, {"server": SERVER + 1}, {"client": SERVER, "server": CLIENT}):
        assert Talk(node, V6, FAR, TWO, **changes).udp(back=True) == "POLICY"
    frame = node.frame(V6, TWO, FAR, struct.pack("!HHHH", SERVER, CLIENT, 8, 0), UDP, dst="fd00:198::11")
    assert node.run(TWO, frame).dropped == "POLICY"
    assert Talk(node, V6, FAR, TWO).udp(back=True) == ""
