# SPDX-License-Identifier: GPL-3.0-or-later
"""From samples to figures."""

import xml.etree.ElementTree as ET

import pytest

from bench import chart, report
from bench.convergence import Cost, attachments
from bench.datapath import LOOPBACK, METRICS, OURS, WAYS, Result
from bench.eswitch import COMMANDS, Times
from bench.eswitch import OURS as MODULE
from bench.netkit import BARE, L2, NODE_CASES, UPLINK_CASES, VETH, Costs
from bench.tries import Cost as Lookup
from bench.verifier import Verified

LATENCY, PACKETS = METRICS[:2]
SAMPLES = {metric.method: {way: [2.0, 4.0, 6.0] for way in WAYS} for metric in METRICS}
SAMPLES[LATENCY.method][OURS] = [4.0, 8.0, 6.0]
SAMPLES[PACKETS.method][OURS] = [1.0, 1.0, 6.0]
RESULT = Result(SAMPLES, cpu=1, scheduling="fifo")


def test_a_ratio_compares_within_a_round_and_more_of_it_is_better() -> None:
    assert RESULT.ratio(LATENCY, OURS, LOOPBACK) == 0.5
    assert RESULT.ratio(PACKETS, OURS, LOOPBACK) == 0.5
    assert RESULT.ratio(PACKETS, LOOPBACK, LOOPBACK) == 1


def test_the_chart_is_well_formed_and_has_a_bar_for_each_figure() -> None:
    root = ET.fromstring(chart.draw(RESULT.as_dict()))  # noqa: S314 - our own text
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + len(METRICS) * len(WAYS)


def test_columns_line_up() -> None:
    assert report.table([["name", "n"], ["a", "100"]]) == "name    n\n---------\na     100"


def test_attachments_have_names_and_addresses_of_their_own() -> None:
    config = attachments("m", 1000)
    assert len({item["name"] for item in config}) == 1000
    assert len({address for item in config for address in item["addresses"]}) == 2000
    assert config[0]["addresses"] == ["10.128.0.10/32", "fd00:128::a/128"]


def test_a_cost_without_what_nothing_costs() -> None:
    left = Cost("x", "create", 10, 5.0, 3.0, 2.0).minus(Cost("x", "no-op", 0, 1.0, 0.5, 1.5))
    assert (left.count, left.wall, left.node_cpu) == (10, 4.0, 2.5)
    assert left.controller_cpu == pytest.approx(0.5)


ROUND_TRIP, TO_NIC = NODE_CASES[0], UPLINK_CASES[-1]
COSTS = Costs(
    "7.2",
    {
        ROUND_TRIP.key: {
            LOOPBACK: [1000.0, 3000.0, 2000.0],
            VETH: [2000.0, 6000.0, 2000.0],
            L2: [1000.0, 6000.0, 2000.0],
        },
        TO_NIC.key: {VETH: [10.0], BARE: [9.0]},
    },
)


def test_a_cost_is_the_median_and_its_ratio_is_of_rounds() -> None:
    assert COSTS.of(ROUND_TRIP, LOOPBACK) == 2000
    assert COSTS.ratio(ROUND_TRIP, LOOPBACK) == 0.5
    assert COSTS.ratio(ROUND_TRIP, L2) == 1
    assert COSTS.fastest_ratio(ROUND_TRIP, L2) == 0.5


def test_a_way_without_a_route_has_no_cost_there() -> None:
    assert COSTS.of(TO_NIC, LOOPBACK) is None
    assert COSTS.ratio(TO_NIC, LOOPBACK) is None
    assert COSTS.fastest_ratio(TO_NIC, LOOPBACK) is None


def test_costs_as_rows() -> None:
    assert report.cost_rows("on the node", COSTS, [LOOPBACK, BARE], [ROUND_TRIP, TO_NIC]) == [
        ["on the node", ROUND_TRIP.title, TO_NIC.title],
        [LOOPBACK, "2,000 (0.500)", "-"],
        [BARE, "-", "9 (0.900)"],
    ]


def test_what_verifiers_took_beside_what_is_committed() -> None:
    measured = [Verified("6.1", {"from_wire": 1100, "from_host": 2000}, 12.4)]
    assert report.verifier_rows({"6.1": {"from_wire": 1000}}, measured) == [
        ["kernel", "from_host", "from_wire", "loaded, ms"],
        ["6.1", "2,000 (-)", "1,100 (1,000)", "12"],
    ]


def test_tries_are_compared_round_by_round() -> None:
    few = Lookup(4, 10, {"ours": {"hot": [10.0, 30.0]}, "kernels": {"hot": [20.0, 60.0]}}, {}, 0, 0)
    many = Lookup(4, 100, {"ours": {"hot": [20.0, 30.0]}, "kernels": {"hot": [80.0, 120.0]}}, {}, 0, 0)
    assert few.of("ours", "hot") == 20
    assert (few.ratio("hot"), many.ratio("hot")) == (2, 4)
    assert many.growth("hot", few) == 1.5


def test_vfs_are_compared_within_a_round() -> None:
    samples = {MODULE: {"8": [1.0, 2.0, 1.0], "64": [8.0, 16.0, 24.0]}, COMMANDS: {"8": [2.0] * 3, "64": [16.0] * 3}}
    times = Times.of({"samples": samples, "again": {"8": [0.1] * 3, "64": [0.2] * 3}})
    assert times.growth(MODULE) == 1
    assert (times.ratio(8), times.ratio(64)) == (0.5, 1)
    assert times.each(MODULE) == 15 / 56
