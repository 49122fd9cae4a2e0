# SPDX-License-Identifier: GPL-3.0-or-later
"""Attachments move from one kind to another under traffic, and both kinds live on one node.

On a kernel without netkit a stand-in shows all but the kernel's own part, and mode l3.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import plan, status
from ansible_collections.fastpath.node.plugins.module_utils.kernel import datapath, links, rtnl
from ansible_collections.fastpath.node.plugins.module_utils.resources.attachments import Attachments
from ansible_collections.fastpath.node.plugins.module_utils.resources.attachments_state import Request
from ansible_collections.fastpath.node.plugins.module_utils.run import Ahead
from tests.integration.conftest import OBJECT
from tests.integration.fuse import mortal, refuse
from tests.integration.moving import (
    L2,
    L3,
    OTHERS,
    REAL,
    STRIDE,
    TICK,
    VETH,
    assert_nothing_lost,
    assert_settled,
    move,
    netkit_node,
    serves,
    traffic,
    wish,
)  # fmt: skip
from tests.integration.sandbox import (
    DATAPLANE,
    Killed,
    Refused,
    Sandbox,
    attachment,
    ips,
    predicted,
    sandbox,
)  # fmt: skip

WAY = (L2, L3, L2, VETH) if REAL else (L2, VETH, L2, VETH)
without_netkit = pytest.mark.skipif(REAL, reason="this kernel has netkit")
Kinds = Mapping[int, Mapping[str, Any]]


@pytest.fixture
def node() -> Iterator[Sandbox]:
    """A node with a dataplane, and with netkit."""
    with netkit_node(3) as made:
        yield made


def statistics(node: Sandbox) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Address -> row, and what is counted in it."""
    rows = {address: point.slot for address, point in node.endpoints().items()}
    counts = node.call(datapath.statistics, set(rows.values()))
    return {address: (slot, counts[slot]) for address, slot in rows.items()}


def test_a_move_loses_no_packet_and_no_connection(node: Sandbox) -> None:
    move(node, {1: VETH, 2: VETH, 3: L2})
    serves(node, 1, 2, 3)
    with traffic(node, (1, 2, 3)) as reports:
        before = statistics(node)
        for kind in WAY:
            result = move(node, {1: VETH, 2: kind, 3: L2})
            assert [step["action"].split()[:2] for step in result["steps"][1:]] == [["move", "c2"]]
            assert not any(step["disruptive"] for step in result["steps"])
            after = statistics(node)
            for address, (slot, counts) in before.items():
                assert after[address][0] == slot
                assert all(now > then for now, then in zip(after[address][1], counts, strict=True))
            before = after
            time.sleep(20 * TICK)  # some traffic between two moves
    assert_nothing_lost(reports, 80)
    assert_settled(node, {1: VETH, 2: VETH, 3: L2})


def test_check_says_what_a_move_does(node: Sandbox) -> None:
    predicted(node, "attachments", wish({1: VETH, 2: VETH}), "merged")
    for kind in WAY:
        predicted(node, "attachments", wish({1: kind, 2: VETH}), "overridden")
        assert_settled(node, {1: kind, 2: VETH})
        serves(node, 1, 2)
    bare = predicted(node, "attachments", [], "deleted", allow_disruption=True)
    assert bare["after"] == []


def _reached(items: list[dict[str, Any]]) -> tuple[Any, Any]:
    resource, request = (
        Attachments([f"netns:/run/netns/c{number}" for number in (1, 2, 3)]),
        Request(tuple(items), "merged"),
    )
    have = resource.have()
    expected = plan.predict(have, resource.plan(have, request))
    plan.converge(resource, request, allow_disruption=True)
    return expected, resource.have()


def test_the_predicted_state_is_the_real_one_in_every_detail(node: Sandbox) -> None:
    for kind in (VETH, *WAY):
        expected, found = node.call(_reached, wish({1: kind}))
        assert expected == found


def test_auto_takes_netkit_and_leaves_what_there_is(node: Sandbox) -> None:
    made = node.attachments([attachment(1), attachment(2, kind="veth")])["after"]
    assert [(item["kind"], item.get("mode")) for item in made] == [("netkit", "l2"), ("veth", None)]
    same = node.attachments([attachment(1), attachment(2)], "overridden")
    assert same["after"] == made
    assert [step["action"].split()[0] for step in same["steps"]] == ["record"]
    back = node.attachments([attachment(1, kind="veth"), attachment(2, kind="netkit")])["after"]
    assert [item["kind"] for item in back] == ["veth", "netkit"]
    serves(node, 1, 2)


