# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong documents are refused with path, value and what is allowed; right ones mean what they mean in Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.policy import documents
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import (
    Block,
    Pods,
    Policy,
    Port,
    Prefix,
    Requirement,
    Rule,
    Selector,
)

EVERYTHING = Rule(None, None)


def document(spec: Any = None, **changes: Any) -> dict[str, Any]:
    base = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p"},
        "spec": spec or {},
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def own(spec: Any) -> dict[str, Any]:
    return document(spec, apiVersion="fastpath.node/v1", kind="FastpathPolicy")


def read(spec: Any) -> Policy:
    (policy,) = documents.policies([document(spec)])
    return policy


def peer(value: Any) -> list[Any]:
    return [document({"ingress": [{"from": [value]}]})]


def block(**value: Any) -> list[Any]:
    return peer({"ipBlock": value})


def port(value: Any) -> list[Any]:
    return [document({"ingress": [{"ports": [value]}]})]


def own_port(value: Any) -> list[Any]:
    return [own({"ingress": [{"ports": [value]}]})]


def expression(**value: Any) -> list[Any]:
    return [document({"podSelector": {"matchExpressions": [value]}})]


SPEC = "policies[p].spec"
FROM = SPEC + ".ingress[0].from[0]"
PORT = SPEC + ".ingress[0].ports[0]"
EXPRESSION = SPEC + ".podSelector.matchExpressions[0]"

