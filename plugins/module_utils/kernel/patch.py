# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables after a change of some rules, from those before it and a part that was compiled twice. Pure.

It is what a compilation of everything would make. Numbers are hashes, and where two things have one hash they depend on
all others: numbers in use show whether that could be so, see numbers.Space. And what the part says about the tables
before must be in them.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Set
from typing import NamedTuple

from ..policy.collector import paused
from ..policy.compile import DEFAULT, Limits, Part
from ..policy.numbers import Space
from ..policy.ports import IS_PAGE, NUMBER
from . import encoding
from .encoding import IDENTITIES, PAGES, POLICY, SUBJECTS, TRIES, Records
from .sides import Side

_SUBJECT = struct.Struct("=III")  # slot and direction, number, flags
_ROW = struct.Struct("=II")  # subject, class


class _Classes(NamedTuple):
    """Numbers in use outside of a part: of classes, and of classes of broad groups."""

    peers: frozenset[int]
    broad: frozenset[int]


def patch(side: Side, before: Part, after: Part, limits: Limits = DEFAULT) -> Side | None:
    """side: what holds, made of all that `before` is a part of. None: only a compilation of everything can tell."""
    with paused():
        return _patch(side, before, after, limits)


def _patch(side: Side, before: Part, after: Part, limits: Limits) -> Side | None:
    old, new = encoding.encode(before.tables), encoding.encode(after.tables)
    if not all(old[name] <= side[name] for name in (IDENTITIES, TRIES, POLICY)):
        return None
    found: dict[str, Records] = {name: (side[name] - old[name]) | new[name] for name in (IDENTITIES, TRIES)}
    outside = _classes((side[IDENTITIES] - old[IDENTITIES], side[TRIES] - old[TRIES]))
    words = {word >> NUMBER for word in encoding.words(side) if not word & IS_PAGE}
    used = {*outside.peers, *outside.broad, *before.classes.given.values()}
    if not _same(before.classes, after.classes, used) or not _same(before.words, after.words, words):
        return None
    kept = {_ROW.unpack_from(record) for record in new[POLICY]}
    gone = {record for record in old[POLICY] - new[POLICY] if _unused(record, kept, outside)}
    rows = (side[POLICY] - gone) | new[POLICY]
    broad = _classes(found.values()).broad
    subjects = _subjects(side[SUBJECTS], old[SUBJECTS], new[SUBJECTS], rows, broad)
    fits = len(found[IDENTITIES]) <= limits.exact and len(found[TRIES]) <= limits.prefix and len(rows) <= limits.policy
    if subjects is None or not fits:
        return None
    made = {**found, SUBJECTS: subjects, POLICY: rows, PAGES: side[PAGES]}
    return made if len(encoding.counted(made)) <= limits.logged else None


def _classes(tables: Iterable[Records]) -> _Classes:
    numbers = array("I", b"".join({record[-8:] for records in tables for record in records}))
    return _Classes(frozenset(numbers[0::2]), frozenset(numbers[1::2]))


def _same(before: Space, after: Space, used: Set[int]) -> bool:
    """Are these the numbers that their contents have among all others?"""
    for content, number in {**before.given, **after.given}.items():
        home = before.home(content)
        if number != home or before.spare(home) in used or (content not in before.given and home in used):
            return False
    return True


def _unused(record: bytes, kept: Set[tuple[int, ...]], outside: _Classes) -> bool:
    """The row has another value now, or no address is of its class any more."""
    key = _ROW.unpack_from(record)
    return key in kept or (key[1] not in outside.peers and key[1] not in outside.broad)


def _subjects(side: Records, old: Records, new: Records, rows: Records, broad: Set[int]) -> Records | None:
    """With the flags that say which rows there are; None where more than these differs."""
    have, was, will = ({record[:4]: record for record in records} for records in (side, old, new))
    if not have.keys() == was.keys() == will.keys():
        return None
    found: set[bytes] = set()
    for key, record in have.items():
        index, number, flags = _SUBJECT.unpack_from(record)
        one, other = _SUBJECT.unpack_from(was[key]), _SUBJECT.unpack_from(will[key])
        rest = record[_SUBJECT.size :]
        if not number == one[1] == other[1] or not rest == was[key][_SUBJECT.size :] == will[key][_SUBJECT.size :]:
            return None
        if one[2] & ~flags:
            return None
        for flag in (encoding.NARROW, encoding.BROAD):
            if one[2] & flag and not other[2] & flag:
                flags = flags if _has(rows, number, broad, flag) else flags & ~flag
        found.add(_SUBJECT.pack(index, number, flags | other[2]) + rest)
    return found


def _has(rows: Records, subject: int, broad: Set[int], flag: int) -> bool:
    start = struct.pack("=I", subject)
    return any(
        record.startswith(start) and (_ROW.unpack_from(record)[1] in broad) == (flag == encoding.BROAD)
        for record in rows
    )
