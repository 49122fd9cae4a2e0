# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables' shape: how large they get, what a change costs, and what is refused."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.policy import documents
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import DEFAULT, Limits, compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import INGRESS, Endpoint, Packet, parse_address
from ansible_collections.fastpath.node.plugins.module_utils.policy.ports import INLINE, IS_PAGE, PAGE
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import (
    NODE,
    Change,
    Identity,
    Tables,
    change,
    delta,
    identify,
    lookup,
)
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.policy import worlds

MANY = 600
OWN = {"apiVersion": "fastpath.node/v1", "kind": "FastpathPolicy", "metadata": {"name": "own"}}
ENDPOINTS = [
    Endpoint(f"{app}{number}", (f"10.0.{index}.{number}",), labels={"app": app}, slot=10 * index + number)
    for index, app in enumerate(("a", "b"))
    for number in range(3)
]


def policy(rules: Sequence[Any], name: str = "p", app: str = "a", **spec: Any) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": {"app": app}}, "ingress": list(rules), **spec}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def made(*given: Any, limits: Limits = DEFAULT, node: Sequence[str] = ()) -> Tables:
    return compile_tables(documents.policies(given), ENDPOINTS, {}, node, limits)


def prefix(number: int, length: int = 24) -> dict[str, Any]:
    return {"ipBlock": {"cidr": f"20.{number >> 8}.{number & 255}.0/{length}"}}


def rules(count: int = MANY, length: int = 24) -> list[dict[str, Any]]:
    return [{"from": [prefix(number, length)], "ports": [{"port": 80}]} for number in range(count)]


def sizes(tables: Tables) -> dict[str, int]:
    return {name: len(table) for name, table in tables.maps.items()}


def passes(tables: Tables, source: str, destination: str = "10.0.0.0", port: int = 80) -> bool:
    return bool(lookup(tables, Packet(source, destination, 6, port), INGRESS) & 1)


def test_one_rule_with_many_prefixes_is_one_row() -> None:
    tables = made(policy([{"from": [prefix(number) for number in range(MANY)]}]))
    assert sizes(tables) == {"exact": 6, "prefix": MANY, "subject": 3, "policy": 1, "pages": 0}
    assert len(set(tables.prefix.values())) == 1


def test_many_rules_are_as_many_rows() -> None:
    assert sizes(made(policy(rules()))) == {"exact": 6, "prefix": MANY, "subject": 3, "policy": MANY, "pages": 0}


def test_single_addresses_need_no_trie() -> None:
    tables = made(policy(rules(length=32)))
    assert sizes(tables) == {"exact": 6 + MANY, "prefix": 0, "subject": 3, "policy": MANY, "pages": 0}


def test_a_broad_prefix_around_many_narrow_ones_of_others_is_one_row() -> None:
    broad = policy([{"from": [{"ipBlock": {"cidr": "20.0.0.0/8"}}]}], "q", "b")
    tables = made(policy(rules()), broad)
    assert sizes(tables) == {"exact": 6, "prefix": MANY + 1, "subject": 6, "policy": MANY + 1, "pages": 0}
    assert [(tables.subject[slot, INGRESS].narrow, tables.subject[slot, INGRESS].broad) for slot in (0, 10)] == [
        (True, False),
        (False, True),
    ]
    assert passes(tables, "20.0.7.1", "10.0.1.0")
    assert not passes(tables, "20.0.7.1", "10.0.0.0", 81)
    assert not passes(tables, "21.0.0.1", "10.0.1.0")


def test_a_selector_of_very_many_endpoints_is_broad() -> None:
    """Each of the many is a class of its own, because another policy names each."""
    many = [Endpoint(f"x{n}", (f"10.1.{n >> 8}.{n & 255}",), labels={"id": str(n)}) for n in range(MANY)]
    one_by_one = [{"from": [{"podSelector": {"matchLabels": {"id": str(n)}}}]} for n in range(MANY)]
    together = policy([{"from": [{"namespaceSelector": {}}]}], "q", "b")
    tables = compile_tables(documents.policies([policy(one_by_one), together]), [*ENDPOINTS, *many])
    assert len(tables.policy) == MANY + 1
    assert passes(tables, "10.1.1.1", "10.0.1.0")
    assert not passes(tables, "10.9.1.1", "10.0.1.0")


def test_what_lies_in_an_except_makes_no_prefix_broad() -> None:
    around = {"ipBlock": {"cidr": "20.0.0.0/7", "except": ["20.0.0.0/8"]}}
    tables = made(policy(rules()), policy([{"from": [around]}], "q", "b"))
    assert (tables.subject[10, INGRESS].narrow, tables.subject[10, INGRESS].broad) == (True, False)


def test_ports_for_everybody_are_in_no_row_of_others() -> None:
    """Else each of the rows would be too long for its place."""
    wide = {"ports": [{"port": port} for port in range(1000, 1040, 2)]}
    tables = made(policy([wide, *rules()]))
    assert sizes(tables)["policy"] == MANY
    assert {len(row) for row in tables.policy.values()} == {1}
    assert passes(tables, "20.0.7.1", port=1038)
    assert passes(tables, "20.0.7.1", port=80)
    assert not passes(tables, "20.0.7.1", port=1039)


