# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies and their compiled tables for people: who selects whom, which entry says what. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..policy import documents, members
from ..policy.compile import DEFAULT
from ..policy.model import DIRECTIONS, Block, Endpoint, Peer, Peers, Pods, Policy, Port, format_address
from ..policy.ports import IS_PAGE, NUMBER, OTHER, PAGE, STRETCH, Entry
from ..policy.select import Selection, profile
from ..policy.tables import RuleName, Tables, verdict
from . import policies_switch, policies_wish
from .policies_state import Request
from .policies_switch import Document, Source

_PROTOCOL = {number: name for name, number in STRETCH.items()}
_EVERYBODY = "everybody"


def rendered(request: Request, attachments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the request would make of a node that has all containers: those attached here, and those of `endpoints`."""
    document = policies_wish.wish(None, replace(request, state="overridden"))
    if document is None:
        return {"policies": [], "tables": {}}
    here = _everybody(document, attachments)
    limits = replace(DEFAULT, slots=max(DEFAULT.slots, len(here)))
    tables = Source({**document, "endpoints": []}, here, ()).tables(limits)
    return {"policies": policies(document, here), "tables": readable(tables, here)}


def _everybody(document: Document, attachments: Sequence[Mapping[str, Any]]) -> tuple[Endpoint, ...]:
    own = [members.elsewhere(_as_endpoint(item), f"attachments[{index}]") for index, item in enumerate(attachments)]
    found = Source(document, tuple(own), ()).endpoints
    return tuple(replace(item, slot=slot) for slot, item in enumerate(found))


def _as_endpoint(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item[key] for key in ("name", "addresses", *members.KEYS) if key in item}


def policies(document: Document, endpoints: Sequence[Endpoint]) -> list[dict[str, Any]]:
    """Whom each policy selects, and whom each of its rules."""
    who = _Who(endpoints, policies_switch.namespaces(document))
    return [_policy(policy, who) for policy in documents.policies(document["policies"])]


def _policy(policy: Policy, who: _Who) -> dict[str, Any]:
    found: dict[str, Any] = {
        "policy": f"{policy.kind} {policy.namespace}/{policy.name}",
        "selects": who.names(Pods(policy.namespace, policy.pods)),
        "isolates": [
            name for name, rules in zip(DIRECTIONS, policy.rules) if rules is not None and not _ordered(policy)
        ],
        "rules": [
            {
                "rule": str(RuleName(policy.kind, policy.namespace, policy.name, direction, index)).rpartition(" ")[2],
                "action": "allow" if rule.allow else "deny",
                "peers": who.peers(rule.peers),
                "ports": ["all"] if rule.ports is None else [_port(port) for port in rule.ports],
            }
            for direction, rules in enumerate(policy.rules)
            for index, rule in enumerate(rules or ())
        ],
    }
    more = {"priority": policy.priority, "log": policy.log or None, "audit": policy.audit or None}
    return {**found, **{key: value for key, value in more.items() if value is not None}}


def _ordered(policy: Policy) -> bool:
    return policy.priority is not None


class _Who:
    """Selects endpoints by name."""

    def __init__(self, endpoints: Sequence[Endpoint], namespaces: Mapping[str, Mapping[str, str]]) -> None:
        self._names = [item.name for item in endpoints]
        self._selection = Selection(map(profile, endpoints), namespaces)

    def names(self, pods: Pods) -> list[str]:
        return sorted(self._names[position] for position in self._selection.select(pods))

    def peers(self, peers: Peers) -> list[str]:
        if peers is None:
            return [_EVERYBODY]
        return sorted({text for peer in peers for text in self._peer(peer)})

    def _peer(self, peer: Peer) -> list[str]:
        if not isinstance(peer, Block):
            return self.names(peer)
        excepts = f" except {', '.join(map(str, peer.excepts))}" if peer.excepts else ""
        return [f"{peer.cidr}{excepts}"]


def _port(port: Port) -> str:
    return f"{port.protocol} {port.name}" if port.name else _span(port.protocol, port.low, port.high)


def _span(protocol: str, low: int, high: int) -> str:
    """Of ports, or of ICMP's type * 256 + code."""
    if (low, high) == (0, 65535):
        return protocol
    if not protocol.startswith("ICMP"):
        return f"{protocol} {low}" if low == high else f"{protocol} {low}-{high}"
    first, last = divmod(low, 256), divmod(high, 256)
    if first[1] == 0 and last[1] == 255:
        return f"{protocol} type {first[0]}" + (f"-{last[0]}" if last[0] != first[0] else "")
    return f"{protocol} type {first[0]} code {first[1]}" + (f" to type {last[0]} code {last[1]}" if low != high else "")


def readable(tables: Tables, here: Sequence[Endpoint]) -> dict[str, Any]:
    """The tables, with names of containers for slots and of rules for words."""
    names = {item.slot: item.name for item in here}
    exact = {format_address(address): identity for address, identity in tables.exact.items()}
    prefix = {str(item): identity for item, identity in tables.prefix.items()}
    return {
        "identities": [
            {"address": address, "class": found.peers, "broad_class": found.broad}
            for address, found in {**exact, **prefix}.items()
        ],
        "subjects": [
            {
                "container": names.get(slot, str(slot)),
                "direction": DIRECTIONS[direction],
                "subject": subject.number,
                "verdicts": list(_entries(tables, subject.row)),
            }
            for (slot, direction), subject in sorted(tables.subject.items())
        ],
        "rows": [
            {"subject": subject, "class": peers, "verdicts": list(_entries(tables, row))}
            for (subject, peers), row in sorted(tables.policy.items())
        ],
    }


def _entries(tables: Tables, row: Sequence[Entry]) -> Iterator[str]:
    """ "TCP 80: allow, by NetworkPolicy default/web ingress[0]", in the order in which they are asked."""
    for entry in row:
        protocol = "every protocol" if entry.protocol == OTHER else _PROTOCOL[entry.protocol]
        for low, high, word in _spans(tables, entry):
            yield f"{_span(protocol, low, high)}: {words(tables, word)}"


def words(tables: Tables, word: int) -> str:
    """A verdict in words."""
    said = verdict(tables, word)
    by = f"by {said.rule}" if said.rule else "no policy says anything"
    log = ", logged" if said.log else ""
    other = "allow" if not said.allow else "deny"
    audit = f", but {said.audit} would {other} it if it were enforced" if said.audit else ""
    return f"{'allow' if said.allow else 'deny'}, {by}{log}{audit}"


def _spans(tables: Tables, entry: Entry) -> Iterator[tuple[int, int, int]]:
    """First port, last port and word; what a page does not say is left out."""
    if not entry.word & IS_PAGE:
        yield entry.low, entry.high, entry.word
        return
    start, before = 0, 0
    for port, word in enumerate([*_words(tables, entry.word), 0]):
        if word != before:
            if before:
                yield start, port - 1, before
            start, before = port, word


def _words(tables: Tables, page: int) -> Iterator[int]:
    for word in tables.pages[page >> NUMBER]:
        yield from tables.pages[word >> NUMBER] if word & IS_PAGE else [word] * PAGE
