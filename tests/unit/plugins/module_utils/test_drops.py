# SPDX-License-Identifier: GPL-3.0-or-later
"""How a dropped packet is shown."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import drops, packet

MAC, GATEWAY = "0e:00:00:00:01:01", "0e:fa:57:00:00:01"
EPOCH_NS = 1_800_000_000_000_000_000
SPOOFED: packet.Fields = {"protocol": "udp", "src": "10.0.0.1", "dst": "10.0.0.2", "src_port": 4000, "dst_port": 53}


def event(head: bytes, length: int, hook: int = 0, reason: int = 4, rule: int = 0, kind: int = 0) -> bytes:
    return struct.pack("=QIIIBBBx128s", 5_000_001_000, 7, rule, length, hook, reason, kind, head)


def drop(fields: packet.Fields, reason: str = "ttl", rule: int = 0) -> drops.Drop:
    macs: packet.Fields = {"src_mac": MAC, "dst_mac": GATEWAY}
    return drops.Drop(5_000_001_000, 7, "from_container", reason, rule, 98, {**macs, **fields})


def test_event() -> None:
    frame = bytes.fromhex("0efa570000010e000000010188cc") + bytes(50)
    found = drops.decode(event(frame, 64, hook=1, reason=1, rule=9))
    fields: packet.Fields = {"src_mac": MAC, "dst_mac": GATEWAY, "protocol": "0x88cc"}
    assert found == drops.Drop(5_000_001_000, 7, "from_wire", "not_ip", 9, 64, fields)


@pytest.mark.parametrize(
    ("number", "kind", "shown"), [(0, "dropped", "policy"), (1, "allowed", "allowed"), (2, "audited", "audited")]
)
def test_what_is_not_dropped_says_so(number: int, kind: str, shown: str) -> None:
    found = drops.decode(event(b"", 0, reason=19, rule=5, kind=number))
    assert (found.kind, found.reason) == (kind, "policy")
    assert f" web-1 {shown}: ?, 0 bytes, by rule 5" in drops.line(found, "web-1", EPOCH_NS)


def test_old_bytes_behind_a_short_frame_are_not_read() -> None:
    old = bytes.fromhex("0efa570000010e00000001018100000588cc")
    assert drops.decode(event(old, 14)).fields["protocol"] == "0x8100"
    assert drops.decode(event(old, 13)).fields == {}
    assert drops.decode(event(old, 2000)).fields["protocol"] == "0x88cc"


def test_newer_programs_than_the_library() -> None:
    found = drops.decode(event(b"", 0, hook=40, reason=99, kind=7))
    assert (found.hook, found.reason, found.kind) == ("40", "99", "7")


def test_json() -> None:
    found = drops.public(drop(SPOOFED, "spoofed"), "web-1", EPOCH_NS)
    moment = datetime.fromisoformat(found.pop("time"))
    assert moment.utcoffset() is not None
    assert moment.timestamp() == 1_800_000_005.000001
    assert found == {
        "hook": "from_container",
        "interface": "web-1",
        "kind": "dropped",
        "reason": "spoofed",
        "rule": 0,
        "length": 98,
        "src_mac": MAC,
        "dst_mac": GATEWAY,
        **SPOOFED,
    }
    assert json.loads(json.dumps(found)) == found
    assert drops.public(replace(drop(SPOOFED, rule=12), policy="NetworkPolicy a/b isolates"), "x", 0)["policy"]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (drop(SPOOFED), "ttl: udp 10.0.0.1:4000 > 10.0.0.2:53, 98 bytes"),
        (drop(SPOOFED, rule=12), "ttl: udp 10.0.0.1:4000 > 10.0.0.2:53, 98 bytes, by rule 12"),
        (
            replace(drop(SPOOFED, "policy", rule=12), policy="NetworkPolicy default/web isolates"),
            "policy: udp 10.0.0.1:4000 > 10.0.0.2:53, 98 bytes, by NetworkPolicy default/web isolates",
        ),
        (drop(SPOOFED, "spoofed"), f"spoofed: udp 10.0.0.1:4000 > 10.0.0.2:53 ({MAC} > {GATEWAY}), 98 bytes"),
        (drop({**SPOOFED, "src": "fd00::1", "dst": "fd00::2"}), "ttl: udp [fd00::1]:4000 > [fd00::2]:53, 98 bytes"),
        (
            drop({"protocol": "icmpv6", "src": "fd00::1", "dst": "fd00::2", "type": 128, "code": 0}),
            "ttl: icmpv6 fd00::1 > fd00::2 type 128 code 0, 98 bytes",
        ),
        (
            drop({"protocol": "udp", "src": "10.0.0.1", "dst": "10.0.0.2", "fragment": 24}),
            "ttl: udp 10.0.0.1 > 10.0.0.2 fragment 24, 98 bytes",
        ),
        (
            drop({"protocol": "arp", "src": "10.0.0.1", "dst": "10.0.0.2", "operation": "request"}, "arp"),
            "arp: arp request 10.0.0.1 > 10.0.0.2, 98 bytes",
        ),
        (drop({"protocol": "0x88cc"}, "not_ip"), f"not_ip: 0x88cc {MAC} > {GATEWAY}, 98 bytes"),
        (drop({"protocol": "0x88cc"}, "wrong_mac"), f"wrong_mac: 0x88cc {MAC} > {GATEWAY}, 98 bytes"),
        (drops.Drop(5_000_001_000, 7, "from_container", "malformed", 0, 0, {}), "malformed: ?, 0 bytes"),
    ],
)
def test_line(shown: drops.Drop, text: str) -> None:
    time, rest = drops.line(shown, "web-1", EPOCH_NS).split(" ", 1)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.000001", time)
    assert rest == f"from_container web-1 {text}"


@pytest.mark.parametrize(
    ("left_out", "unwatched", "missed", "text"),
    [
        (0, 0.0, {}, ""),
        (1203, 0.0, {"left_out": 1203}, "1,203 more in this second"),
        (0, 7.13, {"unwatched_seconds": 7.1}, "all of 7.1 seconds, in which nobody read this output"),
        (
            1,
            2.0,
            {"left_out": 1, "unwatched_seconds": 2.0},
            "1 more in this second and all of 2.0 seconds, in which nobody read this output",
        ),
    ],
)
def test_what_is_missing(left_out: int, unwatched: float, missed: dict[str, Any], text: str) -> None:
    assert drops.missed(left_out, unwatched) == missed
    assert drops.missed_line(missed) == text
