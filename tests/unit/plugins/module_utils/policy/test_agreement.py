# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled and looked up, policies say what they say when read word by word."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.policy import classes, documents, tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import DIRECTIONS, Packet
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import RuleName, Tables
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.policy import worlds
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.policy.reference import (
    Answer,
    Decision,
    World,
    decide,
)


def compiled(world: World) -> Tables:
    return compile_tables(documents.policies(world.documents), world.endpoints, world.namespaces, world.node)


def found(made: Tables, packet: Packet, direction: str) -> Answer:
    """The verdict of the tables, in the reference's words."""
    verdict = tables.verdict(made, tables.lookup(made, packet, DIRECTIONS.index(direction)))
    audit = None if verdict.audit is None else decision(not verdict.allow, verdict.audit, False)
    return Answer(decision(verdict.allow, verdict.rule, verdict.log), audit)


def decision(allow: bool, name: RuleName | None, log: bool) -> Decision:
    if name is None:
        return Decision(allow, log=log)
    return Decision(allow, (name.kind, name.namespace, name.name), -1 if name.rule is None else name.rule, log)


def judged(world: World, packet: Packet, direction: str) -> Answer:
    """The reference's verdict; the tables know one flag for both logs, and no rule where none turns anything around."""
    answer = decide(world, packet, direction)
    base, audit = answer.decision, answer.audit
    quiet = None if audit is None else Decision(audit.allow, audit.policy, audit.rule)
    return Answer(Decision(base.allow, base.policy, base.rule, answer.log), quiet)


def kind(answer: Answer) -> str:
    rule = answer.decision.rule
    why = "no policy" if rule is None else "isolated" if rule < 0 else "rule"
    return f"{'allowed' if answer.decision.allow else 'denied'}, {why}{', audit' if answer.audit else ''}"


@pytest.mark.parametrize("many", [0, 1, 256])
@given(data=st.data())
def test_tables_say_what_documents_say(many: int, data: st.DataObject) -> None:
    """Also where groups count as broad early."""
    world = data.draw(worlds.worlds())
    with patch.object(classes, "BROAD", many):
        made = compiled(world)
    for packet, direction in worlds.packets(world, data.draw(st.integers(0, 1 << 32)), 40):
        expected = judged(world, packet, direction)
        event(kind(expected))
        assert found(made, packet, direction) == expected, (packet, direction)
