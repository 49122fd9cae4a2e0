# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever bytes come: each packet ends in exactly one way, that way is counted, and nobody gets another's."""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_address

import pytest

from tests.bpf import packets
from tests.bpf.dataplane import PASS, REDIRECT, SHOT, Dataplane, Outcome
from tests.bpf.frames import FLOWS, V4, V6
from tests.bpf.packets import HOP_BY_HOP, ICMPV6, MF, TCP, UDP, mac
from tests.bpf.test_deliver import forwarded
from tests.bpf.topology import C1, C2, GATEWAY4, GATEWAY6, GATEWAY_MAC, UPLINK_MAC

SEED = 20240611
MUTATIONS = 3400  # of each hook's packets
INTERESTING = (0, 1, 2, 4, 5, 6, 17, 20, 44, 58, 60, 63, 64, 127, 128, 129, 254, 255)
hooks = pytest.mark.parametrize("hook", FLOWS)


def originals(hook: str) -> list[bytes]:
    """Good packets of all kinds."""
    frames = []
    for family in (V4, V6):
        flow = FLOWS[hook](family)
        frames += [
            flow.frame(),
            flow.with_(ttl=1).frame(),
            flow.with_(dst=family.far).frame(),
            flow.with_(dst=family.lonely).frame(),
            flow.with_(dst=family.gateway).frame(),
            flow.with_(size=1600).frame(),
            flow.with_(size=1600, fragment=MF).frame(),
            flow.carrying(packets.tcp(b"data", bytes(12)), TCP),
        ]
    v4, v6 = FLOWS[hook](V4), FLOWS[hook](V6)
    options = packets.udp(v6.src, v6.dst, b"data")
    frames += [
        v4.with_(ttl=1).carrying(packets.icmp(8), 1),
        v6.with_(ttl=1).carrying(packets.icmpv6(v6.src, v6.dst, 128), ICMPV6),
        v6.with_(ttl=1).carrying(bytes([60, 0]) + bytes(6) + bytes([UDP, 1]) + bytes(14) + options, HOP_BY_HOP),
        packets.arp(v4.src_mac, v4.src, GATEWAY4),
        packets.arp(v4.src_mac, v4.src, C2.v4),
        packets.solicitation(v6.src_mac, v6.src, GATEWAY6),
        packets.solicitation(v6.src_mac, "::", GATEWAY6),
    ]
    return frames


def addresses(frame: bytes) -> tuple[str, str] | None:
    """Source and destination as the bytes say it, read without any code of the dataplane."""
    ethertype, packet = frame[12:14], frame[14:]
    if ethertype == b"\x08\x00" and len(packet) >= 20:
        return str(ip_address(packet[12:16])), str(ip_address(packet[16:20]))
    if ethertype == b"\x86\xdd" and len(packet) >= 40:
        return str(ip_address(packet[8:24])), str(ip_address(packet[24:40]))
    return None


def check(hook: str, frame: bytes, out: Outcome) -> str:
    """All that must hold for any packet; returns how it ended."""
    counted = out.counted
    assert sum(counted.drops.values()) <= 1
    assert sum(counted.replies.values()) <= 1
    if out.verdict == PASS:
        assert hook == "from_wire"
        assert out.packet == frame
        assert (counted.drops, counted.replies, counted.endpoints) == ({}, {}, {})
        return "passed"
    if out.verdict == SHOT:
        assert out.dropped
        assert out.reply in (None, "ICMP_LIMITED")
        assert counted.endpoints == {}
        return "dropped"
    assert out.verdict == REDIRECT
    if out.reply:
        assert counted.endpoints == {}
        assert (out.reply == "ICMP_ERROR") == (out.dropped is not None)
        assert out.packet[:6] == frame[6:12]  # whoever sent it, and nobody else
        return "answered"
    assert not out.dropped
    return check_forwarded(hook, frame, out)


