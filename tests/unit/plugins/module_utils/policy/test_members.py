# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said about a container: defaults, and what is refused with its path."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.policy import members
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Endpoint, NamedPort


def test_nothing_has_to_be_said() -> None:
    assert members.endpoint("web-1", ["10.0.0.1"], {}, "config[web-1]", 3) == Endpoint("web-1", ("10.0.0.1",), slot=3)


def test_container_of_another_node() -> None:
    item = {
        "name": "server-2/web-1",
        "addresses": ["10.0.0.1/32", "FD00::1"],
        "namespace": "prod",
        "labels": {"app": "web", "example.org/tier": ""},
        "ports": [{"name": "http", "port": 80}, {"name": "http", "protocol": "UDP", "port": "443"}],
    }
    assert members.elsewhere(item, "endpoints[0]") == Endpoint(
        "server-2/web-1",
        ("10.0.0.1", "fd00::1"),
        "prod",
        {"app": "web", "example.org/tier": ""},
        (NamedPort("http", "TCP", 80), NamedPort("http", "UDP", 443)),
    )


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (7, "endpoints[0] = 7"),
        ({"addresses": []}, "endpoints[0].name = None"),
        ({"name": "a"}, "endpoints[a].addresses = None"),
        ({"name": "a", "addresses": ["10.0.0.0/24"]}, "endpoints[a].addresses[0] = '10.0.0.0/24'"),
        ({"name": "a", "addresses": [], "label": {}}, "endpoints[0].label"),
        ({"name": "a", "addresses": [], "namespace": "Prod"}, "endpoints[a].namespace = 'Prod'"),
        ({"name": "a", "addresses": [], "labels": {"app": None}}, "endpoints[a].labels.app = None"),
        ({"name": "a", "addresses": [], "labels": {"app": True}}, "endpoints[a].labels.app = True"),
        ({"name": "a", "addresses": [], "ports": [{"port": 1}]}, "endpoints[a].ports[0].name = None"),
        ({"name": "a", "addresses": [], "ports": [{"name": "80", "port": 1}]}, "endpoints[a].ports[0].name = '80'"),
        ({"name": "a", "addresses": [], "ports": [{"name": "x", "port": 0}]}, "endpoints[a].ports[0].port = 0"),
        (
            {"name": "a", "addresses": [], "ports": [{"name": "x", "port": 1, "protocol": "ICMP"}]},
            "endpoints[a].ports[0].protocol = 'ICMP'",
        ),
        ({"name": "a", "addresses": [], "ports": [{"name": "x", "port": p} for p in (1, 2)]}, "endpoints[a].ports[1]"),
    ],
)
def test_refusals(item: Any, said: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(f"cannot accept {said}")):
        members.elsewhere(item, "endpoints[0]")
