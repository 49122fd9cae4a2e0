# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies change as a whole: from one packet to the next, for open flows too, and no packet sees half of a change."""

from __future__ import annotations

import os
import threading

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, flows, netns
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import INGRESS
from ansible_collections.fastpath.node.plugins.module_utils.policy.ports import ALLOW, NUMBER, Entry
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Identity, Subject, Tables
from tests.bpf.frames import FAMILIES, V4, Family
from tests.bpf.packets import TCP
from tests.bpf.policies import (
    ACK,
    ALLOWED,
    CLIENT,
    FAR,
    FIN,
    HOST,
    ONE,
    REVOKED,
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
from tests.bpf.test_flows import flood
from tests.bpf.topology import C2

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
IS_RESET, IS_REVOKED = 16, 64
AT_ONCE = 4096


def serving(*ports: int) -> dict[str, object]:
    """Container 2 serves everybody on these ports, and asks nobody anything."""
    return policy("c2", ingress=[rule(ports=[{"port": port} for port in ports])] if ports else [], egress=[])


@both
@pytest.mark.parametrize("redecided", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_revoked_from_the_next_packet_on(node: Policed, family: Family, redecided: bool, back: bool) -> None:
    """Whichever end it comes from, and whether the flow itself or the packet is the first to be asked."""
    node.hold(serving(80, SERVER))
    gone, stays = Talk(node, family, FAR, TWO), Talk(node, family, FAR, TWO, server=80)
    other = Talk(node, family, TWO, HOST)
    for talk in (gone, stays, other):
        assert talk.connect() == ["", "", ""]
    node.hold(serving(80))
    if redecided:
        assert node.redecide() == 3
    assert gone.tcp(ACK, back=back) == "POLICY"
    assert [gone.tcp(ACK), gone.tcp(ACK, back=True), gone.tcp(FIN | ACK), gone.tcp(RST)] == ["POLICY"] * 4
    for talk in (stays, other):
        assert [talk.tcp(ACK), talk.tcp(ACK, back=True)] == ["", ""]
    node.redecide()
    assert node.counts()[ALLOWED : REVOKED + 1] == [2, 1]
    assert node.redecide() == 0


@both
def test_each_direction_is_decided_as_it_was_asked(node: Policed, family: Family) -> None:
    """The port is the asked end's, and so is the direction, whichever address is the larger one."""
    node.hold()
    talks = [Talk(node, family, one, two) for one, two in ((ONE, TWO), (TWO, ONE), (FAR, TWO), (TWO, FAR), (ONE, FAR))]
    for number, talk in enumerate(talks):
        assert Talk(node, family, talk.one, talk.two, client=CLIENT + number).connect() == ["", "", ""]
    node.hold(
        policy("c2", ingress=[rule(ports=[{"port": SERVER}])], egress=[rule(side="to", ports=[{"port": SERVER}])])
    )
    assert node.redecide() == len(talks)
    assert node.counts()[ALLOWED : REVOKED + 1] == [len(talks), 0]
    node.hold(policy("c2", ingress=[rule("c1")], egress=[rule("c1", side="to")]))
    assert node.redecide() == len(talks)
    assert node.counts()[ALLOWED : REVOKED + 1] == [len(talks) + 3, 2]
    for number, talk in enumerate(talks):
        denied = FAR in (talk.one, talk.two) and TWO in (talk.one, talk.two)
        assert Talk(node, family, talk.one, talk.two, client=CLIENT + number).tcp(ACK) == ("POLICY" if denied else "")


@both
def test_allowed_again(node: Policed, family: Family) -> None:
    """A revoked flow is there until it ends, so a later change gives it back."""
    node.hold(policy("c2", ingress=[rule()]))
    talk = Talk(node, family, FAR, TWO)
    talk.udp()
    talk.udp(back=True)
    for redecided in (False, True):
        node.hold(serving())
        assert [talk.udp(), talk.udp(back=True)] == ["POLICY", "POLICY"]
        node.hold(policy("c2", ingress=[rule()]))
        if redecided:
            assert node.redecide() == 1
        assert [talk.udp(), talk.udp(back=True)] == ["", ""]
    assert node.counts()[ALLOWED : REVOKED + 1] == [2, 2]


@both
def test_allowed_again_after_its_socket_was_told(node: Policed, family: Family) -> None:
    """User space marks it as closed then, so that it tells nobody twice; the next packet opens it again."""
    node.hold(policy("c2", ingress=[rule()]))
    talk = Talk(node, family, FAR, TWO)
    talk.udp()
    talk.udp(back=True)
    for count in (1, 2):
        node.hold(serving())
        assert node.redecide() == 1
        assert node.counts()[REVOKED] == count
        ((key, value),) = node.flows.items()
        epoch, seen, flags, number = flows.VALUE.unpack(value)
        node.flows.set(key, flows.VALUE.pack(epoch, seen, flags | IS_RESET, number))
        node.hold(policy("c2", ingress=[rule()]))
        assert [talk.udp(), talk.udp(back=True)] == ["", ""]
        assert [(name, flags & (IS_RESET | IS_REVOKED)) for name, flags in node.states()] == [("flows", 0)]


@both
def test_a_revoked_flow_ends_by_silence(node: Policed, family: Family) -> None:
    """What is dropped does not keep it alive."""
    node.hold(policy("c2", ingress=[rule()]))
    talk = Talk(node, family, FAR, TWO)
    talk.udp()
    talk.udp(back=True)
    node.hold(serving())
    assert talk.udp() == "POLICY"
    node.age(100)
    assert talk.udp(back=True) == "POLICY"
    node.age(100)
    node.hold(policy("c2", egress=[rule(side="to")]))
    assert talk.udp(back=True) == "", "a flow of its own"
    assert talk.udp() == ""
    assert len(node.states()) == 1


@both
def test_a_new_connection_over_a_revoked_one(node: Policed, family: Family) -> None:
    """Is asked about; the entry alone would deny it for long."""
    node.hold(serving(SERVER))
    talk = Talk(node, family, FAR, TWO)
    talk.connect()
    node.hold(serving())
    node.redecide()
    assert talk.tcp(SYN) == "POLICY"
    node.hold(serving(SERVER))  # no flow was decided again yet
    assert talk.connect() == ["", "", ""]
    ((name, flags),) = node.states()
    assert (name, flags & IS_REVOKED) == ("flows", 0)
    assert node.redecide() == 0


@both
def test_the_other_end_opens_a_connection_over_a_revoked_one(node: Policed, family: Family) -> None:
    """What denies the one may allow the other."""
    node.hold()
    talk, other = Talk(node, family, TWO, FAR), Talk(node, family, FAR, TWO, client=SERVER, server=CLIENT)
    talk.connect()
    node.hold(policy("c2", egress=[]))
    assert talk.tcp(ACK, back=True) == "POLICY"
    assert [*other.connect(), other.tcp(ACK, back=True)] == [""] * 4
    assert talk.tcp(SYN) == "POLICY"
    assert len(node.states()) == 1


@both
def test_an_echo_is_decided_again_by_its_type(node: Policed, family: Family) -> None:
    protocol, kind = ("ICMP", 8) if family is V4 else ("ICMPv6", 128)
    for _again in range(2):
        allowed = rule(ports=[{"protocol": protocol, "type": kind, "code": 0}])
        node.hold(policy("c2", ingress=[allowed], egress=[], audit=False))
        talk = Talk(node, family, FAR, TWO)
        assert [talk.ping(), talk.ping(back=True, reply=True)] == ["", ""]
    assert node.counts()[ALLOWED : REVOKED + 1] == [1, 0]


@both
def test_what_counts_as_revoked(node: Policed, family: Family) -> None:
    """Each flow once that was open; what is closed is denied all the same."""
    node.hold(serving(SERVER))
    opened, closed = Talk(node, family, FAR, TWO), Talk(node, family, FAR, TWO, client=CLIENT + 1)
    opened.connect()
    closed.connect()
    closed.close()
    for _again in range(2):
        node.hold(serving())
        assert node.redecide() == 2
    assert node.counts()[ALLOWED : REVOKED + 1] == [0, 1]
    assert [opened.tcp(ACK), closed.tcp(ACK)] == ["POLICY", "POLICY"]


@both
def test_a_container_that_is_selected_at_last(node: Policed, family: Family) -> None:
    """Its flows were known before."""
    node.hold(policy("c1", ingress=[]))
    talk = Talk(node, family, FAR, TWO)
    assert talk.connect() == ["", "", ""]
    node.hold(policy("c1", ingress=[]), serving())
    assert talk.tcp(ACK) == "POLICY"


@both
def test_flows_with_the_node(node: Policed, family: Family) -> None:
    """Always allowed; and known as such from when policies ask who it is."""
    node.hold()
    talk = Talk(node, family, HOST, TWO)
    talk.connect()
    node.hold(serving())
    assert node.redecide() == 1
    assert [talk.tcp(ACK), talk.tcp(ACK, back=True)] == ["", ""]
    frame = node.frame(family, FAR, TWO, tcp(ACK, CLIENT, SERVER), TCP, src=family.gateway)
    assert node.run(FAR, frame).dropped == "SPOOFED"


@both
def test_what_user_space_takes_over(node: Policed, family: Family) -> None:
    """Connections that were open before there were policies: flows of epoch 0."""
    node.hold(serving(SERVER))
    talk = Talk(node, family, FAR, TWO)
    talk.connect()
    ((key, value),) = node.flows.items()
    _epoch, seen, flags, number = flows.VALUE.unpack(value)
    node.flows.set(key, flows.VALUE.pack(0, seen, flags, number))
    assert node.redecide() == 1
    assert [talk.tcp(ACK), talk.tcp(ACK, back=True)] == ["", ""]


def test_epochs_begin_again(node: Policed) -> None:
    """After the largest one; older is what is less than half the numbers back."""
    node.write(Tables(), 1)
    node.epoch = 0xFFFFFFFF
    talk = Talk(node, V4, FAR, TWO)
    assert talk.connect() == ["", "", ""]
    node.write(Tables(), 0)
    node.epoch = 2
    assert node.redecide() == 1
    assert node.redecide() == 0
    assert talk.tcp(ACK) == ""


def test_many_flows_a_part_at_a_time(node: Policed) -> None:
    """Packets of this CPU wait as long as that takes."""
    node.hold()
    count = AT_ONCE + 500
    flood(node, V4, 0, count)
    node.hold(policy("c2", ingress=[]))
    assert [node.redecide() for _run in range(3)] == [AT_ONCE, 500, 0]
    assert node.counts()[REVOKED] == count


def marked(identity: int, other: int) -> Tables:
    """Everything is denied, by a rule whose number is the identity's; of another identity everything is allowed."""
    rows = {
        (9, identity): (Entry(0, 0, 65535, identity << NUMBER),),
        (9, other): (Entry(0, 0, 65535, 1 << NUMBER | ALLOW),),
    }
    peer = int.from_bytes(bytes(map(int, V4.far.split("."))), "big")
    return Tables(
        exact={(4, peer): Identity(identity, 0)}, subject={(C2.slot, INGRESS): Subject(9, True, False, ())}, policy=rows
    )


def test_no_packet_sees_half_of_a_change(node: Policed) -> None:
    """The sides agree that a packet is denied, but each calls its sender by a name that the other one allows."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("packets and changes need a CPU each")
    for side, names in ((0, (20, 21)), (1, (21, 20))):
        node.write(marked(*names), side)
    node.epoch = 2
    frame = node.frame(V4, FAR, TWO, tcp(SYN, CLIENT, SERVER), TCP)
    program, context = node.plane.loaded.programs["from_wire"], {"ifindex": node.plane.ifindex["up0"]}
    before, done = node.plane.counters().drops["POLICY"], threading.Event()
    times, repeat = 40, 25_000

    def packets() -> None:
        os.sched_setaffinity(0, {cpus[0]})
        with netns.entered(node.plane.net.path("node")):
            for _ in range(times):
                bpf.test_run(program, frame, ctx=context, repeat=repeat)
        done.set()

    thread = threading.Thread(target=packets)
    thread.start()
    changes = 0
    while not done.is_set():
        node.epoch += 1
        changes += 1
    thread.join()
    assert changes > times
    assert node.plane.counters().drops["POLICY"] - before == times * repeat
    assert node.counts()[0] == 0, "some packet was allowed"


@both
def test_both_sides_of_an_epoch(node: Policed, family: Family) -> None:
    """Each epoch asks its own side, of every table."""
    for number in range(3):
        peer = f"{family.far}/{32 if family is V4 else 128}"
        wide = "198.51.0.0/16" if family is V4 else "fd00:198::/32"
        port = 5000 + number
        ports = [{"port": one} for one in range(6000 + number, 6040, 3)]
        node.hold(policy("c2", ingress=[rule(peer, ports=[{"port": port}]), rule(wide, ports=ports)]))
        for asked in range(5000, 5003):
            verdict = "" if asked == port else "POLICY"
            assert Talk(node, family, FAR, TWO, client=1000 + asked + 10 * number, server=asked).tcp(SYN) == verdict
        for asked in range(6000, 6006):
            verdict = "" if asked % 3 == number % 3 else "POLICY"
            assert Talk(node, family, FAR, TWO, client=1000 + asked + 10 * number, server=asked).tcp(SYN) == verdict


@both
def test_both_sides_of_prefixes(node: Policed, family: Family) -> None:
    ours, other = ("198.51.0.0/16", "203.0.113.0/24") if family is V4 else ("fd00:198::/32", "fd00:203::/32")
    for number, (prefix, verdict) in enumerate([(ours, ""), (other, "POLICY")] * 2):
        node.hold(policy("c2", ingress=[rule(prefix)]))
        assert Talk(node, family, FAR, TWO, client=CLIENT + number).tcp(SYN) == verdict
