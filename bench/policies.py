# SPDX-License-Identifier: GPL-3.0-or-later
"""What a number of rules costs traffic from one container to another: ours, and the kernel's own firewalls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import monotonic

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, policy
from bench import build, fastpath, rivals, rules, topology
from bench.datapath import rotated, run
from bench.netkit import NODE_CASES, Case, Costs
from bench.rules import CIDRS, EXACT
from bench.topology import LOCAL, Way

COUNTS = (10, 1_000, 10_000, 100_000)
BASE, OPEN, OURS, OURS_CIDRS = "veth routed, no rules", "fastpath, no policies", "fastpath", "fastpath, CIDRs"
WAYS = (BASE, *rivals.FIREWALLS, OPEN, OURS, OURS_CIDRS)
RIVALS = {OURS: rivals.MAP, OURS_CIDRS: rivals.CIDR_MAP}
MILLISECONDS = 100

Loads = dict[str, float]  # way -> seconds until its rules are in the kernel


@dataclass(frozen=True)
class Traffic:
    """Costs of all ways side by side, once for each number of rules; and what it took to load them."""

    costs: Mapping[int, Costs]
    loads: Mapping[int, Loads]

    def microseconds(self, case: Case, way: str, count: int) -> float:
        return median(self.costs[count].samples[case.key][way]) / 1e3

    def as_dict(self) -> dict[str, object]:
        return {
            "counts": list(self.costs),
            "metrics": {
                case.key: {
                    "title": case.title,
                    "unit": "us",
                    "medians": {way: [self.microseconds(case, way, count) for count in self.costs] for way in WAYS},
                }
                for case in NODE_CASES
            },
            "samples": {count: costs.samples for count, costs in self.costs.items()},
            "seconds to load": self.loads,
        }


def measure(rounds: int, report: Callable[[str], None]) -> Traffic:
    """Every way, interleaved, with one number of rules after the other."""
    costs, loads = {}, {}
    for count in COUNTS:
        costs[count], loads[count] = _with(count, rounds, report)
    return Traffic(costs, loads)


def _with(count: int, rounds: int, report: Callable[[str], None]) -> tuple[Costs, Loads]:
    generator, cpu = build.load_generator(), max(os.sched_getaffinity(0))
    costs = Costs(os.uname().release, {case.key: {way: [] for way in WAYS} for case in NODE_CASES})
    loads: Loads = {}
    with ExitStack() as stack:
        report(f"{count:,} rules: loading")
        made = {name: stack.enter_context(way) for name, way in ways(count, loads)}
        for index in range(rounds):
            report(f"{count:,} rules: round {index + 1} of {rounds}")
            for case in NODE_CASES:
                for name in rotated(WAYS, index):
                    value, _class = run(generator, case.method, made[name][LOCAL], cpu, MILLISECONDS)
                    costs.samples[case.key][name].append(case.nanoseconds(value))
    return costs, loads


def ways(count: int, loads: Loads) -> Iterator[tuple[str, AbstractContextManager[Way]]]:
    """WAYS with `count` rules each; entering one that has any notes in `loads` how long they took to load."""
    yield BASE, topology.routed("base")
    for name in rivals.FIREWALLS:
        yield name, rivals.way(name, count, partial(loads.__setitem__, name))
    yield OPEN, fastpath.attached()
    for name, kind in ((OURS, EXACT), (OURS_CIDRS, CIDRS)):
        yield name, _ours(kind, count, partial(loads.__setitem__, name))


def _ours(kind: str, count: int, loaded: Callable[[float], None]) -> AbstractContextManager[Way]:
    """With `count` rules; loaded: is told how many seconds it took to compile and to publish them."""
    some = rules.traffic(count, kind)

    def load(programs: bpf.LoadedObject) -> None:
        start = monotonic()
        tables = fastpath.compiled(some, topology.SERVER)
        with fastpath.place(programs) as place:
            policy.publish(tables, 1, {}, place)
        loaded(monotonic() - start)

    return fastpath.attached(title=f"fastpath-{kind}", prepare=load)
