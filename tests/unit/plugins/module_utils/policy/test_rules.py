# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule of the NetworkPolicy API and of our own fields: who passes, who does not, and which rule says so."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.policy import classes, documents
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import PROTOCOLS, Endpoint, NamedPort, Packet
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Tables, Verdict, explain

PORTS = (NamedPort("http", "TCP", 8080), NamedPort("dns", "UDP", 5353))
ENDPOINTS = [
    Endpoint("web", ("10.0.0.1", "fd00::1"), "default", {"app": "web"}, PORTS, 0),
    Endpoint("db", ("10.0.0.2",), "default", {"app": "db", "tier": "back"}, (NamedPort("http", "TCP", 8081),), 1),
    Endpoint("far", ("10.0.1.1",), "default", {"app": "web"}, (NamedPort("http", "TCP", 9090),)),
    Endpoint("prod", ("10.0.1.2",), "prod", {"app": "web"}),
    Endpoint("dns", ("10.0.1.3",), "kube-system", {"k8s-app": "kube-dns"}, (NamedPort("dns", "UDP", 53),)),
]
NAMESPACES = {"prod": {"env": "prod"}}
ADDRESS = {item.name: item.addresses[0] for item in ENDPOINTS}
ADDRESS.update(
    {"web6": "fd00::1", "node": "10.0.0.254", "out": "192.0.2.1", "other": "198.51.100.1", "out6": "2001:db8::1"}
)


def policy(spec: Any, name: str = "p", own: bool = False) -> dict[str, Any]:
    version, kind = ("fastpath.node/v1", "FastpathPolicy") if own else ("networking.k8s.io/v1", "NetworkPolicy")
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def tables(*given: dict[str, Any]) -> Tables:
    return compile_tables(documents.policies(given), ENDPOINTS, NAMESPACES, [ADDRESS["node"]])


def packet(text: str) -> Packet:
    """From `source > destination port/protocol`; a number is a protocol without ports, type.code belongs to ICMP."""
    source, destination, what = text.replace(">", " ").split()
    port, _slash, protocol = what.rpartition("/")
    kind, dot, code = port.partition(".")
    number = int(kind or 0) * 256 + int(code) if dot else int(port or 0)
    found = PROTOCOLS.get(protocol) or int(protocol)
    return Packet(ADDRESS.get(source, source), ADDRESS.get(destination, destination), found, number)


def passes(made: Tables, text: str) -> bool:
    found = explain(made, packet(text))
    assert found
    return all(verdict.allow for verdict in found.values())


WEB = {"matchLabels": {"app": "web"}}
DENY_ALL = {"policyTypes": ["Ingress", "Egress"]}


def ingress(*rules: Any, selector: Any = None) -> dict[str, Any]:
    return policy({"podSelector": WEB if selector is None else selector, "ingress": list(rules)})


def egress(*rules: Any, selector: Any = None) -> dict[str, Any]:
    return policy(
        {"podSelector": WEB if selector is None else selector, "policyTypes": ["Egress"], "egress": list(rules)}
    )


def source(*peers: Any) -> dict[str, Any]:
    return ingress({"from": list(peers)})


def block(cidr: str, *excepts: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, "except": list(excepts)}}


def where(*expressions: tuple[Any, ...]) -> dict[str, Any]:
    made = [{"key": key, "operator": operator, "values": list(values)} for key, operator, *values in expressions]
    return source({"podSelector": {"matchExpressions": made}})


