# SPDX-License-Identifier: GPL-3.0-or-later
"""One side of the tables in the maps: read it, make it what is wanted, and tell it by a digest.

Nothing is remembered of what was written before: what a side holds is read first, so a run that was killed in the
middle leaves nothing to repair.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from ..policy.collector import paused
from ..policy.tables import Change
from . import encoding
from .encoding import Records
from .maps import Map
from .trie import Trie


def read(maps: Path, side: int) -> dict[str, Records]:
    """What the maps in this directory hold, in the form of encoding.encode(). Raises BpfError."""
    with paused():
        return {name: _read(maps / name, side) for name in encoding.KEYS}


def _read(path: Path, side: int) -> Records:
    if path.name == encoding.TRIES:
        with Trie(path, side) as prefixes:
            return {key + value for key, value in prefixes.read().items()}
    with Map.open(path) as table:
        if path.name == encoding.SUBJECTS:  # an array has all keys
            nothing = bytes(table.value_size)
            return {k + v for k, v in table.items() if v != nothing and encoding.subject_side(k) == side}
        end = encoding.ending(side)
        return {key + value for key, value in table.items() if key.endswith(end)}


def write(maps: Path, side: int, wanted: Mapping[str, Records]) -> int:
    """Make a side that no program reads what is wanted; returns how many entries that set or deleted."""
    with paused():
        have = read(maps, side)
        return sum(_write(maps / name, side, have[name], records) for name, records in wanted.items())


def _write(path: Path, side: int, have: Records, wanted: Records) -> int:
    size = encoding.KEYS[path.name]
    new = {record[:size]: record[size:] for record in wanted - have}
    gone = frozenset(record[:size] for record in have - wanted).difference(new)
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


def digest(side: Mapping[str, Records]) -> int:
    """64 bits about all records, in whatever order they come."""
    found = blake2b(digest_size=8)
    for name, records in sorted(side.items()):
        found.update(f"{name} {len(records)} ".encode())
        found.update(b"".join(sorted(records)))
    return int.from_bytes(found.digest(), "big")
