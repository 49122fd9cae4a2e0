# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies and the flows under them go along to programs whose maps have another form, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run
from ansible_collections.fastpath.node.plugins.module_utils.kernel import flows, policy
from tests.integration.load import end, script
from tests.integration.policy_cases import DB, WEB, Document
from tests.integration.policy_cases import policy as document
from tests.integration.sandbox import Refused, Result, Sandbox, attachment, ips
from tests.integration.variants import FLOW, SUBJECT, variant

FORMS = {"flow": (FLOW,), "subject": (SUBJECT,)}
# db may only answer: what it sends passes because its flow is known.
ANSWERS = document({**DB, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [WEB]}]})
CLOSED = document({**DB})
CONNECTIONS = 20


@pytest.fixture
def serving(node: Sandbox) -> Sandbox:
    node.dataplane()
    node.attachments([attachment(1, labels={"app": "web"}), attachment(2, labels={"app": "db"})])
    policies(node, ANSWERS)
    return node


def policies(node: Sandbox, *documents: Document) -> Result:
    found: Result = node.call(run.run_policies, documents, "overridden", endpoints=[], namespaces={})
    return found


@contextmanager
def used(node: Sandbox) -> Iterator[None]:
    """Open flows from web to db, of which nothing is lost and none is begun in the block."""
    targets = [ips(2)[number % 2] for number in range(CONNECTIONS)]
    with (
        script(node, "c2", "serve", *ips(2)),
        script(node, "c1", "send", *targets) as sender,
    ):
        for address in ips(2):  # whose answer came, so did those of the flows that began before
            node.ping("c1", address)
        before = known(node)
        assert before[0] >= 2 * CONNECTIONS
        yield
        assert known(node) == before
        reports = end(sender)
    assert len(reports) == CONNECTIONS
    for report in reports:
        assert (report["lost"], report["refused"], report["missing"]) == ([], [], 0)


def known(node: Sandbox) -> tuple[int, int]:
    found = node.call(flows.read)
    return found.entries + found.young, found.counts["created"]


def may(node: Sandbox, source: str, target: int) -> bool:
    (answer,) = {node.succeeds("ping", "-c1", "-W1", address, container=source) for address in ips(target)}
    return answer


@pytest.mark.parametrize("form", FORMS)
def test_policies_and_flows_go_along_to_another_form_and_back(serving: Sandbox, form: str) -> None:
    with used(serving):
        serving.dataplane(path=str(variant(form, FORMS[form])))
    assert (may(serving, "c1", 2), may(serving, "c2", 1)) == (True, False)
    with used(serving):
        serving.dataplane({}, "rolled_back", path="")
    assert (may(serving, "c1", 2), may(serving, "c2", 1)) == (True, False)
    policies(serving, CLOSED)
    assert (may(serving, "c1", 2), may(serving, "c2", 1)) == (False, True)


@pytest.mark.parametrize("form", FORMS)
def test_who_writes_another_form_changes_nothing(serving: Sandbox, form: str, newer: Path) -> None:
    """As after a rollback: the library is newer than the programs."""
    serving.dataplane(path=str(variant(form, FORMS[form])))
    before = serving.call(policy.epoch)
    with pytest.raises(Refused, match="no programs run that know policies as this version writes them"):
        policies(serving, CLOSED)
    with pytest.raises(Refused, match="know no policies"):
        serving.attachments([attachment(3)])
    assert serving.call(policy.epoch) == before
    assert (may(serving, "c1", 2), may(serving, "c2", 1)) == (True, False)
    serving.dataplane(path=str(newer))
    policies(serving, CLOSED)
    assert (may(serving, "c1", 2), may(serving, "c2", 1)) == (False, True)
