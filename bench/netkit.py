# SPDX-License-Identifier: GPL-3.0-or-later
"""How netkit compares with veth and with what the kernel has: the ways, what is measured on each, the samples.

A virtual machine runs `python3 -m bench.netkit count` or `time`, see virtual.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

from bench import build, fastpath, topology
from bench.datapath import BRIDGED, LOOPBACK, ROUTED, rotated, run
from bench.topology import IN, LOCAL, OUT, Kind, Way

VETH, L2, L3, BARE = "fastpath, veth", "fastpath, netkit", "fastpath, netkit l3", "fastpath, netkit without headroom"
KINDS = {VETH: Kind("veth"), L2: Kind("netkit"), L3: Kind("netkit", "l3"), BARE: Kind("netkit", bare=True)}
NODE_WAYS: Mapping[str, Callable[[], AbstractContextManager[Way]]] = {
    LOOPBACK: topology.loopback,
    BRIDGED: topology.bridged,
    ROUTED: topology.routed,
    **{name: partial(fastpath.attached, KINDS[name]) for name in (VETH, L2, L3)},
}
UPLINK_WAYS = (BRIDGED, ROUTED, *KINDS)


@dataclass(frozen=True)
class Case:
    """What is measured: a method of load.c on a route, and what of it is one."""

    method: str
    route: str
    title: str

    @property
    def key(self) -> str:
        return f"{self.method} {self.route}"


NODE_CASES = (
    Case("rr", LOCAL, "TCP round trip"),
    Case("udp", LOCAL, "UDP packet"),
    Case("connect", LOCAL, "TCP connection"),
)
TO_NIC = Case("send", OUT, "UDP packet out of a NIC")  # the other side of the uplink does not count here
TO_VETH = (
    Case("rr", OUT, "TCP round trip"),
    Case("udp", OUT, "UDP packet out"),
    Case("udp", IN, "UDP packet in"),
    Case("connect", OUT, "TCP connection"),
)
UPLINK_CASES = (TO_NIC, *TO_VETH)
LATENCIES = (NODE_CASES[0], TO_VETH[0])
CHECK = Case("nops", LOCAL, "1,000 instructions")
_RATES = ("udp", "connect")  # methods that tell how many there are in a second

Samples = dict[str, dict[str, list[float]]]  # case -> way -> ns of one, for each round


@dataclass(frozen=True)
class Costs:
    """What one of each case costs, as the guest's clock has it, on a kernel."""

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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def count() -> Samples:
    """Everything, a few times for a short while: on a clock that counts instructions there is hardly any noise."""
    samples = _measure(NODE_WAYS, (*NODE_CASES, *TO_VETH), rounds=3, milliseconds=20)
    nics = {name: partial(fastpath.attached, kind, f"eth{n}") for n, (name, kind) in enumerate(KINDS.items())}
    samples |= _measure(nics, [TO_NIC], rounds=5, milliseconds=10)
    return samples | _measure({LOOPBACK: topology.loopback}, [CHECK], rounds=1, milliseconds=20)


def time() -> Samples:
    """Latency, often."""
    return _measure(NODE_WAYS, LATENCIES, rounds=11, milliseconds=200)


def _measure(
    ways: Mapping[str, Callable[[], AbstractContextManager[Way]]],
    cases: Iterable[Case],
    rounds: int,
    milliseconds: int,
) -> Samples:
    generator, cpu = build.load_generator(), max(os.sched_getaffinity(0))
    samples: Samples = {case.key: {} for case in cases}
    with ExitStack() as stack:
        made = {name: stack.enter_context(make()) for name, make in ways.items()}
        for index in range(rounds):
            print(f"round {index + 1} of {rounds}", file=sys.stderr, flush=True)
            for case in cases:
                for name in rotated(list(made), index):
                    if case.route in made[name]:
                        value, _class = run(generator, case.method, made[name][case.route], cpu, milliseconds)
                        nanoseconds = 1e9 / value if case.method in _RATES else value
                        samples[case.key].setdefault(name, []).append(nanoseconds)
    return samples


def main(argv: Sequence[str]) -> int:
    samples = {"count": count, "time": time}[argv[0]]()
    print(json.dumps({"kernel": os.uname().release, "samples": samples}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
