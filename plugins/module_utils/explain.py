# SPDX-License-Identifier: GPL-3.0-or-later
"""`fastpath explain`: which rule decides a packet, by the documents and by the kernel; and which rule a number is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import FastpathError, InvalidConfig
from .kernel import policy
from .kernel.asked import asked
from .policy import members
from .policy import tables as compiled
from .policy.model import BITS, DIRECTIONS, PROTOCOLS, Packet, parse_address
from .policy.tables import Tables, Verdict
from .resources import policies_wish
from .resources.policies import Policies

_TARGET = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^\[\]]+?))(?::(?P<port>[0-9.]+))?(?:/(?P<protocol>[\w-]+))?")
_NUMBERS = {name.lower(): number for name, number in PROTOCOLS.items()}
_PROTOCOLS = {number: name for name, number in PROTOCOLS.items()}
_FAMILY = {PROTOCOLS["ICMP"]: 4, PROTOCOLS["ICMPv6"]: 6}  # the others go over both
_ECHO = ((4, PROTOCOLS["ICMP"], 8 << 8), (6, PROTOCOLS["ICMPv6"], 128 << 8))


@dataclass(frozen=True)
class Target:
    """What --to says: a place, and protocol and port by IP version."""

    place: str
    kinds: Mapping[int, tuple[int, int]]


def target(text: str) -> Target:
    """From B:443/tcp, [fd00::1]:53/udp, B/icmp (an echo request), B:3.1/icmp (type and code) or B/47."""
    if text.count(":") > 1 and not text.startswith("["):  # an IPv6 address without brackets has no port
        place, _slash, protocol = text.partition("/")
        return _target(text, place, None, protocol)
    found = _TARGET.fullmatch(text)
    if not found:
        raise _wrong(text)
    return _target(text, found["v6"] or found["name"], found["port"], found["protocol"] or "")


def _target(text: str, place: str, port: str | None, protocol: str) -> Target:
    name = protocol.lower() or "tcp"
    if name in ("icmp", "icmpv6") and port is None:
        return Target(place, {v: (number, echo) for v, number, echo in _ECHO if v == 6 or name == "icmp"})
    number = int(name) if name.isdigit() else _NUMBERS.get(name, 256)
    if number > 255:
        raise _wrong(text)
    kind = (number, _port_number(text, number, port))
    return Target(place, {version: kind for version in BITS if _FAMILY.get(number, version) == version})


def _port_number(text: str, protocol: int, port: str | None) -> int:
    """As tables have it, see tables.lookup()."""
    if protocol not in _PROTOCOLS and port is None:
        return 0
    parts = [int(part) if part.isdigit() else -1 for part in (port or "").split(".")]
    if protocol in _FAMILY and len(parts) <= 2 and all(0 <= part < 256 for part in parts):
        return parts[0] * 256 + (parts[1] if len(parts) == 2 else 0)
    if protocol not in _PROTOCOLS or protocol in _FAMILY or len(parts) != 1 or not 0 < parts[0] < 65536:
        raise _wrong(text)
    return parts[0]


def _wrong(text: str) -> InvalidConfig:
    return InvalidConfig("--to", text, "like web-1:443/tcp, 10.0.0.1:53/udp, [fd00::1]:80, web-1/icmp or web-1/47")


def explain(source: str, destination: str) -> list[dict[str, Any]]:
    """For each pair of addresses of the two, which are names or addresses: the verdicts. Raises FastpathError."""
    to, world = target(destination), _world()
    pairs = _pairs(world, source, to)
    answers = [_explain(world, Packet(one, other, *to.kinds[version])) for version, (one, other) in pairs.items()]
    if not any(answer["verdicts"] for answer in answers):
        raise FastpathError("explain", f"{source} to {to.place}", "neither of the two is a container of this node")
    return answers


@dataclass(frozen=True)
class _World:
    """The policies of this node as they were written, compiled anew, and the addresses of the containers they know.

    current: they are what the kernel was given.
    """

    tables: Tables
    named: Mapping[str, tuple[str, ...]]
    current: bool


def _world() -> _World:
    have = Policies().have()
    document = have.policing.document
    if have.policing.unreadable:
        raise FastpathError("explain", "policies", have.policing.unreadable)
    if document is None:
        raise FastpathError("explain", "policies", "this node has none, so everything is allowed")
    source = policies_wish.source(have, document)
    installed = have.policing.installed
    current = installed is not None and installed.input == source.digest() and installed.intact
    others = [members.elsewhere(item, "endpoints") for item in document["endpoints"]]
    named = {item.name: item.addresses for item in (*others, *source.here)}
    return _World(source.tables(), named, current)


def _pairs(world: _World, source: str, to: Target) -> dict[int, tuple[str, str]]:
    """By IP version the first pair of addresses, where both have one."""
    found: dict[int, tuple[str, str]] = {}
    for one in _addresses(world, source):
        for other in _addresses(world, to.place):
            version = parse_address(one)[0]
            if version == parse_address(other)[0] and version in to.kinds:
                found.setdefault(version, (one, other))
    if not found:
        raise FastpathError("explain", f"{source} to {to.place}", "they have no addresses of one family for this")
    return dict(sorted(found.items()))


def _addresses(world: _World, text: str) -> Sequence[str]:
    try:
        parse_address(text)
    except ValueError:
        if text not in world.named:
            raise FastpathError("find", text, "it is no address, and no container has this name") from None
        return world.named[text]
    return (text,)


def _explain(world: _World, packet: Packet) -> dict[str, Any]:
    here = compiled.explain(world.tables, packet)
    words = {name: compiled.lookup(world.tables, packet, DIRECTIONS.index(name)) for name in here}
    kernel = asked(packet.source, packet.destination, packet.protocol, packet.port)._asdict()
    return {
        "from": packet.source,
        "to": packet.destination,
        "protocol": packet.protocol,
        "port": packet.port,
        "verdicts": {name: _public(verdict) for name, verdict in here.items()},
        "kernel": {name: _public(compiled.verdict(world.tables, kernel[name])) for name in here},
        "disagree": [name for name in here if kernel[name] != words[name]],
        "current": world.current,
    }


def _public(verdict: Verdict) -> dict[str, Any]:
    found: dict[str, Any] = {"verdict": "allow" if verdict.allow else "deny", "rule": _name(verdict)}
    if verdict.log:
        found["log"] = True
    if verdict.audit:
        found["audit"] = str(verdict.audit)
    return found


def _name(verdict: Verdict) -> str | None:
    return str(verdict.rule) if verdict.rule else None


def render(answers: Sequence[Mapping[str, Any]]) -> str:
    """For people."""
    return "\n".join(line for answer in answers for line in _lines(answer))


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    what = _PROTOCOLS.get(answer["protocol"], f"protocol {answer['protocol']}")
    yield f"{answer['from']} to {answer['to']}, {_port(what, answer['port'])}"
    for name, verdict in answer["verdicts"].items():
        yield f"  {name:8} {_words(verdict)}"
        if name in answer["disagree"]:
            yield f"  {name:8} but the kernel says: {_words(answer['kernel'][name])}"
    if not answer["current"]:
        yield "  the documents or containers of this node are not what the kernel was told: fastpath apply"


def _port(protocol: str, port: int) -> str:
    if protocol.startswith("ICMP"):
        return f"{protocol} type {port >> 8} code {port & 255}"
    return f"{protocol} {port}" if port else protocol


def _words(verdict: Mapping[str, Any]) -> str:
    rule = f"by {verdict['rule']}" if verdict["rule"] else "nothing restricts it"
    audit = f"; if it were enforced, {verdict['audit']} would say otherwise" if "audit" in verdict else ""
    return f"{verdict['verdict']}, {rule}{', logged' if 'log' in verdict else ''}{audit}"


class Names:
    """Names of rules by the numbers in events. Compiles when it is first asked, and again after a change."""

    def __init__(self) -> None:
        self._verdicts: Mapping[int, Verdict] = {}
        self._epoch = 0

    def __call__(self, number: int, audited: bool = False) -> str:
        """audited: of the rule that would decide if its policy were enforced. Empty where it is not known: then other
        policies are in force than those that the node keeps."""
        epoch = policy.epoch()
        if epoch != self._epoch:
            try:
                self._verdicts = _world().tables.verdicts
            except FastpathError:
                self._verdicts = {}
            self._epoch = epoch
        found = self._verdicts.get(number, Verdict(True))
        return str((found.audit if audited else found.rule) or "")