def test_nested_prefixes_carry_what_is_around_them() -> None:
    tables = made(
        policy(
            [
                {"from": [{"ipBlock": {"cidr": "20.0.0.0/8"}}], "ports": [{"port": 1}]},
                {"from": [{"ipBlock": {"cidr": "20.1.0.0/16"}}], "ports": [{"port": 2}]},
                {"from": [{"ipBlock": {"cidr": "20.1.1.0/24"}}], "ports": [{"port": 3}]},
            ]
        )
    )
    allowed = {source: [port for port in (1, 2, 3) if passes(tables, source, port=port)] for source in NESTED}
    assert allowed == NESTED


NESTED = {"20.0.0.1": [1], "20.1.0.1": [1, 2], "20.1.1.1": [1, 2, 3], "20.2.1.1": [1], "21.0.0.0": []}


def test_prefixes_that_change_nothing_are_left_out() -> None:
    wide, narrow = {"ipBlock": {"cidr": "20.0.0.0/8"}}, {"ipBlock": {"cidr": "20.1.0.0/16"}}
    assert sizes(made(policy([{"from": [wide, narrow]}])))["prefix"] == 1


def test_same_policies_same_subject() -> None:
    tables = made(policy(rules(3)), policy([{}], "q", "b"))
    numbers = {slot: subject.number for (slot, _direction), subject in tables.subject.items()}
    assert numbers[0] == numbers[1] == numbers[2] != numbers[10] == numbers[11] == numbers[12]


@pytest.mark.parametrize(("count", "pages"), [(INLINE - 1, 0), (INLINE, 2), (200, 3)])
def test_a_row_holds_a_few_ports_and_pages_more(count: int, pages: int) -> None:
    """A row has room for INLINE entries, of which the last is what holds for all other ports."""
    ports = [{"port": 2 * number + 1} for number in range(count)]
    tables = made(policy([{"ports": ports}]))
    assert len(tables.pages) == pages
    assert {len(page) for page in tables.pages.values()} <= {PAGE}
    assert [port for port in range(600) if passes(tables, "1.1.1.1", port=port)] == [port["port"] for port in ports]
    assert all(len(subject.row) <= INLINE for subject in tables.subject.values())


def test_pages_leave_the_other_ports_to_the_default() -> None:
    many = [{"port": 2 * number + 1} for number in range(2 * INLINE)]
    tables = made(policy([{"ports": [{"port": 500}]}, {"from": [prefix(0)], "ports": many}]))
    assert [entry.word & IS_PAGE for row in tables.policy.values() for entry in row] == [IS_PAGE]
    assert [port for port in (0, 1, 2, 31, 33, 500, 501) if passes(tables, "20.0.0.1", port=port)] == [1, 31, 500]


def test_256_ports_with_one_verdict_need_no_page() -> None:
    ports = [{"port": 512 * number + 256, "endPort": 512 * number + 511} for number in range(2 * INLINE)]
    tables = made(policy([{"ports": ports}]))
    assert len(tables.pages) == 1
    assert passes(tables, "1.1.1.1", port=511)
    assert not passes(tables, "1.1.1.1", port=512)


def touched(old: Tables, new: Tables) -> dict[str, tuple[int, int]]:
    found = {name: (len(item.set), len(item.delete)) for name, item in delta(old, new).items()}
    return {name: counts for name, counts in found.items() if any(counts)}


OTHER = {"ipBlock": {"cidr": "30.0.0.0/24"}}


def test_the_same_again_changes_nothing() -> None:
    given = [policy(rules()), policy([{}], "q")]
    first = made(*given)
    assert touched(first, made(*given)) == {}


