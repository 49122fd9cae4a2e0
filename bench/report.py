# SPDX-License-Identifier: GPL-3.0-or-later
"""Results as tables on the terminal, JSON documents and one chart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median

from bench import build, chart
from bench.convergence import COMMANDS, Cost
from bench.datapath import BRIDGED, LOOPBACK, METRICS, OURS, ROUTED, WAYS, Result
from bench.eswitch import COUNTS as VF_COUNTS
from bench.eswitch import Times
from bench.netkit import CHECK, LATENCIES, NODE_CASES, UPLINK_CASES, Case, Costs
from bench.netkit import WAYS as NETKIT_WAYS
from bench.nic import SIZES as TABLE_SIZES
from bench.nic import Costs as TableCosts
from bench.programs import Timing
from bench.revocation import CONNECTIONS, Change
from bench.tries import KERNELS, SPREADS
from bench.tries import OURS as OUR_TRIE
from bench.tries import Cost as Lookup
from bench.verifier import Verified


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
    write("datapath", document)
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
    write("programs", [timing.as_dict() for timing in timings])


def tries(costs: Sequence[Lookup]) -> None:
    """Print what it takes to find an address among prefixes, to have them, and to change them."""
    addresses = ", ".join(f"{count:,} ({name})" for name, count in SPREADS.items())
    print(
        "\nTries: ns to find an address among prefixes by BPF_PROG_TEST_RUN, without the choice of the address. It is"
    )
    print(f"one of {addresses}. In brackets how many times as long the kernel's trie")
    print("takes, round by round; growth: how many times as long ours takes as with the fewest prefixes\n")
    print(table(trie_rows(costs)))
    rows = [["", "KB, ours", "KB, the kernel's", "ms to fill ours", "us for one prefix"]]
    for cost in costs:
        memory = (f"{cost.memory[way] / 1e3:,.0f}" for way in (OUR_TRIE, KERNELS))
        rows.append([_prefixes(cost), *memory, f"{cost.filled * 1e3:,.0f}", f"{cost.changed:.0f}"])
    print(f"\n{table(rows)}")
    write("tries", [cost.as_dict() for cost in costs])


def trie_rows(costs: Sequence[Lookup]) -> list[list[str]]:
    """A row per family and number of prefixes, two columns per spread."""
    rows = [["", *SPREADS, *(f"growth, {spread}" for spread in SPREADS)]]
    for cost in costs:
        fewest = next(other for other in costs if other.version == cost.version)
        cells = [f"{cost.of(OUR_TRIE, spread):.0f} ({cost.ratio(spread):.1f})" for spread in SPREADS]
        rows.append([_prefixes(cost), *cells, *(f"{cost.growth(spread, fewest):.2f}" for spread in SPREADS)])
    return rows


def _prefixes(cost: Lookup) -> str:
    return f"IPv{cost.version}, {cost.prefixes:,} prefixes"


def netkit(counted: Costs, timed: Costs) -> None:
    """Print instructions, on the node and over its uplink, and latency."""
    check = counted.of(CHECK, LOOPBACK)
    print(f"\nNetkit: instructions of the kernel and of the load generator on Linux {counted.kernel}; in brackets how")
    print("many times those of fastpath with veth. A count, not a time: an emulated core has no cache that misses and")
    print(f"does one after the other. {CHECK.title} that do nothing were counted as {check:,.0f}\n")
    print(table(cost_rows("container to container", counted, NETKIT_WAYS, NODE_CASES)))
    print()
    print(table(cost_rows("container and outside", counted, NETKIT_WAYS[1:], UPLINK_CASES)))
    print(f"\nLatency on Linux {timed.kernel} in an emulated machine by its clock: p50 of a TCP round trip in the")
    print("fastest of interleaved rounds, as many times that of fastpath with veth\n")
    ratios = [[way, *(_number(timed.fastest_ratio(case, way), ".2f") for case in LATENCIES)] for way in NETKIT_WAYS]
    print(table([["", "container to container", "container and outside"], *ratios]))
    write("netkit", {"counted": counted.as_dict(), "timed": timed.as_dict()})


def nic(costs: TableCosts) -> None:
    """Print what a hit and one more rule cost in tables of several sizes."""
    rows = [["rules", "a hit, ns", f"as many times that of {TABLE_SIZES[0]}", "one more rule, us"]]
    rows += [
        [f"{size:,}", f"{median(costs.hit[size]):,.0f}", f"{costs.ratio(size):.2f}", f"{costs.insert[size]:,.0f}"]
        for size in TABLE_SIZES
    ]
    rounds = len(costs.hit[TABLE_SIZES[0]])
    print(f"\nThe emulated NIC's table, in an emulated machine by its clock: medians of {rounds} interleaved rounds\n")
    print(table(rows))
    write("nic", asdict(costs))


def cost_rows(title: str, costs: Costs, ways: Sequence[str], cases: Sequence[Case]) -> list[list[str]]:
    """A row per way, a column per case: the cost and how many times that of fastpath with veth."""
    rows = [[title, *(case.title for case in cases)]]
    for way in ways:
        cells = [(costs.of(case, way), costs.ratio(case, way)) for case in cases]
        rows.append(
            [way, *(f"{_number(cost, ',.0f')} ({_number(ratio, '.3f')})" if cost else "-" for cost, ratio in cells)]
        )
    return rows


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def verifier(committed: Mapping[str, Mapping[str, int]], measured: Sequence[Verified]) -> None:
    """Print the instructions that each kernel's verifier processes, and how long it takes."""
    print("\nVerifier: instructions that it processes, in brackets those committed; ms to load all programs, in")
    print("emulated machines and, last, on this one\n")
    print(table(verifier_rows(committed, measured)))
    write("verifier", [one.as_dict() for one in measured])


