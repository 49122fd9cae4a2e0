# SPDX-License-Identifier: GPL-3.0-or-later
"""What `fastpath status` prints."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import status

FOUND: dict[str, Any] = {
    "dataplane": {
        "uplinks": [{"name": "eth0"}],
        "prefixes": ["10.128.3.0/24", "fd00:128:3::/64"],
        "routing": "fabric",
        "routes": [],
    },
    "generation": "0123456789ab_10-128-3-1",
    "healthy": True,
    "problems": [],
    "unconfirmed": None,
    "attachments": [
        {
            "name": "web-1",
            "kind": "netkit",
            "mode": "l3",
            "addresses": ["10.128.3.7/32"],
            "statistics": {"rx_packets": 3, "tx_packets": 4},
        },
        {"name": "web-2", "kind": "veth", "addresses": ["10.128.3.8/32"]},
    ],
    "policies": {},
    "hooks": {"from_container": 4, "from_wire": 5, "from_host": 0},
    "drops": {"spoofed": 2},
    "replies": {},
}


def test_each_fact_has_a_line() -> None:
    lines = {line.split()[0]: line for line in status.render(FOUND).splitlines()}
    assert "0123456789ab_10-128-3-1, healthy" in lines["dataplane"]
    assert "fd00:128:3::/64 (fabric)" in lines["prefixes"]
    assert lines["packets"].endswith("from_container 4, from_wire 5, from_host 0")
    assert lines["drops"].endswith("spoofed 2")
    assert lines["replies"].endswith("none")
    assert "netkit l3 10.128.3.7/32  rx 3 tx 4 packets" in status.render(FOUND)
    assert len(status.render(FOUND).splitlines()) == 8


def test_policies_have_lines_where_there_are_some() -> None:
    table = {"entries": 3, "limit": 262144, "evicted": 1}
    held = {"epoch": 4, "documents": 2, "flows": table, "young": {**table, "entries": 9}}
    lines = status.render({**FOUND, "policies": held}).splitlines()
    assert lines[6:9] == [
        "policies    2 documents, epoch 4",
        "flows       3 of 262144, 1 pushed out",
        "young       9 of 262144, 1 pushed out",
    ]


def test_what_is_not_confirmed_has_a_line_with_its_end() -> None:
    held = {"resource": "eswitch", "deadline": "2026-11-29T18:00:00Z", "watched": True}
    for found in (FOUND, {**FOUND, "generation": None, "dataplane": {}}):
        (line,) = [line for line in status.render({**found, "unconfirmed": held}).splitlines() if "unconfirmed" in line]
        assert line.startswith("unconfirmed eswitch: ")
        assert line.endswith(" 2026-11-29T18:00:00Z")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"healthy": False}, "NOT HEALTHY: fastpath apply"),
        ({"generation": None}, "not attached: fastpath apply"),
        ({"generation": None, "dataplane": {}}, "no dataplane is installed"),
        ({"generation": None, "dataplane": {}, "problems": ["cannot read x"]}, "problem     cannot read x"),
        ({"healthy": False, "problems": ["web-1: half"]}, "problem     web-1: half"),
    ],
)
def test_trouble_says_what_to_do(changes: dict[str, Any], said: str) -> None:
    assert said in status.render({**FOUND, **changes})
