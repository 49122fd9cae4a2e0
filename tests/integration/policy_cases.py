# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies and what they let through: the table of test_policy_api.py. Places and their labels are those of pair.py.

A flow is written db>web:80 (TCP), db>web:53/udp, db>web/ping, db>web:13.0/icmp (type and code), db>web/gre.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Document = Mapping[str, Any]

WEB, DB = {"podSelector": {"matchLabels": {"app": "web"}}}, {"podSelector": {"matchLabels": {"app": "db"}}}
EVERYBODY: dict[str, Any] = {"podSelector": {}}
SHOP_TEAM = {"namespaceSelector": {"matchLabels": {"team": "shop"}}}
OUT = ({"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "fd00:192::/64"}})


class Case(NamedTuple):
    documents: list[Document]
    passes: str
    stops: str = ""


def policy(spec: Mapping[str, Any], name: str = "p", namespace: str = "default") -> Document:
    """A document of Kubernetes."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def own(spec: Mapping[str, Any], name: str = "own", namespace: str = "default") -> Document:
    """A document of our own kind."""
    return {**policy(spec, name, namespace), "apiVersion": "fastpath.node/v1", "kind": "FastpathPolicy"}


def ingress(*rules: Any, who: Mapping[str, Any] = WEB, **more: Any) -> Document:
    return policy({**who, "policyTypes": ["Ingress"], "ingress": list(rules), **more})


def egress(*rules: Any, who: Mapping[str, Any] = DB, **more: Any) -> Document:
    return policy({**who, "policyTypes": ["Egress"], "egress": list(rules), **more})


def sources(*peers: Any) -> dict[str, Any]:
    return {"from": list(peers)}


def targets(*peers: Any) -> dict[str, Any]:
    return {"to": list(peers)}


def ports(*items: Any) -> dict[str, Any]:
    return {"ports": list(items)}


def selecting(*expressions: tuple[str, str, list[str] | None]) -> dict[str, Any]:
    found = [
        {"key": key, "operator": operator, **({"values": values} if values else {})}
        for key, operator, values in expressions
    ]
    return {"podSelector": {"matchExpressions": found}}


_ANYTHING = "db>web:80 db>web:53/udp db>web:53/big db>web/ping db>web/gre db>web:80/sctp db>web:13.0/icmp"

_INGRESS = {
    "no policies": Case([], f"{_ANYTHING} client>web:80 out>web:80 web>out:80 shop>web2:80 web2>shop:80/udp"),
    "a policy that selects nobody": Case(
        [ingress(who={"podSelector": {"matchLabels": {"app": "none"}}})], "client>web:80 out>web:80"
    ),
    "default deny of ingress": Case(
        [policy(EVERYBODY)],
        "web>shop:80 web>out:80 node1>web:80 node1>db/ping node2>web2:80 shop>probe:80 client>shop:80/sctp",
        f"{_ANYTHING} client>web:80 shop>web:80 out>web:80 node2>web:80 web>client:80 web>web2/ping node1>web2:80",
    ),
    "only what the selector selects is isolated": Case(
        [ingress()], "web>db:80 client>db:80 db>shop:80 web2>client:80", "db>web:80 db>web2:80 client>web2:80"
    ),
    "everything is allowed": Case([ingress({})], f"{_ANYTHING} client>web:80 out>web:80 shop>web:80/udp"),
    "empty lists of peers and ports allow everything": Case(
        [ingress({"from": [], "ports": []})], f"{_ANYTHING} client>web:80 out>web:80"
    ),
    "pods of the same namespace": Case(
        [ingress(sources(EVERYBODY))],
        "db>web:80 client>web:80 web2>web:80 db>web2:80/udp client>web2/ping",
        "shop>web:80 probe>web:80 out>web:80 node2>web/ping shop>web2:80",
    ),
    "pods by label, in their own namespace": Case(
        [ingress(sources(WEB), who=DB)], "web>db:80 web2>db:80 web2>db/gre", "client>db:80 shop>db:80 out>db:80"
    ),
    "namespaces by label": Case(
        [ingress(sources(SHOP_TEAM))], "shop>web:80 shop>web2:80", "db>web:80 probe>web:80 client>web:80 out>web:80"
    ),
    "namespaces by name": Case(
        [ingress(sources({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}))],
        "probe>web:80 probe>web2:80/udp",
        "shop>web:80 client>web:80",
    ),
    "all namespaces, but nobody outside": Case(
        [ingress(sources({"namespaceSelector": {}}))],
        "shop>web:80 probe>web:80 client>web:80 probe>web2:80",
        "out>web:80 out>web2/ping node2>web:80",
    ),
    "pods of some namespaces": Case(
        [ingress(sources({**SHOP_TEAM, **WEB}), who=DB)], "shop>db:80", "web>db:80 probe>db:80 client>db:80"
    ),
    "two peers are either of them": Case(
        [ingress(sources(SHOP_TEAM, WEB), who=DB)], "shop>db:80 web>db:80 web2>db:80", "probe>db:80 client>db:80"
    ),
    "a block of addresses": Case(
        [ingress(sources(*OUT))], "out>web:80 out>web2:80 out>web/ping", "client>web:80 db>web:80 node2>web:80"
    ),
    "a block selects containers as well": Case(
        [ingress(sources({"ipBlock": {"cidr": "10.128.4.0/24"}}, {"ipBlock": {"cidr": "fd00:128:4::/64"}}))],
        "client>web:80 web2>web:80 probe>web:80",
        "db>web:80 shop>web:80 out>web:80",
    ),
    "a block but for some of it": Case(
        [
            ingress(
                sources(
                    {"ipBlock": {"cidr": "10.128.0.0/16", "except": ["10.128.4.12/32", "10.128.3.0/25"]}},
                    {"ipBlock": {"cidr": "fd00:128::/32", "except": ["fd00:128:4::12/128", "fd00:128:3::/64"]}},
                )
            )
        ],
        "web2>web:80 probe>web:80",
        "client>web:80 db>web:80 shop>web:80 out>web:80",
    ),
    "what one block excepts another may allow": Case(
        [
            ingress(
                sources(
                    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.128.4.0/24"]}},
                    {"ipBlock": {"cidr": "::/0", "except": ["fd00:128:4::/64"]}},
                    {"ipBlock": {"cidr": "10.128.4.11/32"}},
                    {"ipBlock": {"cidr": "fd00:128:4::11/128"}},
                )
            )
        ],
        "out>web:80 db>web:80 web2>web:80",
        "client>web:80 probe>web:80",
    ),
}
_WHO = {
    "In": Case(
        [ingress(who=selecting(("app", "In", ["db", "none"])))], "client>web:80 db>client:80", "client>db:80 web>db:80"
    ),
    "NotIn selects those without the label as well": Case(
        [ingress(who=selecting(("app", "NotIn", ["web"])))], "db>web:80 client>web2:80", "web>db:80 web>client:80"
    ),
    "Exists": Case(
        [ingress(who=selecting(("tier", "Exists", None)))], "db>client:80 web>shop:80", "client>web:80 client>web2:80"
    ),
    "DoesNotExist": Case(
        [ingress(who=selecting(("app", "DoesNotExist", None)))],
        "client>web:80 web>db:80",
        "web>client:80 probe>client:80",
    ),
    "all expressions must hold": Case(
        [ingress(who=selecting(("app", "In", ["web"]), ("tier", "NotIn", ["front"])))],
        "client>web:80 web>db:80",
        "client>web2:80 web>web2:80",
    ),
    "expressions among the peers": Case(
        [ingress(sources(selecting(("tier", "In", ["back"]))))], "db>web:80 web2>web:80", "client>web:80 shop>web:80"
    ),
    "expressions among namespaces": Case(
        [
            ingress(
                sources({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}),
                who=EVERYBODY,
            )
        ],
        "client>web:80 db>web2:80",
        "shop>web:80 probe>web:80 probe>client:80",
    ),
}
_PORTS = {
    "a port is one of TCP": Case(
        [ingress(ports({"port": 80}))],
        "db>web:80 client>web:80 out>web2:80",
        "db>web:81 client>web:443 db>web:80/udp db>web/ping db>web:80/sctp db>web/gre",
    ),
    "a port of UDP": Case(
        [ingress(ports({"protocol": "UDP", "port": 53}))],
        "db>web:53/udp client>web:53/udp client>web:53/big",
        "db>web:53/sctp client>web:80 client>web:80/udp client>web:80/big",
    ),
    "a port of SCTP": Case(
        [ingress(ports({"protocol": "SCTP", "port": 80}))],
        "db>web:80/sctp client>web:80/sctp",
        "db>web:81/sctp db>web:80",
    ),
    "all of a protocol": Case(
        [ingress(ports({"protocol": "UDP"}))],
        "db>web:53/udp client>web:81/udp",
        "db>web:80 client>web/ping db>web:80/sctp",
    ),
    "an empty port is all of TCP": Case(
        [ingress(ports({}))], "db>web:80 client>web:9090", "db>web:80/udp client>web/ping"
    ),
    "a range of ports": Case(
        [ingress(ports({"port": 8080, "endPort": 9090}))],
        "db>web:8080 client>web:9090",
        "db>web:8079 client>web:9091 db>web:80",
    ),
    "a named port is the container's own": Case(
        [ingress(ports({"port": "http"}))],
        "db>web:80 client>web:80 db>web2:8080 client>web2:8080",
        "db>web:8080 client>web:443 db>web2:80 client>web2:80",
    ),
    "a named port has a protocol": Case(
        [ingress(ports({"port": "dns", "protocol": "UDP"}))], "db>web:53/udp", "db>web:80 db>web:80/udp db>web2:53/udp"
    ),
    "a name that the container does not have": Case(
        [ingress(ports({"port": "http"}), who=DB)], "db>web:80", "web>db:80 client>db:80 client>db:8080"
    ),
    "several ports": Case(
        [ingress(ports({"port": 80}, {"port": 443}, {"port": 53, "protocol": "UDP"}))],
        "db>web:80 client>web:443 client>web:53/udp",
        "db>web:81 client>web:53/sctp client>web:80/udp",
    ),
    "peers and ports must both match": Case(
        [ingress({**sources(DB), **ports({"port": 80})})],
        "db>web:80 db>web2:80",
        "db>web:81 client>web:80 client>web2:81",
    ),
    "each rule has its own ports": Case(
        [ingress({**sources(DB), **ports({"port": 80})}, {**sources(SHOP_TEAM), **ports({"port": 81})})],
        "db>web:80 shop>web:81 shop>web2:81",
        "db>web:81 shop>web:80 client>web:80 client>web:81",
    ),
    "policies add up": Case(
        [
            policy(EVERYBODY, "deny"),
            policy({**WEB, "ingress": [sources(DB)]}, "a"),
            policy({**WEB, "ingress": [ports({"port": 443})]}, "b"),
        ],
        "db>web:80 db>web:81 client>web:443 out>web2:443",
        "client>web:80 out>web:80 web>db:80 shop>client:80",
    ),
}
_EGRESS = {
    "default deny of egress": Case(
        [policy({**EVERYBODY, "policyTypes": ["Egress"]})],
        "shop>web:80 out>web:80 node1>db:80 web>node1/ping probe>client:80 client>node2:80",
        "db>web:80 web>out:80 client>web:80/udp web>shop:80 web>web2/ping web2>client/gre db>node2:80",
    ),
    "default deny of both": Case(
        [policy({**EVERYBODY, "policyTypes": ["Ingress", "Egress"]})],
        "shop>probe:80 node1>web:80 web>node1:80 out>shop:80",
        "db>web:80 web>out:80 out>web:80 shop>web:80 web>shop:80 client>web2:80",
    ),
    "egress rules isolate ingress too, unless policyTypes says otherwise": Case(
        [policy({**DB, "egress": [{}]})], "db>web:80 db>out:80 db>web2:80", "web>db:80 client>db:80"
    ),
    "rules of a direction that policyTypes leaves out": Case(
        [policy({**DB, "policyTypes": ["Egress"], "ingress": [sources(WEB)]})],
        "web>db:80 client>db:80",
        "db>web:80 db>out:80",
    ),
    "to pods by label": Case(
        [egress(targets(WEB))], "db>web:80 db>web2:80 db>web/ping client>db:80", "db>client:80 db>shop:80 db>out:80"
    ),
    "to namespaces": Case(
        [egress(targets({"namespaceSelector": {"matchLabels": {"team": "ops"}}}))],
        "db>probe:80",
        "db>web:80 db>shop:80",
    ),
    "to pods of all namespaces": Case(
        [egress(targets({"namespaceSelector": {}, **WEB}))],
        "db>shop:80 db>web:80 db>web2:80",
        "db>client:80 db>probe:80",
    ),
    "to a block but for some of it": Case(
        [
            egress(
                targets(
                    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.128.0.0/16"]}},
                    {"ipBlock": {"cidr": "::/0", "except": ["fd00:128::/32"]}},
                )
            )
        ],
        "db>out:80 db>out/ping db>node2:80",
        "db>web:80 db>client:80 db>probe:80",
    ),
    "to a port": Case(
        [egress(ports({"protocol": "UDP", "port": 53}))],
        "db>web:53/udp db>out:53/udp db>client:53/udp db>client:53/big",
        "db>web:80 db>client:80/udp db>out/ping db>out:80/big",
    ),
    "to a named port of the destination": Case(
        [egress(ports({"port": "http"}))], "db>web:80 db>web2:8080", "db>web:8080 db>web2:80 db>client:80 db>out:80"
    ),
    "to a range of ports": Case(
        [egress({**targets(*OUT), **ports({"port": 80, "endPort": 81})})],
        "db>out:80 db>out:81",
        "db>out:443 db>web:80 db>out:80/udp",
    ),
    "both ends must allow": Case(
        [
            policy({**DB, "policyTypes": ["Egress"], "egress": [targets(WEB)]}, "out"),
            policy({**WEB, "ingress": [ports({"port": 80})]}, "in"),
        ],
        "db>web:80 db>web2:80 client>web:80",
        "db>web:81 db>web2:443 db>client:80 client>web2:81",
    ),
    "answers need no rule": Case(
        [policy({**WEB, "policyTypes": ["Ingress", "Egress"], "ingress": [{}]})],
        "db>web:80 client>web:80/udp client>web:53/big out>web/ping",
        "web>db:80 web>client:80/udp web>out/ping",
    ),
    "errors belong to the flow that they are about": Case(
        [policy({**WEB, "policyTypes": ["Ingress", "Egress"], "ingress": [ports({"protocol": "UDP", "port": 90})]})],
        "db>web:90/closed client>web:90/closed out>web:90/closed",
        "db>web:91/closed client>web:91/closed out>web:80/udp web>db:90/closed",
    ),
    "a namespace's policies are its own": Case(
        [policy(EVERYBODY, namespace="prod"), policy({**EVERYBODY, "policyTypes": ["Egress"]}, namespace="ops")],
        "db>web:80 client>web:80 shop>web:80 web>probe:80",
        "db>shop:80 probe>web:80 out>shop:80 probe>out/ping",
    ),
}
_OWN = {
    "a denial comes before what others allow": Case(
        [
            policy({**WEB, "ingress": [{}]}),
            own({**WEB, "priority": 10, "ingress": [{"action": "deny", **sources(DB)}]}),
        ],
        "client>web:80 shop>web:80 out>web2:80",
        "db>web:80 db>web2:80 db>web/ping",
    ),
    "a denial isolates nobody": Case(
        [own({**WEB, "priority": 10, "ingress": [{"action": "deny", **ports({"port": 81})}]})],
        "db>web:80 client>web:80/udp out>web2/ping",
        "db>web:81 client>web:81 out>web2:81",
    ),
    "with a priority one may allow what others deny": Case(
        [policy(EVERYBODY), own({**WEB, "priority": 10, "ingress": [{"action": "allow", **sources(DB)}]})],
        "db>web:80 db>web2/ping",
        "client>web:80 web>db:80",
    ),
    "the smaller priority comes first": Case(
        [
            own({**WEB, "priority": 20, "ingress": [{"action": "deny"}]}, "all"),
            own({**WEB, "priority": 10, "ingress": [{"action": "allow", **ports({"port": 80})}]}, "some"),
        ],
        "client>web:80 db>web2:80",
        "client>web:81 db>web/ping",
    ),
    "of the same priority denial wins": Case(
        [
            own({**WEB, "priority": 10, "ingress": [{"action": "allow"}, {"action": "deny", **sources(DB)}]}),
            policy(EVERYBODY),
        ],
        "client>web:80 out>web2:80",
        "db>web:80 db>web2:80 web>client:80",
    ),
    "a denial of egress": Case(
        [own({**DB, "priority": 0, "egress": [{"action": "deny", **targets(*OUT)}]})],
        "db>web:80 db>node2:80 client>out:80",
        "db>out:80 db>out/ping",
    ),
    "an audited policy stops nothing": Case(
        [own({**WEB, "audit": True, "ingress": []})], f"{_ANYTHING} client>web:80 out>web2:80"
    ),
    "a logged policy is enforced": Case(
        [own({**WEB, "log": True, "ingress": [sources(DB)]})], "db>web:80 db>web2:80", "client>web:80 out>web:80"
    ),
    "types of ICMP": Case(
        [
            own(
                {
                    **WEB,
                    "ingress": [ports({"protocol": "ICMP", "type": 8}, {"protocol": "ICMPv6", "type": 128, "code": 0})],
                }
            )
        ],
        "db>web/ping client>web/ping client>web:8.0/icmp client>web:8.1/icmp client>web:128.0/icmpv6",
        "db>web:13.0/icmp client>web:13.0/icmp client>web:128.1/icmpv6 client>web:200.0/icmpv6 client>web:80",
    ),
    "all of ICMP": Case(
        [own({**WEB, "ingress": [ports({"protocol": "ICMP"}, {"protocol": "ICMPv6"})]})],
        "db>web/ping client>web:13.0/icmp client>web:200.0/icmpv6",
        "db>web:80 client>web:53/udp client>web/gre",
    ),
}
CASES = {**_INGRESS, **_WHO, **_PORTS, **_EGRESS, **_OWN}
assert len(CASES) == sum(map(len, (_INGRESS, _WHO, _PORTS, _EGRESS, _OWN))), "two cases have one name"
