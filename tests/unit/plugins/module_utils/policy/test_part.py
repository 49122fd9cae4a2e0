# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables after a change of some rules, made of a part of the documents, are those of a compilation of everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.kernel import encoding
from ansible_collections.fastpath.node.plugins.module_utils.kernel import patch as patching
from ansible_collections.fastpath.node.plugins.module_utils.kernel.sides import Side
from ansible_collections.fastpath.node.plugins.module_utils.policy import classes, documents, part
from ansible_collections.fastpath.node.plugins.module_utils.policy import compile as compiling
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import Scene, compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Endpoint, NamedPort
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.policy.reference import World

Document = Mapping[str, Any]


def whole(listed: Sequence[Document], world: World) -> Side:
    tables = compile_tables(documents.policies(listed), world.endpoints, world.namespaces, world.node)
    return encoding.encode(tables)


def patched(side: Side, old: Sequence[Document], new: Sequence[Document], world: World) -> Side | None:
    scene = Scene.of(world.endpoints, world.namespaces, world.node, compiling.DEFAULT)
    found = part.parts(old, new, scene)
    return patching.patch(side, *found) if found else None


@contextmanager
def small(broad: int, words: int, peers: int) -> Iterator[None]:
    """Groups are broad early, and hashes are short."""
    with (
        patch.object(classes, "BROAD", broad),
        patch.object(compiling, "MAX_NUMBER", words),
        patch.object(compiling, "MAX_CLASS", peers),
    ):
        yield


def in_order(listed: Sequence[Document]) -> list[Document]:
    return sorted(listed, key=lambda item: documents.identity(item, "policies"))


ENDPOINTS = [
    Endpoint("a", ("10.0.0.1", "fd00::1"), labels={"app": "web"}, ports=(NamedPort("http", "TCP", 80),), slot=0),
    Endpoint("b", ("10.0.1.1", "fd00::2"), labels={"app": "db"}, slot=7),
    Endpoint("c", ("10.0.2.1",), labels={"app": "db"}),
]
WORLD = World([], ENDPOINTS, {}, ("10.0.3.3", "fd00::9"))


