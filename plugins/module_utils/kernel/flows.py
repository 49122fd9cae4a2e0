# SPDX-License-Identifier: GPL-3.0-or-later
"""What the programs know of flows: how many there are, which are denied now, which are still to be decided again."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import FastpathError
from . import bpf, datapath

FLOWS, YOUNG, FRAGMENTED = "flows", "young", "fragmented"
COUNTS = ("created", "promoted", "closed", "expired", "allowed", "revoked")  # enum fp_flow_count
ASKED_BY_B, ANSWERED, FIN_A, FIN_B, RESET, LOCAL, REVOKED = (1 << bit for bit in range(7))  # FP_FLOW_*
_FINS = FIN_A | FIN_B

VALUE = struct.Struct("=IIII")  # struct fp_flow: epoch, seen, flags, rule
KEY = struct.Struct("=16s16s2s2sB3x")  # struct fp_flow_key
_TURNS = 100
_FRAME = bytes(64)  # the kernel runs no program without one


class Flows(NamedTuple):
    """Flows that both ends have taken part in; `young` are all others. evicted: pushed out because there were too many;
    counts: what happened since the node's start, by COUNTS."""

    entries: int
    limit: int
    evicted: int
    young: int
    young_limit: int
    young_evicted: int
    counts: dict[str, int]


class Denied(NamedTuple):
    """An entry of one of the tables: a flow that was open when it was denied."""

    table: str
    key: bytes
    value: bytes


def read(maps: Path = datapath.MAPS) -> Flows:
    """Raises BpfError."""
    (old, limit), (young, young_limit) = (_size(maps / name) for name in (FLOWS, YOUNG))
    counts = dict(zip(COUNTS, datapath.counters("flow_counts", maps)))
    evicted = counts["promoted"] - counts["closed"] - counts["expired"] - old
    young_evicted = counts["created"] + counts["closed"] - counts["promoted"] - young
    # while packets come the numbers are of slightly different moments
    return Flows(old, limit, max(evicted, 0), young, young_limit, max(young_evicted, 0), counts)


def _size(path: Path) -> tuple[int, int]:
    with bpf.Map.open(path) as table:
        return len(table.items()), table.max_entries


def decide_again(maps: Path, program: Path, epoch: int) -> list[Denied]:
    """Let the program decide what was decided under another epoch; returns all that are denied and not yet closed.

    No program may run any more that has read another epoch. Raises FastpathError.
    """
    with bpf.get(program) as fd:
        for _turn in range(_TURNS):  # entries beside one that is replaced meanwhile may be missed
            while bpf.test_run(fd, _FRAME).retval:
                pass
            older, denied = _look(maps, epoch)
            if not older:
                return denied
    raise FastpathError("decide again", f"{older} flows", "the program leaves them out")


def _look(maps: Path, epoch: int) -> tuple[int, list[Denied]]:
    """How many entries another epoch has decided; those that are denied and not closed."""
    older, denied = 0, []
    for name in (YOUNG, FLOWS):  # in the order in which a flow moves
        with bpf.Map.open(maps / name) as table:
            for key, value in table.items():
                under, _seen, flags, _rule = VALUE.unpack(value)
                older += under != epoch
                if flags & REVOKED and not (flags & RESET or flags & _FINS == _FINS):
                    denied.append(Denied(name, key, value))
    return older, denied


def close(maps: Path, denied: Iterable[Denied]) -> None:
    """Mark them as dealt with. They stay: a packet that still comes is one of theirs and dropped, not a first one."""
    tables: dict[str, list[Denied]] = {YOUNG: [], FLOWS: []}
    for entry in denied:
        tables[entry.table].append(entry)
    for name, entries in tables.items():
        with bpf.Map.open(maps / name) as table:
            for entry in entries:
                epoch, seen, flags, rule = VALUE.unpack(entry.value)
                table.replace(entry.key, VALUE.pack(epoch, seen, flags | RESET, rule))


def forget(maps: Path) -> None:
    """Remove all and count anew; no program may be tracking. Raises BpfError."""
    for name in (FLOWS, YOUNG, FRAGMENTED):
        with bpf.Map.open(maps / name) as table:
            table.delete_many([key for key, _value in table.items()])
    with bpf.PerCpuMap.open(maps / "flow_counts") as counts:
        zero = [bytes(counts.value_size)] * counts.cpus
        counts.set_many((key, zero) for key, _value in counts.items())


def key(address: bytes, peer: bytes, port: bytes, peer_port: bytes, protocol: int) -> bytes:
    """struct fp_flow_key, whichever end is named first; addresses as struct fp_addr, ports in network order."""
    if peer < address:
        address, peer, port, peer_port = peer, address, peer_port, port
    return KEY.pack(address, peer, port, peer_port, protocol)


def ends(key: bytes) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes], int]:
    """Each end's address and the flow as sockets.Socket has it from there, and the protocol."""
    a, b, port_a, port_b, protocol = KEY.unpack(key)
    return (a, a + b + port_a + port_b), (b, b + a + port_b + port_a), protocol
