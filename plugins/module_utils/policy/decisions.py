# SPDX-License-Identifier: GPL-3.0-or-later
"""What the policies of one subject decide for each class of peers. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .classes import PeerClass
from .model import Policy, Port
from .numbers import Space, digest
from .ports import ALLOW, AUDIT, EVERYTHING, LOG, NUMBER, Default, Piece, Ranks, WordSpan, differences, flatten, stretch
from .rules import Book, Item, isolation
from .subjects import Group
from .tables import RuleName, Verdict


class Ranked(NamedTuple):
    """Something that decides; its position in a list is its rank."""

    name: RuleName | None
    content: int  # a digest; 0: no policy has anything to say
    allow: bool
    log: bool
    audited: bool


class Words:
    """Words for verdicts, the same for all subjects."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.verdicts: dict[int, Verdict] = {}

    def word(self, decides: Ranked, would: Ranked) -> int:
        audit = decides.allow != would.allow
        log = decides.log or (audit and would.log)
        content = digest(f"{decides.content} audit {would.content}") if audit else decides.content
        number = self.space.give(content) if content else 0
        if number:
            self.verdicts[number] = Verdict(decides.allow, decides.name, log, would.name if audit else None)
        return number << NUMBER | (ALLOW * decides.allow) | (LOG * log) | (AUDIT * audit)


class Decisions:
    """The rules of one subject in the order in which they decide."""

    def __init__(self, group: Group, book: Book, words: Words) -> None:
        self._items = _in_order(group.policies, [book.items[policy.key, group.direction] for policy in group.policies])
        self._ports = group.ports
        self._groups = book.groups
        self._words = words
        self._known: dict[Ranks, int] = {}
        self._ranked = [
            *(Ranked(i.name, i.content, i.allow, i.policy.log, i.policy.audit) for i in self._items),
            *_isolation(group.policies, group.direction),
            Ranked(None, 0, True, False, False),
        ]
        self.uses: dict[int, list[int]] = defaultdict(list)  # group -> ranks of the rules that it may bring in
        for rank, item in enumerate(self._items):
            if item.group is not None:
                self.uses[item.group].append(rank)
            for destination in self._destinations(item):
                self.uses[destination].append(rank)
        everybody = [rank for rank, item in enumerate(self._items) if item.group is None]
        ends = range(len(self._items), len(self._ranked))
        pieces = [piece for rank in everybody for piece in self._pieces(rank, PeerClass())]
        self._default = Default.of(pieces + [Piece(*EVERYTHING, rank, self._ranked[rank].audited) for rank in ends])

    def default(self) -> list[WordSpan]:
        """The verdicts for peers that no rule names."""
        return self._default.words(self._word)

    def row(self, peers: PeerClass) -> list[WordSpan]:
        """Where the verdicts for these peers differ from the default."""
        ranks = {rank for groups in peers for group in groups & self.uses.keys() for rank in self.uses[group]}
        pieces = [piece for rank in ranks if self._selects(rank, peers) for piece in self._pieces(rank, peers)]
        return differences(flatten(pieces), self._default, self._word) if pieces else []

    def _selects(self, rank: int, peers: PeerClass) -> bool:
        group = self._items[rank].group
        return group is None or group in peers.narrow or group in peers.broad

    def _pieces(self, rank: int, peers: PeerClass) -> Iterable[Piece]:
        item = self._items[rank]
        for first, last in item.lines:
            yield Piece(first, last, rank, item.policy.audit)
        for name, protocol in item.named:
            for port in self._named(name, protocol, peers):
                yield Piece(*stretch(Port(protocol, port, port)), rank, item.policy.audit)

    def _named(self, name: str, protocol: str, peers: PeerClass) -> list[int]:
        if self._ports is not None:
            return [self._ports[name, protocol]] if (name, protocol) in self._ports else []
        meant = self._groups.named.get((name, protocol), {})
        return [port for group, port in meant.items() if group in peers.narrow or group in peers.broad]

    def _destinations(self, item: Item) -> list[int]:
        if self._ports is not None:
            return []
        return [group for named in item.named for group in self._groups.named[named]]

    def _word(self, ranks: Ranks) -> int:
        found = self._known.get(ranks)
        if found is None:
            found = self._known[ranks] = self._words.word(self._ranked[ranks[0]], self._ranked[ranks[1]])
        return found


def _in_order(policies: Sequence[Policy], items: Sequence[Sequence[Item]]) -> list[Item]:
    """By priority, in one priority what denies first; then those without priority, which only allow."""
    first = [item for policy, found in zip(policies, items) if policy.priority is not None for item in found]
    first.sort(key=lambda item: (item.policy.priority or 0, item.allow))
    return first + [item for policy, found in zip(policies, items) if policy.priority is None for item in found]


def _isolation(policies: Sequence[Policy], direction: int) -> list[Ranked]:
    """What denies at the end: the first policy that isolates, and the first that would if it were enforced."""
    found: list[Ranked] = []
    for audited in (False, True):
        isolating = [policy for policy in policies if policy.priority is None and policy.audit == audited]
        if isolating:
            name, content = isolation(isolating[0], direction)
            found.append(Ranked(name, content, False, any(policy.log for policy in isolating), audited))
    return found
