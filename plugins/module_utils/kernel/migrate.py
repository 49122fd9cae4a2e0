# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry what is in maps of one version over to those of another, member by member, by their names in BTF.

A directory of pins is a set of maps. Maps of the same form are one map in both sets: only those that changed are
carried. Nothing here knows a map by name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import btf
from .adder import Adder
from .btf import Member
from .libbpf import BpfError, Fd
from .maps import Map, PerCpuMap, add_up, per_cpu
from .objects import btf_data, get, map_info

COUNTER = "fp_counter"  # the typedef in bpf/abi.h of what only grows

_PER_CPU_ARRAY = 6
_HASHES, _ARRAYS = (1, 5, 9, 10, 11), (2, _PER_CPU_ARRAY)  # hash, LRU hash, both also per CPU, LPM trie; array
_RINGBUF = 27
_RDONLY_PROG = 1 << 7  # only user space writes
_UNSUPPORTED = 95  # EOPNOTSUPP


class Form(NamedTuple):
    """What two maps must have in common to be one. Layouts are () where there is no BTF."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key: tuple[Member, ...]
    value: tuple[Member, ...]

    @property
    def counts(self) -> bool:
        """An array per CPU of nothing but counters."""
        return self.type == _PER_CPU_ARRAY and {member.type for member in self.value} == {COUNTER}


def form(fd: int) -> Form:
    """Of a map in the kernel. Raises BpfError."""
    info = map_info(fd)
    data = btf_data(info.btf_id) if info.btf_id else b""
    key, value = (layout(data, type_id) for type_id in (info.btf_key, info.btf_value))
    return Form(info.type, info.key_size, info.value_size, info.max_entries, info.flags, key, value)


def layout(data: bytes, type_id: int) -> tuple[Member, ...]:
    return btf.layout(data, type_id) if data and type_id else ()


def fill(source: Path, target: Path, idle: bool) -> None:
    """Before the programs of `target` take over: copy what is in the maps of `source`, counters aside.

    idle: no program writes to `target`, so what it has of an earlier time goes. Raises BpfError.
    """
    for old, new in _changed(source, target):
        if new.form.counts or new.form.type == _RINGBUF:
            continue
        if new.form.type in _ARRAYS:
            _copy_array(old, new)
        else:
            _copy_hash(old, new, exact=idle or bool(new.form.flags & _RDONLY_PROG))


def settle(source: Path, target: Path) -> None:
    """After the last program of `source` has been replaced: add what it wrote since fill(), and what it counted.

    A counter moves: it is zero in `source` then, so that a run that is killed and done again counts nothing twice.
    """
    for old, new in _changed(source, target):
        if new.form.counts:
            _move_counters(old, new)
        elif new.form.type in _HASHES and not new.form.flags & _RDONLY_PROG:
            convert = _converter(old, new)
            for key, value in old.table.items():
                new.table.add(convert.key(key), convert.value(value))


class _Side(NamedTuple):
    name: str
    form: Form
    table: Any  # Map, PerCpuMap, or None of a ring buffer


class _Converter(NamedTuple):
    """Functions from bytes of the old layout to those of the new one."""

    name: str
    keys: tuple[Sequence[tuple[Member, Member]], int]
    values: tuple[Sequence[tuple[Member, Member]], int]

    def key(self, raw: bytes) -> bytes:
        return _converted(self.name, raw, *self.keys)

    def value(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return _converted(self.name, value, *self.values)
        return [_converted(self.name, one, *self.values) for one in value]


def _converter(old: _Side, new: _Side) -> _Converter:
    for member in (*old.form.key, *old.form.value, *new.form.key, *new.form.value):
        if member.bits:
            raise BpfError("carry over", f"the map {old.name}", _UNSUPPORTED, f"{member.name} is a bit field")
    keys = _pairs(old.form.key, new.form.key, old.form.key_size), new.form.key_size
    values = _pairs(old.form.value, new.form.value, old.form.value_size), new.form.value_size
    return _Converter(old.name, keys, values)


def _pairs(old: Sequence[Member], new: Sequence[Member], size: int) -> list[tuple[Member, Member]]:
    """Members of the same name; without any BTF all of it."""
    if not old and not new:
        whole = Member("", 0, size, False, False, "")
        return [(whole, whole)]
    by_name = {member.name: member for member in old}
    return [(by_name[member.name], member) for member in new if member.name in by_name]


def _converted(name: str, raw: bytes, pairs: Sequence[tuple[Member, Member]], size: int) -> bytes:
    result = bytearray(size)
    for old, new in pairs:
        part = raw[old.offset : old.offset + old.size]
        if old.size != new.size:
            part = _resized(name, part, old, new)
        result[new.offset : new.offset + new.size] = part
    return bytes(result)


def _resized(name: str, part: bytes, old: Member, new: Member) -> bytes:
    """A number keeps its value or is refused; of bytes the first ones stay."""
    if not (old.scalar and new.scalar):
        return part[: new.size].ljust(new.size, b"\0")
    number = int.from_bytes(part, sys.byteorder, signed=old.signed)
    try:
        return number.to_bytes(new.size, sys.byteorder, signed=new.signed)
    except OverflowError as error:
        cause = f"{new.name or 'a value'} has room for {new.size} bytes, and {number} needs more"
        raise BpfError("carry over", f"the map {name}", _UNSUPPORTED, cause) from error


def _copy_hash(old: _Side, new: _Side, exact: bool) -> None:
    convert = _converter(old, new)
    entries = {convert.key(key): convert.value(value) for key, value in old.table.items()}
    if exact:
        new.table.delete_many([key for key, _value in new.table.items() if key not in entries])
    new.table.set_many(entries.items())


def _copy_array(old: _Side, new: _Side) -> None:
    """What the new array has beyond the old one is zero."""
    convert, room = _converter(old, new), new.form.max_entries
    entries = dict(old.table.items())
    none = convert.value(next(iter(entries.values())))
    zero = bytes(len(none)) if isinstance(none, bytes) else [bytes(len(one)) for one in none]
    keys = [index.to_bytes(4, sys.byteorder) for index in range(room)]
    new.table.set_many((key, convert.value(entries[key]) if key in entries else zero) for key in keys)


def _move_counters(old: _Side, new: _Side) -> None:
    convert = _converter(old, new)
    with Adder(new.table.fd, new.form.value_size // 8) as adder:
        for key, value in old.table.items():
            total = add_up([convert.value(one) for one in value])
            index = int.from_bytes(key, sys.byteorder)
            if any(total) and index < new.form.max_entries:  # else the new version counts no such thing
                old.table.set(key, [bytes(len(one)) for one in value])
                adder.add(index, total)


def _changed(source: Path, target: Path) -> Iterator[tuple[_Side, _Side]]:
    """Maps that are in both sets and not the same."""
    if not source.is_dir() or not target.is_dir() or os.path.samefile(source, target):
        return
    for name in sorted(set(os.listdir(source)) & set(os.listdir(target))):
        with get(source / name) as old, get(target / name) as new:
            if map_info(old).id != map_info(new).id:
                one, other = _side(name, old), _side(name, new)
                _refuse_kind(one, other)
                yield one, other


def _side(name: str, fd: Fd) -> _Side:
    found = form(fd)
    if found.type not in (*_HASHES, *_ARRAYS):
        return _Side(name, found, None)
    return _Side(name, found, PerCpuMap(fd) if per_cpu(found.type) else Map(fd))


def _refuse_kind(old: _Side, new: _Side) -> None:
    """Entries of which there is no copy must not get lost without a word."""
    kinds = {old.form.type, new.form.type}
    same = per_cpu(old.form.type) == per_cpu(new.form.type)
    if kinds != {_RINGBUF} and (not same or not kinds <= {*_HASHES, *_ARRAYS}):
        cause = f"there is no way from type {old.form.type} to {new.form.type}"
        raise BpfError("carry over", f"the map {new.name}", _UNSUPPORTED, cause, "Give the new map another name.")