def test_what_others_made_inside_moves_along(node: Sandbox) -> None:
    move(node, {1: VETH})
    node.run(
        "ip",
        "route",
        "add",
        "203.0.113.0/24",
        "via",
        "10.128.3.1",
        "dev",
        "eth0",
        "onlink",
        "mtu",
        "1300",
        container="c1",
    )
    node.run("ip", "-6", "route", "add", "2001:db8::/64", "dev", "eth0", "table", "100", container="c1")
    before = [
        node.run("ip", family, "route", "show", "table", table, container="c1")
        for family in ("-4", "-6")
        for table in ("main", "100")
        if (family, table) != ("-4", "100")
    ]
    for kind in WAY[:2]:
        move(node, {1: kind})
        after = [
            node.run("ip", family, "route", "show", "table", table, container="c1")
            for family in ("-4", "-6")
            for table in ("main", "100")
            if (family, table) != ("-4", "100")
        ]
        assert [sorted(text.split("\n")) for text in after] == [sorted(text.split("\n")) for text in before]


def test_a_move_and_other_changes_at_once(node: Sandbox) -> None:
    move(node, {1: VETH, 2: VETH})
    more = attachment(1, **L2, mtu=1400, addresses=[*attachment(1)["addresses"], "10.128.3.200/32"])
    predicted(node, "attachments", [more], "merged")
    node.ping("c2", "10.128.3.200", *ips(1))
    assert "mtu 1400" in node.run("ip", "link", "show", "eth0", container="c1")
    predicted(node, "attachments", [attachment(1, **L2, mac="02:00:00:00:00:99")], "replaced", allow_disruption=True)
    serves(node, 1, 2)


def test_both_kinds_through_an_upgrade(node: Sandbox, newer: Path) -> None:
    kinds = {1: VETH, 2: L2, 3: L3 if REAL else L2}
    move(node, kinds)
    serves(node, 1, 2, 3)
    with traffic(node, (1, 2, 3)) as reports:
        upgraded = node.dataplane(path=str(newer))
        time.sleep(20 * TICK)
        node.dataplane()
    assert_nothing_lost(reports, 20)
    programs = [step["action"].split()[1] for step in upgraded["steps"] if step["action"].startswith("replace")]
    assert sorted(programs) == ["from_container", "from_host", "from_netkit", "from_netkit", "from_wire"]
    assert_settled(node, kinds)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind["mode"])
def test_a_container_that_vanishes_leaves_nothing(node: Sandbox, kind: dict[str, Any]) -> None:
    move(node, {1: VETH, 2: kind})
    node.end_container("c2")
    predicted(node, "attachments", wish({1: VETH}), "overridden")
    assert_settled(node, {1: VETH})


# Half-way


def stopped(node: Sandbox, kinds: Kinds, limit: int) -> bool:
    """Move, killed before change number `limit`; whether that came."""
    try:
        node.call(mortal, limit, lambda: move_here(kinds))
    except Killed:
        return True
    return False


def refused(node: Sandbox, kinds: Kinds, limit: int) -> tuple[bool, str]:
    """Move, while the kernel refuses change number `limit`; whether it came to that, and the error."""
    try:
        return node.call(mortal, limit, lambda: move_here(kinds), refuse) >= limit, ""
    except Refused as error:
        return True, error.text


def move_here(kinds: Kinds) -> None:
    """For a process that is on the node."""
    resource, request = (
        Attachments([f"netns:/run/netns/c{number}" for number in kinds]),
        Request(tuple(wish(kinds)), "overridden"),
    )
    plan.converge(resource, request, allow_disruption=True)


def half_way(node: Sandbox) -> Iterator[int]:
    """Moves of c1 from veth to netkit, each stopped one change later, on a node whose c2 is a veth."""
    for limit in range(1, 100, STRIDE):
        move(node, {1: VETH, 2: VETH})
        if not stopped(node, {1: L2, 2: VETH}, limit):
            return
        yield limit
    raise AssertionError("it does not come to an end")


def sends_on_each(node: Sandbox) -> None:
    """What a socket sends that is bound to one of the container's interfaces is not taken for somebody else's."""
    for link in json.loads(node.run("ip", "-json", "address", container="c1")):
        if link["ifname"] != "lo" and ips(1)[0] in [one["local"] for one in link["addr_info"]]:
            # the answer may come in by the other interface, and then this socket does not see it
            node.run("ping", "-c1", "-W0.1", "-I", link["ifname"], ips(2)[0], container="c1", check=False)
    assert "spoofed" not in node.call(status.status)["drops"]