# (documents, field, a piece of the shown value, a piece of what is allowed)
WRONG: dict[str, tuple[Any, str, str, str]] = {
    "not a list": ({}, "policies", "{}", "a list"),
    "not a dictionary": (["p"], "policies[0]", "'p'", "a dictionary"),
    "empty document": ([None], "policies[0]", "None", "a dictionary"),
    "unknown kind": ([document(kind="Pod")], "policies[0].kind", "'Pod'", "NetworkPolicy, FastpathPolicy"),
    "no kind": ([document(kind=...)], "policies[0].kind", "None", "NetworkPolicy"),
    "no version": ([document(apiVersion=...)], "policies[0].apiVersion", "None", "networking.k8s.io/v1"),
    "old version": (
        [document(apiVersion="extensions/v1beta1")],
        "policies[0].apiVersion",
        "'extensions/v1beta1'",
        "networking.k8s.io/v1",
    ),
    "version of the other kind": (
        [document(apiVersion="fastpath.node/v1")],
        "policies[0].apiVersion",
        "fastpath",
        "networking.k8s.io/v1",
    ),
    "unknown field": ([document(Spec={})], "policies[0].Spec", "{}", "no such key; there are apiVersion"),
    "no metadata": ([document(metadata=None)], "policies[0].metadata", "None", "a dictionary"),
    "no name": ([document(metadata={})], "policies[0].metadata.name", "None", "a name of a-z"),
    "bad name": ([document(metadata={"name": "P_1"})], "policies[0].metadata.name", "'P_1'", "a name of a-z"),
    "long name": ([document(metadata={"name": "p" * 254})], "policies[0].metadata.name", "ppp", "at most 253"),
    "number as a name": ([document(metadata={"name": 7})], "policies[0].metadata.name", "7", "a name of a-z"),
    "generated name": (
        [document(metadata={"generateName": "p-"})],
        "policies[0].metadata.generateName",
        "'p-'",
        "no such key",
    ),
    "bad namespace": (
        [document(metadata={"name": "p", "namespace": "a.b"})],
        "policies[p].metadata.namespace",
        "'a.b'",
        "at most 63",
    ),
    "same name": ([document(), document()], "policies[1].metadata.name", "'p'", "each name of a NetworkPolicy once"),
    "no spec": ([{**document(), "spec": None}], "policies[p].spec", "None", "a dictionary"),
    "unknown field of the spec": ([document({"ingres": []})], SPEC + ".ingres", "[]", "ingress"),
    "own field in a document of Kubernetes": ([document({"audit": True})], SPEC + ".audit", "True", "no such key"),
    "policyTypes as text": ([document({"policyTypes": "Ingress"})], SPEC + ".policyTypes", "'Ingress'", "a list"),
    "unknown policyType": ([document({"policyTypes": ["ingress"]})], SPEC + ".policyTypes[0]", "'ingress'", "Ingress"),
    "ingress as a dictionary": ([document({"ingress": {}})], SPEC + ".ingress", "{}", "a list"),
    "null as a rule": ([document({"ingress": [None]})], SPEC + ".ingress[0]", "None", "a dictionary"),
    "to in ingress": ([document({"ingress": [{"to": []}]})], SPEC + ".ingress[0].to", "[]", "from, ports"),
    "from in egress": ([document({"egress": [{"from": []}]})], SPEC + ".egress[0].from", "[]", "to, ports"),
    "rule of an unlisted direction": (
        [document({"policyTypes": ["Ingress"], "egress": [{"too": []}]})],
        SPEC + ".egress[0].too",
        "[]",
        "to, ports",
    ),
    "action of Kubernetes": (
        [document({"ingress": [{"action": "deny"}]})],
        SPEC + ".ingress[0].action",
        "deny",
        "no such",
    ),
    "from as a dictionary": ([document({"ingress": [{"from": {}}]})], SPEC + ".ingress[0].from", "{}", "a list"),
    "empty peer": (peer({}), FROM, "{}", "podSelector, namespaceSelector or ipBlock"),
    "peer of nulls": (peer({"podSelector": None}), FROM, "None", "podSelector, namespaceSelector or ipBlock"),
    "unknown field of a peer": (peer({"podSelectors": {}}), FROM + ".podSelectors", "{}", "podSelector"),
    "block beside a selector": (
        peer({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
        FROM + ".ipBlock",
        "10",
        "no",
    ),
    "block as text": (peer({"ipBlock": "10.0.0.0/8"}), FROM + ".ipBlock", "'10.0.0.0/8'", "a dictionary"),
    "block without prefix": (block(), FROM + ".ipBlock.cidr", "None", "a prefix, like"),
    "address for a prefix": (block(cidr="10.0.0.1"), FROM + ".ipBlock.cidr", "'10.0.0.1'", "a prefix, like"),
    "prefix too long": (block(cidr="10.0.0.0/33"), FROM + ".ipBlock.cidr", "/33", "a prefix, like"),
    "prefix of IPv6 too long": (block(cidr="fd00::/129"), FROM + ".ipBlock.cidr", "/129", "a prefix, like"),
    "prefix with a sign": (block(cidr="10.0.0.0/+8"), FROM + ".ipBlock.cidr", "/+8", "a prefix, like"),
    "prefix with a mask": (block(cidr="10.0.0.0/255.0.0.0"), FROM + ".ipBlock.cidr", "255", "a prefix, like"),
    "prefix with zeros": (block(cidr="010.0.0.0/8"), FROM + ".ipBlock.cidr", "010", "a prefix, like"),
    "prefix with a scope": (block(cidr="fe80::1%eth0/64"), FROM + ".ipBlock.cidr", "%", "a prefix, like"),
    "prefix with a zero byte": (block(cidr="10.0.0.0\0/8"), FROM + ".ipBlock.cidr", "x00", "a prefix, like"),
    "prefix of other digits": (block(cidr="10.0.0.0/٨"), FROM + ".ipBlock.cidr", "10", "a prefix, like"),
    "number for a prefix": (block(cidr=10), FROM + ".ipBlock.cidr", "10", "a prefix, like"),
    "mapped prefix": (block(cidr="::ffff:10.0.0.0/104"), FROM + ".ipBlock.cidr", "ffff", "an IPv4 prefix as such"),
    "except as text": (
        block(cidr="10.0.0.0/8", **{"except": "10.1.0.0/16"}),
        FROM + ".ipBlock.except",
        "10.1",
        "a list",
    ),
    "except outside": (
        block(cidr="10.0.0.0/8", **{"except": ["10.1.0.0/16", "11.0.0.0/16"]}),
        FROM + ".ipBlock.except[1]",
        "'11.0.0.0/16'",
        "a smaller prefix inside 10.0.0.0/8",
    ),
    "except of everything": (
        block(cidr="10.0.0.0/8", **{"except": ["10.0.0.0/8"]}),
        FROM + ".ipBlock.except[0]",
        "10.0.0.0/8",
        "a smaller prefix",
    ),
    "except around": (
        block(cidr="10.0.0.0/8", **{"except": ["0.0.0.0/0"]}),
        FROM + ".ipBlock.except[0]",
        "0.0.0.0/0",
        "a smaller prefix",
    ),
    "except of the other family": (
        block(cidr="::/0", **{"except": ["10.0.0.0/8"]}),
        FROM + ".ipBlock.except[0]",
        "10.0.0.0/8",
        "a smaller prefix inside ::/0",
    ),
    "port as a dictionary": ([document({"ingress": [{"ports": {}}]})], SPEC + ".ingress[0].ports", "{}", "a list"),
    "port as a number": (port(80), PORT, "80", "a dictionary"),
    "unknown field of a port": (port({"targetPort": 80}), PORT + ".targetPort", "80", "endPort"),
    "unknown protocol": (port({"protocol": "tcp"}), PORT + ".protocol", "'tcp'", "TCP, UDP, SCTP"),
    "ICMP in a document of Kubernetes": (port({"protocol": "ICMP"}), PORT + ".protocol", "'ICMP'", "TCP, UDP, SCTP"),
    "port zero": (port({"port": 0}), PORT + ".port", "0", "from 1 to 65535"),
    "port too large": (port({"port": 65536}), PORT + ".port", "65536", "from 1 to 65535"),
    "port as a flag": (port({"port": True}), PORT + ".port", "True", "from 1 to 65535"),
    "port with a fraction": (port({"port": 80.0}), PORT + ".port", "80.0", "from 1 to 65535"),
    "number as text": (port({"port": "80"}), PORT + ".port", "'80'", "or a name"),
    "name in capitals": (port({"port": "HTTP"}), PORT + ".port", "'HTTP'", "or a name"),
    "name with two dashes": (port({"port": "a--b"}), PORT + ".port", "'a--b'", "or a name"),
    "long name of a port": (port({"port": "a" * 16}), PORT + ".port", "aaa", "at most 15"),
    "end before the start": (port({"port": 80, "endPort": 79}), PORT + ".endPort", "79", "from 80 to 65535"),
    "end too large": (port({"port": 80, "endPort": 65536}), PORT + ".endPort", "65536", "from 80 to 65535"),
    "end of a name": (port({"port": "http", "endPort": 90}), PORT + ".endPort", "90", "none with a named port"),
    "end without start": (port({"endPort": 90}), PORT + ".endPort", "90", "none without port"),
    "selector as text": ([document({"podSelector": "app"})], SPEC + ".podSelector", "'app'", "a dictionary"),
    "labels without matchLabels": (
        [document({"podSelector": {"app": "a"}})],
        SPEC + ".podSelector.app",
        "'a'",
        "matchLab",
    ),
    "labels as a list": (
        [document({"podSelector": {"matchLabels": ["app"]}})],
        SPEC + ".podSelector.matchLabels",
        "['app']",
        "a dictionary of labels",
    ),
    "number as a label": (
        [document({"podSelector": {"matchLabels": {"app": 1}}})],
        SPEC + ".podSelector.matchLabels.app",
        "1",
        "put it in quotes",
    ),
    "bad label": (
        [document({"podSelector": {"matchLabels": {"app": "a b"}}})],
        SPEC + ".podSelector.matchLabels.app",
        "'a b'",
        "at most 63",
    ),
    "bad key": (
        [document({"podSelector": {"matchLabels": {"a/b/c": ""}}})],
        SPEC + ".podSelector.matchLabels",
        "'a/b/c'",
        "a label's key",
    ),
    "empty prefix of a key": (
        expression(key="/app", operator="Exists"),
        EXPRESSION + ".key",
        "'/app'",
        "a label's key",
    ),
    "expression without key": (expression(operator="Exists"), EXPRESSION + ".key", "None", "a label's key"),
    "expression without operator": (expression(key="app"), EXPRESSION + ".operator", "None", "In, NotIn, Exists"),
    "unknown operator": (expression(key="app", operator="Gt"), EXPRESSION + ".operator", "'Gt'", "In, NotIn, Exists"),
    "In without values": (expression(key="app", operator="In"), EXPRESSION + ".values", "[]", "at least one"),
    "NotIn without values": (
        expression(key="app", operator="NotIn", values=[]),
        EXPRESSION + ".values",
        "[]",
        "at least",
    ),
    "Exists with values": (
        expression(key="app", operator="Exists", values=["a"]),
        EXPRESSION + ".values",
        "'a'",
        "none",
    ),
    "DoesNotExist with values": (
        expression(key="app", operator="DoesNotExist", values=["a"]),
        EXPRESSION + ".values",
        "'a'",
        "none with operator DoesNotExist",
    ),
    "number among values": (
        expression(key="app", operator="In", values=["a", 1]),
        EXPRESSION + ".values[1]",
        "1",
        "put it in quotes",
    ),
    "priority as text": ([own({"priority": "1"})], SPEC + ".priority", "'1'", "from 0 to 65535"),
    "negative priority": ([own({"priority": -1})], SPEC + ".priority", "-1", "from 0 to 65535"),
    "priority as a flag": ([own({"priority": True})], SPEC + ".priority", "True", "from 0 to 65535"),
    "audit as text": ([own({"audit": "yes"})], SPEC + ".audit", "'yes'", "true or false"),
    "log as a number": ([own({"log": 1})], SPEC + ".log", "1", "true or false"),
    "action without priority": (
        [own({"ingress": [{"action": "deny"}]})],
        SPEC + ".ingress[0].action",
        "deny",
        "priority",
    ),
    "priority without action": (
        [own({"priority": 0, "ingress": [{}]})],
        SPEC + ".ingress[0].action",
        "None",
        "allow, deny",
    ),
    "unknown action": (
        [own({"priority": 0, "egress": [{"action": "drop"}]})],
        SPEC + ".egress[0].action",
        "'drop'",
        "one of allow, deny",
    ),
    "type of TCP": (own_port({"type": 8}), PORT + ".type", "8", "none with protocol TCP"),
    "port of ICMP": (own_port({"protocol": "ICMP", "port": 8}), PORT + ".port", "8", "none with protocol ICMP"),
    "type too large": (own_port({"protocol": "ICMPv6", "type": 256}), PORT + ".type", "256", "from 0 to 255"),
    "code too large": (own_port({"protocol": "ICMP", "type": 3, "code": 256}), PORT + ".code", "256", "from 0 to 255"),
    "code without type": (own_port({"protocol": "ICMP", "code": 0}), PORT + ".code", "0", "none without type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_documents_are_refused(name: str) -> None:
    given, field, value, allowed = WRONG[name]
    with pytest.raises(InvalidConfig) as error:
        documents.policies(given)
    assert error.value.field == field
    assert value in error.value.object
    assert allowed in error.value.cause


def test_a_path_names_policy_rule_and_peer() -> None:
    rules = [{"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/99"}}]}]
    given = [document(), document({"ingress": rules}, metadata={"name": "allow-web"})]
    with pytest.raises(InvalidConfig) as error:
        documents.policies(given)
    assert error.value.field == "policies[allow-web].spec.ingress[0].from[1].ipBlock.cidr"
    assert error.value.object.endswith("= '10.0.0.0/99'")


def selector(**labels: str) -> Selector:
    return Selector(tuple(Requirement(key, "In", (value,)) for key, value in sorted(labels.items())))


# What the recipes that everybody copies look like: spec -> rules of ingress, of egress
RECIPES: dict[str, tuple[Any, tuple[Rule, ...] | None, tuple[Rule, ...] | None]] = {
    "nothing but a selector": ({"podSelector": {}}, (), None),
    "empty spec": ({}, (), None),
    "ingress: []": ({"ingress": []}, (), None),
    "ingress: null": ({"ingress": None}, (), None),
    "ingress: [{}]": ({"ingress": [{}]}, (EVERYTHING,), None),
    "from: []": ({"ingress": [{"from": []}]}, (EVERYTHING,), None),
    "from: null, ports: null": ({"ingress": [{"from": None, "ports": None}]}, (EVERYTHING,), None),
    "ports: []": ({"ingress": [{"ports": []}]}, (EVERYTHING,), None),
    "ports: [{}] is all of TCP": ({"ingress": [{"ports": [{}]}]}, (Rule(None, (Port("TCP"),)),), None),
    "ports only": ({"ingress": [{"ports": [{"port": 80}]}]}, (Rule(None, (Port("TCP", 80, 80),)),), None),
    "protocol only": ({"ingress": [{"ports": [{"protocol": "UDP"}]}]}, (Rule(None, (Port("UDP"),)),), None),
    "range": (
        {"ingress": [{"ports": [{"protocol": "SCTP", "port": 1, "endPort": 65535}]}]},
        (Rule(None, (Port("SCTP", 1, 65535),)),),
        None,
    ),
    "range of one": (
        {"ingress": [{"ports": [{"port": 80, "endPort": 80}]}]},
        (Rule(None, (Port("TCP", 80, 80),)),),
        None,
    ),
    "name": ({"ingress": [{"ports": [{"port": "web-1"}]}]}, (Rule(None, (Port("TCP", name="web-1"),)),), None),
    "egress implies both": ({"egress": [{}]}, (), (EVERYTHING,)),
    "egress: [] implies nothing": ({"egress": []}, (), None),
    "policyTypes: []": ({"policyTypes": [], "egress": [{}]}, (), (EVERYTHING,)),
    "only Egress": ({"policyTypes": ["Egress"]}, None, ()),
    "only Egress with rules of both": (
        {"policyTypes": ["Egress"], "ingress": [{}], "egress": [{}]},
        None,
        (EVERYTHING,),
    ),
    "only Ingress with rules of both": ({"policyTypes": ["Ingress"], "egress": [{}]}, (), None),
    "both": ({"policyTypes": ["Ingress", "Egress"]}, (), ()),
    "pods of this namespace": (
        {"ingress": [{"from": [{"podSelector": {}}]}]},
        (Rule((Pods("default", Selector()),), None),),
        None,
    ),
    "pods of every namespace": (
        {"ingress": [{"from": [{"namespaceSelector": {}}]}]},
        (Rule((Pods(Selector(), Selector()),), None),),
        None,
    ),
    "null beside a selector": (
        {"ingress": [{"from": [{"namespaceSelector": {}, "podSelector": None, "ipBlock": None}]}]},
        (Rule((Pods(Selector(), Selector()),), None),),
        None,
    ),
    "some pods of some namespaces": (
        {
            "egress": [
                {"to": [{"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {"matchLabels": {"c": "d"}}}]}
            ]
        },
        (),
        (Rule((Pods(selector(a="b"), selector(c="d")),), None),),
    ),
    "two peers": (
        {"egress": [{"to": [{"namespaceSelector": {}}, {"podSelector": {}}]}]},
        (),
        (Rule((Pods(Selector(), Selector()), Pods("default", Selector())), None),),
    ),
    "block with host bits and excepts": (
        {
            "ingress": [
                {"from": [{"ipBlock": {"cidr": "10.1.2.3/8", "except": ["10.2.0.0/16", "10.2.3.0/24", "10.1.0.0/16"]}}]}
            ]
        },
        (Rule((Block(Prefix.parse("10.0.0.0/8"), (Prefix.parse("10.1.0.0/16"), Prefix.parse("10.2.0.0/16"))),), None),),
        None,
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str) -> None:
    spec, ingress, egress = RECIPES[name]
    assert read(spec).rules == (ingress, egress)


@pytest.mark.parametrize(
    "spec", [{}, {"podSelector": None}, {"podSelector": {"matchLabels": None}}, {"podSelector": {}}]
)
def test_without_labels_a_selector_selects_everything(spec: Any) -> None:
    assert read(spec).pods == Selector()


def test_selectors_have_a_normal_form() -> None:
    one = {
        "matchLabels": {"b": "", "a": "x"},
        "matchExpressions": [{"key": "c", "operator": "In", "values": ["2", "1"]}],
    }
    two = {
        "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["1", "2", "1"]},
            {"key": "a", "operator": "In", "values": ["x"]},
        ],
        "matchLabels": {"b": ""},
    }
    assert read({"podSelector": one}).pods == read({"podSelector": two}).pods
    assert len(read({"podSelector": one}).pods.requirements) == 3


def test_what_a_cluster_prints_is_taken() -> None:
    metadata = {
        "name": "p",
        "namespace": "prod",
        "uid": "0",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"a": "b"},
        "labels": {"c": "d"},
        "managedFields": [],
    }
    (policy,) = documents.policies([document(metadata=metadata, status={})])
    assert policy.key == ("prod", "p", "NetworkPolicy")


def test_policies_come_sorted_and_may_share_a_name_across_namespaces_and_kinds() -> None:
    named = [
        document(metadata={"name": name, "namespace": space}) for name, space in (("b", "x"), ("a", "x"), ("b", "a"))
    ]
    found = documents.policies([*named, own({}), document()])
    assert [policy.key[:2] for policy in found] == [
        *(("a", "b"), ("default", "p"), ("default", "p"), ("x", "a"), ("x", "b")),
    ]


def test_own_fields() -> None:
    ports = [{"protocol": "ICMP"}, {"protocol": "ICMP", "type": 8}, {"protocol": "ICMPv6", "type": 1, "code": 4}]
    spec = {
        "priority": 0,
        "log": True,
        "audit": True,
        "egress": [{"action": "deny", "ports": ports}, {"action": "allow"}],
    }
    (policy,) = documents.policies([own(spec)])
    assert (policy.priority, policy.log, policy.audit) == (0, True, True)
    icmp = (Port("ICMP"), Port("ICMP", 0x800, 0x8FF), Port("ICMPv6", 0x104, 0x104))
    assert policy.rules == ((), (Rule(None, icmp, False), Rule(None, None, True)))


def test_without_own_fields_a_policy_is_one_of_kubernetes() -> None:
    (policy,) = documents.policies([own({"ingress": [{}]})])
    assert (policy.priority, policy.log, policy.audit) == (None, False, False)
    assert policy.rules == ((EVERYTHING,), None)
