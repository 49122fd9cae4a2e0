# SPDX-License-Identifier: GPL-3.0-or-later
"""From policies and endpoints to the tables that the programs look up. Pure.

How large they get: `exact` and `prefix` have one entry for each known address and each prefix in a policy, `policy` has
one row for each class of peers that a subject's own rules tell apart. So 100,000 rules for one subject make 100,000
rows, one rule with 100,000 prefixes makes one. A broad prefix around 100,000 narrow ones of another subject adds one
row, not 100,000. What multiplies is many subjects that share many rules: each has rows of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

from ..errors import InvalidConfig
from .classes import PeerClass, broad_groups, classify, host, nodes, sizes
from .collector import paused
from .decisions import Decisions, Words
from .model import BITS, Address, Endpoint, Policy, Prefix, parse_address
from .numbers import Space, digest
from .ports import MAX_NUMBER, Pages
from .rules import Book, blocks, labelled, read
from .select import Profile, Selection, profile
from .subjects import Group, group, number
from .tables import NODE, UNKNOWN, Identity, Row, Subject, Tables


@dataclass(frozen=True)
class Limits:
    """Entries of each table, for which the kernel's maps are made; `rules` counts a rule once for each subject,
    `logged` those that are logged or audited once for all."""

    exact: int = 1 << 19
    prefix: int = 1 << 20
    policy: int = 1 << 20
    rules: int = 1 << 20
    pages: int = 1 << 13
    slots: int = 1 << 12
    logged: int = 1 << 16

    def check(self, name: str, count: int) -> None:
        limit = getattr(self, name)
        if count > limit:
            raise InvalidConfig(
                "policies", f"{count} entries of {name}", f"at most {limit}, this is {count - limit} too many"
            )


DEFAULT = Limits()
MAX_CLASS = 1 << 32


def compile_tables(
    policies: Sequence[Policy],
    endpoints: Sequence[Endpoint],
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    node: Sequence[str] = (),
    limits: Limits = DEFAULT,
) -> Tables:
    """The tables for these policies.

    endpoints: of this node and of others; namespaces: their labels; node: the addresses of the node itself.
    Raises InvalidConfig where endpoints contradict each other or a limit is exceeded.
    """
    with paused():
        return compile_part(policies, Scene.of(endpoints, namespaces or {}, node, limits), limits).tables


@dataclass(frozen=True)
class Scene:
    """All endpoints, and whom selectors select of them."""

    owners: dict[Prefix, int]  # the profile of each known address
    slots: dict[Address, int]  # of those on this node
    node: list[Address]
    profiles: list[Profile]
    here: dict[int, list[int]]  # the slots that have a profile
    selection: Selection

    @classmethod
    def of(
        cls,
        endpoints: Sequence[Endpoint],
        namespaces: Mapping[str, Mapping[str, str]],
        node: Sequence[str],
        limits: Limits,
    ) -> Scene:
        """Raises InvalidConfig."""
        known, slots = _addresses(endpoints, limits)
        profiles: dict[Profile, int] = {}
        of = [profiles.setdefault(profile(endpoint), len(profiles)) for endpoint in endpoints]
        here: dict[int, list[int]] = defaultdict(list)
        for position, endpoint in zip(of, endpoints):
            if endpoint.slot is not None:
                here[position].append(endpoint.slot)
        owners = {host(address): of[position] for address, position in known.items()}
        return cls(owners, slots, _node(node, known), list(profiles), here, Selection(profiles, namespaces))


@dataclass(frozen=True)
class Part:
    """Tables, and what they were made of: digests of the broad groups, and the numbers of classes and of words."""

    tables: Tables
    broad: frozenset[int]
    classes: Space
    words: Space


def compile_part(
    policies: Sequence[Policy],
    scene: Scene,
    limits: Limits = DEFAULT,
    inside: Callable[[Prefix], int] | None = None,
    touched: Callable[[Prefix], bool] | None = None,
) -> Part:
    """What the tables say about the prefixes that are `touched`; with None all of it.

    inside: see classes.broad_groups(), where some policies and rules are left out. Raises InvalidConfig.
    """
    ordered = sorted(policies, key=lambda item: item.key)
    book = read(ordered, scene.profiles)
    named, chosen = blocks(book.groups), labelled(book.groups, scene.profiles, scene.selection)
    places = nodes(named, scene.owners)
    broad = broad_groups(inside or sizes(places).__getitem__, named, scene.owners, chosen)
    classes = classify(places, named, scene.owners, chosen, broad)
    for address in scene.node:
        classes.pop(host(address), None)
    if touched:
        classes = {place: peers for place, peers in classes.items() if touched(place)}
    words, identities = Words(Space(MAX_NUMBER)), _Identities(book.groups.digests)
    rows = _Rows(identities, words, limits)
    groups = group(ordered, scene.profiles, scene.here, scene.selection)
    limits.check("rules", sum(len(book.items[p.key, g.direction]) for g in groups for p in g.policies))
    subjects, policy = rows.build(groups, number(groups), book, classes.values())
    exact, prefix = identities.tables(classes, scene.node)
    limits.check("exact", len(exact))
    limits.check("prefix", len(prefix))
    limits.check("pages", len(rows.pages.pages))
    limits.check("logged", sum(said.log or said.audit is not None for said in words.verdicts.values()))
    tables = Tables(exact, prefix, subjects, policy, rows.pages.pages, scene.slots, words.verdicts)
    digests = book.groups.digests
    return Part(tables, frozenset(digests[item] for item in broad), identities.space, words.space)


def _addresses(endpoints: Sequence[Endpoint], limits: Limits) -> tuple[dict[Address, int], dict[Address, int]]:
    """Whose each address is, by position, and the slots of those on this node."""
    known: dict[Address, int] = {}
    slots: dict[Address, int] = {}
    taken: dict[int, str] = {}
    for position, endpoint in enumerate(endpoints):
        slot = endpoint.slot
        if slot is not None and (slot >= limits.slots or taken.setdefault(slot, endpoint.name) != endpoint.name):
            raise InvalidConfig(f"endpoints[{endpoint.name}].slot", slot, f"a slot of its own below {limits.slots}")
        for text in endpoint.addresses:
            address = _address(text, f"endpoints[{endpoint.name}].addresses")
            if known.setdefault(address, position) != position:
                other = endpoints[known[address]].name
                raise InvalidConfig(f"endpoints[{endpoint.name}].addresses", text, f"an address that {other} has not")
            if slot is not None:
                slots[address] = slot
    return known, slots


def _node(node: Sequence[str], known: Mapping[Address, int]) -> list[Address]:
    found = [_address(text, "node") for text in node]
    for text, address in zip(node, found):
        if address in known:
            raise InvalidConfig("node", text, "an address that no endpoint has")
    return found


def _address(text: str, field: str) -> Address:
    try:
        address = parse_address(text)
    except ValueError:
        raise InvalidConfig(field, text, "an IPv4 or IPv6 address") from None
    if host(address).mapped:
        raise InvalidConfig(field, text, "an IPv4 address as such, like 10.0.0.1")
    return address


class _Identities:
    """Numbers of classes, made of the digests of their groups."""

    def __init__(self, digests: Sequence[int]) -> None:
        self._digests = digests
        self.space = Space(MAX_CLASS, first=max(UNKNOWN, NODE) + 1)
        self._known: dict[PeerClass, Identity] = {PeerClass(): Identity(UNKNOWN, UNKNOWN)}

    def of(self, peers: PeerClass) -> Identity:
        """A class of broad groups alone has one number, in both places."""
        found = self._known.get(peers)
        if found is None:
            broad = self.of(PeerClass(broad=peers.broad)).peers if peers.narrow else None
            contents = sorted([self._digests[item] for groups in peers for item in groups])
            number = self.space.give(digest(" ".join(map(str, contents))))
            found = self._known[peers] = Identity(number, number if broad is None else broad)
        return found

    def tables(
        self, classes: Mapping[Prefix, PeerClass], node: Iterable[Address]
    ) -> tuple[dict[Address, Identity], dict[Prefix, Identity]]:
        """Single addresses go into a hash, the others into a trie."""
        exact: dict[Address, Identity] = {}
        prefix: dict[Prefix, Identity] = {}
        for item, peers in classes.items():
            identity = self.of(peers)
            if item.length == BITS[item.version]:
                exact[item.version, item.address] = identity
            else:
                prefix[item] = identity
        exact.update((address, Identity(NODE, UNKNOWN)) for address in node)
        return exact, prefix


class _Rows:
    """Makes the rows of `subject` and `policy`."""

    def __init__(self, identities: _Identities, words: Words, limits: Limits) -> None:
        self._identities = identities
        self._words = words
        self._limits = limits
        self.pages = Pages(limits.pages)

    def build(
        self, groups: Sequence[Group], numbers: Sequence[int], book: Book, classes: Iterable[PeerClass]
    ) -> tuple[dict[tuple[int, int], Subject], dict[tuple[int, int], Row]]:
        decisions = [Decisions(item, book, self._words) for item in groups]
        users: dict[int, list[int]] = defaultdict(list)
        for position, made in enumerate(decisions):
            for used in made.uses:
                users[used].append(position)
        wanted = _wanted(classes, users)
        self._limits.check("policy", sum(len(positions) for _peers, positions in wanted))
        rows: dict[tuple[int, int], Row] = {}
        has: tuple[set[int], set[int]] = (set(), set())  # subjects that have narrow rows, and broad ones
        for peers, positions in wanted:
            class_ = self._identities.of(peers).peers
            for position in positions:
                row = self.pages.entries(decisions[position].row(peers))
                # an empty row still hides the one of the broad groups
                if row or (peers.narrow and peers.broad):
                    rows[numbers[position], class_] = row
                    has[not peers.narrow].add(position)
        subjects: dict[tuple[int, int], Subject] = {}
        for position, (item, made) in enumerate(zip(groups, decisions)):
            row = self.pages.entries(made.default())
            subject = Subject(numbers[position], position in has[0], position in has[1], row)
            subjects.update(((slot, item.direction), subject) for slot in item.slots)
        return subjects, rows


def _wanted(classes: Iterable[PeerClass], users: Mapping[int, Sequence[int]]) -> list[tuple[PeerClass, set[int]]]:
    """For which subjects a class needs a row: those that use a narrow group of it. Broad groups have rows alone."""
    every = dict.fromkeys(classes)
    found = [
        (peers, {user for item in peers.narrow for user in users.get(item, ())}) for peers in every if peers.narrow
    ]
    some = dict.fromkeys(peers.broad for peers in every if peers.broad)
    return found + [
        (PeerClass(broad=broad), {user for item in broad for user in users.get(item, ())}) for broad in some
    ]
