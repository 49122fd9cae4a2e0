# SPDX-License-Identifier: GPL-3.0-or-later
"""Events of dropped packets: what they show, that there are none without a reader, and how many at most."""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import drops
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from tests.bpf import packets
from tests.bpf.dataplane import DEVICES, LAYOUT, Dataplane, Outcome
from tests.bpf.frames import FAMILIES, FLOWS, V4, V6, Family, from_container, from_host, from_wire
from tests.bpf.packets import FRAGMENT, ICMP, ICMPV6, MF, TCP, UDP, mac
from tests.bpf.test_robustness import mutated, originals
from tests.bpf.topology import C1, C2, GATEWAY_MAC, WIRE_MAC

HEAD = 128
RING = 262144
both = pytest.mark.parametrize("family", FAMILIES, ids=str)
hooks = pytest.mark.parametrize("hook", FLOWS)


class Watcher:
    """Somebody who reads events, for as long as until() says."""

    def __init__(self, plane: Dataplane) -> None:
        maps = plane.loaded.maps
        self.plane = plane
        self._ring = bpf.RingBuffer(maps["events"])
        self._watch, self._limit = bpf.Map(maps["drop_watch"]), bpf.PerCpuMap(maps["drop_limit"])

    def until(self, seconds: float) -> None:
        """From now; 0: nobody watches."""
        self._watch.set(bytes(4), struct.pack("=Q", time.monotonic_ns() + int(seconds * 1e9) if seconds else 0))

    def refill(self) -> None:
        """As after a long pause, and with nothing left out."""
        self._limit.set(bytes(4), [bytes(self._limit.value_size)] * self._limit.cpus)

    def left_out(self) -> int:
        return bpf.add_up(self._limit.get(bytes(4)) or [])[2]

    def events(self) -> list[bytes]:
        found: list[bytes] = []
        self._ring.poll(found.append)
        return found

    def run(self, hook: str, frame: bytes, **options: Any) -> tuple[Outcome, list[bytes]]:
        out = self.plane.run(hook, frame, **options)
        return out, self.events()

    def close(self) -> None:
        self.until(0)
        self._ring.close()


@pytest.fixture
def watcher(session_plane: Dataplane) -> Iterator[Watcher]:
    session_plane.refill()
    made = Watcher(session_plane)
    made.until(60)
    made.refill()
    yield made
    made.close()


def check(frame: bytes, out: Outcome, events: list[bytes]) -> drops.Drop:
    """The one event of a packet that was dropped; it says what the counters say, and has the frame as it came."""
    assert len(events) == 1
    assert len(events[0]) == LAYOUT.structs["fp_event"].size
    drop = drops.decode(events[0])
    assert ({drop.hook.upper(): 1}, {drop.reason.upper(): 1}) == (out.counted.hooks, out.counted.drops)
    assert (drop.rule, drop.kind) == (0, "dropped")
    assert drop.length == len(frame)
    assert events[0][-HEAD:][: len(frame)] == frame[:HEAD]
    return drop


@both
@hooks
def test_where_and_when(watcher: Watcher, family: Family, hook: str) -> None:
    frame = FLOWS[hook](family).with_(size=1600).frame()
    before = time.monotonic_ns()
    out, events = watcher.run(hook, frame)
    drop = check(frame, out, events)
    assert before < drop.time_ns < time.monotonic_ns()
    assert drop.ifindex == watcher.plane.ifindex[DEVICES[hook]]
    # an ICMP error was made out of the packet: the event shows it as it came
    assert (out.dropped, out.reply) == ("TOO_BIG", "ICMP_ERROR")


def test_from_netkit(watcher: Watcher) -> None:
    frame = from_container(V4).with_(src=V4.c2).frame()
    drop = check(frame, *watcher.run("from_netkit", frame, device="c1"))
    assert drop.hook == "from_netkit"
    assert drop.ifindex == watcher.plane.ifindex["c1"]


@both
def test_ports(watcher: Watcher, family: Family) -> None:
    flow = from_container(family).with_(src=family.c2)
    ends = {"src_mac": C1.mac, "dst_mac": GATEWAY_MAC, "src": family.c2, "dst": family.c2}
    for proto, name, payload in (
        (UDP, "udp", packets.udp(flow.src, flow.dst, b"data")),
        (TCP, "tcp", packets.tcp(b"")),
    ):
        frame = flow.carrying(payload, proto)
        drop = check(frame, *watcher.run("from_container", frame))
        assert drop.reason == "spoofed"
        assert drop.fields == {**ends, "protocol": name, "src_port": 4000, "dst_port": 4001}


@both
def test_icmp(watcher: Watcher, family: Family) -> None:
    flow = from_wire(family).with_(ttl=1)
    if family is V4:
        frame = flow.carrying(packets.icmp(8), ICMP)
        said = {"protocol": "icmp", "type": 8, "code": 0}
    else:
        frame = flow.carrying(packets.icmpv6(flow.src, flow.dst, 128), ICMPV6)
        said = {"protocol": "icmpv6", "type": 128, "code": 0}
    drop = check(frame, *watcher.run("from_wire", frame))
    assert drop.reason == "ttl"
    ends = {"src_mac": WIRE_MAC, "dst_mac": flow.dst_mac, "src": family.far, "dst": family.c2}
    assert drop.fields == {**ends, **said}