def published(node: Sandbox) -> str:
    """The kind of the end that the addresses of c1 lead to; that of a move has an alias that says so."""
    index = node.endpoints()[ips(1)[0]].ifindex
    (link,) = [link for link in json.loads(node.run("ip", "-json", "link")) if link["ifindex"] == index]
    return "netkit" if link["ifalias"].startswith("moving c1 eth0 ") else "veth"


def test_half_moved_attachments_are_served_and_removed(node: Sandbox) -> None:
    seen = set()
    for limit in half_way(node):
        serves(node, 1, 2)
        sends_on_each(node)
        kinds = {item["name"]: item["kind"] for item in node.attachments([], "gathered")["gathered"]}
        unfinished = "moving" in node.run("ip", "link")
        if unfinished:
            assert kinds["c1"] == published(node), limit
            assert node.call(status.status)["problems"]
        seen.add((kinds["c1"], unfinished))
        check = move(node, {2: VETH}, check=True, allow_disruption=True)
        done = move(node, {2: VETH}, allow_disruption=True)
        assert (check["steps"], check["after"]) == (done["steps"], done["after"])
        assert [item["name"] for item in done["after"]] == ["c2"], limit
        assert_settled(node, {2: VETH})
    assert {("veth", True), ("netkit", True)} <= seen


def test_half_moved_attachments_are_left_alone_by_others(node: Sandbox, newer: Path) -> None:
    for limit in half_way(node):
        if not REAL and limit % 3:
            continue
        node.attachments([attachment(3, **L2)])
        node.dataplane(path=str(newer))
        serves(node, 1, 2, 3)
        move(node, {1: L2, 2: VETH}, allow_disruption=True)
        node.dataplane()
        assert_settled(node, {1: L2, 2: VETH})


def test_a_container_that_vanishes_half_way_leaves_nothing(node: Sandbox) -> None:
    for _limit in half_way(node):
        node.end_container("c1")
        move(node, {2: VETH})
        assert_settled(node, {2: VETH})
        node.add_container("c1")


def test_a_move_that_fails_anywhere_is_taken_back(node: Sandbox) -> None:
    move(node, {1: VETH, 2: VETH})
    for limit in range(1, 100, STRIDE):
        tried, error = refused(node, {1: L2, 2: VETH}, limit)
        if not tried:
            break
        if not error:  # it was to make a directory that is there
            move(node, {1: VETH, 2: VETH})
        assert not error or "injected" in error
        assert "Could not be taken back" not in error
        assert_settled(node, {1: VETH, 2: VETH})
        serves(node, 1, 2)
    assert limit > 15


def _ready_late(kinds: Kinds, after: int) -> list[int]:
    """Move, while the new pair says only after so many looks that it takes packets; how many, when the routes move."""
    look, lead = links._link, links.move_routes
    looks, then = 0, []

    def late(payload: bytes) -> links.Link:
        nonlocal looks
        found = look(payload)
        if not found.name.startswith("fp-") or not found.up:
            return found
        looks += 1
        return dataclasses.replace(found, running=looks > after)

    def noted(netlink: rtnl.Netlink, old: int, new: int) -> None:
        then.append(looks)
        lead(netlink, old, new)

    links._link, links.move_routes = late, noted
    move_here(kinds)
    return then


def test_routes_wait_until_the_new_interface_takes_packets(node: Sandbox) -> None:
    move(node, {1: VETH, 2: VETH})
    (looks,) = node.call(_ready_late, {1: L2, 2: VETH}, 7)
    assert looks > 7
    assert_settled(node, {1: L2, 2: VETH})


def test_an_interface_that_never_gets_ready_is_given_up(node: Sandbox) -> None:
    move(node, {1: VETH, 2: VETH})
    with pytest.raises(Refused, match=r"does not get ready\. taken back: move c1 from veth to netkit"):
        node.call(_ready_late, {1: L2, 2: VETH}, 10**9)
    assert_settled(node, {1: VETH, 2: VETH})
    serves(node, 1, 2)


# Refused


@without_netkit
@pytest.mark.parametrize("options", [{}, {"check": True}], ids=["run", "check"])
def test_netkit_where_there_is_none(options: dict[str, Any]) -> None:
    with sandbox(OBJECT, 1) as node:
        if not options:
            node.dataplane()
        for state in ("merged", "rendered"):
            with pytest.raises(Refused, match="auto or veth; the kernel of this node has no netkit") as caught:
                node.attachments([attachment(1, kind="netkit")], state, ahead=Ahead(DATAPLANE), **options)
            assert caught.value.kind == "InvalidConfig"


def test_rendered_is_what_auto_gets(node: Sandbox) -> None:
    rendered = node.attachments([attachment(1)], "rendered")["rendered"]
    assert rendered == node.attachments([attachment(1)])["after"]
    assert rendered[0]["kind"] == "netkit"
