# SPDX-License-Identifier: GPL-3.0-or-later
"""The sides of the tables in the maps: read them, make one what is wanted, and tell it by a digest.

Nothing is remembered of what was written before: what a side holds is read first, so a run that was killed in the
middle leaves nothing to repair. As both are in the same maps, they are read together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

from ..policy.collector import paused
from ..policy.tables import Change
from . import encoding
from .encoding import Records
from .maps import Map
from .trie import Trie

Side = Mapping[str, Records]  # by map
_INDEX = struct.Struct("=I")
_DIGESTS = 1 << 64


def read(maps: Path) -> tuple[Side, Side]:
    """What the maps in this directory hold, in the form of encoding.encode(). Raises BpfError."""
    with paused():
        found = {name: _read(maps / name) for name in encoding.KEYS}
    first, second = ({name: both[side] for name, both in found.items()} for side in (0, 1))
    return first, second


def _read(path: Path) -> tuple[Records, Records]:
    if path.name == encoding.TRIES:
        return _prefixes(path, 0), _prefixes(path, 1)
    with Map.open(path) as table:
        items = table.items()
        nothing = bytes(table.value_size)
    if path.name == encoding.SUBJECTS:  # an array has all keys
        return _subjects(items, nothing, 0), _subjects(items, nothing, 1)
    return _ended(items, encoding.ending(0)), _ended(items, encoding.ending(1))


def _prefixes(path: Path, side: int) -> Records:
    with Trie(path, side) as prefixes:
        return {key + value for key, value in prefixes.read().items()}


def _subjects(items: Iterable[tuple[bytes, bytes]], nothing: bytes, side: int) -> Records:
    first = side * encoding.SIDE_OF_SUBJECTS
    found = ((_INDEX.unpack(key)[0] - first, value) for key, value in items if value != nothing)
    return {_INDEX.pack(index) + value for index, value in found if 0 <= index < encoding.SIDE_OF_SUBJECTS}


def _ended(items: Iterable[tuple[bytes, bytes]], end: bytes) -> Records:
    return {key[:-4] + value for key, value in items if key.endswith(end)}


def write(maps: Path, side: int, wanted: Side, have: Side | None = None) -> int:
    """Make a side that no program reads what is wanted; returns how many entries that set or deleted. have: as read."""
    with paused():
        have = have or read(maps)[side]
        return sum(_write(maps / name, side, have[name], records) for name, records in wanted.items())


def _write(path: Path, side: int, have: Records, wanted: Records) -> int:
    size = encoding.KEYS[path.name]
    new = {encoding.on_side(path.name, one[:size], side): one[size:] for one in wanted - have}
    gone = frozenset(encoding.on_side(path.name, one[:size], side) for one in have - wanted).difference(new)
    if path.name == encoding.TRIES:
        with Trie(path, side) as prefixes:
            prefixes.apply(Change(new, gone))  # also where nothing is to be done: a writer may have been killed in it
        return len(new) + len(gone)
    with Map.open(path) as table:
        if path.name == encoding.SUBJECTS:
            table.set_many((key, bytes(table.value_size)) for key in gone)
        else:
            table.delete_many(gone)  # first: there is not room for both
        table.set_many(new.items())
    return len(new) + len(gone)


def digest_after(before: int, old: Side, new: Side) -> int:
    """The digest of a side from that of another one, at the cost of what differs."""
    gone, come = ({name: one[name] - other[name] for name in one} for one, other in ((old, new), (new, old)))
    return (before - digest(gone) + digest(come)) % _DIGESTS


def digest(side: Side) -> int:
    """64 bits about all records, as a sum over them."""
    total = 0
    for name, records in side.items():
        person = name.encode()
        total += sum(
            [int.from_bytes(blake2b(record, digest_size=8, person=person).digest(), "big") for record in records]
        )
    return total % _DIGESTS