class Writer:
    """Writes policies of many rules about nested prefixes, and changes them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def documents(self) -> list[Document]:
        return in_order([self.document(number) for number in range(self.random.randint(1, 4))])

    def document(self, number: int) -> Document:
        own = self.random.random() < 0.4
        spec: dict[str, Any] = {"podSelector": self.random.choice([{}, {}, {"matchLabels": {"app": "web"}}])}
        if own:
            spec["log"], spec["audit"] = self.random.random() < 0.5, self.random.random() < 0.3
            if self.random.random() < 0.6:
                spec["priority"] = self.random.randint(0, 1)
        for key, side in (("ingress", "from"), ("egress", "to")):
            spec[key] = [self.rule(side, spec) for _number in range(self.random.randint(0, 6))]
        kind, version = ("FastpathPolicy", "fastpath.node") if own else ("NetworkPolicy", "networking.k8s.io")
        return {"apiVersion": f"{version}/v1", "kind": kind, "metadata": {"name": f"p{number}"}, "spec": spec}

    def rule(self, side: str, spec: Document) -> Document:
        found: dict[str, Any] = {side: [self.peer() for _number in range(self.random.choice([0, *[1] * 8, 2]))]}
        if self.random.random() < 0.8:
            some = [{"port": port} for port in self.random.sample(range(1, 60000), 12)]  # do not fit into a row
            found["ports"] = some if self.random.random() < 0.1 else [self.port()]
        return {**found, "action": self.random.choice(["allow", "deny"])} if "priority" in spec else found

    def peer(self) -> Document:
        if self.random.random() < 0.15:
            return {"podSelector": self.random.choice([{}, {"matchLabels": {"app": "db"}}])}
        return {"ipBlock": self.block()}

    def block(self) -> Document:
        if self.random.random() < 0.2:
            cidr = f"fd00::{self.random.randint(0, 3)}/{self.random.choice((8, 64, 126, 127, 128))}"
            return {"cidr": cidr, **({"except": ["fd00::2/128"]} if cidr.endswith(("/8", "/64")) else {})}
        base = self.random.choice((16, 23, 24, 24, 25, 30, 32, 32))
        cidr = f"10.0.{self.random.randint(0, 3)}.{self.random.choice((0, 1, 3, 128, 200))}/{base}"
        inner = [item for item in ("10.0.1.0/24", "10.0.0.128/25", "10.0.0.0/25") if base < int(item[-2:])]
        excepts = [self.random.choice(inner)] if base == 16 and self.random.random() < 0.5 else []
        return {"cidr": cidr, **({"except": excepts} if excepts else {})}

    def port(self) -> Document:
        if self.random.random() < 0.05:
            return {"port": "http"}
        low = self.random.choice((53, 80, 81, 443))
        return {"port": low, **({"endPort": low + 400} if self.random.random() < 0.2 else {})}

    def changed(self, listed: list[Document]) -> list[Document]:
        """One to three rules are others, more or fewer; seldom something else is."""
        for _number in range(self.random.choice((1, 1, 1, 2, 3))):
            at = self.random.randrange(len(listed))
            spec = listed[at]["spec"]
            key, side = self.random.choice((("ingress", "from"), ("egress", "to")))
            rules = list(spec[key])
            place = self.random.randint(0, len(rules))
            gone = self.random.choice((0, 1)) if place < len(rules) else 0
            come = [self.rule(side, spec)] if not gone or self.random.random() < 0.6 else []
            if gone and come and self.random.random() < 0.5:  # only its ports are others
                come = [{**rules[place], "ports": [self.port()]}]
            rules[place : place + gone] = come
            more: Document = {"podSelector": {}} if self.random.random() < 0.03 else {}
            listed = [*listed[:at], {**listed[at], "spec": {**spec, key: rules, **more}}, *listed[at + 1 :]]
        return listed


@pytest.mark.parametrize("words", [400, 1 << 28])
@pytest.mark.parametrize("broad", [0, 2, 4, 256])
@given(seed=st.integers(0, 1 << 32))
def test_a_part_leads_where_everything_leads(broad: int, words: int, seed: int) -> None:
    writer = Writer(seed)
    with small(broad, words, words if words == 400 else 1 << 32):
        old = writer.documents()
        side = whole(old, WORLD)
        for _round in range(6):
            new = writer.changed(old)
            expected = whole(new, WORLD)
            found = patched(side, old, new, WORLD)
            event("part" if found else "whole")
            assert found in (None, expected)
            old, side = new, expected


def many(count: int, **first: Any) -> list[Document]:
    """A policy with as many rules, each about a network of its own and port."""
    rules = [
        {"from": [{"ipBlock": {"cidr": f"20.{at >> 8}.{at & 255}.0/24"}}], "ports": [{"port": 1 + at}]}
        for at in range(count)
    ]
    rules[0].update(first)
    spec = {"podSelector": {}, "ingress": rules}
    return [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec}]


@pytest.mark.parametrize(
    "first",
    [
        {"ports": [{"port": 9}]},
        {"from": [{"ipBlock": {"cidr": "30.0.0.0/24"}}]},
        {"from": [{"ipBlock": {"cidr": "20.1.1.128/25"}}]},
        {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]},
    ],
)
def test_one_rule_of_many_is_a_part(first: dict[str, Any]) -> None:
    old, new = many(1000), many(1000, **first)
    assert patched(whole(old, WORLD), old, new, WORLD) == whole(new, WORLD)
    assert patched(whole(new, WORLD), new, old, WORLD) == whole(old, WORLD)


@pytest.mark.parametrize("port", [True, 1.0])
def test_what_is_only_equal_to_what_is_fine_is_left_to_the_whole(port: object) -> None:
    old = many(1000)
    new = many(1000, ports=[{"port": port}])
    new[0]["spec"]["ingress"][5] = {**new[0]["spec"]["ingress"][5], "ports": [{"port": 9}]}
    assert old[0]["spec"]["ingress"][0] == new[0]["spec"]["ingress"][0]
    assert patched(whole(old, WORLD), old, new, WORLD) is None
