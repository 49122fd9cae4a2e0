# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries of maps that another version has in another form: carried over by the names of their members."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, btf, migrate

from .conftest import Compiler

Fields = Mapping[str, btf.Value]
OLD: Fields = {"small": 70000, "negative": (-2) & 0xFFFF, "name": b"abcd", "dropped": 9, "row": b"\1\0\2\0"}
PLACE = b"\x01\0\0\0\x02\0\0\0"


class Maps:
    """A version's maps, entries written and read by member; keys that are no structure are numbers."""

    def __init__(self, obj: bytes, pins: Path, shared: Path | None = None) -> None:
        self.pins, self._structs = pins, btf.parse(obj).structs
        bpf.load(obj, pins, shared=shared).close()

    def open(self, name: str) -> Any:
        kind = bpf.PerCpuMap if name in ("each", "counted") else bpf.Map
        return kind.open(self.pins / name)

    def key(self, name: str, key: Fields | int) -> bytes:
        if isinstance(key, int):
            return key.to_bytes(4, "little")
        return self._structs["prefix" if name == "prefixes" else "key"].pack(key)

    def write(self, name: str, key: Fields | int, value: Fields) -> None:
        with self.open(name) as table:
            raw = self._layout(name).pack(value)
            table.set(self.key(name, key), [raw] * table.cpus if isinstance(table, bpf.PerCpuMap) else raw)

    def read(self, name: str, key: Fields | int) -> Any:
        """The members; of a per-CPU map a list of them; None: it is not there."""
        with self.open(name) as table:
            raw = table.get(self.key(name, key))
        if isinstance(raw, list):
            return [self._layout(name).unpack(one) for one in raw]
        return raw and self._layout(name).unpack(raw)

    def size(self, name: str) -> int:
        with self.open(name) as table:
            return len(table.items())

    def _layout(self, name: str) -> btf.Struct:
        return self._structs[{"counted": "counts", "same": "flags"}.get(name, "value")]


@pytest.fixture
def old(compiled: Compiler, bpffs: Path) -> Maps:
    return Maps(compiled("state"), bpffs / "old")


@pytest.fixture
def new(compiled: Compiler, bpffs: Path, old: Maps) -> Maps:
    return Maps(compiled("state", VERSION=2), bpffs / "new", old.pins)


