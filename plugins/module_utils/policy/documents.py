# SPDX-License-Identifier: GPL-3.0-or-later
"""From policy documents as users write them to checked policies. Pure.

`NetworkPolicy` (networking.k8s.io/v1) is what Kubernetes takes, defaults included; null is the same as absent. Where
Kubernetes asks for less care than a firewall needs, so do we: rules of a direction that policyTypes does not list have
no effect, and host bits of a CIDR are cut off. A null among the items of a list is refused: it would mean "everything".

`FastpathPolicy` (fastpath.node/v1) is a kind of its own, so that a NetworkPolicy stays what any other cluster takes and
a typing error in either is found. Its spec is that of a NetworkPolicy and more:

  log: true       what this policy decides is reported
  audit: true     the policy is not enforced; where it would turn a verdict around, that is counted
  priority: 0     asked before all policies without priority, small numbers first; isolates nothing; then each rule
                  says `action`, allow or deny, and among equal priorities deny wins over allow
  ports:          also {protocol: ICMP, type: 8, code: 0} and ICMPv6; without code or type: all of them

What Kubernetes leaves open:

- ipBlock is literal: it selects an address whether or not an endpoint has it.
- Traffic between a container and its own node (any of the node's addresses), and of a container with itself, is always
  allowed, even against a priority: health checks need it, and the node's own services have the node's own firewall.
- A rule without ports allows every protocol. A rule with ports allows only those: ping needs a FastpathPolicy or a
  rule without ports. Errors about a flow that is allowed belong to that flow.
- A named port is the destination's, also where an ipBlock selects the destination. Who has none of the
  name is not selected.
- SCTP is like TCP and UDP: its ports are looked at, not its chunks.
- The namespace, if absent, is `default`. Every namespace has the label kubernetes.io/metadata.name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidConfig
from ..resources import fields
from .collector import paused
from .model import PROTOCOLS, Block, Peer, Peers, Pods, Policy, Port, Prefix, Requirement, Rule, Selector

KINDS = {"NetworkPolicy": "networking.k8s.io/v1", "FastpathPolicy": "fastpath.node/v1"}
MAX_PRIORITY = 65535

_DOCUMENT = ("apiVersion", "kind", "metadata", "spec", "status")
# What kubectl prints of a policy; only name and namespace matter here.
_METADATA = (
    *("name", "namespace", "labels", "annotations", "creationTimestamp", "deletionTimestamp", "finalizers"),
    *("deletionGracePeriodSeconds", "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink"),
    "uid",
)
_SPEC = ("podSelector", "policyTypes", "ingress", "egress")
_OWN_SPEC = (*_SPEC, "priority", "log", "audit")
_TYPES = ("Ingress", "Egress")
_PEER = ("podSelector", "namespaceSelector", "ipBlock")

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def policies(documents: object) -> tuple[Policy, ...]:
    """Checked policies, sorted by namespace and name; raises InvalidConfig with the path of what is wrong first."""
    with paused():
        return _policies(documents)


def _policies(documents: object) -> tuple[Policy, ...]:
    found: dict[tuple[str, str, str], Policy] = {}
    for index, item in enumerate(fields.sequence(documents, "policies")):
        policy = _policy(item, f"policies[{index}]")
        if policy.key in found:
            raise InvalidConfig(f"policies[{index}].metadata.name", policy.name, f"each name of a {policy.kind} once")
        found[policy.key] = policy
    return tuple(found[key] for key in sorted(found))


def labels(value: object, field: str) -> dict[str, str]:
    """Labels of an endpoint or a namespace, or of matchLabels."""
    if not isinstance(value, Mapping):
        raise InvalidConfig(field, value, "a dictionary of labels")
    for key, item in value.items():
        _label_key(key, field)
        _label_value(item, f"{field}.{key}")
    return dict(value)


def identity(value: object, field: str) -> tuple[str, str, str]:
    """Namespace, name and kind of a document, which make it one of its own; the rest is not looked at."""
    given = fields.mapping(value, field, _DOCUMENT)
    kind = fields.choice(given.get("kind"), f"{field}.kind", tuple(KINDS))
    fields.choice(given.get("apiVersion"), f"{field}.apiVersion", (KINDS[kind],))
    metadata = fields.mapping(given.get("metadata"), f"{field}.metadata", _METADATA)
    name = _name(metadata.get("name"), f"{field}.metadata.name", _DNS_NAME, 253)
    return namespace_name(metadata.get("namespace", "default"), f"policies[{name}].metadata.namespace"), name, kind


def namespace_name(value: object, field: str) -> str:
    return _name(value, field, _DNS_LABEL, 63)


def port_name(value: object, field: str) -> str:
    if not isinstance(value, str) or not _PORT_NAME.fullmatch(value) or len(value) > 15:
        raise InvalidConfig(field, value, "a name: a-z, 0-9 and -, at most 15, not only digits")
    return value


def directions(spec: Mapping[str, Any], field: str) -> list[str]:
    """policyTypes, whose default is Ingress, and Egress where there are egress rules."""
    given = fields.sequence(spec.get("policyTypes", []), f"{field}.policyTypes")
    for index, item in enumerate(given):
        fields.choice(item, f"{field}.policyTypes[{index}]", _TYPES)
    return given or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def block(value: object, field: str) -> Block:
    """An ipBlock."""
    given = fields.mapping(value, field, ("cidr", "except"))
    cidr = _prefix(given.get("cidr"), f"{field}.cidr")
    found: list[Prefix] = []
    for index, item in enumerate(fields.sequence(given.get("except", []), f"{field}.except")):
        part = _prefix(item, f"{field}.except[{index}]")
        if not cidr.contains(part) or part == cidr:
            raise InvalidConfig(f"{field}.except[{index}]", item, f"a smaller prefix inside {cidr}")
        found.append(part)
    return Block(cidr, tuple(_largest(found)))


def _policy(value: object, field: str) -> Policy:
    namespace, name, kind = identity(value, field)
    field = f"policies[{name}]"
    own = kind == "FastpathPolicy"
    given = fields.mapping(value, field, _DOCUMENT)
    spec = fields.mapping(given.get("spec"), f"{field}.spec", _OWN_SPEC if own else _SPEC)
    reader = _Rules(namespace, own, "priority" in spec)
    types = directions(spec, f"{field}.spec")
    ingress = reader.read(spec.get("ingress", []), f"{field}.spec.ingress", "from")
    egress = reader.read(spec.get("egress", []), f"{field}.spec.egress", "to")
    return Policy(
        kind=kind,
        namespace=namespace,
        name=name,
        pods=_selector(spec.get("podSelector", {}), f"{field}.spec.podSelector"),
        rules=(ingress if "Ingress" in types else None, egress if "Egress" in types else None),
        priority=_number(spec["priority"], f"{field}.spec.priority", MAX_PRIORITY) if "priority" in spec else None,
        log=_flag(spec.get("log", False), f"{field}.spec.log"),
        audit=_flag(spec.get("audit", False), f"{field}.spec.audit"),
    )


class _Rules:
    """Reads the rules of one policy."""

    def __init__(self, namespace: str, own: bool, ordered: bool) -> None:
        self.namespace = namespace
        self.own = own  # a FastpathPolicy
        self.ordered = ordered  # it has a priority

    def read(self, value: object, field: str, side: str) -> tuple[Rule, ...]:
        items = fields.sequence(value, field)
        return tuple(self._rule(item, f"{field}[{index}]", side) for index, item in enumerate(items))

    def _rule(self, value: object, field: str, side: str) -> Rule:
        given = fields.mapping(value, field, (side, "ports", "action") if self.own else (side, "ports"))
        if self.ordered:
            fields.choice(given.get("action"), f"{field}.action", ("allow", "deny"))
        elif "action" in given:
            raise InvalidConfig(f"{field}.action", given["action"], "none without spec.priority; such rules allow")
        peers = fields.sequence(given.get(side, []), f"{field}.{side}")
        ports = fields.sequence(given.get("ports", []), f"{field}.ports")
        return Rule(
            peers=self._peers(peers, f"{field}.{side}"),
            ports=tuple(self._port(item, f"{field}.ports[{index}]") for index, item in enumerate(ports)) or None,
            allow=given.get("action") != "deny",
        )

    def _peers(self, items: list[Any], field: str) -> Peers:
        return tuple(self._peer(item, f"{field}[{index}]") for index, item in enumerate(items)) or None

    def _peer(self, value: object, field: str) -> Peer:
        given = fields.mapping(value, field, _PEER)
        if "ipBlock" in given:
            if len(given) > 1:
                raise InvalidConfig(f"{field}.ipBlock", given["ipBlock"], "no selector beside it")
            return block(given["ipBlock"], f"{field}.ipBlock")
        if not given:
            raise InvalidConfig(field, value, "podSelector, namespaceSelector or ipBlock; {} as selector selects all")
        pods = _selector(given.get("podSelector", {}), f"{field}.podSelector")
        if "namespaceSelector" not in given:
            return Pods(self.namespace, pods)
        return Pods(_selector(given["namespaceSelector"], f"{field}.namespaceSelector"), pods)

    def _port(self, value: object, field: str) -> Port:
        known = ("protocol", "port", "endPort", *(("type", "code") if self.own else ()))
        given = fields.mapping(value, field, known)
        protocols = tuple(PROTOCOLS) if self.own else ("TCP", "UDP", "SCTP")
        protocol = fields.choice(given.get("protocol", "TCP"), f"{field}.protocol", protocols)
        wrong = ("port", "endPort") if protocol.startswith("ICMP") else ("type", "code")
        for key in wrong:
            if key in given:
                raise InvalidConfig(f"{field}.{key}", given[key], f"none with protocol {protocol}")
        return _icmp(given, field, protocol) if protocol.startswith("ICMP") else _ports(given, field, protocol)


def _ports(given: Mapping[str, Any], field: str, protocol: str) -> Port:
    port, end = given.get("port"), given.get("endPort")
    if isinstance(port, str):
        if not _PORT_NAME.fullmatch(port) or len(port) > 15:
            raise InvalidConfig(
                f"{field}.port",
                port,
                "a number from 1 to 65535, or a name: a-z, 0-9 and -, at most 15, not only digits",
            )
        if end is not None:
            raise InvalidConfig(f"{field}.endPort", end, "none with a named port")
        return Port(protocol, name=port)
    if port is None:
        if end is not None:
            raise InvalidConfig(f"{field}.endPort", end, "none without port")
        return Port(protocol)
    low = _number(port, f"{field}.port", 65535, 1)
    return Port(protocol, low, low if end is None else _number(end, f"{field}.endPort", 65535, low))


def _icmp(given: Mapping[str, Any], field: str, protocol: str) -> Port:
    if "type" not in given:
        if "code" in given:
            raise InvalidConfig(f"{field}.code", given["code"], "none without type")
        return Port(protocol)
    low = _number(given["type"], f"{field}.type", 255) << 8
    if "code" not in given:
        return Port(protocol, low, low + 255)
    low += _number(given["code"], f"{field}.code", 255)
    return Port(protocol, low, low)


def _largest(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Without those that another one contains, sorted."""
    found: list[Prefix] = []
    for item in sorted(prefixes):
        if not found or not found[-1].contains(item):
            found.append(item)
    return found


