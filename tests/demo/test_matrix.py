# SPDX-License-Identifier: GPL-3.0-or-later
"""Who probes whom, and what is shown of it."""

import pytest

from demo.matrix import OUTSIDE, Place, Probe, kind, places, show, task
from lab.plan import Topology

EVERYWHERE = places(Topology.wanted("t", nodes=2, containers=2))
BY_NAME = {place.name: place for place in EVERYWHERE}


def test_places_are_containers_hosts_and_the_outside() -> None:
    assert [place.name for place in EVERYWHERE] == [
        "node1/c1", "node1/c2", "node1", "node2/c1", "node2/c2", "node2", OUTSIDE,
    ]  # fmt: skip
    assert BY_NAME["node2/c1"] == Place("node2/c1", "node2", "/run/netns/c1", ("10.128.2.11", "fd00:128:2::11"))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("node1/c1", "node1/c2", "container to container, same node"),
        ("node1/c1", "node2/c2", "container to container, across nodes"),
        ("node1", "node1/c1", "host to container, same node"),
        ("node1/c1", "node2", "container to host, across nodes"),
        ("node1/c1", OUTSIDE, "container to outside"),
        (OUTSIDE, "node1/c1", "outside to container"),
        ("node1", "node2", None),
        ("node1", OUTSIDE, None),
        ("node1/c1", "node1/c1", None),
    ],
)
def test_kind(source: str, target: str, expected: str | None) -> None:
    assert kind(BY_NAME[source], BY_NAME[target]) == expected


def test_a_task_holds_the_places_of_its_node_only() -> None:
    assert [item["name"] for item in task("node1", EVERYWHERE)] == ["node1/c1", "node1/c2", "node1"]
    assert [item["name"] for item in task("", EVERYWHERE)] == [OUTSIDE]


def test_show_counts_and_names_failures() -> None:
    probes = [
        Probe("node1/c1", "node1/c2", "icmp", 4, None),
        Probe("node1/c1", "node1/c2", "tcp", 6, "timed out"),
        Probe("node1/c2", "node1/c1", "icmp", 4, None),
    ]
    lines = show(EVERYWHERE, probes).splitlines()
    kinds = next(line for line in lines if line.startswith("container to container, same node"))
    assert kinds.split()[5:] == ["2/2", "0/0", "0/0", "0/0", "0/1", "0/0"]
    assert next(line for line in lines if line.startswith("node1/c1")).split()[1:4] == [".", "1/2", "."]
    assert next(line for line in lines if line.startswith("node1/c2")).split()[1] == "ok"
    assert lines[-1] == "FAILED node1/c1 -> node1/c2, TCP over IPv6: timed out"
