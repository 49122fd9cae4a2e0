# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and write maps: keys and values are bytes, many at once where the kernel can."""

from __future__ import annotations

import ctypes
import errno as codes
import struct
from collections.abc import Iterable, Sequence
from ctypes import c_uint32
from pathlib import Path
from typing import Any, Generic, TypeVar

from .libbpf import BpfError, Fd, attempt, library
from .objects import get, map_info

V = TypeVar("V")
_M = TypeVar("_M", bound="_Base[Any]")

_PER_CPU_TYPES = (5, 6, 10, 21)  # hash, array, LRU hash, cgroup storage
_NO_BATCH = -524  # ENOTSUPP: this kind of map has no such call in this kernel
_BATCH_BYTES = 1 << 20
_NOEXIST, _EXIST = 1, 2  # BPF_NOEXIST, BPF_EXIST


class _Base(Generic[V]):
    """What all maps share; V is the form of a value. At the end of a `with` block the descriptor is closed."""

    _per_cpu = False

    def __init__(self, fd: int) -> None:
        info = map_info(fd)
        if (info.type in _PER_CPU_TYPES) != self._per_cpu:
            raise TypeError(f"map {info.name} is {'no' if self._per_cpu else 'a'} per-CPU map")
        self.fd = fd if isinstance(fd, Fd) else Fd(fd)
        self.name = info.name
        self.key_size = info.key_size
        self.value_size = info.value_size
        self.max_entries = info.max_entries
        self._raw_size = info.value_size  # of a value in a system call

    @classmethod
    def open(cls: type[_M], path: Path) -> _M:
        """The map pinned at `path`; raises BpfError."""
        fd = get(path)
        try:
            return cls(fd)
        except BaseException:
            fd.close()
            raise

    def __enter__(self: _M) -> _M:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.fd.close()

    def _encode(self, value: V) -> bytes:
        raise NotImplementedError

    def _decode(self, raw: bytes) -> V:
        raise NotImplementedError

    def get(self, key: bytes) -> V | None:
        """The value; None when the key is not there."""
        raw = ctypes.create_string_buffer(self._raw_size)
        result = attempt("bpf_map_lookup_elem", self.fd, self._key(key), raw)
        if result == -codes.ENOENT:
            return None
        if result < 0:
            raise self._error("read", key, -result)
        return self._decode(raw.raw)

    def set(self, key: bytes, value: V) -> None:
        """Create or replace."""
        result = attempt("bpf_map_update_elem", self.fd, self._key(key), self._encode(value), 0)
        if result < 0:
            raise self._error("write", key, -result)

    def add(self, key: bytes, value: V) -> bool:
        """Create; False: it is there already, and stays as it is."""
        result = attempt("bpf_map_update_elem", self.fd, self._key(key), self._encode(value), _NOEXIST)
        if result < 0 and result != -codes.EEXIST:
            raise self._error("write", key, -result)
        return result == 0

    def replace(self, key: bytes, value: V) -> bool:
        """False: the key is not there, and is not made."""
        result = attempt("bpf_map_update_elem", self.fd, self._key(key), self._encode(value), _EXIST)
        if result < 0 and result != -codes.ENOENT:
            raise self._error("write", key, -result)
        return result == 0

    def delete(self, key: bytes) -> bool:
        """False: the key was not there."""
        result = attempt("bpf_map_delete_elem", self.fd, self._key(key))
        if result < 0 and result != -codes.ENOENT:
            raise self._error("delete", key, -result)
        return result == 0

    def items(self) -> list[tuple[bytes, V]]:
        """All entries; one that changes meanwhile may be missing."""
        found = self._batched()
        return self._one_by_one() if found is None else found

    def set_many(self, items: Iterable[tuple[bytes, V]]) -> None:
        """set() for each, in order; on an error those before it stay written."""
        pairs = [(self._key(key), self._encode(value)) for key, value in items]
        if not pairs:
            return
        keys, values = b"".join(key for key, _value in pairs), b"".join(value for _key, value in pairs)
        count = c_uint32(len(pairs))
        result = attempt("bpf_map_update_batch", self.fd, keys, values, ctypes.byref(count), None)
        if result == _NO_BATCH:
            for key, raw in pairs:
                self.set(key, self._decode(raw))
        elif result < 0:
            raise self._error("write", pairs[min(count.value, len(pairs) - 1)][0], -result)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """delete() for each; returns how many were there."""
        wanted = [self._key(key) for key in keys]
        raw = ctypes.create_string_buffer(b"".join(wanted))
        position = deleted = 0
        while position < len(wanted):
            count = c_uint32(len(wanted) - position)
            start = ctypes.addressof(raw) + position * self.key_size
            result = attempt("bpf_map_delete_batch", self.fd, start, ctypes.byref(count), None)
            if result == _NO_BATCH:
                return deleted + sum(self.delete(key) for key in wanted[position:])
            deleted += count.value
            position += count.value
            if result == -codes.ENOENT:  # the kernel stops at a key that is not there: go on behind it
                position += 1
            elif result < 0:
                raise self._error("delete", wanted[min(position, len(wanted) - 1)], -result)
        return deleted

    def _batched(self) -> list[tuple[bytes, V]] | None:
        """All entries, many a call; None: the kernel cannot, or lost its place because too much changed."""
        found: list[tuple[bytes, V]] = []
        room = max(64, min(self.max_entries, _BATCH_BYTES // (self.key_size + self._raw_size)))
        place = ctypes.create_string_buffer(max(4, self.key_size))
        start = None
        while True:
            keys = ctypes.create_string_buffer(room * self.key_size)
            values = ctypes.create_string_buffer(room * self._raw_size)
            count = c_uint32(room)
            result = attempt("bpf_map_lookup_batch", self.fd, start, place, keys, values, ctypes.byref(count), None)
            if result == -codes.ENOSPC:  # one bucket holds more than there is room for
                room *= 2
                continue
            if result in (_NO_BATCH, -codes.EINTR):
                return None
            if result < 0 and result != -codes.ENOENT:
                raise self._error("list", b"", -result)
            raws = _cut(values, self._raw_size, count.value)
            found += zip(_cut(keys, self.key_size, count.value), map(self._decode, raws))
            if result == -codes.ENOENT:  # the last batch
                return found
            start = place

    def _one_by_one(self) -> list[tuple[bytes, V]]:
        found = {}
        key, following = None, ctypes.create_string_buffer(self.key_size)
        for _turn in range(2 * self.max_entries):  # a hash starts again when `key` was deleted: not for ever
            result = attempt("bpf_map_get_next_key", self.fd, key, following)
            if result == -codes.ENOENT:
                break
            if result < 0:
                raise self._error("list", key or b"", -result)
            key = following.raw
            value = self.get(key)
            if value is not None:
                found[key] = value
        return list(found.items())

    def _key(self, key: bytes) -> bytes:
        """The kernel reads as many bytes as the map says: fewer would be read beyond their end."""
        if len(key) != self.key_size:
            raise ValueError(f"a key of {self.name} has {self.key_size} bytes, not {len(key)}")
        return key

    def _error(self, operation: str, key: bytes, errno: int) -> BpfError:
        full = f"all its {self.max_entries} entries are in use" if errno == codes.E2BIG else ""
        return BpfError(operation, f"key {key.hex()} of map {self.name}", errno, full)


class Map(_Base[bytes]):
    """A hash, array or LPM map; a value is its bytes."""

    def _encode(self, value: bytes) -> bytes:
        if len(value) != self.value_size:
            raise ValueError(f"a value of {self.name} has {self.value_size} bytes, not {len(value)}")
        return value

    def _decode(self, raw: bytes) -> bytes:
        return raw


class PerCpuMap(_Base[list[bytes]]):
    """A map with one value for each possible CPU; a value is the list of them."""

    _per_cpu = True

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.cpus: int = library().libbpf_num_possible_cpus()
        self._stride = (self.value_size + 7) & ~7  # the kernel pads each CPU's value
        self._raw_size = self._stride * self.cpus

    def _encode(self, value: list[bytes]) -> bytes:
        if [len(one) for one in value] != [self.value_size] * self.cpus:
            raise ValueError(f"a value of {self.name} has {self.value_size} bytes for each of {self.cpus} CPUs")
        return b"".join(one.ljust(self._stride, b"\0") for one in value)

    def _decode(self, raw: bytes) -> list[bytes]:
        return [raw[start : start + self.value_size] for start in range(0, self._raw_size, self._stride)]


def per_cpu(type: int) -> bool:
    """Has a map of this type a value for each CPU?"""
    return type in _PER_CPU_TYPES


def add_up(values: Sequence[bytes]) -> tuple[int, ...]:
    """The sums of u64 counters over the CPUs: one for each counter in a value."""
    return tuple(map(sum, zip(*(struct.unpack(f"={len(value) // 8}Q", value) for value in values))))


def _cut(buffer: Any, size: int, count: int) -> list[bytes]:
    raw: bytes = buffer[: size * count]
    return [raw[start : start + size] for start in range(0, size * count, size)]
