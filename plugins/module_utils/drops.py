# SPDX-License-Identifier: GPL-3.0-or-later
"""A packet as the dataplane reports it, most of them dropped: from the event's bytes to a line, or to JSON types."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from . import packet
from .status import DROPS, HOOKS

_EVENT = struct.Struct("=QIIIBBBx")  # struct fp_event of bpf/abi.h, up to `head`
DROPPED, ALLOWED, AUDITED = KINDS = ("dropped", "allowed", "audited")  # enum fp_event_kind, in its order
_OF_THE_MAC = ("wrong_mac", "spoofed")  # reasons that may lie in a MAC


@dataclass(frozen=True)
class Drop:
    """time_ns: of the monotonic clock; reason: why it is dropped, or would be if an audited policy were enforced;
    rule: the number of the word that decided, 0: no policy did; length: of the frame, 0: unknown; fields: see
    packet.describe(); policy: the rule's name, "" where it is not known."""

    time_ns: int
    ifindex: int
    hook: str
    reason: str
    rule: int
    length: int
    fields: packet.Fields
    kind: str = DROPPED
    policy: str = ""


def decode(event: bytes) -> Drop:
    time_ns, ifindex, rule, length, hook, reason, kind = _EVENT.unpack_from(event)
    head = event[_EVENT.size :][:length]  # what is behind a shorter frame is of older events
    names = _name(HOOKS, hook), _name(DROPS, reason)
    return Drop(time_ns, ifindex, *names, rule, length, packet.describe(head), _name(KINDS, kind))


def _name(names: Sequence[str], number: int) -> str:
    """Newer programs than this library may run."""
    return names[number] if number < len(names) else str(number)


def public(drop: Drop, interface: str, epoch_ns: int) -> dict[str, Any]:
    """As JSON types. epoch_ns: when the monotonic clock was zero."""
    return {
        "time": _time(drop, epoch_ns).isoformat(timespec="microseconds"),
        "hook": drop.hook,
        "interface": interface,
        "kind": drop.kind,
        "reason": drop.reason,
        "rule": drop.rule,
        **({"policy": drop.policy} if drop.policy else {}),
        "length": drop.length,
        **drop.fields,
    }


def line(drop: Drop, interface: str, epoch_ns: int) -> str:
    """For people: time, where, why, what."""
    what = drop.reason if drop.kind == DROPPED else drop.kind
    where = f"{_time(drop, epoch_ns):%H:%M:%S.%f} {drop.hook} {interface} {what}"
    rule = f", by {drop.policy or f'rule {drop.rule}'}" if drop.rule else ""
    return f"{where}: {_flow(drop.fields, drop.reason in _OF_THE_MAC)}, {drop.length} bytes{rule}"


def missed(left_out: int, unwatched: float) -> dict[str, Any]:
    """What was not shown, as JSON types: too many packets at once, seconds in which the output was blocked."""
    said = {"left_out": left_out, "unwatched_seconds": round(unwatched, 1)}
    return {name: value for name, value in said.items() if value}


def missed_line(missed: Mapping[str, Any]) -> str:
    """The same for people."""
    more = [f"{missed['left_out']:,} more in this second"] if "left_out" in missed else []
    if "unwatched_seconds" in missed:
        more.append(f"all of {missed['unwatched_seconds']} seconds, in which nobody read this output")
    return " and ".join(more)


def _time(drop: Drop, epoch_ns: int) -> datetime:
    seconds, rest = divmod(epoch_ns + drop.time_ns, 10**9)
    return datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=rest // 1000).astimezone()


def _flow(fields: packet.Fields, with_macs: bool) -> str:
    if not fields:
        return "?"
    macs = f"{fields['src_mac']} > {fields['dst_mac']}"
    words = [str(fields["protocol"])]
    if "operation" in fields:
        words.append(str(fields["operation"]))
    words.append(f"{_end(fields, 'src')} > {_end(fields, 'dst')}" if "src" in fields else macs)
    words += [f"{name} {fields[name]}" for name in ("type", "code", "fragment") if name in fields]
    return " ".join([*words, f"({macs})"] if with_macs and "src" in fields else words)


def _end(fields: packet.Fields, side: str) -> str:
    address, port = str(fields[side]), fields.get(f"{side}_port")
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