def test_another_peer_of_a_rule() -> None:
    old = made(policy(rules()))
    changed = rules()
    changed[MANY // 2] = {"from": [OTHER], "ports": [{"port": 80}]}
    assert touched(old, made(policy(changed))) == {"prefix": (1, 1), "policy": (1, 1)}


def test_another_port_of_a_rule() -> None:
    old = made(policy(rules()))
    changed = rules()
    changed[MANY // 2] = {**changed[MANY // 2], "ports": [{"port": 81}]}
    assert touched(old, made(policy(changed))) == {"policy": (1, 0)}


@pytest.mark.parametrize("place", [0, MANY // 2, MANY])
def test_a_rule_more_and_a_rule_less(place: int) -> None:
    """Numbers are not positions: the rules behind it stay as they are."""
    few, many = rules(), rules()
    many.insert(place, {"from": [OTHER], "ports": [{"port": 81}]})
    old = made(policy(few))
    new = made(policy(many))
    assert touched(old, new) == {"prefix": (1, 0), "policy": (1, 0)}
    assert touched(new, made(policy(few))) == {"prefix": (0, 1), "policy": (0, 1)}


@pytest.mark.parametrize("count", range(1, 10))
def test_rules_before_those_of_nested_prefixes(count: int) -> None:
    """A class of several groups has its number from theirs, in whatever order they come."""
    nested = [
        {"from": [{"ipBlock": {"cidr": f"40.0.0.0/{length}"}}], "ports": [{"port": length}]} for length in (8, 16)
    ]
    old = made(policy(nested))
    assert touched(old, made(policy([*rules(count), *nested]))) == {
        "prefix": (count, 0),
        "policy": (count, 0),
    }


def test_change_of_a_table() -> None:
    assert change({1: "a", 2: "b", 3: "c"}, {1: "a", 2: "x", 4: "d"}) == Change({2: "x", 4: "d"}, frozenset([3]))


@given(st.data())
def test_a_delta_leads_from_any_tables_to_any_others(data: st.DataObject) -> None:
    one, two = (data.draw(worlds.worlds()) for _side in range(2))
    old = compile_tables(documents.policies(one.documents), one.endpoints, one.namespaces)
    new = compile_tables(documents.policies(two.documents), two.endpoints, two.namespaces)
    for name, item in delta(old, new).items():
        kept = {key: value for key, value in old.maps[name].items() if key not in item.delete}
        assert {**kept, **item.set} == new.maps[name]
        assert all(old.maps[name].get(key) != value for key, value in item.set.items())


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        (Limits(exact=15), "at most 15, this is 1 too many"),
        (Limits(prefix=5), "at most 5, this is 5 too many"),
        (Limits(policy=12), "at most 12, this is 8 too many"),
        (Limits(rules=7), "at most 7, this is 13 too many"),
        (Limits(pages=2), "at most 2, this is 1 too many"),
    ],
)
def test_a_limit_is_named_with_what_is_too_much(limits: Limits, allowed: str) -> None:
    ports = [{"ports": [{"port": 2 * number + 1} for number in range(200)]}]
    given = policy([*rules(10), *rules(10, 32)] if limits.pages > 2 else ports)
    with pytest.raises(InvalidConfig) as error:
        made(given, limits=limits)
    assert error.value.field == "policies"
    assert allowed in error.value.cause
    ((name, _limit),) = ((key, value) for key, value in vars(limits).items() if value != getattr(DEFAULT, key))
    assert name in error.value.object


@pytest.mark.parametrize(("field", "limit"), [("log", 11), ("audit", 10)])
def test_rules_that_are_logged_or_audited_have_a_limit(field: str, limit: int) -> None:
    """Each counts as one; a policy that is logged also denies what no rule allows, an audited one leaves that."""
    more: dict[str, Any] = {field: True}
    given = [policy([]), {**policy(rules(10), **more), **OWN}]
    made(*given, limits=Limits(logged=limit))
    with pytest.raises(InvalidConfig, match=f"at most {limit - 1}, this is 1 too many") as error:
        made(*given, limits=Limits(logged=limit - 1))
    assert error.value.field == "policies"
    assert f"{limit} entries of logged" in error.value.object


def test_exactly_the_limit_is_allowed() -> None:
    made(policy(rules(10)), limits=Limits(exact=6, prefix=10, policy=10, rules=10, pages=1))


@pytest.mark.parametrize(
    ("endpoint", "field", "allowed"),
    [
        (Endpoint("x", ("10.0.0.1",)), "endpoints[x].addresses", "an address that a1 has not"),
        (Endpoint("x", ("10.0.0.300",)), "endpoints[x].addresses", "an IPv4 or IPv6 address"),
        (Endpoint("x", ("::ffff:10.9.0.1",)), "endpoints[x].addresses", "an IPv4 address as such"),
        (Endpoint("x", ("10.9.0.1",), slot=11), "endpoints[x].slot", "a slot of its own below 4096"),
        (Endpoint("x", ("10.9.0.1",), slot=4096), "endpoints[x].slot", "a slot of its own below 4096"),
    ],
)
def test_endpoints_must_not_contradict_each_other(endpoint: Endpoint, field: str, allowed: str) -> None:
    with pytest.raises(InvalidConfig) as error:
        compile_tables([], [*ENDPOINTS, endpoint])
    assert (error.value.field, allowed in error.value.cause) == (field, True)


def test_the_node_has_no_address_of_an_endpoint() -> None:
    with pytest.raises(InvalidConfig) as error:
        made(node=["10.0.0.1"])
    assert error.value.field == "node"


def test_the_nodes_addresses_are_a_class_of_their_own() -> None:
    tables = made(policy([{"from": [{"ipBlock": {"cidr": "20.0.0.0/8"}}]}]), node=["20.0.0.1"])
    assert identify(tables, parse_address("20.0.0.1")).peers == NODE
    assert identify(tables, parse_address("20.0.0.2")).peers > NODE
    assert identify(tables, parse_address("21.0.0.2")) == Identity(0, 0)


@pytest.mark.parametrize("running", [True, False])
def test_the_search_for_cycles_goes_on_as_before(running: bool) -> None:
    try:
        if not running:
            gc.disable()
        with pytest.raises(InvalidConfig):
            made(policy(rules(2)), limits=Limits(policy=1))
        assert gc.isenabled() == running
    finally:
        gc.enable()
