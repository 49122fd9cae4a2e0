# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic from one container to another, over every way, interleaved on one core."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench import build, fastpath, topology
from bench.topology import LOCAL, Pair, Way

LOOPBACK, BRIDGED, ROUTED, OURS = "loopback", "veth + bridge", "veth routed", "fastpath"
WAYS: Mapping[str, Callable[[], AbstractContextManager[Way]]] = {
    LOOPBACK: topology.loopback,
    BRIDGED: topology.bridged,
    ROUTED: topology.routed,
    OURS: fastpath.attached,
}
MILLISECONDS = 300

T = TypeVar("T")


@dataclass(frozen=True)
class Metric:
    """One figure: what load.c calls it, how it is shown, and whether less of it is better."""

    method: str
    title: str
    unit: str
    scale: float
    less: bool = False


METRICS = (
    Metric("rr", "TCP round trip p50", "us", 1e-3, less=True),
    Metric("udp", "UDP packets", "kpps", 1e-3),
    Metric("tcp", "TCP stream", "Gb/s", 1e-9),
    Metric("connect", "connections", "k/s", 1e-3),
)

Samples = dict[str, dict[str, list[float]]]  # method -> way -> one value per round


@dataclass(frozen=True)
class Result:
    """Samples of one run, in the metrics' units, and how the machine let it run."""

    samples: Samples
    cpu: int
    scheduling: str

    def median(self, metric: Metric, way: str) -> float:
        return median(self.samples[metric.method][way])

    def ratio(self, metric: Metric, way: str, base: str) -> float:
        """How many times better than base (below 1: worse); the median over rounds, since noise hits a whole round."""
        values, bases = self.samples[metric.method][way], self.samples[metric.method][base]
        ratios = [b / v if metric.less else v / b for v, b in zip(values, bases, strict=True)]
        return median(ratios)

    def as_dict(self) -> dict[str, object]:
        return {
            "cpu": self.cpu,
            "scheduling": self.scheduling,
            "metrics": {
                metric.method: {
                    "title": metric.title,
                    "unit": metric.unit,
                    "less_is_better": metric.less,
                    "medians": {way: self.median(metric, way) for way in self.samples[metric.method]},
                    "samples": self.samples[metric.method],
                }
                for metric in METRICS
            },
        }


def measure(rounds: int, report: Callable[[str], None]) -> Result:
    """Measure every metric over every way, `rounds` times; neighbours in time are what is compared."""
    generator = build.load_generator()
    cpu = max(os.sched_getaffinity(0))
    samples: Samples = {metric.method: {way: [] for way in WAYS} for metric in METRICS}
    scheduling = ""
    with ExitStack() as stack:
        ways = {name: stack.enter_context(make()) for name, make in WAYS.items()}
        for index in range(rounds):
            report(f"data path: round {index + 1} of {rounds}")
            for metric in METRICS:
                for name in rotated(list(ways), index):
                    value, scheduling = run(generator, metric.method, ways[name][LOCAL], cpu, MILLISECONDS)
                    samples[metric.method][name].append(value * metric.scale)
    return Result(samples, cpu, scheduling)


def rotated(names: Sequence[T], by: int) -> list[T]:
    """No one is always the first one after a change of the load."""
    start = by % len(names)
    return [*names[start:], *names[:start]]


def run(generator: Path, method: str, pair: Pair, cpu: int, milliseconds: int) -> tuple[float, str]:
    """What the load generator prints: a figure and the scheduling class that it got."""
    argv = [str(generator), method, str(pair.server), str(pair.client), pair.address, str(milliseconds), str(cpu)]
    value, scheduling = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout.split()
    return float(value), scheduling