# policies -> packets that pass, packets that do not
RULES: dict[str, tuple[list[dict[str, Any]], list[str], list[str]]] = {
    "no policy": ([], ["out > web 80/TCP", "web > out 0/47", "out6 > web6 1/UDP"], []),
    "a policy of another namespace selects nobody here": (
        [{**policy(DENY_ALL), "metadata": {"name": "p", "namespace": "prod"}}],
        ["out > web 80/TCP"],
        [],
    ),
    "isolated by being selected": (
        [ingress()],
        ["out > db 80/TCP", "web > out 80/TCP"],
        ["out > web 80/TCP", "db > web 1/UDP", "out6 > web6 80/TCP", "out > web 8.0/ICMP", "out > web 0/47"],
    ),
    "isolated in the other direction": ([egress()], ["out > web 80/TCP"], ["web > out 80/TCP", "web > db 80/TCP"]),
    "an empty rule allows everything": (
        [ingress({})],
        ["out > web 80/TCP", "db > web 0/47", "out6 > web6 8.0/ICMPv6"],
        [],
    ),
    "policies add up": ([ingress(), policy({"ingress": [{}]}, "q")], ["out > web 80/TCP"], []),
    "both sides must allow": (
        [policy({"ingress": [{}]}), policy({"podSelector": WEB, "policyTypes": ["Egress"]}, "q")],
        ["db > web 80/TCP"],
        ["web > db 80/TCP"],
    ),
    "the own node always": ([policy(DENY_ALL)], ["node > web 80/TCP", "web > node 22/TCP"], ["out > web 80/TCP"]),
    "oneself always": ([policy(DENY_ALL)], ["web > web 80/TCP", "web6 > web6 80/TCP"], ["web > db 80/TCP"]),
    "pods by label": (
        [source({"podSelector": {"matchLabels": {"app": "db"}}})],
        ["db > web 80/TCP"],
        ["far > web 80/TCP"],
    ),
    "pods of the own namespace only": (
        [source({"podSelector": WEB})],
        ["far > web 80/TCP"],
        ["prod > web 80/TCP", "out > web 80/TCP"],
    ),
    "all pods of the own namespace": (
        [source({"podSelector": {}})],
        ["far > web 80/TCP", "db > web 80/TCP"],
        ["prod > web 80/TCP", "out > web 80/TCP"],
    ),
    "all pods of all namespaces": (
        [source({"namespaceSelector": {}})],
        ["prod > web 80/TCP", "db > web 80/TCP", "dns > web 1/UDP"],
        ["out > web 80/TCP", "out6 > web6 80/TCP"],
    ),
    "a namespace by label": (
        [source({"namespaceSelector": {"matchLabels": {"env": "prod"}}})],
        ["prod > web 80/TCP"],
        ["db > web 80/TCP", "dns > web 80/TCP"],
    ),
    "a namespace by its name": (
        [source({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}})],
        ["dns > web 80/TCP"],
        ["prod > web 80/TCP", "db > web 80/TCP"],
    ),
    "pods of a namespace": (
        [source({"namespaceSelector": {"matchLabels": {"env": "prod"}}, "podSelector": WEB})],
        ["prod > web 80/TCP"],
        ["far > web 80/TCP", "dns > web 80/TCP"],
    ),
    "either pods or a namespace": (
        [source({"namespaceSelector": {"matchLabels": {"env": "prod"}}}, {"podSelector": WEB})],
        ["prod > web 80/TCP", "far > web 80/TCP"],
        ["db > web 80/TCP"],
    ),
    "In": ([where(("app", "In", "db", "x"))], ["db > web 80/TCP"], ["far > web 80/TCP"]),
    "NotIn": ([where(("app", "NotIn", "web"))], ["db > web 80/TCP"], ["far > web 80/TCP"]),
    "NotIn holds without the label": ([where(("tier", "NotIn", "back"))], ["far > web 80/TCP"], ["db > web 80/TCP"]),
    "Exists": ([where(("tier", "Exists"))], ["db > web 80/TCP"], ["far > web 80/TCP"]),
    "DoesNotExist": ([where(("tier", "DoesNotExist"))], ["far > web 80/TCP"], ["db > web 80/TCP"]),
    "all expressions": (
        [where(("app", "Exists"), ("tier", "DoesNotExist"))],
        ["far > web 80/TCP"],
        ["db > web 80/TCP"],
    ),
    "a prefix": ([source(block("192.0.2.0/24"))], ["out > web 80/TCP"], ["other > web 80/TCP", "out6 > web6 80/TCP"]),
    "a prefix of IPv6": ([source(block("2001:db8::/32"))], ["out6 > web6 80/TCP"], ["2001:db9:: > web6 80/TCP"]),
    "all of IPv6 is not IPv4": ([source(block("::/0"))], ["out6 > web6 80/TCP"], ["out > web 80/TCP"]),
    "all of IPv4 is not IPv6": ([source(block("0.0.0.0/0"))], ["out > web 80/TCP"], ["out6 > web6 80/TCP"]),
    "all of both": (
        [
            ingress(
                {"from": [block("0.0.0.0/0")], "ports": [{"port": 80}]},
                {"from": [block("::/0")], "ports": [{"port": 443}]},
            )
        ],
        ["out > web 80/TCP", "out6 > web6 443/TCP"],
        ["out > web 443/TCP", "out6 > web6 80/TCP"],
    ),
    "first and last of a prefix, known to another rule": (
        [
            ingress(
                {"from": [block("192.0.2.0/24")], "ports": [{"port": 80}]},
                {"from": [block("192.0.2.0/32"), block("192.0.2.255/32")], "ports": [{"port": 443}]},
            )
        ],
        ["192.0.2.0 > web 80/TCP", "192.0.2.255 > web 80/TCP", "192.0.2.255 > web 443/TCP"],
        ["192.0.1.255 > web 80/TCP", "192.0.3.0 > web 80/TCP", "192.0.2.254 > web 443/TCP"],
    ),
    "what maps IPv4 is not IPv4": (
        [source(block("::fffe:0:0/95"))],
        ["::fffe:c000:201 > web6 1/TCP"],
        ["out > web 1/TCP"],
    ),
    "a prefix without a part": (
        [source(block("192.0.2.0/24", "192.0.2.0/28"))],
        ["192.0.2.16 > web 80/TCP"],
        ["out > web 80/TCP", "192.0.2.15 > web 80/TCP", "other > web 80/TCP"],
    ),
    "a part that another rule gives back": (
        [source(block("192.0.2.0/24", "192.0.2.0/28"), block("192.0.2.1/32"))],
        ["out > web 80/TCP", "192.0.2.16 > web 80/TCP"],
        ["192.0.2.2 > web 80/TCP"],
    ),
    "a part within a part": (
        [source(block("192.0.2.0/24", "192.0.2.0/28", "192.0.2.0/30"))],
        ["192.0.2.16 > web 80/TCP"],
        ["out > web 80/TCP", "192.0.2.4 > web 80/TCP"],
    ),
    "a prefix selects endpoints too": ([source(block("10.0.0.0/24"))], ["db > web 80/TCP"], ["far > web 80/TCP"]),
    "egress to a prefix": (
        [egress({"to": [block("192.0.2.0/24")]})],
        ["web > out 80/TCP", "web > out 0/47"],
        ["web > other 80/TCP"],
    ),
    "a port": (
        [ingress({"ports": [{"port": 80}]})],
        ["out > web 80/TCP", "db > web 80/TCP"],
        ["out > web 81/TCP", "out > web 80/UDP", "out > web 79/TCP", "out > web 0/47", "out > web 8.0/ICMP"],
    ),
    "a protocol": (
        [ingress({"ports": [{"protocol": "SCTP"}]})],
        ["out > web 1/SCTP", "out > web 65535/SCTP"],
        ["out > web 1/TCP", "out > web 1/UDP", "out > web 0/47"],
    ),
    "a range": (
        [ingress({"ports": [{"port": 80, "endPort": 90}]})],
        ["out > web 80/TCP", "out > web 90/TCP"],
        ["out > web 79/TCP", "out > web 91/TCP", "out > web 85/UDP"],
    ),
    "peers and ports": (
        [ingress({"from": [block("192.0.2.0/24")], "ports": [{"port": 80}]})],
        ["out > web 80/TCP"],
        ["out > web 81/TCP", "other > web 80/TCP"],
    ),
    "ports for everybody and more for some": (
        [ingress({"ports": [{"port": 80}]}, {"from": [block("192.0.2.0/24")], "ports": [{"port": 443}]})],
        ["out > web 80/TCP", "out > web 443/TCP", "other > web 80/TCP"],
        ["other > web 443/TCP", "out > web 22/TCP"],
    ),
    "a named port is the container's": (
        [policy({"ingress": [{"ports": [{"port": "http"}]}]})],
        ["out > web 8080/TCP", "out > db 8081/TCP"],
        ["out > web 8081/TCP", "out > db 8080/TCP", "out > web 8080/UDP"],
    ),
    "a named port of another protocol": ([ingress({"ports": [{"port": "dns"}]})], [], ["out > web 5353/TCP"]),
    "an unknown name": ([ingress({"ports": [{"port": "ftp"}]})], [], ["out > web 21/TCP", "out > web 8080/TCP"]),
    "a named port of the destination": (
        [egress({"ports": [{"port": "http"}, {"port": 443}]})],
        ["web > far 9090/TCP", "web > db 8081/TCP", "web > out 443/TCP", "web > far 443/TCP"],
        ["web > far 8081/TCP", "web > out 9090/TCP", "web > prod 9090/TCP"],
    ),
    "a named port of some destinations": (
        [egress({"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": "http"}]})],
        ["web > db 8081/TCP"],
        ["web > far 9090/TCP", "web > db 8080/TCP"],
    ),
    "a named port in a prefix": (
        [egress({"to": [block("10.0.1.0/24")], "ports": [{"port": "http"}]})],
        ["web > far 9090/TCP"],
        ["web > db 8081/TCP", "web > prod 9090/TCP"],
    ),
    "names to the world": (
        [
            egress(
                {
                    "to": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                        }
                    ],
                    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}],
                }
            )
        ],
        ["web > dns 53/UDP", "web > dns 53/TCP"],
        ["web > dns 54/UDP", "web > out 53/UDP", "web > db 53/UDP"],
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(name: str) -> None:
    given, allowed, denied = RULES[name]
    made = tables(*given)
    assert {text: passes(made, text) for text in (*allowed, *denied)} == {
        **dict.fromkeys(allowed, True),
        **dict.fromkeys(denied, False),
    }


