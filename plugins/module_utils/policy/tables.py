# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled policies, and how a program looks them up: `lookup` is its specification, step by step. Pure.

| table   | key                               | value                                         | in the kernel    |
| ------- | --------------------------------- | --------------------------------------------- | ---------------- |
| exact   | address                           | class, class of its broad groups              | hash             |
| prefix  | prefix, by longest match          | the same                                      | trie             |
| subject | slot, direction                   | subject, has narrow rows, has broad rows, row | array            |
| policy  | subject, class                    | row                                           | hash             |
| pages   | page                              | 256 words                                     | array            |

Classes and subjects are u32, words are u32. A row is at most 8 entries of protocol, lowest port, highest port, word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .model import DIRECTIONS, EGRESS, INGRESS, Address, Packet, Prefix, parse_address
from .ports import ALLOW, AUDIT, IS_PAGE, LOG, NUMBER, OTHER, PAGE, STRETCH_OF, Entry

UNKNOWN, NODE = 0, 1  # classes: in no group; an address of the node itself
Row = tuple[Entry, ...]


class Identity(NamedTuple):
    peers: int
    broad: int


class Subject(NamedTuple):
    """What holds for a container in a direction: the row is for peers and ports that no row of `policy` names."""

    number: int
    narrow: bool  # there are rows for classes
    broad: bool  # there are rows for classes of broad groups
    row: Row


class RuleName(NamedTuple):
    """A rule of a policy; without a number: that the policy isolates."""

    kind: str
    namespace: str
    name: str
    direction: int
    rule: int | None

    def __str__(self) -> str:
        what = "isolates" if self.rule is None else f"{DIRECTIONS[self.direction]}[{self.rule}]"
        return f"{self.kind} {self.namespace}/{self.name} {what}"


class Verdict(NamedTuple):
    """What a word means. audit: the rule that would turn it around if its policy were enforced."""

    allow: bool
    rule: RuleName | None = None  # None: no policy has anything to say
    log: bool = False
    audit: RuleName | None = None


@dataclass(frozen=True)
class Tables:
    exact: Mapping[Address, Identity] = field(default_factory=dict)
    prefix: Mapping[Prefix, Identity] = field(default_factory=dict)
    subject: Mapping[tuple[int, int], Subject] = field(default_factory=dict)
    policy: Mapping[tuple[int, int], Row] = field(default_factory=dict)
    pages: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    # user space only
    slots: Mapping[Address, int] = field(default_factory=dict)  # addresses of the containers on this node
    verdicts: Mapping[int, Verdict] = field(default_factory=dict)  # by the number of a word

    @property
    def maps(self) -> dict[str, Mapping[Any, Any]]:
        """What the kernel has."""
        names = ("exact", "prefix", "subject", "policy", "pages")
        return {name: getattr(self, name) for name in names}


class Change(NamedTuple):
    set: Mapping[Any, Any]
    delete: frozenset[Any]


def delta(old: Tables, new: Tables) -> dict[str, Change]:
    """By table, the entries to set and the keys to delete."""
    return {name: change(old.maps[name], wanted) for name, wanted in new.maps.items()}


def change(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Change:
    """From one table to another; `old` may as well be what was read from a map."""
    changed = {key: value for key, value in new.items() if key not in old or old[key] != value}
    return Change(changed, frozenset(key for key in old if key not in new))


def lookup(tables: Tables, packet: Packet, direction: int) -> int:
    """The word for the first packet of a flow, on the container's side that `direction` says.

    An IPv6 packet with addresses in ::ffff:0:0/96 never comes here: the dataplane drops it.
    """
    source, destination = parse_address(packet.source), parse_address(packet.destination)
    own, other = (destination, source) if direction == INGRESS else (source, destination)
    slot = tables.slots.get(own)
    subject = None if slot is None else tables.subject.get((slot, direction))
    if subject is None:
        return ALLOW
    if tables.slots.get(other) == slot:
        return ALLOW  # the dataplane answers this itself: a container sends nothing to itself
    identity = identify(tables, other)
    if identity.peers == NODE:
        return ALLOW
    protocol = STRETCH_OF.get(packet.protocol, OTHER)
    row: Row | None = None
    if subject.narrow:
        row = tables.policy.get((subject.number, identity.peers))
    if row is None and subject.broad:
        row = tables.policy.get((subject.number, identity.broad))
    word = match(tables, row, protocol, packet.port) if row else 0
    return word or match(tables, subject.row, protocol, packet.port)


def identify(tables: Tables, address: Address) -> Identity:
    """The class of an address: exact, else by the longest prefix."""
    found = tables.exact.get(address)
    if found:
        return found
    version, number = address
    bits = 32 if version == 4 else 128
    for length in range(bits - 1, -1, -1):
        host = bits - length
        found = tables.prefix.get(Prefix(version, number >> host << host, length))
        if found:
            return found
    return Identity(UNKNOWN, UNKNOWN)


def match(tables: Tables, row: Row, protocol: int, port: int) -> int:
    """The first entry that says something about this port; 0 if none does."""
    for entry in row:
        if entry.protocol not in (OTHER, protocol) or not entry.low <= port <= entry.high:
            continue
        word = entry.word
        if word & IS_PAGE:
            word = tables.pages[word >> NUMBER][port // PAGE]
        if word & IS_PAGE:
            word = tables.pages[word >> NUMBER][port % PAGE]
        if word:
            return word
    return 0


def verdict(tables: Tables, word: int) -> Verdict:
    """What a word says: its flags, and the names that belong to its number."""
    named = tables.verdicts.get(word >> NUMBER, Verdict(True))
    return named._replace(allow=bool(word & ALLOW), log=bool(word & LOG), audit=named.audit if word & AUDIT else None)


def explain(tables: Tables, packet: Packet) -> dict[str, Verdict]:
    """The verdict of each side that is a container of this node, by direction; both must allow."""
    found: dict[str, Verdict] = {}
    for direction, own in ((EGRESS, packet.source), (INGRESS, packet.destination)):
        if parse_address(own) in tables.slots:
            found[DIRECTIONS[direction]] = verdict(tables, lookup(tables, packet, direction))
    return found
