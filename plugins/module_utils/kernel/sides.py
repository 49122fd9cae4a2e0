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
from ..policy.tables import change
from . import encoding
from .encoding import Entries
from .maps import Map


def read(maps: Path, side: int) -> dict[str, Entries]:
    """What the maps in this directory hold, in the form of encoding.encode(). Raises BpfError."""
    with paused():
        return {name: _read(maps / name, side) for name in encoding.TABLES}


def _read(path: Path, side: int) -> Entries:
    with Map.open(path) as table:
        nothing = bytes(table.value_size) if path.name == encoding.SUBJECTS else None  # an array has all keys
        return {
            key: value for key, value in table.items() if encoding.side_of(path.name, key) == side and value != nothing
        }


def write(maps: Path, side: int, wanted: Mapping[str, Entries]) -> int:
    """Make a side that no program reads what is wanted; returns how many entries that set or deleted."""
    have = read(maps, side)
    return sum(_write(maps / name, have[name], entries) for name, entries in wanted.items())


def _write(path: Path, have: Entries, wanted: Entries) -> int:
    step = change(have, wanted)
    with Map.open(path) as table:
        if path.name == encoding.SUBJECTS:
            table.set_many((key, bytes(table.value_size)) for key in step.delete)
        else:
            table.delete_many(step.delete)  # first: both together could be too many
        table.set_many(step.set.items())
    return len(step.set) + len(step.delete)


def digest(side: Mapping[str, Entries]) -> int:
    """64 bits about all entries, in whatever order they come."""
    found = blake2b(digest_size=8)
    for name, entries in sorted(side.items()):
        found.update(f"{name} {len(entries)} ".encode())
        found.update(b"".join(sorted(map(bytes.__add__, entries.keys(), entries.values()))))
    return int.from_bytes(found.digest(), "big")
