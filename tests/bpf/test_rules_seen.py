# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of rules: which one dropped a packet, what a `log` rule lets pass, what an `audit` rule would drop."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import drops
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from ansible_collections.fastpath.node.plugins.module_utils.policy.ports import AUDIT, LOG, NUMBER
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Tables
from tests.bpf.frames import FAMILIES, Family
from tests.bpf.packets import TCP
from tests.bpf.policies import (
    ACK,
    CLIENT,
    FAR,
    ONE,
    RST,
    SERVER,
    SYN,
    TWO,
    Policed,
    Talk,
    policy,
    rule,
    tcp,
)
from tests.bpf.test_drops import Watcher

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
PORT, OTHER = {"port": SERVER}, {"port": 80}


@pytest.fixture
def watcher(node: Policed) -> Iterator[Watcher]:
    made = Watcher(node.plane)
    made.until(60)
    made.refill()
    made.events()  # what nobody has read
    yield made
    made.close()


def named(tables: Tables, drop: drops.Drop) -> str:
    """The rule that an event names."""
    return str(tables.verdicts[drop.rule].audit if drop.kind == "audited" else tables.verdicts[drop.rule].rule)


def seen(tables: Tables, watcher: Watcher) -> list[tuple[str, str]]:
    """(kind, rule) of the events since the last call; all of what is dropped is dropped by a policy."""
    found = [drops.decode(event) for event in watcher.events()]
    assert all(drop.reason == "policy" for drop in found)
    return [(drop.kind, named(tables, drop)) for drop in found]


def counts(node: Policed) -> dict[int, int]:
    return {struct.unpack("=I", key)[0]: bpf.add_up(value)[0] for key, value in node.rule_counts.items()}


def count_all(node: Policed, tables: Tables) -> None:
    """As user space does for what is logged or audited."""
    words = {entry.word for row in tables.policy.values() for entry in row}
    words |= {entry.word for subject in tables.subject.values() for entry in subject.row}
    for word in words:
        if word & (LOG | AUDIT):
            node.rule_counts.set(struct.pack("=I", word >> NUMBER), [bytes(8)] * node.rule_counts.cpus)


@both
def test_the_rule_that_drops(node: Policed, watcher: Watcher, family: Family) -> None:
    """Of either end; the policy alone where it is no rule that denies."""
    tables = node.hold(
        policy("c2", ingress=[rule("c1", ports=[OTHER], action="deny"), rule(action="allow")], priority=3),
        policy("c1", egress=[rule(side="to", ports=[OTHER])]),
    )
    assert Talk(node, family, ONE, TWO, server=80).tcp(SYN) == "POLICY"
    assert seen(tables, watcher) == [("dropped", "FastpathPolicy default/own-c2 ingress[0]")]
    assert Talk(node, family, ONE, TWO).tcp(SYN) == "POLICY"
    assert seen(tables, watcher) == [("dropped", "NetworkPolicy default/c1 isolates")]
    assert Talk(node, family, FAR, TWO).tcp(SYN) == ""
    assert seen(tables, watcher) == []


@both
def test_the_rule_that_revokes(node: Policed, watcher: Watcher, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule()]))
    for number in (0, 1):
        Talk(node, family, FAR, TWO, client=CLIENT + number).connect()
    tables = node.hold(policy("c2", ingress=[rule(action="deny")], priority=3))
    assert Talk(node, family, FAR, TWO).tcp(ACK) == "POLICY", "the packet itself is the first to be asked"
    assert node.redecide() == 1
    for number in (0, 1):
        assert Talk(node, family, FAR, TWO, client=CLIENT + number).tcp(ACK, back=True) == "POLICY"
    assert seen(tables, watcher) == [("dropped", "FastpathPolicy default/own-c2 ingress[0]")] * 3


@both
def test_what_is_logged(node: Policed, watcher: Watcher, family: Family) -> None:
    """Once for a flow."""
    tables = node.hold(policy("c2", ingress=[rule("c1", ports=[PORT])], log=True))
    count_all(node, tables)
    talk = Talk(node, family, ONE, TWO)
    assert talk.connect() == ["", "", ""]
    assert seen(tables, watcher) == [("allowed", "FastpathPolicy default/own-c2 ingress[0]")]
    assert talk.tcp(ACK) == ""
    assert seen(tables, watcher) == []
    assert Talk(node, family, FAR, TWO).tcp(SYN) == "POLICY"
    assert seen(tables, watcher) == [("dropped", "FastpathPolicy default/own-c2 isolates")]
    assert sorted(counts(node).values()) == [1, 1]
    frame = node.frame(family, FAR, TWO, tcp(SYN, CLIENT, SERVER), TCP)
    for _ in range(3):
        node.run(FAR, frame)
    assert sorted(counts(node).values()) == [1, 4]


@both
def test_what_would_be_dropped(node: Policed, watcher: Watcher, family: Family) -> None:
    tables = node.hold(policy("c2", ingress=[rule("c1", ports=[PORT])], audit=True))
    count_all(node, tables)
    assert Talk(node, family, FAR, TWO).connect() == ["", "", ""]
    assert seen(tables, watcher) == [("audited", "FastpathPolicy default/own-c2 isolates")]
    assert Talk(node, family, ONE, TWO).connect() == ["", "", ""]
    assert seen(tables, watcher) == []
    assert sorted(counts(node).values()) == [1]


@both
def test_what_both_ends_log(node: Policed, watcher: Watcher, family: Family) -> None:
    tables = node.hold(
        policy("c1", egress=[rule(side="to", ports=[PORT, OTHER])], log=True),
        policy("c2", ingress=[rule(ports=[PORT])], log=True),
    )
    count_all(node, tables)
    assert Talk(node, family, ONE, TWO).tcp(SYN) == ""
    expected = [
        ("allowed", "FastpathPolicy default/own-c1 egress[0]"),
        ("allowed", "FastpathPolicy default/own-c2 ingress[0]"),
    ]
    assert seen(tables, watcher) == expected
    assert Talk(node, family, ONE, TWO, server=80).tcp(SYN) == "POLICY"
    assert seen(tables, watcher) == [("dropped", "FastpathPolicy default/own-c2 isolates")], "it did not pass"
    assert sorted(counts(node).values()) == [0, 1, 1, 2], "nothing was denied at its sender"


@both
def test_nothing_is_counted_that_nobody_wants_counted(node: Policed, watcher: Watcher, family: Family) -> None:
    """Without an entry, and without a watcher, it goes on all the same."""
    node.hold(policy("c2", ingress=[rule("c1", ports=[PORT])], log=True))
    watcher.until(0)
    assert Talk(node, family, ONE, TWO).connect() == ["", "", ""]
    assert (counts(node), watcher.events(), watcher.left_out()) == ({}, [], 0)


@both
def test_drops_without_a_rule(node: Policed, watcher: Watcher, family: Family) -> None:
    node.hold(policy("c2", ingress=[rule()]))
    assert Talk(node, family, FAR, TWO).tcp(RST) == "NO_FLOW"
    (event,) = watcher.events()
    found = drops.decode(event)
    assert (found.kind, found.reason, found.rule) == ("dropped", "no_flow", 0)