def own(spec: Any, name: str = "own") -> dict[str, Any]:
    return policy({"podSelector": WEB, **spec}, name, own=True)


def ordered(priority: int, *rules: Any, name: str = "own", **fields: Any) -> dict[str, Any]:
    return own({"priority": priority, "ingress": list(rules), **fields}, name)


OUT = [block("192.0.2.0/24")]
ALLOW_OUT, DENY_OUT = {"action": "allow", "from": OUT}, {"action": "deny", "from": OUT}

OWN: dict[str, tuple[list[dict[str, Any]], list[str], list[str]]] = {
    "a priority isolates nothing": ([ordered(0, DENY_OUT)], ["other > web 80/TCP"], ["out > web 80/TCP"]),
    "denied before it is allowed": ([ordered(9, DENY_OUT), ingress({})], ["other > web 80/TCP"], ["out > web 80/TCP"]),
    "allowed before it is isolated": ([ordered(9, ALLOW_OUT), ingress()], ["out > web 80/TCP"], ["other > web 80/TCP"]),
    "the smaller number first": (
        [ordered(1, ALLOW_OUT), ordered(2, {"action": "deny"}, name="q")],
        ["out > web 80/TCP"],
        ["other > web 80/TCP"],
    ),
    "deny wins": ([ordered(1, ALLOW_OUT), ordered(1, {"action": "deny"}, name="q")], [], ["out > web 80/TCP"]),
    "deny wins within a policy": ([ordered(1, ALLOW_OUT, DENY_OUT)], ["other > web 1/UDP"], ["out > web 80/TCP"]),
    "a port is denied": (
        [ordered(1, {"action": "deny", "ports": [{"port": 22}]}), ingress({})],
        ["out > web 23/TCP", "out > web 22/UDP"],
        ["out > web 22/TCP"],
    ),
    "a port is allowed where the rest is denied": (
        [ordered(1, {"action": "allow", "ports": [{"port": 80}]}), ordered(2, DENY_OUT, name="q")],
        ["out > web 80/TCP", "other > web 22/TCP"],
        ["out > web 22/TCP", "out > web 0/47"],
    ),
    "never against the node": (
        [ordered(0, {"action": "deny"})],
        ["node > web 80/TCP", "web > web 1/UDP"],
        ["out > web 1/TCP"],
    ),
    "types of ICMP": (
        [
            own(
                {
                    "ingress": [
                        {"ports": [{"protocol": "ICMP", "type": 8}, {"protocol": "ICMPv6", "type": 1, "code": 4}]}
                    ]
                }
            )
        ],
        ["out > web 8.0/ICMP", "out > web 8.255/ICMP", "out6 > web6 1.4/ICMPv6"],
        ["out > web 9.0/ICMP", "out > web 7.255/ICMP", "out6 > web6 1.3/ICMPv6", "out6 > web6 8.0/ICMPv6"],
    ),
    "all of ICMP": (
        [own({"ingress": [{"ports": [{"protocol": "ICMP"}]}]})],
        ["out > web 255.255/ICMP"],
        ["out > web 1/TCP"],
    ),
    "audit enforces nothing": ([own({"audit": True, "ingress": []})], ["out > web 80/TCP"], []),
    "audit of a rule for some": ([ordered(0, DENY_OUT, audit=True)], ["out > web 80/TCP", "other > web 80/TCP"], []),
    "audit of a priority": (
        [ordered(0, DENY_OUT, audit=True), ordered(0, ALLOW_OUT, name="q")],
        ["out > web 80/TCP"],
        [],
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_own_fields(name: str) -> None:
    given, allowed, denied = OWN[name]
    made = tables(*given)
    assert {text: passes(made, text) for text in (*allowed, *denied)} == {
        **dict.fromkeys(allowed, True),
        **dict.fromkeys(denied, False),
    }


def verdict(made: Tables, text: str, direction: str = "ingress") -> Verdict:
    return explain(made, packet(text))[direction]


def test_a_verdict_names_its_rule() -> None:
    made = tables(ingress({"from": OUT}, {"ports": [{"port": 80}]}), egress(selector={}) | {"metadata": {"name": "q"}})
    assert str(verdict(made, "out > web 22/TCP").rule) == "NetworkPolicy default/p ingress[0]"
    assert str(verdict(made, "other > web 80/TCP").rule) == "NetworkPolicy default/p ingress[1]"
    assert str(verdict(made, "other > web 22/TCP").rule) == "NetworkPolicy default/p isolates"
    assert str(verdict(made, "db > web 80/TCP", "egress").rule) == "NetworkPolicy default/q isolates"
    assert verdict(made, "out > db 22/TCP") == Verdict(True)


def test_the_first_of_several_rules_is_named() -> None:
    made = tables(ingress({"from": OUT}, {"from": OUT}), policy({"ingress": [{}]}, "a"), policy({"ingress": [{}]}, "z"))
    assert str(verdict(made, "out > web 22/TCP").rule) == "NetworkPolicy default/a ingress[0]"


def test_only_local_sides_are_explained() -> None:
    made = tables()
    assert set(explain(made, packet("web > db 1/TCP"))) == {"egress", "ingress"}
    assert set(explain(made, packet("web > far 1/TCP"))) == {"egress"}
    assert set(explain(made, packet("out > web 1/TCP"))) == {"ingress"}
    assert explain(made, packet("out > far 1/TCP")) == {}


def test_audit_names_the_rule_that_would_turn_the_verdict_around() -> None:
    trial = own({"audit": True, "ingress": [{"ports": [{"port": 80}]}]}, "trial")
    free, bound = tables(trial), tables(trial, ingress())
    assert str(verdict(free, "out > web 22/TCP").audit) == "FastpathPolicy default/trial isolates"
    assert verdict(free, "out > web 22/TCP").rule is None
    assert verdict(free, "out > web 80/TCP").audit is None
    assert str(verdict(bound, "out > web 80/TCP").audit) == "FastpathPolicy default/trial ingress[0]"
    assert not verdict(bound, "out > web 80/TCP").allow
    assert verdict(bound, "out > web 22/TCP").audit is None


def test_a_class_inside_a_broad_one_may_have_nothing_to_say() -> None:
    """Allowed with audit as without: the row is empty, and still the broad one must not be asked."""
    inside, around = block("192.0.2.1/32"), block("192.0.2.0/24")
    first = ordered(0, {"action": "allow", "from": [inside]}, audit=True)
    second = ordered(1, {"action": "deny", "from": [around]}, audit=True, name="q")
    with patch.object(classes, "BROAD", 1):
        made = tables(first, second)
    assert verdict(made, "out > web 80/TCP") == Verdict(True)
    assert str(verdict(made, "192.0.2.2 > web 80/TCP").audit) == "FastpathPolicy default/q ingress[0]"


def test_broad_prefixes_of_several_containers() -> None:
    db = ingress({"from": [block("192.0.0.0/16")]}, selector={"matchLabels": {"app": "db"}}) | {
        "metadata": {"name": "q"}
    }
    with patch.object(classes, "BROAD", 0):
        made = tables(source(block("192.0.2.0/24")), db)
    assert [passes(made, f"{address} > web 80/TCP") for address in ("out", "192.0.3.1", "other")] == [
        True,
        False,
        False,
    ]
    assert [passes(made, f"{address} > db 80/TCP") for address in ("out", "192.0.3.1", "other")] == [True, True, False]


def test_log_is_of_the_policy_that_decides() -> None:
    made = tables(ordered(0, DENY_OUT, log=True), ingress({"ports": [{"port": 80}]}))
    assert verdict(made, "out > web 80/TCP").log
    assert not verdict(made, "other > web 80/TCP").log
    assert not verdict(made, "other > web 22/TCP").log


def test_isolation_is_logged_if_one_of_the_policies_asks_for_it() -> None:
    made = tables(ingress(), own({"log": True, "ingress": [{"ports": [{"port": 80}]}]}, "z"))
    assert verdict(made, "out > web 22/TCP").log
    assert str(verdict(made, "out > web 22/TCP").rule) == "NetworkPolicy default/p isolates"


def test_what_audit_finds_is_logged_if_it_asks_for_it() -> None:
    for log in (False, True):
        made = tables(own({"audit": True, "log": log, "ingress": []}))
        assert verdict(made, "out > web 22/TCP").log == log