def _prefix(value: object, field: str) -> Prefix:
    try:
        found = Prefix.parse(str(value))
    except ValueError:
        raise InvalidConfig(field, value, "a prefix, like 10.0.0.0/8 or fd00:1::/32") from None
    if found.mapped:
        raise InvalidConfig(field, value, "an IPv4 prefix as such, like 10.0.0.0/8, not within ::ffff:0:0/96")
    return found


def _selector(value: object, field: str) -> Selector:
    given = fields.mapping(value, field, ("matchLabels", "matchExpressions"))
    equal = labels(given.get("matchLabels", {}), f"{field}.matchLabels")
    found = {Requirement(key, "In", (item,)) for key, item in equal.items()}
    items = fields.sequence(given.get("matchExpressions", []), f"{field}.matchExpressions")
    for index, item in enumerate(items):
        found.add(_requirement(item, f"{field}.matchExpressions[{index}]"))
    return Selector(tuple(sorted(found, key=lambda item: (item.key, item.operator, item.values))))


def _requirement(value: object, field: str) -> Requirement:
    given = fields.mapping(value, field, ("key", "operator", "values"))
    key = _label_key(given.get("key"), f"{field}.key")
    operator = fields.choice(given.get("operator"), f"{field}.operator", ("In", "NotIn", "Exists", "DoesNotExist"))
    values = fields.sequence(given.get("values", []), f"{field}.values")
    if bool(values) != (operator in ("In", "NotIn")):
        allowed = "none with operator " + operator if values else f"at least one with operator {operator}"
        raise InvalidConfig(f"{field}.values", values, allowed)
    for index, item in enumerate(values):
        _label_value(item, f"{field}.values[{index}]")
    return Requirement(key, operator, tuple(sorted(set(values))))


def _label_key(value: object, field: str) -> str:
    prefix, slash, name = value.rpartition("/") if isinstance(value, str) else ("", "", "")
    if not _WORD.fullmatch(name) or (slash and (len(prefix) > 253 or not _DNS_NAME.fullmatch(prefix))):
        raise InvalidConfig(field, value, "a label's key, like app or example.org/app")
    return str(value)


def _label_value(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidConfig(field, value, "a text; put it in quotes")
    if value and not _WORD.fullmatch(value):
        raise InvalidConfig(field, value, "at most 63 of A-Z, a-z, 0-9, -, _ and ., letters or digits at both ends")
    return value


def _name(value: object, field: str, pattern: re.Pattern[str], length: int) -> str:
    if not isinstance(value, str) or len(value) > length or not pattern.fullmatch(value):
        raise InvalidConfig(field, value, f"a name of a-z, 0-9 and -, at most {length}")
    return value


def _number(value: object, field: str, high: int, low: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidConfig(field, value, f"a number from {low} to {high}")
    return value


def _flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidConfig(field, value, "true or false")
    return value
