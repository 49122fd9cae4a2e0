# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets between a container and its peers for a program under test, by BPF_PROG_TEST_RUN: see drive.bpf.c."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, links
from bench import build, topology

REPEAT = 50_000

_PEER = struct.Struct("=16s2s2x")  # struct peer
_PLAN = struct.Struct("=16s6s2x5I")  # struct plan
_FIRST = bytes(4)
_PAYLOAD = bytes(64)
OK, REDIRECT = 0, 7  # TC_ACT_OK, TC_ACT_REDIRECT


@dataclass(frozen=True)
class Peer:
    """An address, and the container's port that it talks to."""

    address: str
    port: int = 7007


@dataclass(frozen=True)
class Plan:
    """The container, and which packets: see struct plan. ifindex: of its host end."""

    address: str
    mac: str
    ifindex: int
    peers: int
    outward: bool = False
    fresh: bool = False
    in_turn: bool = False
    turn: int = 0

    def pack(self) -> bytes:
        rest = (self.peers, self.outward, self.fresh, self.in_turn, self.turn)
        return _PLAN.pack(_packed(self.address), links.packed(self.mac), *rest)

    def packet(self) -> bytes:
        """One of the right form; the driver writes the rest of it."""
        own = _packed(self.address)
        macs = links.packed(topology.GATEWAY_MAC) + links.packed(self.mac)
        size = 8 + len(_PAYLOAD)
        udp = struct.pack("!HHHH", 0, 0, size, 0) + _PAYLOAD
        if len(own) == 4:
            return (
                macs + struct.pack("!HBBHHHBBH4s4s", 0x0800, 0x45, 0, 20 + size, 0, 0x4000, 64, 17, 0, own, own) + udp
            )
        return macs + struct.pack("!HIHBB16s16s", 0x86DD, 6 << 28, size, 17, 64, own, own) + udp


class Drive(Protocol):
    def __call__(self, program: int | None, plan: Plan, repeat: int = REPEAT, verdict: int | None = REDIRECT) -> float:
        """Mean ns of a packet with all that the driver does; without a program: that alone.

        Raises where the last verdict is another one than this: a packet that is dropped would be a cheap one.
        """


@contextmanager
def driver(peers: Sequence[Peer]) -> Iterator[Drive]:
    """Load it; in the network namespace of the containers' host ends."""
    with (
        bpf.load(build.driver().read_bytes(), name="bench") as loaded,
        bpf.Map(os.dup(loaded.maps["targets"])) as targets,
        bpf.Map(os.dup(loaded.maps["plans"])) as plans,
        bpf.Map(os.dup(loaded.maps["peers"])) as table,
    ):
        ports = (struct.pack("!H", peer.port) for peer in peers)
        rows = (_PEER.pack(_packed(peer.address), port) for peer, port in zip(peers, ports, strict=True))
        table.set_many((struct.pack("=I", index), row) for index, row in enumerate(rows))

        def drive(program: int | None, plan: Plan, repeat: int = REPEAT, verdict: int | None = REDIRECT) -> float:
            target = loaded.programs["accept"] if program is None else program
            targets.set(_FIRST, struct.pack("=I", target))
            plans.set(_FIRST, plan.pack())
            result = bpf.test_run(loaded.programs["drive"], plan.packet(), ctx={"ifindex": plan.ifindex}, repeat=repeat)
            wanted = OK if program is None else verdict
            if wanted not in (None, result.retval):
                raise RuntimeError(f"the program returned {result.retval}, not {wanted}, for a packet of {plan}")
            return float(result.duration_ns)

        yield drive


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed
