# SPDX-License-Identifier: GPL-3.0-or-later
"""What rules cost, as tables, a JSON document and a chart."""

from __future__ import annotations

from collections.abc import Sequence

from bench import build, lines
from bench.decisions import CASES, HOT, Cost
from bench.netkit import NODE_CASES, Case
from bench.policies import BASE, RIVALS, WAYS, Traffic
from bench.report import table, write

_MB = 1e6


def show(programs: Sequence[Cost], traffic: Traffic) -> None:
    """Print everything, write policies.json and policies.svg."""
    print("\nPolicies: ns per packet of from_wire by BPF_PROG_TEST_RUN, without the driver's own cost. Each rule is")
    print(
        f"about a peer of its own, packets come from {HOT} hot ones or from any at random. In brackets how many times"
    )
    print("that of the fewest rules, round by round\n")
    print(table(decision_rows(programs)))
    print(f"\nWith hot peers the most rules cost at most {worst_growth(programs):.2f} times the fewest")
    print("\nPolicies: time to compile all rules, and until they hold with every flow decided again\n")
    print(table(load_rows(programs)))
    print("\nPolicies: MB of a node's maps\n")
    print(table(memory_rows(programs)))
    print("\nTraffic between containers: us, in brackets how many times that of routed veth without rules, round by")
    print(
        "round. The rules that let it pass are the last ones. The kernel's firewalls accept what is established before"
    )
    print("they ask their rules; these datagrams never are, as nobody answers them")
    for case in NODE_CASES:
        print(f"\n{table(traffic_rows(case, traffic))}")
    print("\nfastpath, times as good as nft with a map of the same rules\n")
    print(table(rival_rows(traffic)))
    print(f"\nAt least {least_ratio(traffic):.2f} times")
    print("\nSeconds to load the rules\n")
    print(table(loaded_rows(traffic)))
    document = traffic.as_dict()
    write("policies", {**document, "programs": [cost.as_dict() for cost in programs]})
    build.OUTPUT.joinpath("policies.svg").write_text(lines.draw(document))
    print("\nsamples and chart: build/bench/policies.json, policies.svg")


def decision_rows(programs: Sequence[Cost]) -> list[list[str]]:
    """A row per family, kind of peers and case; a column per number of rules."""
    counts = programs[0].counts
    rows = [["", *(f"{count:,} rules" for count in counts)]]
    for cost in programs:
        for case in CASES:
            cells = [f"{cost.of(case, count):.0f} ({cost.growth(case, count):.2f})" for count in counts]
            rows.append([f"{cost.title}, {case.key}", *cells])
    return rows


def worst_growth(programs: Sequence[Cost]) -> float:
    return max(cost.growth(case, cost.counts[-1]) for cost in programs for case in CASES if case.hot)


def load_rows(programs: Sequence[Cost]) -> list[list[str]]:
    """All rules and then one of them, by number of rules; the last column compares one with all."""
    rows = [["", "compile, CPU s", "publish, s", "entries written", "of all"]]
    for cost in programs:
        whole = 0.0
        for index, load in enumerate(cost.loads):
            seconds = load.compiled + load.published
            ratio = f"{seconds / whole:.2f}" if index % 2 else ""
            whole = whole if index % 2 else seconds
            figures = (f"{load.compiled:.3f}", f"{load.published:.3f}", f"{load.written:,}", ratio)
            rows.append([f"{cost.title}, {load.what}", *figures])
    return rows


def memory_rows(programs: Sequence[Cost]) -> list[list[str]]:
    counts = programs[0].counts
    rows = [["", *(f"{count:,} rules" for count in counts)]]
    return rows + [
        [cost.title, *(f"{sum(cost.memory[count].values()) / _MB:.1f}" for count in counts)] for cost in programs
    ]


def traffic_rows(case: Case, traffic: Traffic) -> list[list[str]]:
    """A row per way, a column per number of rules: us, and how many times the base's."""
    rows = [[case.title, *(f"{count:,} rules" for count in traffic.costs)]]
    for way in WAYS:
        ratios = {count: costs.ratio(case, way, BASE) for count, costs in traffic.costs.items()}
        rows.append([way, *(f"{traffic.microseconds(case, way, n):.2f} ({ratio:.2f})" for n, ratio in ratios.items())])
    return rows


def rival_rows(traffic: Traffic) -> list[list[str]]:
    """How many times as good we are as a map of nft, by case, kind of peers and number of rules."""
    rows = [["", *(f"{count:,} rules" for count in traffic.costs)]]
    for case in NODE_CASES:
        for ours, rival in RIVALS.items():
            ratios = (costs.ratio(case, rival, ours) for costs in traffic.costs.values())
            rows.append([f"{case.title}, {rival}", *(f"{ratio:.2f}" for ratio in ratios)])
    return rows


def least_ratio(traffic: Traffic) -> float:
    every = ((costs, case, pair) for costs in traffic.costs.values() for case in NODE_CASES for pair in RIVALS.items())
    return min(costs.ratio(case, rival, ours) or 0 for costs, case, (ours, rival) in every)


def loaded_rows(traffic: Traffic) -> list[list[str]]:
    rows = [["", *(f"{count:,} rules" for count in traffic.loads)]]
    ways = next(iter(traffic.loads.values()))
    return rows + [[way, *(f"{loads[way]:.2f}" for loads in traffic.loads.values())] for way in ways]
