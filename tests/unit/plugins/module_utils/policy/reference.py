# SPDX-License-Identifier: GPL-3.0-or-later
"""What policy documents mean, word by word and slowly: the judge of the compiler, with none of its code.

A document is asked as it was written; nothing is prepared, indexed or merged. It must be a valid one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Endpoint, Packet

Document = Mapping[str, Any]
Namespaces = Mapping[str, Mapping[str, str]]

NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}


@dataclass(frozen=True)
class Decision:
    """The verdict, the policy and the rule behind it (-1: it isolates; None: no policy has anything to say)."""

    allow: bool
    policy: tuple[str, str, str] | None = None  # kind, namespace, name
    rule: int | None = None
    log: bool = False


@dataclass(frozen=True)
class Answer:
    """What happens, and what would turn it around if audited policies were enforced."""

    decision: Decision
    audit: Decision | None = None

    @property
    def log(self) -> bool:
        return self.decision.log or (self.audit is not None and self.audit.log)


@dataclass(frozen=True)
class World:
    """All that a decision depends on, apart from the packet."""

    documents: Sequence[Document]
    endpoints: Sequence[Endpoint]
    namespaces: Namespaces
    node: Sequence[str] = ()

    def owner(self, address: str) -> Endpoint | None:
        wanted = ipaddress.ip_address(address)
        for endpoint in self.endpoints:
            if wanted in map(ipaddress.ip_address, endpoint.addresses):
                return endpoint
        return None


def decide(world: World, packet: Packet, direction: str) -> Answer:
    """For the container on the side that the direction says, which must be one of this node."""
    own, other = packet.destination, packet.source
    if direction == "egress":
        own, other = other, own
    subject = world.owner(own)
    assert subject is not None
    if world.owner(other) == subject or ipaddress.ip_address(other) in map(ipaddress.ip_address, world.node):
        return Answer(Decision(True))
    selecting = [item for item in world.documents if _selects(item, subject, direction)]
    selecting.sort(key=lambda item: (_namespace(item), item["metadata"]["name"], item["kind"]))
    enforced = _ask([item for item in selecting if not item["spec"].get("audit")], world, packet, direction)
    would = _ask(selecting, world, packet, direction)
    return Answer(enforced, would if would.allow != enforced.allow else None)


def _ask(documents: Sequence[Document], world: World, packet: Packet, direction: str) -> Decision:
    for priority in sorted({item["spec"]["priority"] for item in documents if _priority(item) is not None}):
        tier = [item for item in documents if _priority(item) == priority]
        for action in ("deny", "allow"):
            for document, index, rule in _matching(tier, world, packet, direction):
                if rule["action"] == action:
                    return _decision(action == "allow", document, index)
    plain = [item for item in documents if _priority(item) is None]
    for document, index, _rule in _matching(plain, world, packet, direction):
        return _decision(True, document, index)
    if plain:
        decision = _decision(False, plain[0], -1)
        log = any(item["spec"].get("log", False) for item in plain)
        return Decision(decision.allow, decision.policy, decision.rule, log)
    return Decision(True)


def _decision(allow: bool, document: Document, index: int) -> Decision:
    name = (document["kind"], _namespace(document), document["metadata"]["name"])
    return Decision(allow, name, index, document["spec"].get("log", False))


def _priority(document: Document) -> int | None:
    priority: int | None = document["spec"].get("priority")
    return priority


def _namespace(document: Document) -> str:
    return document["metadata"].get("namespace") or "default"


def _selects(document: Document, endpoint: Endpoint, direction: str) -> bool:
    spec = document["spec"]
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    if direction.capitalize() not in types or endpoint.namespace != _namespace(document):
        return False
    return _matches(spec.get("podSelector"), endpoint.labels)


def _matching(
    documents: Sequence[Document], world: World, packet: Packet, direction: str
) -> Iterator[tuple[Document, int, Mapping[str, Any]]]:
    for document in documents:
        for index, rule in enumerate(document["spec"].get(direction) or ()):
            peers = rule.get("from" if direction == "ingress" else "to")
            other = packet.source if direction == "ingress" else packet.destination
            if peers and not any(_is_peer(peer, other, world, _namespace(document)) for peer in peers):
                continue
            ports = rule.get("ports")
            if ports and not any(_is_port(port, packet, world) for port in ports):
                continue
            yield document, index, rule


def _is_peer(peer: Mapping[str, Any], address: str, world: World, own: str) -> bool:
    if peer.get("ipBlock"):
        value, block = ipaddress.ip_address(address), peer["ipBlock"]
        inside = value in ipaddress.ip_network(block["cidr"], strict=False)
        return inside and not any(
            value in ipaddress.ip_network(part, strict=False) for part in block.get("except") or ()
        )
    endpoint = world.owner(address)
    if endpoint is None:
        return False
    if peer.get("namespaceSelector") is None:
        if endpoint.namespace != own:
            return False
    else:
        labels = {**world.namespaces.get(endpoint.namespace, {}), "kubernetes.io/metadata.name": endpoint.namespace}
        if not _matches(peer["namespaceSelector"], labels):
            return False
    return _matches(peer.get("podSelector"), endpoint.labels)


def _is_port(port: Mapping[str, Any], packet: Packet, world: World) -> bool:
    protocol = port.get("protocol") or "TCP"
    if NUMBERS[protocol] != packet.protocol:
        return False
    if protocol in ("ICMP", "ICMPv6"):
        kind, code = divmod(packet.port, 256)
        return port.get("type") in (None, kind) and port.get("code") in (None, code)
    wanted = port.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        endpoint = world.owner(packet.destination)
        return endpoint is not None and (wanted, protocol, packet.port) in endpoint.ports
    last = port.get("endPort")
    return bool(wanted <= packet.port <= (wanted if last is None else last))


def _matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    selector = selector or {}
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_holds(item, labels) for item in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if operator == "In":
        return key in labels and labels[key] in expression["values"]
    return key not in labels or labels[key] not in expression["values"]