def check_forwarded(hook: str, frame: bytes, out: Outcome) -> str:
    ends = addresses(frame)
    assert ends
    src, dst = ends
    if hook == "from_container":
        assert out.sender == "c1"
        assert src in (C1.v4, C1.v6)
        assert frame[:12] == mac(GATEWAY_MAC) + mac(C1.mac)
    else:
        assert out.sender is None
        assert hook != "from_wire" or frame[:6] == mac(UPLINK_MAC)
    receiver = {C1.v4: C1, C1.v6: C1, C2.v4: C2, C2.v6: C2}.get(dst)
    if out.receiver:
        assert receiver
        assert out.receiver == receiver.name
        # one hop less and new MACs; a wrong header checksum stays as wrong as it was
        expected = bytearray(forwarded(frame, receiver.mac, hops=0 if hook == "from_host" else 1))
        if frame[12:14] == b"\x08\x00":
            expected[24:26] = out.packet[24:26]
        assert out.packet == bytes(expected)
        return "delivered"
    # to a route, to the host itself, or to be fragmented: then untouched but for the hop
    assert hook != "from_host"
    assert not receiver or (frame[12:14] == b"\x08\x00" and out.packet[14:] == frame[14:])
    assert out.packet[:14] == mac(GATEWAY_MAC) + frame[6:14]
    return "routed"


def least(frame: bytes) -> int:
    """Bytes that the kernel wants for a run; new ones refuse a part of an IP header, which test_forwarding.py sends."""
    return {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 15)


def mutated(frame: bytes, dice: random.Random) -> bytes:
    data = bytearray(frame)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        # most of what matters is in the first 60 bytes
        where = dice.randrange(min(len(data), 60) if dice.random() < 0.9 else len(data))
        kind = dice.randrange(6)
        if kind == 0:
            data[where] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[where] = dice.randrange(256)
        elif kind <= 3:
            data[where] = dice.choice(INTERESTING)
        elif kind == 4 and len(data) > 80:
            del data[where : where + dice.randrange(1, 20)]
        else:
            data[where:where] = dice.randbytes(dice.randrange(1, 20))
    if dice.random() < 0.15:
        del data[dice.randrange(15, len(data) + 1) :]
    missing = max(0, least(bytes(data)) - len(data))
    return bytes(data[:3000]) + bytes(missing)


@hooks
def test_random_mutations(plane: Dataplane, hook: str) -> None:
    dice = random.Random(f"{SEED} {hook}")
    frames = originals(hook)
    ends: Counter[str] = Counter()
    for _ in range(MUTATIONS):
        frame = mutated(dice.choice(frames), dice)
        ends[check(hook, frame, plane.run(hook, frame))] += 1
    kinds = {
        "from_container": {"delivered", "routed", "dropped", "answered"},
        "from_wire": {"delivered", "routed", "dropped", "answered", "passed"},
        "from_host": {"delivered", "dropped", "answered"},
    }
    assert set(ends) == kinds[hook]  # else the mutations are too wild to tell anything
    assert min(ends.values()) > 10


@hooks
def test_cut_at_each_byte(plane: Dataplane, hook: str) -> None:
    for frame in originals(hook):
        for size in range(least(frame), min(len(frame), 140)):
            plane.refill()
            out = plane.run(hook, frame[:size])
            end = check(hook, frame[:size], out)
            # padded or whole frames aside, a part of an IP packet goes nowhere
            if addresses(frame) and hook != "from_wire":
                assert end == "dropped"


@hooks
def test_each_byte_at_its_extremes(plane: Dataplane, hook: str) -> None:
    for frame in originals(hook):
        for where in range(min(len(frame), 62)):
            for value in (0, 255):
                data = bytearray(frame)
                data[where] = value
                plane.refill()
                check(hook, bytes(data), plane.run(hook, bytes(data)))


@hooks
@pytest.mark.parametrize("proto", range(0, 256, 5))
def test_noise_behind_a_good_header(plane: Dataplane, hook: str, proto: int) -> None:
    dice = random.Random(proto)
    for family in (V4, V6):
        for ttl in (1, 64):
            frame = FLOWS[hook](family).with_(ttl=ttl).carrying(dice.randbytes(dice.randrange(200)), proto)
            check(hook, frame, plane.run(hook, frame))
