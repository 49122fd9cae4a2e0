# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies by example: what is kept of what users write, what is said and refused, what a step is called."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel.policy import Installed
from ansible_collections.fastpath.node.plugins.module_utils.plan import predict
from ansible_collections.fastpath.node.plugins.module_utils.policy import documents, members
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Tables
from ansible_collections.fastpath.node.plugins.module_utils.resources import policies_switch as switch
from ansible_collections.fastpath.node.plugins.module_utils.resources import policies_wish as wish
from ansible_collections.fastpath.node.plugins.module_utils.resources.policies_state import Record, Request, State

from .policies_life import (
    ATTACHMENTS,
    BARE,
    DB,
    ENDPOINTS,
    OTHER,
    PROD,
    SERVING,
    UNTOUCHED,
    WEB,
    document,
    half_cleared,
    half_switched,
    installed,
    readdressed,
    rebooted,
    tampered,
)

LIST = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": [WEB, None, DB]}


def kept(config: Any, state: str = "overridden", before: Any = None, **more: Any) -> Any:
    return wish.wish(before, Request(config, state, **more))


@pytest.mark.parametrize(
    "config",
    [[WEB, DB], [DB, WEB], [LIST], [[WEB], [DB, None]], [None, {**LIST, "items": [{**LIST, "items": [DB]}]}, WEB]],
)
def test_documents_come_in_many_forms(config: Any) -> None:
    assert kept(config) == {"policies": [DB, WEB], "endpoints": [], "namespaces": {}}


def test_a_policy_is_one_piece() -> None:
    before = kept([WEB, DB])
    other = document("web", "other")
    assert kept([other, PROD], "merged", before)["policies"] == [DB, other, PROD]
    assert kept([other], "replaced", before)["policies"] == [DB, other]
    assert kept([{key: WEB[key] for key in ("apiVersion", "kind", "metadata")}], "deleted", before)["policies"] == [DB]
    assert kept([PROD], "deleted", before) == before
    assert kept([], "deleted", before) is None
    assert kept([], "overridden", before) is None


def test_what_the_node_knows_of_others_stays_until_it_is_said_anew() -> None:
    one, two = ({"name": name, "addresses": []} for name in "ab")
    before = kept([WEB], endpoints=[two], namespaces={"prod": {"a": "b"}})
    assert kept([], "merged", before) == before
    assert kept([], "merged", before, endpoints=[one])["endpoints"] == [one, two]
    assert kept([WEB], "replaced", before, endpoints=[one])["endpoints"] == [one]
    assert kept([], "merged", before, namespaces={"dev": {}})["namespaces"] == {"dev": {}, "prod": {"a": "b"}}
    assert kept([WEB], "overridden", before, namespaces={})["namespaces"] == {}


@pytest.mark.parametrize(
    ("config", "more", "said"),
    [
        ([7], {}, "config[0] = 7"),
        ([WEB, {"kind": "Pod"}], {}, "config[1].kind = 'Pod'"),
        ([{**WEB, "apiVersion": "v1"}], {}, "config[0].apiVersion = 'v1'"),
        ([{**LIST, "items": [WEB, {**WEB, "metadata": {}}]}], {}, "config[0].items[1].metadata.name = None"),
        ([{**LIST, "apiVersion": "v2"}], {}, "config[0].apiVersion = 'v2'"),
        ([WEB, [DB, WEB]], {}, "config[1][1].metadata.name = 'web'"),
        ([{**WEB, "spec": {"podSelector": {"matchLabels": {"a": None}}}}], {}, "policies[web].spec.podSelector.match"),
        ([{**WEB, "spec": {"ingres": []}}], {}, "policies[web].spec.ingres = []"),
        ([WEB], {"endpoints": [{"name": "a"}]}, "endpoints[a].addresses = None"),
        ([WEB], {"endpoints": [OTHER, OTHER]}, "endpoints[1].name = 'server-2/web-1'"),
        ([WEB], {"endpoints": [{"name": n, "addresses": ["10.0.0.1"]} for n in "ab"]}, "endpoints[b].addresses"),
        ([WEB], {"endpoints": [{"name": "a", "addresses": ["192.0.2.2"]}]}, "node = '192.0.2.2'"),
        ([WEB], {"namespaces": {"Prod": {}}}, "namespaces = 'Prod'"),
        ([WEB], {"namespaces": {"prod": {"a": 1}}}, "namespaces.prod.a = 1"),
    ],
)
def test_refused_before_anything_is_changed(config: Any, more: Any, said: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(f"cannot accept {said}")):
        wish.plan(SERVING, Request(config, "overridden", **more))


