# SPDX-License-Identifier: GPL-3.0-or-later
"""Attachments on VFs, on a stand-in for a NIC: they serve, nothing is left of them, and a killed run is finished."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run
from ansible_collections.fastpath.node.plugins.module_utils.kernel import sriov
from tests.integration.conftest import OBJECT
from tests.integration.fuse import mortal, refuse
from tests.integration.moving import serves, wish
from tests.integration.policy_cases import DB, ingress, sources
from tests.integration.sandbox import FABRIC, Killed, Refused, Sandbox, ips, sandbox
from tests.integration.standin_vf import MADE, NIC, VFS, WISHED, pretend, pretend_before

MOST, STRIDE = 100, 3
Kinds = Mapping[int, Mapping[str, Any]]
AUTO: dict[str, Any] = {}
ANY, VETH = {"kind": "vf"}, {"kind": "veth"}


@pytest.fixture
def node() -> Iterator[Sandbox]:
    """A node with a dataplane, four containers and three VFs."""
    with sandbox(OBJECT, 4) as made:
        used_once = [f"link set rep{n} {state}" for n in range(len(VFS)) for state in ("up", "down")]  # for their qdisc
        for line in (*MADE, *used_once):
            made.run("ip", *line.split())
        made.dataplane()
        yield replace(made, prepare=pretend)


def attach(node: Sandbox, kinds: Kinds, **options: Any) -> dict[str, Any]:
    return node.attachments(wish(kinds), "overridden", allow_disruption=True, **options)


def attach_here(kinds: Kinds) -> None:
    """In a process of the node."""
    run.run_attachments(wish(kinds), "overridden", allow_disruption=True)


def used(node: Sandbox) -> dict[str, str]:
    """The VF of each attachment, "" where it has none."""
    found = node.attachments([], "gathered")["gathered"]
    return {item["name"]: item.get("vf", "") for item in found}


def bare(node: Sandbox) -> dict[str, Any]:
    """All that is there, but for the documents, and for the order of routes, which tells who came last."""
    found = {key: value for key, value in node.snapshot().items() if "/etc/fastpath" not in key}
    return {key: sorted(map(str, value)) if key.endswith(" routes") else value for key, value in found.items()}


def test_they_serve_and_nothing_is_left(node: Sandbox) -> None:
    before = bare(node)
    kinds: Kinds = {1: ANY, 2: {**ANY, "interface": "lan0", "mtu": 1400}, 3: VETH}
    checked = attach(node, kinds, check=True)
    assert bare(node) == before
    done = attach(node, kinds)
    assert (done["steps"], done["after"]) == (checked["steps"], checked["after"])
    assert used(node) == {"c1": VFS[0], "c2": VFS[1], "c3": ""}
    assert not attach(node, kinds)["changed"]
    serves(node, 1, 2, 3)
    assert node.run("cat", "/sys/class/net/rep0/address") == "02:00:00:00:70:00\n", "it keeps its own MAC"
    attach(node, {})
    assert bare(node) == before


def test_check_counts_on_vfs_that_are_not_there_yet(node: Sandbox) -> None:
    for number in range(len(VFS)):
        node.run("ip", "link", "del", f"rep{number}")
    kinds: Kinds = {1: ANY, 2: {**ANY, "vf": VFS[1]}, 3: VETH}
    before = replace(node, prepare=pretend_before)
    with pytest.raises(Refused, match="this node"):
        attach(before, kinds, check=True)
    checked = attach(before, kinds, check=True, ahead=run.Ahead(nics=[WISHED]))
    for line in MADE:
        node.run("ip", *line.split())
    done = attach(node, kinds)
    assert (done["steps"], done["after"], done["before"]) == (checked["steps"], checked["after"], checked["before"])
    assert used(node) == {"c1": VFS[0], "c2": VFS[1], "c3": ""}
    serves(node, 1, 2, 3)


def test_policies_hold(node: Sandbox) -> None:
    web = ingress(sources(DB))
    node.policies([web])
    items = wish({1: ANY, 2: ANY, 3: VETH})
    labels = {"c1": "web", "c2": "db", "c3": "other"}
    node.attachments([{**item, "labels": {"app": labels[item["name"]]}} for item in items], "overridden")
    node.ping("c2", *ips(1))
    node.ping("c1", *ips(2), *ips(3))
    for address in ips(1):
        assert not node.succeeds("ping", "-c1", "-W1", address, container="c3")
        assert not node.succeeds("ping", "-c1", "-W1", address, container=FABRIC)


def test_from_kind_to_kind(node: Sandbox) -> None:
    before = bare(node)
    attach(node, {1: VETH})
    with pytest.raises(Refused, match="allow_disruption"):
        node.attachments(wish({1: ANY}), "overridden")
    for kinds in (
        {1: ANY, 2: VETH},
        {1: VETH, 2: ANY},
        {1: {**ANY, "vf": VFS[2]}, 2: {**ANY, "vf": NIC}},
        {1: AUTO, 2: AUTO},
    ):
        attach(node, kinds)
        serves(node, 1, 2)
    assert set(used(node).values()) == {""}
    attach(node, {})
    assert bare(node) == before


def test_there_are_as_many_as_there_are(node: Sandbox) -> None:
    three = {1: ANY, 2: ANY, 3: ANY}
    attach(node, three)
    before = node.snapshot()
    with pytest.raises(Refused, match=rf"config\[c4\]\.kind = 'vf'.*{VFS[0]}: c1 has it"):
        attach(node, {**three, 4: ANY})
    assert node.snapshot() == before
    assert attach(node, {**three, 4: ANY}, skip_absent=True)["without_vf"] == ["c4"]
    attach(node, {2: ANY, 3: ANY, 4: ANY})
    assert used(node) == {"c2": VFS[1], "c3": VFS[2], "c4": VFS[0]}
    serves(node, 2, 3, 4)


def test_a_container_ends(node: Sandbox) -> None:
    """The kernel brings the interface back to the node, as it was inside."""
    before = bare(node)
    attach(node, {1: ANY, 2: ANY})
    inside = ["ip", "-n", "c1", "link", "set", "eth0"]
    node.run(*inside, "mtu", "1300", "address", "02:00:00:00:00:99")
    node.run(*inside, "netns", str(node.holder))
    node.run("ip", "netns", "del", "c1")
    assert [step["action"] for step in attach(node, {1: ANY, 2: ANY}, skip_absent=True)["steps"]][-1] == (
        f"take VF {VFS[0]} back from c1"
    )
    assert used(node) == {"c2": VFS[1]}
    node.add_container("c1")
    attach(node, {1: ANY, 2: ANY})
    serves(node, 1, 2)
    attach(node, {})
    assert {key: value for key, value in bare(node).items() if not key.startswith("c1 ")} == {
        key: value for key, value in before.items() if not key.startswith("c1 ")
    }


def test_what_a_container_does_to_it_does_not_stay(node: Sandbox) -> None:
    before = bare(node)
    attach(node, {1: ANY})
    inside = ["ip", "-n", "c1", "link", "set", "eth0"]
    node.run(*inside, "mtu", "1300", "address", "02:00:00:00:00:99", "alias", "mine")
    assert "mac, mtu" in attach(node, {1: ANY})["steps"][0]["action"]
    node.run(*inside, "address", "02:00:00:00:00:99", "alias", "")
    node.run(*inside, "down")
    node.run(*inside, "name", "up0")  # a name of the node's
    attach(node, {})
    assert bare(node) == before


def test_what_is_in_the_way_is_told(node: Sandbox) -> None:
    node.run("ip", "link", "set", "vf0", "up")
    node.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "other", "netns", "c1")
    node.run("ip", "-n", "c1", "link", "set", "other", "name", "eth0")
    with pytest.raises(Refused, match="interface vf0 is up"):
        attach(node, {1: {**ANY, "vf": VFS[0]}})
    before = bare(node)
    with pytest.raises(Refused, match=r"give VF.*File exists"):
        attach(node, {1: ANY})
    assert bare(node) == before, "a failed run has taken all back"


def test_a_removal_that_fails_at_any_change_is_taken_back(node: Sandbox) -> None:
    attach(node, {1: ANY, 2: VETH})
    before = bare(node)
    for limit in range(1, MOST):
        try:
            node.call(mortal, limit, lambda: attach_here({2: VETH}), refuse)
            break
        except Refused as error:
            said = error.text
        assert "injected" in said
        assert bare(node) == before, limit
        serves(node, 1, 2)
    assert 7 < limit < MOST - 1
    assert used(node) == {"c2": ""}


def test_nobody_looks_at_nics_without_need(node: Sandbox) -> None:
    def blind() -> None:
        del sriov.physical

    plain = replace(node, prepare=blind)
    attach(plain, {1: VETH, 2: AUTO})
    attach(plain, {2: VETH})
    with pytest.raises(Refused, match="physical"):
        attach(plain, {1: ANY})
    attach(node, {1: ANY})
    with pytest.raises(Refused, match="physical"):
        attach(plain, {})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {1: ANY, 2: VETH}, id="come", marks=pytest.mark.full),
        pytest.param({1: ANY, 2: VETH}, {2: VETH}, id="go", marks=pytest.mark.full),
        pytest.param({1: ANY, 2: VETH}, {1: VETH, 2: ANY}, id="change"),
    ],
)
def test_killed_before_any_change(node: Sandbox, before: Kinds, after: Kinds) -> None:
    """The next run finishes it, or takes it back, in turn."""
    clean = bare(node)
    for limit in range(1, MOST, STRIDE):
        attach(node, before)
        try:
            node.call(mortal, limit, lambda: attach_here(after))
            break
        except Killed:
            following = before if limit // STRIDE % 2 else after
        attach(node, following)
        assert not attach(node, following)["changed"]
        if len(following) > 1:
            serves(node, *following)
        ours = json.loads(node.run("ip", "-json", "link", "show", "group", "64087"))
        representors = [link for link in ours if link.get("ifname", "").startswith("rep")]
        assert len(representors) == list(following.values()).count(ANY)
    assert 10 < limit < MOST - STRIDE
    attach(node, {})
    assert bare(node) == clean
