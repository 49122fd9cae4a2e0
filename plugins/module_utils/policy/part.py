# SPDX-License-Identifier: GPL-3.0-or-later
"""What some changed rules may make different, compiled twice: of the documents before and of those after. Pure.

Rules that differ have peers, and these cover addresses: the area. What the tables say about addresses elsewhere cannot
differ. So of the other rules only those are compiled whose peers overlap the area, and beside them all that are about
everybody or name a port. The others are looked at just far enough to know what they cover, because that decides which
groups are broad. Where a part is not enough, or not worth it, there is none, and all is compiled.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Callable

from ..errors import InvalidConfig
from . import documents
from .collector import paused
from .compile import DEFAULT, Limits, Part, Scene, compile_part
from .model import BITS, Block, Prefix, Rule
from .numbers import digest

MOST = 64  # rules that differ, prefixes of their peers; so few of the others are always worth it
_DIRECTIONS = (("ingress", "from"), ("egress", "to"))
Document = Mapping[str, Any]


def parts(
    old: Sequence[Document], new: Sequence[Document], scene: Scene, limits: Limits = DEFAULT
) -> tuple[Part, Part] | None:
    """old: documents that are in force, so they are fine; new: others, both in the order of their names.

    None: all is to be compiled. That also finds what is wrong with the new ones, and where.
    """
    with paused():
        try:
            return _parts(old, new, scene, limits)
        except InvalidConfig:
            return None


def _parts(old: Sequence[Document], new: Sequence[Document], scene: Scene, limits: Limits) -> tuple[Part, Part] | None:
    if len(old) != len(new) or [_frame(item) for item in old] != [_frame(item) for item in new]:
        return None
    pairs = [_Pair(before, after) for before, after in zip(old, new)]
    changed = [_changed(pairs, side) for side in (0, 1)]
    area = _area([*changed[0], *changed[1]], scene)
    if not area:
        return None
    look = _Look(area, scene)
    total = sum(look.at(pair) for pair in pairs)
    taken = sum(len(found) for pair in pairs for found in pair.chosen)
    if not look.strict or taken > max(MOST, total // 4):
        return None
    made: list[Part] = []
    for side, rules in enumerate(changed):
        policies = documents.policies([pair.document(side, others=True) for pair in pairs])
        touched = partial(_overlap, area=area)
        made.append(compile_part(policies, scene, limits, look.inside(rules), touched))
    subjects = {subject.number for subject in made[1].tables.subject.values()}
    if total * len(subjects) > limits.rules:
        return None
    groups = {digest(repr(rule.peers)) for rules in changed for rule in rules}
    if not made[0].broad ^ made[1].broad <= groups or made[0].tables.pages or made[1].tables.pages:
        return None  # it reaches further than the area; pages have few numbers, which depend on each other
    return made[0], made[1]


def _frame(document: Document) -> str:
    """All but the rules, where it is such that the rules can be looked at."""
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        raise InvalidConfig("policies.spec", spec, "a dictionary")
    rest = {key: value for key, value in spec.items() if key not in ("ingress", "egress")}
    return json.dumps([{**document, "spec": rest}, documents.directions(spec, "policies.spec")], sort_keys=True)


class _Pair:
    """A policy before and after, and by direction: the rules of either, the positions of those that the other has not,
    and what the positions of rules that both have differ by behind those; positions are those of `after`."""

    def __init__(self, before: Document, after: Document) -> None:
        self.documents = (before, after)
        self.rules: list[tuple[list[Any], list[Any]]] = []
        self.changed: list[tuple[Sequence[int], Sequence[int]]] = []
        self.chosen: list[list[int]] = [[], []]
        for key, _peers in _DIRECTIONS:
            old, new = (item["spec"].get(key) or [] for item in (before, after))
            if not isinstance(new, list):
                raise InvalidConfig(f"policies.spec.{key}", new, "a list")
            self.rules.append((old, new))
            self.changed.append(different(old, new))

    def document(self, side: int, others: bool) -> Document:
        """With the rules that only this side has and, with `others`, those that were chosen."""
        spec = dict(self.documents[side]["spec"])
        spec["policyTypes"] = documents.directions(spec, "policies.spec")
        for direction, (key, _peers) in enumerate(_DIRECTIONS):
            rules, wanted = self.rules[direction][side], set(self.changed[direction][side])
            if others:
                wanted.update(self.chosen[direction] if side else map(self._before(direction), self.chosen[direction]))
            spec[key] = [rules[position] for position in sorted(wanted)]
        return {**self.documents[side], "spec": spec}

    def _before(self, direction: int) -> Callable[[int], int]:
        old, new = self.rules[direction]
        first = min(self.changed[direction][1] or self.changed[direction][0] or [0])
        behind = len(old) - len(new)
        return lambda position: position + behind if position >= first else position


def different(old: Sequence[Any], new: Sequence[Any]) -> tuple[Sequence[int], Sequence[int]]:
    """The positions of what differs."""
    if old == new:
        return (), ()
    least = min(len(old), len(new))
    first = next((at for at in range(least) if old[at] != new[at]), least)
    last = next((at for at in range(least - first) if old[-1 - at] != new[-1 - at]), least - first)
    if len(old) == len(new):
        same = [at for at in range(first, len(old) - last) if old[at] != new[at]]
        return same, same
    return range(first, len(old) - last), range(first, len(new) - last)


def _changed(pairs: Sequence[_Pair], side: int) -> list[Rule]:
    """The rules that only this side has, of directions that matter."""
    some = [pair for pair in pairs if any(changed[side] for changed in pair.changed)]
    if sum(len(changed[side]) for pair in some for changed in pair.changed) > MOST:
        raise InvalidConfig("policies", len(some), "fewer that differ")
    found = documents.policies([pair.document(side, others=False) for pair in some])
    return [rule for policy in found for rules in policy.rules for rule in rules or ()]


def _area(rules: Sequence[Rule], scene: Scene) -> list[Prefix]:
    """What the peers of these rules cover; nothing where that is not all that the rules are about, or too much."""
    found: set[Prefix] = set()
    for rule in rules:
        if rule.peers is None or any(port.name for port in rule.ports or ()):
            return []
        for peer in rule.peers:
            if isinstance(peer, Block):
                found.add(peer.cidr)
            else:
                selected = set(scene.selection.select(peer))
                found.update(place for place, profile in scene.owners.items() if profile in selected)
    return sorted(found) if len(found) <= MOST else []


def _overlap(place: Prefix, area: Iterable[Prefix]) -> bool:
    return any(place.contains(one) or one.contains(place) for one in area)


class _Look:
    """Goes over the rules that both sides have: what their peers cover, and which of them matter."""

    def __init__(self, area: Sequence[Prefix], scene: Scene) -> None:
        self.strict = True  # numbers are numbers
        self._pods = any(_overlap(place, area) for place in scene.owners)  # some of the area has labels
        self._area = {version: [(one.address, one.last) for one in area if one.version == version] for version in BITS}
        self._places: dict[int, set[int]] = {version: set() for version in BITS}
        for place in scene.owners:
            self._places[place.version].add(_number(place))

    def at(self, pair: _Pair) -> int:
        """Choose the rules that matter; returns how many rules there are."""
        listed = documents.directions(pair.documents[1]["spec"], "policies.spec")
        for direction, (key, peers) in enumerate(_DIRECTIONS):
            if key.capitalize() in listed:
                rules, skip = pair.rules[direction][1], frozenset(pair.changed[direction][1])
                pair.chosen[direction] = [
                    at for at, rule in enumerate(rules) if at not in skip and self._matters(rule, peers)
                ]
        return sum(len(rules[1]) for rules in pair.rules)

    def _matters(self, rule: Document, side: str) -> bool:
        peers = rule.get(side)
        matters = not peers
        for peer in peers or ():
            given = peer.get("ipBlock")
            if given is None:
                matters = matters or self._pods
                continue
            place = Prefix.parse(str(given["cidr"]))
            self._places[place.version].add(_number(place))
            if given.get("except"):
                self._places[place.version].update(map(_number, documents.block(given, "").excepts))
            for first, last in self._area[place.version]:
                matters = matters or (first <= place.last and place.address <= last)
        for port in rule.get("ports") or ():
            for value in port.values():
                # a bool or a float may be equal to a number, and is refused in the whole
                if isinstance(value, (bool, float)):
                    self.strict = False
            matters = matters or isinstance(port.get("port"), str)
        return matters

    def inside(self, rules: Iterable[Rule]) -> Callable[[Prefix], int]:
        """How many of what these rules and the others cover lie within a prefix, itself included."""
        own = {version: set[int]() for version in BITS}
        for rule in rules:
            for peer in rule.peers or ():
                if isinstance(peer, Block):
                    own[peer.cidr.version].update(map(_number, (peer.cidr, *peer.excepts)))
        ordered = {version: sorted(self._places[version] | own[version]) for version in BITS}

        def inside(prefix: Prefix) -> int:
            numbers = ordered[prefix.version]
            return bisect_right(numbers, prefix.last << 8 | 255) - bisect_left(numbers, _number(prefix))

        return inside


def _number(place: Prefix) -> int:
    """In the order of prefixes, and quicker to sort."""
    return place.address << 8 | place.length