def actions(state: State, request: Request) -> list[tuple[str, str]]:
    return [(step.action, step.reason) for step in wish.plan(state, request)]


RECORD = ("record the policies in /etc/fastpath", "the node restores them at boot")


def test_words() -> None:
    everything = "2 policies more, 2 rules more"
    assert actions(BARE, Request((WEB, DB), "merged")) == [
        RECORD,
        (f"switch to policies epoch 1: {everything}", "none are in force"),
    ]
    changed = document("web", "web", 80, 8080, 8081)
    assert actions(SERVING, Request((changed, PROD), "overridden")) == [
        RECORD,
        (
            "switch to policies epoch 2: 1 policy more, 1 policy fewer, 1 policy changed, 2 rules more, 1 rule fewer",
            "the documents differ",
        ),
    ]
    assert actions(SERVING, Request((), "deleted")) == [
        ("take the policies away: 2 policies fewer, 2 rules fewer", "none is wanted"),
        ("forget the policies in /etc/fastpath", "none is wanted"),
    ]


@pytest.mark.parametrize(
    ("happened", "words"),
    [
        (half_cleared, ("switch to policies epoch 1: 2 policies more, 2 rules more", "none are in force")),
        (rebooted, ("switch to policies epoch 1: 2 policies more, 2 rules more", "none are in force")),
        (
            tampered,
            ("switch to policies epoch 2: the same rules", "the tables in the kernel are not those that were written"),
        ),
        (
            half_switched,
            ("finish the switch to policies epoch 1", "a run was killed before each flow was decided again"),
        ),
        (
            readdressed,
            (
                "switch to policies epoch 2: the same rules",
                "the containers or the node's addresses are others than before",
            ),
        ),
    ],
)
def test_what_has_happened_is_mended_and_said(happened: Any, words: tuple[str, str]) -> None:
    assert actions(happened(SERVING), Request((), "merged")) == [words]


def test_second_run_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "compile_tables", None)
    assert wish.plan(SERVING, Request((DB, WEB), "overridden", [OTHER])) == ()


def test_what_is_compiled_knows_the_node_and_believes_it() -> None:
    liar = {"name": "liar", "addresses": ["10.128.3.8", "10.128.9.9"], "labels": {"app": "web"}}
    (_record, step) = wish.plan(BARE, Request((WEB,), "overridden", [OTHER, liar]))
    assert isinstance(step.do, switch.Switch)
    tables = step.do.tables
    assert isinstance(tables, Tables)
    assert {slot for slot, _direction in tables.subject} == {0}
    assert set(tables.slots.values()) == {0, 1}
    same = compile_tables(
        documents.policies([WEB]),
        [*switch.attached(ENDPOINTS, ATTACHMENTS), members.elsewhere({**OTHER}, ""), _only(liar, "10.128.9.9")],
        {},
        BARE.policing.node,
    )
    assert tables == same


def _only(item: dict[str, Any], address: str) -> Any:
    return members.elsewhere({**item, "addresses": [address]}, "")


@pytest.mark.parametrize(
    "change",
    [
        {"document": kept([WEB])},
        {"document": {**kept([WEB, DB]), "namespaces": {"default": {}}}},
        {"here": switch.attached({**ENDPOINTS, "10.128.3.8": ("db-1", 2)}, ATTACHMENTS)},
        {"here": switch.attached({**ENDPOINTS, "10.128.3.9": ("db-1", 1)}, ATTACHMENTS)},
        {"here": switch.attached(ENDPOINTS, [{"name": "web-1", "labels": {"app": "x"}}, ATTACHMENTS[1]])},
        {"here": switch.attached(ENDPOINTS, [{**ATTACHMENTS[0], "namespace": "prod"}, ATTACHMENTS[1]])},
        {"here": switch.attached(ENDPOINTS, [{**ATTACHMENTS[0], "ports": [{"name": "x", "port": 1}]}, ATTACHMENTS[1]])},
        {"node": ("192.0.2.3",)},
    ],
)
def test_all_that_is_compiled_is_in_the_digest(change: dict[str, Any]) -> None:
    source = switch.Source(kept([WEB, DB]), switch.attached(ENDPOINTS, ATTACHMENTS), ("192.0.2.2",))
    assert replace(source, **change).digest() != source.digest()


