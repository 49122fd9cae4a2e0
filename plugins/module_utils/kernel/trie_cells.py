# SPDX-License-Identifier: GPL-3.0-or-later
"""A trie of prefixes as memory, in the form that bpf/trie.h reads. Pure: any writable buffer will do.

Each store into what a packet may be reading is one aligned word, and behind each of them every address has its old
answer or its new one. Nothing that was given up is used again, so that also a packet that stops on its way and goes on
much later finds one of both. A new build leaves it behind.

Prefixes here are (address, length) in the 128 bits of IPv6, IPv4 is ::ffff:a.b.c.d with lengths from 96 on.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple, Union

BYTES = 32  # of a cell
STRIDE = 4  # bits of an ordinary node
_WORDS, _QUADS = 8, 4  # of a cell
_NODE_CELLS = 1 + (1 << STRIDE) // _WORDS
_MOST_CELLS = 1 + 2 * _NODE_CELLS  # that a new prefix may need
_ITEM = struct.Struct("=QQIBBH8s")
_LOW = (1 << 64) - 1

# Words of the first cell; programs read the first two.
_START_V4, _START_V6 = 0, 1
_USED, _COUNT, _BUILT, _BUSY = range(2, 6)

# Of an item: words, and bytes.
_COVER, _IDENTITY = 4, 6
_LENGTH, _BITS = 20, 21
Buffer = Union[bytes, bytearray, memoryview, mmap]
Prefix = tuple[int, int]  # address, length
Identity = bytes  # struct fp_identity


class _Row(NamedTuple):
    """The slots of a node, or the one in which a family starts."""

    cell: int  # of the node; 0: it is a start
    first: int  # word of the first slot
    position: int  # bits of the address before those that choose a slot
    bits: int

    @property
    def end(self) -> int:
        return self.position + self.bits

    def slot(self, address: int) -> int:
        """The word of the slot that leads to it."""
        return self.first + (address >> (128 - self.end) & ((1 << self.bits) - 1))


class Cells:
    """A trie in `memory`, which is made by trie_build.build() and longer."""

    def __init__(self, memory: Buffer) -> None:
        self.memory = memoryview(memory)
        self._words, self._quads = self.memory.cast("I"), self.memory.cast("Q")

    @property
    def count(self) -> int:
        """Prefixes that are in it."""
        return self._words[_COUNT]

    @property
    def built(self) -> int:
        """How many there were when it was built: its nodes are made for so many."""
        return self._words[_BUILT]

    @property
    def busy(self) -> bool:
        """Somebody is changing it, or was killed while he did."""
        return bool(self._words[_BUSY])

    def has_room(self, count: int) -> bool:
        """Can as many prefixes be set?"""
        return (self._words[_USED] + count * _MOST_CELLS) * BYTES <= len(self.memory)

    def begin(self) -> None:
        """Before the first set() or delete()."""
        self._words[_BUSY] = 1

    def end(self) -> None:
        """After the last one."""
        self._words[_BUSY] = 0

    # --- reading ---

    def items(self) -> Iterator[tuple[Prefix, Identity]]:
        """All prefixes, in no order."""
        for cell in self._prefixes():
            high, low, _cover, length, _bits, _pad, identity = _ITEM.unpack_from(self.memory, cell * BYTES)
            yield (high << 64 | low, length), identity

    def _prefixes(self) -> set[int]:
        """Cells of all that can be reached: through slots, or as the cover of something."""
        found: set[int] = set()
        nodes = [_Row(0, first, 0, 0) for first in (_START_V4, _START_V6)]
        while nodes:
            row = nodes.pop()
            for cell in set(self._words[row.first : row.first + (1 << row.bits)]):
                below, prefix = (self._row(cell), self._cover(cell)) if self._bits(cell) else (None, cell)
                if below:
                    nodes.append(below)
                while prefix and prefix not in found:
                    found.add(prefix)
                    prefix = self._cover(prefix)
        return found

    def _cover(self, cell: int) -> int:
        return self._words[cell * _WORDS + _COVER]

    def _length(self, cell: int) -> int:
        return self.memory[cell * BYTES + _LENGTH]

    def _bits(self, cell: int) -> int:
        return self.memory[cell * BYTES + _BITS] if cell else 0

    def _address(self, cell: int) -> int:
        return self._quads[cell * _QUADS] << 64 | self._quads[cell * _QUADS + 1]

    def _row(self, node: int) -> _Row:
        return _Row(node, (node + 1) * _WORDS, self._length(node), self._bits(node))

    # --- changing ---

    def set(self, prefix: Prefix, identity: Identity) -> bool:
        """Add the prefix, or give it another identity; has_room() must hold.

        False: a large node is in its way, it takes a new build.
        """
        address, length = prefix
        row = self._path(prefix)[-1]
        if length <= row.end:
            self._spread(row, prefix, identity)
            return True
        slot = row.slot(address)
        found = self._words[slot]
        if not found or self._fills(found, row):
            self._words[slot] = self._new_prefix(prefix, identity, found)
            self._words[_COUNT] += 1
        elif self._is(found, prefix):
            self._identify(found, identity)
        else:
            return self._part(slot, prefix) and self.set(prefix, identity)
        return True

    def delete(self, prefix: Prefix) -> bool:
        """False: it was not there."""
        address, length = prefix
        path = self._path(prefix)
        row = path[-1]
        slot = row.slot(address)
        found = self._words[slot]
        if length <= row.end:
            found = self._shorter(found, row, length + 1)
            if not found or self._length(found) != length:
                return False
            self._replace(row, prefix, found, self._cover(found))
        else:
            if not found or not self._is(found, prefix):
                return False
            self._words[slot] = self._cover(found)
        self._words[_COUNT] -= 1
        if len(path) > 1:
            self._shrink(row, path[-2], address)
        return True

    def _path(self, prefix: Prefix) -> list[_Row]:
        """The rows on the way to the prefix; it belongs into the last one, or into a slot of it."""
        address, length = prefix
        path = [_Row(0, _START_V4, 96, 0) if is_v4(prefix) else _Row(0, _START_V6, 0, 0)]
        while length > path[-1].end:
            found = self._words[path[-1].slot(address)]
            if not self._bits(found):
                break
            row = self._row(found)
            if length <= row.position or agreeing(address, self._address(found)) < row.position:
                break
            path.append(row)
        return path

    def _is(self, cell: int, prefix: Prefix) -> bool:
        return not self._bits(cell) and (self._address(cell), self._length(cell)) == prefix

    def _fills(self, cell: int, row: _Row) -> bool:
        """Does the item, found in a slot of the row, hold for the whole slot?"""
        return not self._bits(cell) and self._length(cell) <= row.end

    def _shorter(self, found: int, row: _Row, length: int) -> int:
        """The longest prefix below `length` bits that fills the slot in which `found` is; 0: none does."""
        cell = found if not found or self._fills(found, row) else self._cover(found)
        while cell and self._length(cell) >= length:
            cell = self._cover(cell)
        return cell

    def _spread(self, row: _Row, prefix: Prefix, identity: Identity) -> None:
        """Set a prefix that fills slots of the row."""
        address, length = prefix
        found = self._words[row.slot(address)]
        below = self._shorter(found, row, length + 1)
        if below and self._length(below) == length:
            self._identify(below, identity)
        else:
            self._replace(row, prefix, below, self._new_prefix(prefix, identity, below))
            self._words[_COUNT] += 1

    def _replace(self, row: _Row, prefix: Prefix, old: int, new: int) -> None:
        """In all slots that the prefix fills let `new` hold where `old` did, below all that is longer."""
        address, length = prefix
        first = row.slot(address)
        last = first + (1 << (row.end - length))
        slots = self._words[first:last].tolist()
        for item in set(slots) - {old}:
            lowest = item
            while self._cover(lowest) not in (old, new):
                lowest = self._cover(lowest)
            self._words[lowest * _WORDS + _COVER] = new
        if old in slots:
            self._words[first:last] = array("I", [new if cell == old else cell for cell in slots])

    def _part(self, slot: int, prefix: Prefix) -> bool:
        """Put a node above the item in the slot, which has no room beside it. False: it is a large node."""
        address, length = prefix
        item = self._words[slot]
        item_address, item_length, bits = self._address(item), self._length(item), self._bits(item)
        if bits not in (0, STRIDE):
            return False
        position = min(agreeing(address, item_address), length - 1, item_length - 1) // STRIDE * STRIDE
        node = self._new_node(item_address, position, self._cover(item))
        row = self._row(node)
        first, filled = row.slot(item_address), 1 << max(0, row.end - item_length)
        self._words[first : first + filled] = array("I", [self._moved(item)]) * filled
        self._words[slot] = node
        return True

    def _moved(self, item: int) -> int:
        """A copy without a cover: the item itself may still be read by those who found it in its old place."""
        if self._bits(item):
            copy = self._new_node(0, 0, 0)
            size = _NODE_CELLS * BYTES
            self.memory[copy * BYTES : copy * BYTES + size] = self.memory[item * BYTES : item * BYTES + size]
            self._words[copy * _WORDS + _COVER] = 0
            return copy
        identity = self.memory[item * BYTES + 4 * _IDENTITY : (item + 1) * BYTES]
        return self._new_prefix((self._address(item), self._length(item)), bytes(identity), 0)

    def _shrink(self, row: _Row, above: _Row, address: int) -> None:
        """Take out an ordinary node that only one item is in."""
        if row.bits != STRIDE:
            return
        inside = set(self._words[row.first : row.first + (1 << row.bits)]) - {0}
        if len(inside) == 1:
            item = inside.pop()
            if not self._cover(item):
                self._words[item * _WORDS + _COVER] = self._cover(row.cell)
                self._words[above.slot(address)] = item

    # --- room ---

    def _new_prefix(self, prefix: Prefix, identity: Identity, cover: int) -> int:
        cell = self._take(1)
        self.memory[cell * BYTES : (cell + 1) * BYTES] = pack(prefix, identity, cover)
        return cell

    def _identify(self, cell: int, identity: Identity) -> None:
        """Both numbers in one store."""
        self._quads[cell * _QUADS + _IDENTITY // 2] = int.from_bytes(identity, sys.byteorder)

    def _new_node(self, address: int, position: int, cover: int) -> int:
        """Empty."""
        cell = self._take(_NODE_CELLS)
        empty = node(address, position, STRIDE, cover, array("I", bytes(4 << STRIDE)))
        self.memory[cell * BYTES : cell * BYTES + len(empty)] = empty
        return cell

    def _take(self, cells: int) -> int:
        first = self._words[_USED]
        self._words[_USED] = first + cells
        return first


def pack(prefix: Prefix, identity: Identity, cover: int) -> bytes:
    """The cell of a prefix."""
    address, length = prefix
    return _ITEM.pack(address >> 64, address & _LOW, cover, length, 0, 0, identity)


def node(address: int, position: int, bits: int, cover: int, slots: array[int]) -> bytes:
    """The cells of a node; of the address only the first bits are told."""
    address = address >> (128 - position) << (128 - position)
    return _ITEM.pack(address >> 64, address & _LOW, cover, position, bits, 0, bytes(8)) + slots.tobytes()


def first_cell(starts: tuple[int, int], used: int, count: int) -> bytes:
    """What stands before everything; starts: the items in which IPv4 and IPv6 begin, or 0; used: cells in all."""
    return struct.pack("=8I", *starts, used, count, count, 0, 0, 0)


def is_v4(prefix: Prefix) -> bool:
    address, length = prefix
    return length >= 96 and address >> 32 == 0xFFFF


def agreeing(one: int, other: int) -> int:
    """How many first bits of two addresses are the same."""
    return 128 - (one ^ other).bit_length()