@both
def test_fragments(watcher: Watcher, family: Family) -> None:
    flow = from_host(family, family.lonely)
    datagram = packets.udp(flow.src, flow.dst, b"data")
    for place, more in ((0, True), (8, False), (16, True)):
        if family is V4:
            frame = flow.with_(fragment=place // 8 | (MF if more else 0)).carrying(datagram, UDP)
        else:
            frame = flow.carrying(struct.pack("!BxHI", UDP, place | more, 7) + datagram, FRAGMENT)
        drop = check(frame, *watcher.run("from_host", frame))
        ports = {} if place else {"src_port": 4000, "dst_port": 4001}
        said = {key: value for key, value in drop.fields.items() if "mac" not in key}
        assert said == {"protocol": "udp", "src": flow.src, "dst": flow.dst, "fragment": place, **ports}


def test_what_is_not_ip(watcher: Watcher) -> None:
    macs = {"src_mac": C1.mac, "dst_mac": GATEWAY_MAC}
    frame = packets.arp(C1.mac, C1.v4, C1.v4, dst=GATEWAY_MAC)
    drop = check(frame, *watcher.run("from_container", frame))
    assert drop.reason == "arp"
    assert drop.fields == {**macs, "protocol": "arp", "src": C1.v4, "dst": C1.v4, "operation": "request"}
    frame = packets.frame(GATEWAY_MAC, C1.mac, 0x88CC, bytes(50))
    drop = check(frame, *watcher.run("from_container", frame))
    assert (drop.reason, drop.fields) == ("not_ip", {**macs, "protocol": "0x88cc"})
    frame = packets.solicitation(C1.mac, C1.v6, C1.v6)
    drop = check(frame, *watcher.run("from_container", frame))
    assert (drop.reason, drop.fields["type"]) == ("ndisc", 135)


@hooks
def test_each_drop_has_one_event_and_nothing_else_has(watcher: Watcher, hook: str) -> None:
    dice = random.Random(hook)
    flow = FLOWS[hook](V6)
    frames = [*originals(hook), flow.with_(src="fe80::1").frame(), flow.with_(dst="::1").frame()]
    frames += [flow.with_(dst="ff02::1").frame(), packets.frame(flow.dst_mac, flow.src_mac, 0x88CC, bytes(50))]
    dropped = 0  # and the rest is not
    for frame in [*frames, *(mutated(dice.choice(frames), dice) for _ in range(600))]:
        watcher.plane.refill()
        watcher.refill()
        out, events = watcher.run(hook, frame)
        if out.dropped:
            check(frame, out, events)
            dropped += 1
        else:
            assert events == []
    assert 20 < dropped < 580


def test_frames_of_each_length(watcher: Watcher) -> None:
    for size in (15, 59, 60, 127, 128, 129, 255, 256, 257, 2000):
        frame = mac(GATEWAY_MAC) + mac(C1.mac) + b"\x88\xcc" + random.Random(size).randbytes(size - 14)
        check(frame, *watcher.run("from_container", frame))


@pytest.mark.parametrize("seconds", [0, -1])
def test_nothing_without_a_reader(watcher: Watcher, seconds: int) -> None:
    """Nobody ever, or one that has died."""
    watcher.until(seconds)
    out, events = watcher.run("from_container", from_container(V4).with_(src=V4.c2).frame())
    assert (out.dropped, events, watcher.left_out()) == ("SPOOFED", [], 0)


def test_rate_limit(watcher: Watcher) -> None:
    """A burst of 50, then one a millisecond; the rest is counted."""
    frame = from_container(V6).with_(src=V6.c2).frame()
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # each CPU has its own bucket
    try:
        start = time.monotonic()
        counted = watcher.plane.burst("from_container", frame, 1000)
        elapsed = time.monotonic() - start
    finally:
        os.sched_setaffinity(0, cpus)
    assert counted.drops == {"SPOOFED": 1000}
    shown = len(watcher.events())
    assert 50 <= shown <= 50 + elapsed * 1000 + 1
    assert watcher.left_out() == 1000 - shown > 0


def test_full_buffer(watcher: Watcher) -> None:
    """A reader that is too slow misses the newest, and is told how many."""
    frame = from_container(V4).with_(src=V4.c2).frame()
    left_out = 0
    for _ in range(80):
        watcher.plane.burst("from_container", frame, 25)
        left_out += watcher.left_out()
        watcher.refill()
    events = watcher.events()
    room = RING // (LAYOUT.structs["fp_event"].size + 8)
    assert room - 1 <= len(events) <= room
    assert left_out == 2000 - len(events)
    assert [events[0], events[-1]] == sorted([events[0], events[-1]], key=lambda event: drops.decode(event).time_ns)


def test_events_cost_no_icmp_errors(watcher: Watcher) -> None:
    """Each limit is its own."""
    frame = from_wire(V4, C2.v4).with_(ttl=1).frame()
    counted = watcher.plane.burst("from_wire", frame, 30)
    assert counted.replies == {"ICMP_ERROR": 30}
    assert len(watcher.events()) == 30
