# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled tables as the programs read them. Pure.

A table is a set of records, each a key and behind it its value, as bytes: there may be 100,000 of them, and sets are
quick to compare. Layouts are written down here, and a test holds them to bpf/abi.h. In the maps the side is part of
each key, but for prefixes, of which each side has a trie of its own; records are without it: sides can be compared.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from ..policy.model import DIRECTIONS, Address
from ..policy.ports import AUDIT, INLINE, IS_PAGE, LOG, NUMBER, PAGE
from ..policy.tables import Row, Subject, Tables
from . import trie
from .datapath import SLOTS

IDENTITIES, TRIES, SUBJECTS, POLICY, PAGES = "identities", "tries", "subjects", "policy", "pages"
KEYS = {IDENTITIES: 16, TRIES: 17, SUBJECTS: 4, POLICY: 8, PAGES: 4}  # bytes of a record that are its key
ENDED = (IDENTITIES, POLICY, PAGES)  # maps whose keys end with the side
# bytes of their values; the tries have a form of their own, see trie.py
VALUES = {IDENTITIES: 8, SUBJECTS: 8 + 9 * INLINE, POLICY: 9 * INLINE, PAGES: 4 * PAGE}
Records = AbstractSet[bytes]

_U32 = struct.Struct("=I")
_IDENTITY = struct.Struct("=II")  # struct fp_identity
_POLICY_KEY = struct.Struct("=II")  # struct fp_policy_key without the side
_PAGE = struct.Struct(f"=I{PAGE}I")  # struct fp_page_key without the side, struct fp_page
_SUBJECT = struct.Struct("=III")  # the key, struct fp_subject up to its row
EXISTS, NARROW, BROAD = 1, 2, 4  # FP_SUBJECT_*
_WORDS = {SUBJECTS: (3, INLINE), POLICY: (2, INLINE), PAGES: (1, PAGE)}  # u32 of a record before them, how many
_MAPPED = 0xFFFF << 32  # ::ffff:0:0
SIDE_OF_SUBJECTS = SLOTS * len(DIRECTIONS)  # elements of the array `subjects` for each side
# struct fp_row with so many entries: words, lowest ports, highest ports, protocols
_ROWS = [
    struct.Struct(f"={n}I{4 * (INLINE - n)}x{n}H{2 * (INLINE - n)}x{n}H{2 * (INLINE - n)}x{n}B{INLINE - n}x")
    for n in range(INLINE + 1)
]


def encode(tables: Tables) -> dict[str, Records]:
    """By map. Of `subjects`, an array, only what is not all zeros."""
    return {
        IDENTITIES: {address(key) + _IDENTITY.pack(*value) for key, value in tables.exact.items()},
        TRIES: {trie.key(prefix) + _IDENTITY.pack(*value) for prefix, value in tables.prefix.items()},
        SUBJECTS: {subject(*key, value) for key, value in tables.subject.items()},
        POLICY: {_POLICY_KEY.pack(*key) + row(value) for key, value in tables.policy.items()},
        PAGES: {_PAGE.pack(number, *words) for number, words in tables.pages.items()},
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


def subject(slot: int, direction: int, subject: Subject) -> bytes:
    """A record of `subjects`."""
    flags = EXISTS | (NARROW if subject.narrow else 0) | (BROAD if subject.broad else 0)
    return _SUBJECT.pack(slot * len(DIRECTIONS) + direction, subject.number, flags) + row(subject.row)


def on_side(name: str, key: bytes, side: int) -> bytes:
    """The key of a record in a map."""
    if name == SUBJECTS:
        return _U32.pack(_U32.unpack(key)[0] + side * SIDE_OF_SUBJECTS)
    return key + ending(side) if name in ENDED else key


def ending(side: int) -> bytes:
    """What the keys of a side end with, in the maps where they do."""
    return _U32.pack(side)


def words(side: Mapping[str, Records]) -> set[int]:
    """Those of all records."""
    found: set[int] = set()
    for name, (first, count) in _WORDS.items():
        numbers = array("I", b"".join(side[name]))
        size = (KEYS[name] + VALUES[name]) // numbers.itemsize
        for position in range(first, first + count):
            found.update(numbers[position::size])
    return found


def counted(side: Mapping[str, Records]) -> set[int]:
    """The numbers of the words that are logged or audited, whose packets are counted."""
    return {word >> NUMBER for word in words(side) if word & (LOG | AUDIT) and not word & IS_PAGE}
