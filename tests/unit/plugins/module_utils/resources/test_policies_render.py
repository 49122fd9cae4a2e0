# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies and tables in readable form."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.policy import documents
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import DIRECTIONS, INGRESS, Packet
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import lookup
from ansible_collections.fastpath.node.plugins.module_utils.resources import policies_render
from ansible_collections.fastpath.node.plugins.module_utils.resources.policies_state import Request

from .policies_life import DB, OTHER, WEB

ATTACHMENTS = (
    {"name": "web-1", "addresses": ["10.128.3.7/32"], "labels": {"app": "web"}, "container": {"pid": 7}},
    {"name": "db-1", "addresses": ["10.128.3.8/32"], "labels": {"app": "db"}},
)
OWN = {
    "apiVersion": "fastpath.node/v1",
    "kind": "FastpathPolicy",
    "metadata": {"name": "guard"},
    "spec": {
        "priority": 3,
        "log": True,
        "ingress": [
            {
                "action": "deny",
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.128.0.0/16"]}}, {"podSelector": {}}],
                "ports": [{"protocol": "ICMP", "type": 8}, {"protocol": "UDP", "port": 53, "endPort": 60}],
            }
        ],
    },
}


def rendered(*config: Any) -> Any:
    return policies_render.rendered(Request(config, "rendered", [OTHER]), ATTACHMENTS)


def test_whom_a_policy_selects() -> None:
    found = rendered(WEB, DB, OWN)["policies"]
    assert [(item["policy"], item["selects"], item["isolates"]) for item in found] == [
        ("NetworkPolicy default/db", ["db-1"], ["ingress"]),
        ("FastpathPolicy default/guard", ["db-1", "server-2/web-1", "web-1"], []),
        ("NetworkPolicy default/web", ["server-2/web-1", "web-1"], ["ingress"]),
    ]
    assert (found[1]["priority"], found[1]["log"]) == (3, True)
    assert found[1]["rules"] == [
        {
            "rule": "ingress[0]",
            "action": "deny",
            "peers": ["10.0.0.0/8 except 10.128.0.0/16", "db-1", "server-2/web-1", "web-1"],
            "ports": ["ICMP type 8", "UDP 53-60"],
        }
    ]
    assert found[2]["rules"][1] == {
        "rule": "ingress[1]", "action": "allow", "peers": ["everybody"], "ports": ["TCP 443"]
    }  # fmt: skip


def test_what_the_tables_say() -> None:
    tables = rendered(WEB)["tables"]
    (subject,) = [item for item in tables["subjects"] if item["container"] == "web-1"]
    assert subject["direction"] == "ingress"
    assert subject["verdicts"] == [
        "TCP 80: allow, by NetworkPolicy default/web ingress[0]",
        "TCP 443: allow, by NetworkPolicy default/web ingress[1]",
        "every protocol: deny, by NetworkPolicy default/web isolates",
    ]
    assert {item["address"] for item in tables["identities"]} == {"10.128.3.7", "10.128.3.8", "10.128.4.7"}


def test_nothing_is_nothing() -> None:
    assert rendered() == {"policies": [], "tables": {}}


@given(st.sets(st.integers(1, 65535), min_size=9, max_size=40), st.integers(1, 65535))
def test_pages_are_unfolded(ports: set[int], other: int) -> None:
    """Each port that the readable row allows is one that a lookup allows."""
    policy = {**WEB, "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port} for port in sorted(ports)]}]}}
    (subject, *_rest) = rendered(policy)["tables"]["subjects"]
    assert subject["direction"] == DIRECTIONS[INGRESS]
    spans = [line.partition(":")[0].split()[1].partition("-") for line in subject["verdicts"] if ": allow" in line]
    allowed = {port for low, _dash, high in spans for port in range(int(low), int(high or low) + 1)}
    assert allowed == ports
    here = policies_render._everybody({"policies": [policy]}, ATTACHMENTS)
    tables = compile_tables(documents.policies([policy]), here)
    assert (lookup(tables, Packet("10.128.3.8", "10.128.3.7", 6, other), INGRESS) & 1) == (other in ports)
