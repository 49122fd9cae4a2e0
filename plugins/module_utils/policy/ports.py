# SPDX-License-Identifier: GPL-3.0-or-later
"""From rules with ports to entries that a program can look up. Pure.

All protocols lie on one line: 65,536 points for each protocol with ports, and 65,536 that mean every other protocol.
A span is (first, last, value). Where several rules cover a point, the one with the smallest rank decides.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .model import PROTOCOLS, Port
from .numbers import Space, digest

OTHER = 0  # the stretch of all protocols without ports
STRETCH = {name: number for number, name in enumerate(PROTOCOLS, 1)}
STRETCH_OF = {PROTOCOLS[name]: number for name, number in STRETCH.items()}  # by IP protocol number
EVERYTHING = (0, (len(PROTOCOLS) + 1 << 16) - 1)

INLINE = 8  # entries of a row; more ports go into pages
PAGE = 256  # words of a page

# A word: a number above four flags. 0 means "nothing is said here".
ALLOW, LOG, AUDIT, IS_PAGE = 1, 2, 4, 8
NUMBER = 4
MAX_NUMBER = 1 << 28

NOBODY = 1 << 30  # the rank of no rule at all
Ranks = tuple[int, int]  # the rule that decides, and the one that would if audited policies were enforced
Span = tuple[int, int, Ranks]
WordSpan = tuple[int, int, int]


class Piece(NamedTuple):
    first: int
    last: int
    rank: int
    audited: bool


class Entry(NamedTuple):
    """Ports `low` to `high` of a protocol (a stretch of the line; OTHER: every protocol), and the word."""

    protocol: int
    low: int
    high: int
    word: int


def stretch(port: Port) -> tuple[int, int]:
    """First and last point of a port that has no name."""
    base = STRETCH[port.protocol] << 16
    return base + port.low, base + port.high


def flatten(pieces: Sequence[Piece]) -> list[Span]:
    """The ranks that decide at each point that a piece covers, in order, without overlap."""
    if len(pieces) == 1:
        first, last, rank, audited = pieces[0]
        return [(first, last, (NOBODY if audited else rank, rank))]
    waiting = sorted(pieces, reverse=True)
    cuts = sorted({point for piece in pieces for point in (piece.first, piece.last + 1)})
    enforced: list[tuple[int, int]] = []
    all_: list[tuple[int, int]] = []
    found: list[Span] = []
    for cut, following in zip(cuts, cuts[1:]):
        while waiting and waiting[-1].first == cut:
            piece = waiting.pop()
            heapq.heappush(all_, (piece.rank, piece.last))
            if not piece.audited:
                heapq.heappush(enforced, (piece.rank, piece.last))
        ranks = (_smallest(enforced, cut), _smallest(all_, cut))
        if ranks[1] != NOBODY:
            _append(found, cut, following - 1, ranks)
    return found


def _smallest(heap: list[tuple[int, int]], point: int) -> int:
    while heap and heap[0][1] < point:
        heapq.heappop(heap)
    return heap[0][0] if heap else NOBODY


def _append(found: list[Span], first: int, last: int, ranks: Ranks) -> None:
    if found and found[-1][1] == first - 1 and found[-1][2] == ranks:
        first = found.pop()[0]
    found.append((first, last, ranks))


class Default(NamedTuple):
    """What holds for peers that no rule names: spans that cover the whole line, and where they start."""

    spans: Sequence[Span]
    starts: Sequence[int]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Default:
        spans = flatten(pieces)
        return cls(spans, [span[0] for span in spans])

    def words(self, word: Callable[[Ranks], int]) -> list[WordSpan]:
        """The word of the protocols without ports, which is every protocol's, and what differs from it."""
        found = [(first, last, word(ranks)) for first, last, ranks in self.spans]
        return [span for span in found if span[0] == 0 or span[2] != found[0][2]]


def differences(row: Sequence[Span], default: Default, word: Callable[[Ranks], int]) -> list[WordSpan]:
    """Where a row over the default decides otherwise than the default.

    If it does so for the protocols without ports, their word is every protocol's, and the differences are to that.
    """
    found: list[WordSpan] = []
    other: int | None = None
    for first, last, ranks in row:
        begin, end = bisect_right(default.starts, first) - 1, bisect_right(default.starts, last)
        for low, high, base in default.spans[begin:end]:
            best = word((min(ranks[0], base[0]), min(ranks[1], base[1])))
            if other is None:
                other = best if first == 0 and best != word(base) else 0
            if best != (other or word(base)) or (other and low == 0):
                found.append((max(low, first), min(high, last), best))
    return found


class Pages:
    """Pages by number; the same content is the same page."""

    def __init__(self, limit: int) -> None:
        self._space = Space(limit, first=0)
        self.pages: dict[int, tuple[int, ...]] = {}

    def entries(self, spans: Sequence[WordSpan]) -> tuple[Entry, ...]:
        """At most INLINE entries, the first that matches counts; an entry for every protocol comes last."""
        if len(spans) == 1 and spans[0][0] >> 16 == spans[0][1] >> 16:  # most rows are one port
            first, last, word = spans[0]
            return (Entry(first >> 16, first & 0xFFFF, last & 0xFFFF, word),)
        by_protocol: dict[int, list[Entry]] = {}
        for first, last, word in spans:
            for protocol in range(first >> 16, (last >> 16) + 1):
                low = max(first - (protocol << 16), 0)
                high = min(last - (protocol << 16), 65535)
                _join(by_protocol.setdefault(protocol, []), Entry(protocol, low, high, word))
        other = by_protocol.pop(OTHER, [])
        if other:
            by_protocol = _without(by_protocol, other[0].word)
        if sum(map(len, by_protocol.values())) + len(other) > INLINE:
            by_protocol = {p: self._paged(found) if len(found) > 1 else found for p, found in by_protocol.items()}
        return tuple([entry for protocol in sorted(by_protocol) for entry in by_protocol[protocol]] + other)

    def _paged(self, entries: Sequence[Entry]) -> list[Entry]:
        """One entry that leads to a page of pages, or of words where 256 ports have the same."""
        root = [0] * PAGE
        leaves: dict[int, list[int]] = {}
        for entry in entries:
            for high in range(entry.low // PAGE, entry.high // PAGE + 1):
                low = max(entry.low - high * PAGE, 0)
                count = min(entry.high - high * PAGE, PAGE - 1) - low + 1
                if count == PAGE:
                    root[high] = entry.word
                else:
                    leaves.setdefault(high, [0] * PAGE)[low : low + count] = [entry.word] * count
        for high, leaf in leaves.items():
            root[high] = self._page(leaf)
        return [Entry(entries[0].protocol, 0, 65535, self._page(root))]

    def _page(self, content: list[int]) -> int:
        number = self._space.give(digest(array("I", content).tobytes().hex()))
        self.pages[number] = tuple(content)
        return number << NUMBER | IS_PAGE


def _join(found: list[Entry], entry: Entry) -> None:
    """Append, as one entry with the last where both are neighbours and say the same."""
    if found and found[-1].high == entry.low - 1 and found[-1].word == entry.word:
        entry = entry._replace(low=found.pop().low)
    found.append(entry)


def _without(by_protocol: dict[int, list[Entry]], word: int) -> dict[int, list[Entry]]:
    """What an entry for every protocol says anyway is left out."""
    kept = {protocol: [e for e in entries if e.word != word] for protocol, entries in by_protocol.items()}
    return {protocol: entries for protocol, entries in kept.items() if entries}
