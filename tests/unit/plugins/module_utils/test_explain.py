# SPDX-License-Identifier: GPL-3.0-or-later
"""`fastpath explain`: how a target is written, what is answered, and how numbers of rules get names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import cli, explain
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel import policy
from ansible_collections.fastpath.node.plugins.module_utils.kernel.asked import Asked
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import EGRESS, INGRESS, Packet
from ansible_collections.fastpath.node.plugins.module_utils.policy.ports import ALLOW, NUMBER
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import lookup
from ansible_collections.fastpath.node.plugins.module_utils.resources import policies_wish
from ansible_collections.fastpath.node.plugins.module_utils.resources.policies import Policies
from ansible_collections.fastpath.node.plugins.module_utils.resources.policies_state import State
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.resources import policies_life as life

EITHER = (4, 6)


@pytest.mark.parametrize(
    ("text", "place", "kinds"),
    [
        ("web-1:443", "web-1", dict.fromkeys(EITHER, (6, 443))),
        ("server-2/web-1:53/UDP", "server-2/web-1", dict.fromkeys(EITHER, (17, 53))),
        ("10.0.0.1:80/tcp", "10.0.0.1", dict.fromkeys(EITHER, (6, 80))),
        ("[fd00::1]:80/sctp", "fd00::1", dict.fromkeys(EITHER, (132, 80))),
        ("fd00::1/47", "fd00::1", dict.fromkeys(EITHER, (47, 0))),
        ("web-1/icmp", "web-1", {4: (1, 8 << 8), 6: (58, 128 << 8)}),
        ("fd00::1/icmpv6", "fd00::1", {6: (58, 128 << 8)}),
        ("web-1:3.1/icmp", "web-1", {4: (1, 3 << 8 | 1)}),
        ("web-1:5/icmp", "web-1", {4: (1, 5 << 8)}),
    ],
)
def test_target(text: str, place: str, kinds: dict[int, tuple[int, int]]) -> None:
    assert explain.target(text) == explain.Target(place, kinds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "web-1", ":80", "web-1:0", "web-1:65536", "web-1:x", "web-1:80/foo", "web-1:80/47", "web-1/256"),
        *("web-1:1.2", "web-1:256/icmp", "web-1:1.2.3/icmp", "web-1:./icmp", "[fd00::1", "fd00::1", "web-1/tcp"),
    ],
)
def test_target_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="cannot accept --to"):
        explain.target(text)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A node whose kernel says what its tables say; `lies` is what it says instead."""
    world: dict[str, Any] = {"state": life.SERVING, "lies": None, "epoch": 1}

    def asked(source: str, destination: str, protocol: int, port: int) -> Asked:
        return world["lies"] or truth(world["state"], Packet(source, destination, protocol, port))

    monkeypatch.setattr(Policies, "have", lambda _self: world["state"])
    monkeypatch.setattr(explain, "asked", asked)
    monkeypatch.setattr(policy, "epoch", lambda: world["epoch"])
    return world


def truth(state: State, packet: Packet) -> Asked:
    tables = policies_wish.source(state, state.policing.document or {}).tables()
    return Asked(lookup(tables, packet, EGRESS), lookup(tables, packet, INGRESS))


WEB, DB = "NetworkPolicy default/web", "NetworkPolicy default/db isolates"


@pytest.mark.parametrize(
    ("source", "to", "verdicts"),
    [
        ("db-1", "web-1:80", {"egress": ("allow", None), "ingress": ("allow", f"{WEB} ingress[0]")}),
        ("db-1", "web-1:443/tcp", {"egress": ("allow", None), "ingress": ("allow", f"{WEB} ingress[1]")}),
        ("db-1", "web-1:81", {"egress": ("allow", None), "ingress": ("deny", f"{WEB} isolates")}),
        ("server-2/web-1", "db-1:80", {"ingress": ("deny", DB)}),
        ("10.128.3.7", "192.0.2.9/47", {"egress": ("allow", None)}),
        ("192.0.2.2", "db-1:80", {"ingress": ("allow", None)}),
    ],
)
def test_answers(node: dict[str, Any], source: str, to: str, verdicts: dict[str, tuple[str, str | None]]) -> None:
    (answer,) = explain.explain(source, to)
    assert {name: (said["verdict"], said["rule"]) for name, said in answer["verdicts"].items()} == verdicts
    assert answer["kernel"] == answer["verdicts"]
    assert (answer["disagree"], answer["current"]) == ([], True)


def test_one_answer_for_each_family(node: dict[str, Any]) -> None:
    assert [answer["from"] for answer in explain.explain("web-1", "[fd00::9]:80")] == ["fd00:128:3::7"]
    node["state"] = replace(life.SERVING, endpoints={**life.ENDPOINTS, "fd00:128:3::8": ("db-1", 1)})
    both = explain.explain("db-1", "web-1/icmp")
    assert [(answer["to"], answer["protocol"]) for answer in both] == [("10.128.3.7", 1), ("fd00:128:3::7", 58)]
    assert [answer["current"] for answer in both] == [False, False]
    assert "fastpath apply" in explain.render(both)


def test_kernel_that_says_otherwise(node: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "--from", "db-1", "--to", "web-1:81"]) == 0
    said = capsys.readouterr().out
    assert (
        f"10.128.3.8 to 10.128.3.7, TCP 81\n  egress   allow, nothing restricts it\n  ingress  deny, by {WEB} i" in said
    )
    node["lies"] = Asked(ALLOW, ALLOW)
    assert cli.main(["explain", "--from", "db-1", "--to", "web-1:81"]) == 1
    assert "  ingress  but the kernel says: allow, nothing restricts it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "to", "said"),
    [
        ("nobody", "web-1:80", "no container has this name"),
        ("192.0.2.7", "192.0.2.8:80", "neither of the two is a container of this node"),
        ("10.0.0.1", "fd00::9/47", "no addresses of one family"),
        ("192.0.2.7", "[fd00:128:3::7]:1.0/icmp", "no addresses of one family"),
    ],
)
def test_what_cannot_be_explained(node: dict[str, Any], source: str, to: str, said: str) -> None:
    with pytest.raises(FastpathError, match=said):
        explain.explain(source, to)


def test_node_without_policies(node: dict[str, Any]) -> None:
    node["state"] = life.BARE
    with pytest.raises(FastpathError, match="everything is allowed"):
        explain.explain("web-1", "db-1:80")


def test_names_of_rules(node: dict[str, Any]) -> None:
    word = truth(life.SERVING, Packet("10.128.3.8", "10.128.3.7", 6, 81)).ingress
    names = explain.Names()
    assert names(word >> NUMBER) == f"{WEB} isolates"
    assert (names(12345), names(12345, audited=True), names(word >> NUMBER, audited=True)) == ("", "", "")
    # known until the policies change
    node["state"] = life.BARE
    assert names(word >> NUMBER) == f"{WEB} isolates"
    node["epoch"] = 2
    assert names(word >> NUMBER) == ""
