# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that stay: for the same thing the same number, and for a thing that replaces another that one's.

A number is a hash of what it stands for, so it needs no memory: two nodes, or one before and after a reboot, agree.
Memory makes it better: a rule whose content changes keeps its number, and with it all that was derived from it. Two
things with one hash are told apart in the order in which they come, so a set of policies has one numbering only.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple


def digest(text: str) -> int:
    """64 bits, the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Space:
    """Numbers from `first` to `size` - 1, by digests. If that is too few, larger ones: who has a limit counts."""

    def __init__(self, size: int, first: int = 1) -> None:
        self._size = size
        self._first = first
        self._given: dict[int, int] = {}
        self._taken: set[int] = set()

    def reserve(self, number: int) -> None:
        """Something has this number from earlier."""
        self._taken.add(number)

    def keep(self, content: int, number: int) -> None:
        """This content has this number from earlier."""
        self._given[content] = number
        self.reserve(number)

    def give(self, content: int) -> int:
        """The number of this content: its hash, or the next one that is free."""
        if content not in self._given:
            self._given[content] = self.fresh(content)
        return self._given[content]

    def fresh(self, content: int) -> int:
        """A number that nothing has yet, near the hash of this content."""
        room = self._size - self._first
        number = self._first + (content % room if len(self._taken) < room else len(self._taken))
        while number in self._taken:
            number = number + 1 if number + 1 != self._size else self._first
        self.reserve(number)
        return number


class Known(NamedTuple):
    """A rule: the digest of its content, of its peers (0: everybody), and its number."""

    content: int
    peers: int
    number: int


@dataclass(frozen=True)
class Numbers:
    """What the next compilation remembers of this one."""

    rules: Mapping[str, tuple[Known, ...]] = field(default_factory=dict)  # by place: policy and direction
    groups: Mapping[int, int] = field(default_factory=dict)  # digest of peers -> number
    subjects: Mapping[int, int] = field(default_factory=dict)  # digest of selecting policies -> number


def assign(
    wanted: Mapping[str, Sequence[tuple[int, int]]],
    groups: Sequence[int],
    previous: Numbers,
    space: Space,
    group_space: Space,
) -> Numbers:
    """Numbers for rules, (content, peers) by place in the order of their policy, and for groups of peers.

    A rule with the content of an old one of its place has its number; what is left is paired in order. The peers of
    such a pair keep their number too, unless someone else still has the old peers.
    """
    heirs = {place: _heirs(previous.rules.get(place, ()), rules) for place, rules in wanted.items()}
    _inherit_groups(wanted, heirs, groups, previous.groups, group_space)
    for known in heirs.values():
        for old in known:
            if old:
                space.reserve(old.number)
    found: dict[str, tuple[Known, ...]] = {}
    for place, rules in wanted.items():
        found[place] = tuple(
            Known(content, peers, old.number if old else space.fresh(digest(f"{place} {content}")))
            for (content, peers), old in zip(rules, heirs[place])
        )
    return Numbers(found, {content: group_space.give(content) for content in groups})


def _heirs(old: Sequence[Known], new: Sequence[tuple[int, int]]) -> list[Known | None]:
    """For each new rule the old one whose number it takes over."""
    by_content: dict[int, deque[Known]] = defaultdict(deque)
    for item in old:
        by_content[item.content].append(item)
    found = [by_content[content].popleft() if by_content.get(content) else None for content, _peers in new]
    taken = {item.number for item in found if item}
    left = iter([item for item in old if item.number not in taken])
    return [item or next(left, None) for item in found]


def _inherit_groups(
    wanted: Mapping[str, Sequence[tuple[int, int]]],
    heirs: Mapping[str, Sequence[Known | None]],
    groups: Iterable[int],
    old: Mapping[int, int],
    space: Space,
) -> None:
    current = set(groups)
    for content in current & set(old):
        space.keep(content, old[content])
    free = {content: number for content, number in old.items() if content not in current}
    for place, known in heirs.items():
        for (_content, peers), before in zip(wanted[place], known):
            if before and before.peers in free and peers in current and peers not in old:
                space.keep(peers, free.pop(before.peers))
                current.discard(peers)