def verifier_rows(committed: Mapping[str, Mapping[str, int]], measured: Sequence[Verified]) -> list[list[str]]:
    """A row per kernel, a column per program, then the time."""
    programs = sorted(measured[0].counts)
    rows = [["kernel", *programs, "loaded, ms"]]
    for one in measured:
        before = committed.get(one.kernel, {})
        cells = [f"{one.counts[name]:,} ({_number(before.get(name), ',')})" for name in programs]
        rows.append([one.kernel, *cells, f"{one.milliseconds:.0f}"])
    return rows


def revocation(changes: Sequence[Change]) -> None:
    """Print how long a change of policies takes, by how many connections it denies."""
    rows = [["denied", "sockets told", "ms"]]
    rows += [[f"{one.revoked:,}", f"{one.told:,}", f"{one.milliseconds:.0f}"] for one in changes]
    print(f"\nRevocation: median ms until a change of policies returns, with {CONNECTIONS:,} connections open between")
    print("containers; from then on no packet passes of those that it denies\n")
    print(table(rows))
    write("revocation", [one.as_dict() for one in changes])


def eswitch(times: Times) -> None:
    """Print how long it takes to make VFs, beside the same by commands."""
    few, many = VF_COUNTS
    rows = [["", f"{few} VFs, s", f"{many} VFs, s", "one more, ms", "growth"]]
    rows += [
        [way, *(f"{times.median(way, count):.2f}" for count in VF_COUNTS),
         f"{times.each(way) * 1e3:.0f}", f"{times.growth(way):.2f}"]
        for way in times.samples
    ]  # fmt: skip
    rows.append(["ours, times as long", *(f"{times.ratio(count):.2f}" for count in VF_COUNTS), "", ""])
    rows.append(["a second run of ours", *(f"{median(times.again[count]):.2f}" for count in VF_COUNTS), "", ""])
    print("\nNIC: from legacy mode to switchdev with VFs, until all interfaces are there, on the emulated NIC of a")
    print("virtual machine; growth: how many times as long a VF takes where there are many\n")
    print(table(rows))
    write("eswitch", asdict(times))


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
    write("convergence", [cost.as_dict() for cost in costs])


def write(name: str, document: Mapping[str, object] | Sequence[object]) -> None:
    """Keep it as JSON."""
    build.OUTPUT.mkdir(parents=True, exist_ok=True)
    build.OUTPUT.joinpath(f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
