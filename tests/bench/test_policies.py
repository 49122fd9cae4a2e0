# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules in several languages, and what they cost as rows and lines."""

import ipaddress
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.policy import documents
from bench import lines, policy_report, rules
from bench.decisions import CASES, Cost, Load
from bench.netkit import NODE_CASES, Costs
from bench.policies import BASE, OURS, OURS_CIDRS, WAYS, Traffic
from bench.rules import CIDRS, EXACT

KINDS = [(kind, version) for kind in (EXACT, CIDRS) for version in (4, 6)]


@pytest.mark.parametrize(("kind", "version"), KINDS)
def test_every_rule_has_a_peer_that_no_other_one_has(kind: str, version: int) -> None:
    networks = [ipaddress.ip_network(rule.peer) for rule in rules.scattered(2000, kind, version)]
    ends = sorted((int(network[0]), int(network[-1])) for network in networks)
    assert all(last < first for (_before, last), (first, _after) in pairwise(ends))
    assert {network.version for network in networks} == {version}
    assert (len({network.prefixlen for network in networks}) > 1) == (kind == CIDRS)


@pytest.mark.parametrize(("kind", "version"), KINDS)
def test_rules_are_the_same_in_every_run(kind: str, version: int) -> None:
    assert rules.scattered(100, kind, version) == rules.scattered(100, kind, version)


def test_a_member_is_an_address_of_the_peer() -> None:
    for kind, version in KINDS:
        for rule in rules.scattered(10, kind, version):
            assert ipaddress.ip_address(rules.member(rule)) in ipaddress.ip_network(rule.peer)


def test_the_clients_rules_are_the_last_ones() -> None:
    found = rules.traffic(10, EXACT)
    assert len(found) == 10
    assert tuple(found[-2:]) == rules.CLIENTS


def test_the_document_has_all_rules() -> None:
    (policy,) = documents.policies([rules.document(rules.traffic(100, CIDRS))])
    assert len(policy.rules[0] or ()) == 100


COUNTS = (10, 100_000)
SAMPLES = {case.key: {10: [10.0, 30.0, 20.0], 100_000: [20.0, 30.0, 30.0]} for case in CASES}
PROGRAM = Cost(
    6,
    CIDRS,
    SAMPLES,
    [Load("all", 4.0, 0.5, 12345), Load("one", 0.4, 0.05, 1)],
    {10: {"flows": 10**6}, 100_000: {"flows": 3 * 10**6}},
)


def test_growth_compares_within_a_round() -> None:
    assert PROGRAM.growth(CASES[0], 100_000) == 1.5
    assert PROGRAM.growth(CASES[0], 10) == 1
    rows = policy_report.decision_rows([PROGRAM])
    assert rows[1] == [f"IPv6, CIDRs, {CASES[0].key}", "20 (1.00)", "30 (1.50)"]
    assert len(rows) == 1 + len(CASES)
    assert policy_report.worst_growth([PROGRAM]) == 1.5


def test_loads_and_memory_as_rows() -> None:
    assert policy_report.load_rows([PROGRAM])[1:] == [
        ["IPv6, CIDRs, all", "4.000", "0.500", "12,345", ""],
        ["IPv6, CIDRs, one", "0.400", "0.050", "1", "0.10"],
    ]
    assert policy_report.memory_rows([PROGRAM]) == [["", "10 rules", "100,000 rules"], ["IPv6, CIDRs", "1.0", "3.0"]]


def traffic_of(count: int) -> Costs:
    values = {BASE: [1000.0, 2000.0, 4000.0], OURS: [500.0, 1000.0, 2000.0 * count]}
    return Costs("6.18", {case.key: {way: values.get(way, [3000.0] * 3) for way in WAYS} for case in NODE_CASES})


TRAFFIC = Traffic({count: traffic_of(count) for count in COUNTS}, {count: {OURS: 1.234} for count in COUNTS})


def test_traffic_beside_the_base_and_beside_the_maps_of_nft() -> None:
    rows = {row[0]: row[1:] for row in policy_report.traffic_rows(NODE_CASES[0], TRAFFIC)}
    assert rows[OURS] == ["1.00 (0.50)", "1.00 (0.50)"]
    assert rows[BASE] == ["2.00 (1.00)", "2.00 (1.00)"]
    beside = policy_report.rival_rows(TRAFFIC)
    assert beside[1] == [f"{NODE_CASES[0].title}, nft map", "3.00", "3.00"]
    assert policy_report.least_ratio(TRAFFIC) == 1
    assert policy_report.loaded_rows(TRAFFIC) == [["", "10 rules", "100,000 rules"], [OURS, "1.23", "1.23"]]


def test_the_chart_is_well_formed_and_has_a_line_for_each_way() -> None:
    root = ET.fromstring(lines.draw(TRAFFIC.as_dict()))  # noqa: S314 - our own text
    drawn = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(drawn) == len(NODE_CASES) * len(WAYS)
    dashed = [line for line in drawn if line.get("stroke-dasharray") == "6 3"]
    assert len(dashed) == len(NODE_CASES) * len({OURS_CIDRS, "nft map, CIDRs"})


def test_what_costs_more_is_drawn_higher() -> None:
    root = ET.fromstring(lines.draw(TRAFFIC.as_dict()))  # noqa: S314 - our own text
    drawn = dict(zip(WAYS, root.iter("{http://www.w3.org/2000/svg}polyline"), strict=False))
    ours, base, others = ([float(point.split(",")[1]) for point in drawn[way].get("points", "").split()]
                          for way in (OURS, BASE, OURS_CIDRS))  # fmt: skip
    assert all(one > two > three for one, two, three in zip(ours, base, others, strict=True))
