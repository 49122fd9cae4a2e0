# SPDX-License-Identifier: GPL-3.0-or-later
"""The prefixes of a side of the policies, in the kernel. What they are is read from the very trie that programs use.

A side's trie is one array, as large as it must be, which an element of the map of maps `tries` names; without prefixes
there is none. Small changes are made in place, in the quarter that it has to spare. For large ones, or when that is
used up, another one replaces it.
"""

from __future__ import annotations

import ctypes
import errno as codes
import mmap
import struct
from collections.abc import Mapping
from ctypes import c_uint32
from pathlib import Path

from ..policy.model import Prefix
from ..policy.tables import Change
from . import trie_build
from .libbpf import BpfError, attempt
from .objects import create_map, get, map_by_id, map_info
from .trie_cells import BYTES, Cells
from .trie_cells import Prefix as Place

_ARRAY, _FLAGS = 2, 1 << 10 | 1 << 12  # BPF_F_MMAPABLE | BPF_F_INNER_MAP, as in bpf/trie.h
_KEY_SIZE = 4
_KEY = struct.Struct("=QQB")
_LOW = (1 << 64) - 1
_MAPPED, _MAPPED_BITS = 0xFFFF << 32, 96  # ::ffff:0:0


def key(prefix: Prefix) -> bytes:
    """What stands for a prefix in read() and apply(); the value is a struct fp_identity."""
    if prefix.version == 6:
        return _packed((prefix.address, prefix.length))
    return _packed((_MAPPED | prefix.address, _MAPPED_BITS + prefix.length))


def _packed(place: Place) -> bytes:
    address, length = place
    return _KEY.pack(address >> 64, address & _LOW, length)


def _place(packed: bytes) -> Place:
    high, low, length = _KEY.unpack(packed)
    return high << 64 | low, length


class Trie:
    """The trie of one side in the map of maps pinned at `path`, closed at the end of a `with` block.

    There is one writer at a time. Methods raise BpfError, and OSError where there is no memory.
    """

    def __init__(self, path: Path, side: int) -> None:
        self._side = side
        self._outer = get(path)
        try:
            self._cells = self._found()
        except BaseException:
            self._outer.close()
            raise

    def __enter__(self) -> Trie:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cells = None
        self._outer.close()

    def read(self) -> dict[bytes, bytes]:
        """All prefixes; none when a writer was killed in the middle, since one may be half there."""
        if not self._cells or self._cells.busy:
            return {}
        return {_packed(place): identity for place, identity in self._cells.items()}

    def apply(self, change: Change) -> None:
        """Set and delete prefixes; to delete one that is not there is fine.

        Wherever it is cut off, a packet finds for its address what was right before or what is right now, provided that
        it sees stores in their order (on x86).
        """
        cells, changes = self._cells, len(change.set) + len(change.delete)
        if not cells or cells.busy or not cells.has_room(len(change.set)) or 2 * changes > cells.count:
            entries = self.read()
            for packed in change.delete:
                entries.pop(packed, None)
            self._build({**entries, **change.set})
            return
        cells.begin()
        for packed in change.delete:
            cells.delete(_place(packed))
        fits = all(cells.set(_place(packed), identity) for packed, identity in change.set.items())
        cells.end()
        if not fits or not cells.built <= 2 * cells.count <= 4 * cells.built:
            self._build({**self.read(), **change.set})

    def _build(self, entries: Mapping[bytes, bytes]) -> None:
        """Let there be just these, in a new array. Packets that are in the one before keep it alive."""
        if not entries:
            if self._cells:
                self._call("delete", "bpf_map_delete_elem")
                self._cells = None
            return
        content = trie_build.build([(_place(packed), identity) for packed, identity in entries.items()])
        size = -(-len(content) * 5 // (4 * mmap.PAGESIZE)) * mmap.PAGESIZE
        with create_map(_ARRAY, "fastpath_trie", _KEY_SIZE, BYTES, size // BYTES, _FLAGS) as array:
            memory = mmap.mmap(array, size)
            memory[: len(content)] = content
            self._call("write", "bpf_map_update_elem", ctypes.byref(c_uint32(array)), 0)
        self._cells = Cells(memory)

    def _found(self) -> Cells | None:
        number = c_uint32()
        if not self._call("read", "bpf_map_lookup_elem", ctypes.byref(number)):
            return None
        with map_by_id(number.value) as array:
            return Cells(mmap.mmap(array, map_info(array).max_entries * BYTES))

    def _call(self, operation: str, function: str, *arguments: object) -> bool:
        """On the element of this side; False: there is none."""
        result = attempt(function, self._outer, ctypes.byref(c_uint32(self._side)), *arguments)
        if result < 0 and result != -codes.ENOENT:
            raise BpfError(operation, f"side {self._side} of the map tries", -result)
        return result == 0