KEY: Fields = {"port": 80, "place": PLACE}
KEYS: dict[str, Fields | int] = {
    "table": KEY, "flows": KEY, "each": 7, "prefixes": {"length": 24, "address": b"\x0a\0\0\0"}, "array": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_members_keep_their_values_wherever_they_are(old: Maps, new: Maps, name: str) -> None:
    old.write(name, KEYS[name], {**OLD, "place": PLACE})
    migrate.fill(old.pins, new.pins, idle=True)
    found = new.read(name, KEYS[name])
    expected: Fields = {
        "small": 70000, "negative": (-2) & 0xFFFFFFFFFFFFFFFF, "name": b"abcd\0\0", "added": 0, "place": PLACE,
        "row": b"\1\0\0\0\2\0\0\0\0\0\0\0",
    }  # fmt: skip
    assert found in (expected, [expected] * (len(found) if isinstance(found, list) else 0))
    migrate.fill(new.pins, old.pins, idle=True)
    returned = old.read(name, KEYS[name])
    expected = {**OLD, "dropped": 0, "place": PLACE}
    assert returned in (expected, [expected] * (len(returned) if isinstance(returned, list) else 0))


def test_maps_of_the_same_form_are_one(old: Maps, new: Maps) -> None:
    old.write("same", 1, {"first": 5})
    assert new.read("same", 1) == {"first": 5}
    migrate.settle(old.pins, new.pins)
    assert new.read("same", 1) == {"first": 5}


def test_only_what_user_space_alone_writes_is_made_equal_under_traffic(old: Maps, new: Maps) -> None:
    for name in ("table", "flows"):
        new.write(name, KEY, {"small": 1})
        old.write(name, {**KEY, "port": 443}, OLD)
    migrate.fill(old.pins, new.pins, idle=False)
    assert new.size("table") == 1
    assert new.size("flows") == 2
    migrate.fill(old.pins, new.pins, idle=True)
    assert new.size("flows") == 1


def test_what_programs_wrote_last_is_added_and_replaces_nothing(old: Maps, new: Maps) -> None:
    other = {**KEY, "port": 443}
    for name in ("table", "flows"):
        old.write(name, KEY, OLD)
    migrate.fill(old.pins, new.pins, idle=True)
    for name in ("table", "flows"):
        new.write(name, KEY, {"small": 5})
        old.write(name, other, OLD)
    migrate.settle(old.pins, new.pins)
    assert new.read("flows", KEY)["small"] == 5
    assert new.read("flows", other)["small"] == 70000
    assert new.read("table", other) is None  # there user space is the only one who adds


def total(rows: list[Fields]) -> Fields:
    return {name: sum(int(row[name]) for row in rows) for name in rows[0]}


def test_counters_move_and_count_once(old: Maps, new: Maps) -> None:
    old.write("counted", 1, {"packets": 3, "bytes": 400})
    new.write("counted", 1, {"packets": 1, "errors": 7})
    migrate.fill(old.pins, new.pins, idle=True)
    assert new.read("counted", 1)[0] == {"packets": 1, "bytes": 0, "errors": 7}
    for _time in range(2):  # as after a kill
        migrate.settle(old.pins, new.pins)
        rows = new.read("counted", 1)
        assert total(rows) == {"packets": 4 * len(rows), "bytes": 400 * len(rows), "errors": 7 * len(rows)}
        assert not any(any(row.values()) for row in old.read("counted", 1))
    new.write("counted", 2, {"packets": 9})
    migrate.settle(new.pins, old.pins)
    assert total(old.read("counted", 1)) == {"packets": 4 * len(rows), "bytes": 400 * len(rows)}
    assert new.read("counted", 2)[0]["packets"] == 9  # the old version has no such row


def test_nothing_that_programs_count_meanwhile_is_lost(compiled: Compiler, bpffs: Path, old: Maps) -> None:
    obj = compiled("state", VERSION=2)
    new = Maps(obj, bpffs / "new", old.pins)
    with bpf.load(obj, new.pins) as loaded:  # the same maps, and a program to count
        packets, moved, cpus = 3_000_000, 0, os.sched_getaffinity(0)

        def count() -> None:
            os.sched_setaffinity(0, {min(cpus)})  # of this thread
            bpf.test_run(loaded.programs["user"], bytes(64), repeat=packets)

        counting = Thread(target=count)
        counting.start()
        os.sched_setaffinity(0, {max(cpus)})
        try:
            while counting.is_alive():
                old.write("counted", 0, {"packets": 1})
                migrate.settle(old.pins, new.pins)
                moved += len(old.read("counted", 0))
        finally:
            os.sched_setaffinity(0, cpus)
        counting.join()
    assert moved
    assert total(new.read("counted", 0))["packets"] == packets * 64 + moved


def test_larger_array_is_zero_behind_the_old_one(old: Maps, new: Maps) -> None:
    new.write("array", 2, {"small": 5})
    migrate.fill(old.pins, new.pins, idle=True)
    assert new.read("array", 2)["small"] == 0


def test_number_that_does_not_fit_is_refused(old: Maps, new: Maps) -> None:
    new.write("table", {"port": 80}, {"small": 2**32})
    with pytest.raises(bpf.BpfError, match="map table: small has room for 4 bytes, and 4294967296 needs more"):
        migrate.fill(new.pins, old.pins, idle=True)


def test_more_than_there_is_room_for_is_refused(old: Maps, new: Maps) -> None:
    for port in range(9):
        new.write("table", {"port": port}, {})
    with pytest.raises(bpf.BpfError, match="all its 8 entries are in use"):
        migrate.fill(new.pins, old.pins, idle=True)


def test_bit_fields_are_refused(compiled: Compiler, bpffs: Path) -> None:
    first = Maps(compiled("state", BITS=1), bpffs / "old")
    second = Maps(compiled("state", BITS=1, VERSION=2), bpffs / "new", first.pins)
    with pytest.raises(bpf.BpfError, match="map same: first is a bit field"):
        migrate.fill(first.pins, second.pins, idle=True)


def test_kind_without_a_way_is_refused(compiled: Compiler, bpffs: Path) -> None:
    first = Maps(compiled("state", KIND="BPF_MAP_TYPE_ARRAY"), bpffs / "old")
    second = Maps(compiled("state", KIND="BPF_MAP_TYPE_PERCPU_ARRAY"), bpffs / "new", first.pins)
    with pytest.raises(bpf.BpfError, match="map special: there is no way from type 2 to 6"):
        migrate.fill(first.pins, second.pins, idle=True)


def test_nothing_there_is_nothing_to_carry(old: Maps, bpffs: Path) -> None:
    migrate.fill(bpffs / "nowhere", old.pins, idle=True)
    migrate.settle(old.pins, bpffs / "nowhere")
    migrate.settle(old.pins, old.pins)
