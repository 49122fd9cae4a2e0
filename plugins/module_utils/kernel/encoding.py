# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled tables as the programs read them: keys and values of maps, as bytes. Pure.

There may be 100,000 entries, so layouts are written down here, and a test holds them to bpf/abi.h. The side is the last
member of each key; what a map holds for a side is a mapping from key to value.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ..policy.model import DIRECTIONS, Address
from ..policy.ports import AUDIT, INLINE, IS_PAGE, LOG, NUMBER, PAGE
from ..policy.tables import Row, Subject, Tables
from .datapath import SLOTS

IDENTITIES, SUBJECTS, POLICY, PAGES = "identities", "subjects", "policy", "pages"
TABLES = (IDENTITIES, SUBJECTS, POLICY, PAGES)
Entries = Mapping[bytes, bytes]

_U32 = struct.Struct("=I")
_IDENTITY = struct.Struct("=II")  # struct fp_identity
_POLICY_KEY = struct.Struct("=III")  # struct fp_policy_key
_PAGE_KEY = struct.Struct("=II")  # struct fp_page_key
_PAGE = struct.Struct(f"={PAGE}I")
_EXISTS, _NARROW, _BROAD = 1, 2, 4  # FP_SUBJECT_*
_WORDS = {SUBJECTS: (8, INLINE), POLICY: (0, INLINE), PAGES: (0, PAGE)}  # where in a value, how many
_MAPPED = 0xFFFF << 32  # ::ffff:0:0
# struct fp_row with so many entries: words, lowest ports, highest ports, protocols
_ROWS = [
    struct.Struct(f"={n}I{4 * (INLINE - n)}x{n}H{2 * (INLINE - n)}x{n}H{2 * (INLINE - n)}x{n}B{INLINE - n}x")
    for n in range(INLINE + 1)
]


def encode(tables: Tables, side: int) -> dict[str, Entries]:
    """By map. Of `subjects`, an array, only what is not all zeros."""
    end = _U32.pack(side)
    return {
        IDENTITIES: {address(key) + end: _IDENTITY.pack(*value) for key, value in tables.exact.items()},
        SUBJECTS: {_place(side, *key): _subject(value) for key, value in tables.subject.items()},
        POLICY: {_POLICY_KEY.pack(*key, side): row(value) for key, value in tables.policy.items()},
        PAGES: {_PAGE_KEY.pack(key, side): _PAGE.pack(*value) for key, value in tables.pages.items()},
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


def _place(side: int, slot: int, direction: int) -> bytes:
    """The index of a subject."""
    return _U32.pack((side * SLOTS + slot) * len(DIRECTIONS) + direction)


def _subject(subject: Subject) -> bytes:
    """struct fp_subject"""
    flags = _EXISTS | (_NARROW if subject.narrow else 0) | (_BROAD if subject.broad else 0)
    return _U32.pack(subject.number) + _U32.pack(flags) + row(subject.row)


def side_of(name: str, key: bytes) -> int:
    """The side that a key of a map belongs to."""
    number: int = _U32.unpack_from(key, len(key) - _U32.size)[0]
    return number // (SLOTS * len(DIRECTIONS)) if name == SUBJECTS else number


def counted(side: Mapping[str, Entries]) -> set[int]:
    """The numbers of the words that are logged or audited, whose packets are counted."""
    words: set[int] = set()
    for name, (offset, count) in _WORDS.items():
        unpack = struct.Struct(f"={count}I").unpack_from
        for value in side[name].values():
            words.update(unpack(value, offset))
    return {word >> NUMBER for word in words if word & (LOG | AUDIT) and not word & IS_PAGE}
