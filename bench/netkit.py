# SPDX-License-Identifier: GPL-3.0-or-later
"""How netkit compares with veth and with what the kernel has: the ways, what is measured on each, the samples.

A virtual machine runs `python3 -m bench.netkit count` or `time`, see virtual.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench import build, fastpath, topology
from bench.datapath import BRIDGED, LOOPBACK, ROUTED, rotated, run
from bench.topology import IN, LOCAL, NIC, OUT, Kind, Way

VETH, L2, L3, BARE = "fastpath, veth", "fastpath, netkit", "fastpath, netkit l3", "fastpath, netkit without headroom"
KINDS = {VETH: Kind("veth"), L2: Kind("netkit"), L3: Kind("netkit", "l3"), BARE: Kind("netkit", bare=True)}
WAYS = (LOOPBACK, BRIDGED, ROUTED, *KINDS)


@dataclass(frozen=True)
class Case:
    """What is measured: a method of load.c on a route, and what of it is one."""

    method: str
    route: str
    title: str

    @property
    def key(self) -> str:
        return f"{self.method} {self.route}"

    def nanoseconds(self, value: float) -> float:
        """Of one, from what load.c prints."""
        return 1e9 / value if self.method in _RATES else value


NODE_CASES = (
    Case("rr", LOCAL, "TCP round trip"),
    Case("udp", LOCAL, "UDP packet"),
    Case("connect", LOCAL, "TCP connection"),
)
UPLINK_CASES = (
    Case("rr", OUT, "TCP round trip"),
    Case("udp", OUT, "UDP packet out"),
    Case("udp", IN, "UDP packet in"),
    Case("connect", OUT, "TCP connection"),
    Case("send", NIC, "UDP packet out of a NIC"),  # the other side does not count here
)
LATENCIES = (NODE_CASES[0], UPLINK_CASES[0])
CHECK = Case("nops", LOCAL, "1,000 instructions")
_RATES = ("udp", "connect")  # methods that tell how many there are in a second

Samples = dict[str, dict[str, list[float]]]  # case -> way -> ns of one, for each round


@dataclass(frozen=True)
class Costs:
    """What one of each case costs, as the clock there has it, on a kernel."""

    kernel: str
    samples: Samples

    def of(self, case: Case, way: str) -> float | None:
        """The median of the rounds; None where a way has no such route."""
        values = self.samples[case.key].get(way)
        return median(values) if values else None

    def ratio(self, case: Case, way: str, base: str = VETH) -> float | None:
        """How many times the base, below 1 is better; the median over rounds, since noise hits a whole round."""
        values, bases = (self.samples[case.key].get(name) for name in (way, base))
        return median(v / b for v, b in zip(values, bases, strict=True)) if values and bases else None

    def fastest_ratio(self, case: Case, way: str, base: str = VETH) -> float | None:
        """The same of the fastest rounds, where noise can only add."""
        values, bases = (self.samples[case.key].get(name) for name in (way, base))
        return min(values) / min(bases) if values and bases else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def count() -> Samples:
    """Everything, a few times for a short while: on a clock that counts instructions there is hardly any noise."""
    nics = {name: f"eth{number}" for number, name in enumerate(KINDS)}
    return _measure(nics, (CHECK, *NODE_CASES, *UPLINK_CASES), rounds=3, milliseconds=20)


def time() -> Samples:
    """Latency, often and for a short while: some rounds are not disturbed by what else runs on the machine."""
    return _measure({}, LATENCIES, rounds=40, milliseconds=20)


def _ways(nics: Mapping[str, str]) -> Iterator[tuple[str, AbstractContextManager[Way]]]:
    yield from ((LOOPBACK, topology.loopback()), (BRIDGED, topology.bridged()), (ROUTED, topology.routed()))
    yield from ((name, fastpath.attached(kind, nics.get(name, ""))) for name, kind in KINDS.items())


def _measure(nics: Mapping[str, str], cases: Sequence[Case], rounds: int, milliseconds: int) -> Samples:
    """nics: devices for the ways, which are to have the route NIC."""
    generator, cpu = build.load_generator(), max(os.sched_getaffinity(0))
    samples: Samples = {case.key: {} for case in cases}
    with ExitStack() as stack:
        made = {name: stack.enter_context(way) for name, way in _ways(nics)}
        for index in range(rounds):
            print(f"round {index + 1} of {rounds}", file=sys.stderr, flush=True)
            for case in cases:
                for name in rotated(list(made), index):
                    if case.route in made[name]:
                        value, _class = run(generator, case.method, made[name][case.route], cpu, milliseconds)
                        samples[case.key].setdefault(name, []).append(case.nanoseconds(value))
    return samples


def main(argv: Sequence[str]) -> int:
    samples = {"count": count, "time": time}[argv[0]]()
    print(json.dumps({"kernel": os.uname().release, "samples": samples}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
