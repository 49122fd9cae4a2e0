# SPDX-License-Identifier: GPL-3.0-or-later
"""Results as tables on the terminal, JSON documents and one chart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bench import build, chart
from bench.convergence import COMMANDS, Cost
from bench.datapath import BRIDGED, LOOPBACK, METRICS, OURS, ROUTED, WAYS, Result
from bench.programs import Timing


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be, the first one to the left, numbers to the right; the first row is the head."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if not index else cell.rjust(width) for index, (cell, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def datapath(result: Result) -> None:
    """Print medians with the ratio to loopback, and how we compare to the others."""
    rows = [["", *(f"{metric.title}, {metric.unit}" for metric in METRICS)]]
    rows += [
        [way, *(f"{result.median(m, way):.2f} ({result.ratio(m, way, LOOPBACK):.2f}x)" for m in METRICS)]
        for way in WAYS
    ]
    rounds = len(result.samples[METRICS[0].method][OURS])
    print(f"\nData path: median of {rounds} interleaved rounds on CPU {result.cpu}, class {result.scheduling};")
    print("in brackets how good that is beside loopback (1 = as good), round by round\n")
    print(table(rows))
    print()
    rows = [["fastpath, times as good as", *(metric.title for metric in METRICS)]]
    rows += [[way, *(f"{result.ratio(m, OURS, way):.2f}" for m in METRICS)] for way in (LOOPBACK, BRIDGED, ROUTED)]
    print(table(rows))
    document = result.as_dict()
    _write("datapath", document)
    build.OUTPUT.joinpath("datapath.svg").write_text(chart.draw(document))
    print(f"\nsamples and chart: {build.OUTPUT}/datapath.json, datapath.svg")


def programs(timings: Sequence[Timing]) -> None:
    """Print ns per packet, one row per hook."""
    spreads = list(dict.fromkeys(timing.addresses for timing in timings))
    hooks = list(dict.fromkeys(timing.hook for timing in timings))
    found = {(timing.hook, timing.addresses): timing.nanoseconds for timing in timings}
    rows = [["hook", *(f"{count:,} addresses" for count in spreads)]]
    rows += [[hook, *(f"{found[hook, count]:.0f}" for count in spreads)] for hook in hooks]
    print("\nPrograms: ns per packet by BPF_PROG_TEST_RUN, destinations at random among so many of the")
    print(f"{max(spreads):,} in the map, without the driver's own cost\n")
    print(table(rows))
    _write("programs", [timing.as_dict() for timing in timings])


def verifier(
    committed: Mapping[str, Mapping[str, int]], kernel: str, counts: Mapping[str, int], milliseconds: float
) -> None:
    """Print the instructions that the verifiers of some kernels process, and this one, now."""
    figures = {**committed, f"{kernel}, now": counts}
    rows = [
        ["kernel", *counts],
        *([name, *(f"{row[program]:,}" for program in counts)] for name, row in figures.items()),
    ]
    print("\nVerifier: instructions that it processes, by kernel. To load all programs took")
    print(f"{milliseconds:.0f} ms on this one\n")
    print(table(rows))
    _write("verifier", {"instructions": figures, "load_ms": milliseconds})


def convergence(costs: Sequence[Cost]) -> None:
    """Print CPU time per attachment and for all, one row per step of each way of doing it."""
    largest = max(cost.count for cost in costs)
    rows = [["", "step", "measured", "wall s", "node CPU ms each", "controller CPU ms each", f"CPU s for {largest:,}"]]
    for cost in costs:
        each = (cost.node_cpu / cost.count, cost.controller_cpu / cost.count)
        total = f"{sum(each) * largest:.1f}{'' if cost.count == largest else ' (extrapolated)'}"
        rows.append(
            [
                cost.how,
                cost.step,
                f"{cost.count:,}",
                f"{cost.wall:.1f}",
                *(f"{seconds * 1e3:.2f}" for seconds in each),
                total,
            ]
        )
    print("\nConvergence: one node, one play; CPU time of all processes on the node, and of ansible-playbook with its")
    print(f"children. {COMMANDS}: without what a play costs that has nothing to do\n")
    print(table(rows))
    _write("convergence", [cost.as_dict() for cost in costs])


def _write(name: str, document: Mapping[str, object] | Sequence[object]) -> None:
    build.OUTPUT.mkdir(parents=True, exist_ok=True)
    build.OUTPUT.joinpath(f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
