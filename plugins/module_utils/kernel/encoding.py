# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled tables as the programs read them. Pure.

A table is a set of records, each a key and behind it its value, as bytes: there may be 100,000 of them, and sets are
quick to compare. Layouts are written down here, and a test holds them to bpf/abi.h. The side is part of each key, but
for prefixes, of which each side has a trie of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from ..policy.model import DIRECTIONS, Address
from ..policy.ports import AUDIT, INLINE, IS_PAGE, LOG, NUMBER, PAGE
from ..policy.tables import Row, Subject, Tables
from . import trie
from .datapath import SLOTS

IDENTITIES, TRIES, SUBJECTS, POLICY, PAGES = "identities", "tries", "subjects", "policy", "pages"
KEYS = {IDENTITIES: 20, TRIES: 17, SUBJECTS: 4, POLICY: 12, PAGES: 8}  # bytes of a record that are its key
# bytes of their values; the tries have a form of their own, see trie.py
VALUES = {IDENTITIES: 8, SUBJECTS: 8 + 9 * INLINE, POLICY: 9 * INLINE, PAGES: 4 * PAGE}
Records = AbstractSet[bytes]

_U32 = struct.Struct("=I")
_IDENTITY = struct.Struct("=II")  # struct fp_identity
_POLICY_KEY = struct.Struct("=III")  # struct fp_policy_key
_PAGE = struct.Struct(f"=II{PAGE}I")  # struct fp_page_key, struct fp_page
_SUBJECT = struct.Struct("=III")  # the key, struct fp_subject up to its row
_EXISTS, _NARROW, _BROAD = 1, 2, 4  # FP_SUBJECT_*
_WORDS = {SUBJECTS: (12, INLINE), POLICY: (12, INLINE), PAGES: (8, PAGE)}  # where in a record, how many
_MAPPED = 0xFFFF << 32  # ::ffff:0:0
# struct fp_row with so many entries: words, lowest ports, highest ports, protocols
_ROWS = [
    struct.Struct(f"={n}I{4 * (INLINE - n)}x{n}H{2 * (INLINE - n)}x{n}H{2 * (INLINE - n)}x{n}B{INLINE - n}x")
    for n in range(INLINE + 1)
]


def encode(tables: Tables, side: int) -> dict[str, Records]:
    """By map. Of `subjects`, an array, only what is not all zeros."""
    end = ending(side)
    return {
        IDENTITIES: {address(key) + end + _IDENTITY.pack(*value) for key, value in tables.exact.items()},
        TRIES: {trie.key(prefix) + _IDENTITY.pack(*value) for prefix, value in tables.prefix.items()},
        SUBJECTS: {_subject(side, *key, value) for key, value in tables.subject.items()},
        POLICY: {_POLICY_KEY.pack(*key, side) + row(value) for key, value in tables.policy.items()},
        PAGES: {_PAGE.pack(number, side, *words) for number, words in tables.pages.items()},
    }


def address(value: Address) -> bytes:
    """struct fp_addr"""
    version, number = value
    return (number if version == 6 else _MAPPED | number).to_bytes(16, "big")


def row(entries: Row) -> bytes:
    """struct fp_row"""
    if not entries:
        return bytes(_ROWS[0].size)
    protocols, lows, highs, words = zip(*entries)
    return _ROWS[len(entries)].pack(*words, *lows, *highs, *protocols)


def _subject(side: int, slot: int, direction: int, subject: Subject) -> bytes:
    index = (side * SLOTS + slot) * len(DIRECTIONS) + direction
    flags = _EXISTS | (_NARROW if subject.narrow else 0) | (_BROAD if subject.broad else 0)
    return _SUBJECT.pack(index, subject.number, flags) + row(subject.row)


def ending(side: int) -> bytes:
    """What the keys of a side end with in `identities`, `policy` and `pages`."""
    return _U32.pack(side)


def subject_side(key: bytes) -> int:
    """The side of a key of `subjects`."""
    number: int = _U32.unpack(key)[0]
    return number // (SLOTS * len(DIRECTIONS))


def counted(side: Mapping[str, Records]) -> set[int]:
    """The numbers of the words that are logged or audited, whose packets are counted."""
    words: set[int] = set()
    for name, (offset, count) in _WORDS.items():
        unpack = struct.Struct(f"={count}I").unpack_from
        for record in side[name]:
            words.update(unpack(record, offset))
    return {word >> NUMBER for word in words if word & (LOG | AUDIT) and not word & IS_PAGE}