def test_digest_is_the_same_after_the_document_was_read_back() -> None:
    source = wish.source(SERVING, SERVING.policing.document or {})
    back = replace(source, document=json.loads(json.dumps(source.document)), here=source.here[::-1])
    assert back.digest() == source.digest() == installed(SERVING).input


def test_another_compiler_compiles_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "_compiler", lambda: "another")
    assert [type(step.do) for step in wish.plan(SERVING, Request((), "merged"))] == [switch.Switch]


# What cannot be known is not guessed


def test_container_of_which_nothing_is_said() -> None:
    with pytest.raises(FastpathError, match=r"db-1 is attached, but not in /etc/fastpath/attachments\.json"):
        wish.plan(replace(BARE, attachments=ATTACHMENTS[:1]), Request((WEB,), "merged"))


def test_broken_list_of_attachments() -> None:
    with pytest.raises(FastpathError, match=r"/etc/fastpath/attachments\.json with the labels is broken"):
        wish.plan(replace(BARE, attachments=None), Request((WEB,), "merged"))
    # taking away needs to know nobody
    assert len(wish.plan(replace(SERVING, attachments=None), Request((), "deleted"))) == 2


def test_broken_document_is_written_anew_only_as_a_whole() -> None:
    broken = replace(SERVING, policing=replace(SERVING.policing, document=None, unreadable="it is empty"))
    for state in ("merged", "replaced", "deleted"):
        with pytest.raises(FastpathError, match="it is empty"):
            wish.plan(broken, Request((WEB,), state))
    assert isinstance(wish.plan(broken, Request((WEB,), "overridden"))[0].do, Record)
    assert wish.public(predict(broken, wish.plan(broken, Request((), "deleted")))) == []


def test_programs_that_know_no_policies() -> None:
    old = replace(UNTOUCHED, policing=switch.Policing())
    with pytest.raises(FastpathError, match="no programs run that know policies"):
        wish.plan(old, Request((WEB,), "merged"))
    assert wish.plan(old, Request((WEB,), "merged", assume=True))
    assert wish.plan(old, Request((), "overridden")) == ()


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"policies": []},
        {"policies": [7], "endpoints": [], "namespaces": {}},
        {"policies": [{**WEB, "spec": 7}], "endpoints": [], "namespaces": {}},
        {"policies": [{**WEB, "spec": {"ingress": 7}}], "endpoints": [], "namespaces": {}},
        {"policies": [WEB], "endpoints": [{}], "namespaces": {}},
        {"policies": [WEB], "endpoints": [], "namespaces": []},
        {"policies": [WEB], "endpoints": [], "namespaces": {}, "more": 1},
    ],
)
def test_document_that_is_not_ours(broken: Any) -> None:
    with pytest.raises(InvalidConfig):
        wish.check_document(broken)


def test_document_as_we_write_it() -> None:
    wish.check_document(kept([WEB, DB], endpoints=[OTHER], namespaces={"prod": {}}))


# Undo


def test_what_held_before_is_gone_back_to() -> None:
    (_record, step) = wish.plan(SERVING, Request((PROD,), "merged"))
    assert step.undo == (switch.GoBack(installed(SERVING)),)
    back = step.undo[0].effect(step.do.effect(SERVING))
    assert back.policing.installed == replace(installed(SERVING), epoch=3)
    (_record, first) = wish.plan(BARE, Request((PROD,), "merged"))
    assert first.undo == (switch.Clear(),)


def test_nobody_goes_back_to_what_was_broken() -> None:
    (_record, step) = wish.plan(tampered(SERVING), Request((PROD,), "merged"))
    assert step.undo == ()


def test_taken_away_is_put_back() -> None:
    (step, _forget) = wish.plan(SERVING, Request((), "deleted"))
    assert step.undo[0].effect(step.do.effect(SERVING)).policing.installed == Installed(
        1, settled=True, input=installed(SERVING).input, intact=True
    )
