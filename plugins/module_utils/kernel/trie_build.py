# SPDX-License-Identifier: GPL-3.0-or-later
"""A trie of many prefixes at once, with nodes as large as what is below them deserves. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from .trie_cells import BYTES, STRIDE, Identity, Prefix, agreeing, first_cell, is_v4, node, pack

_SPARSE = 32  # slots of a large node for each that leads to something: 128 bytes a prefix at most
_LARGEST = 24  # bits
_CROWD = 8  # prefixes for which a large node is worth it


def build(entries: Iterable[tuple[Prefix, Identity]]) -> bytes:
    """The cells of a trie with these prefixes, which are different ones."""
    ordered = sorted(entries, key=lambda entry: (not is_v4(entry[0]), entry[0]))
    builder = _Builder([prefix for prefix, _identity in ordered])
    v4 = sum(is_v4(prefix) for prefix, _identity in ordered)
    starts = builder.slots(0, v4, 96, 0)[0], builder.slots(v4, len(ordered), 0, 0)[0]
    prefixes = b"".join(pack(*entry, cover) for entry, cover in zip(ordered, builder.covers))
    return first_cell(starts, builder.used, len(ordered)) + prefixes + b"".join(builder.nodes)


def _cell(index: int) -> int:
    """Of a prefix, by its place in the order."""
    return 1 + index


class _Builder:
    """Of prefixes in order, each before all that it contains; nodes are in the cells behind them all."""

    def __init__(self, prefixes: list[Prefix]) -> None:
        self._addresses = [address for address, _length in prefixes]
        self._lengths = [length for _address, length in prefixes]
        self.covers = [0] * len(prefixes)
        self.nodes: list[bytes] = []
        self.used = _cell(len(prefixes))

    def _tree(self, low: int, high: int, cover: int) -> int:
        """The item for a slot that is filled by `cover` and has these longer prefixes in it."""
        if high - low == 1:
            self.covers[low] = cover
            return _cell(low)
        address = self._addresses[low]
        agreed = min(agreeing(address, self._addresses[high - 1]), self._lengths[low] - 1)
        position, bits = self._shape(low, high, agreed)
        packed = node(address, position, bits, cover, self.slots(low, high, position + bits, bits))
        cell = self.used
        self.used += len(packed) // BYTES
        self.nodes.append(packed)
        return cell

    def slots(self, low: int, high: int, end: int, bits: int) -> array[int]:
        """What is in the slots for the bits before `end`, for prefixes that agree in all bits before those."""
        slots, shift = array("I", bytes(4 << bits)), 128 - end
        while low < high:
            number = self._addresses[low] >> shift
            slot, length = number & ((1 << bits) - 1), self._lengths[low]
            if length <= end:
                self.covers[low] = slots[slot]
                filled = 1 << (end - length)
                slots[slot : slot + filled] = array("I", [_cell(low)]) * filled
                low += 1
            else:
                behind = bisect_left(self._addresses, (number + 1) << shift, low + 1, high)
                slots[slot] = self._tree(low, behind, slots[slot])
                low = behind
        return slots

    def _shape(self, low: int, high: int, agreed: int) -> tuple[int, int]:
        """Position and bits of a node for prefixes that agree so far.

        A large one has as many bits as still have enough slots that lead to something. All end where ordinary ones do.
        """
        largest = min(agreed + _LARGEST, 64 if agreed < 64 else 128) // STRIDE * STRIDE
        for end in range(largest, agreed + STRIDE, -STRIDE) if high - low >= _CROWD else ():
            bits = end - agreed
            if 1 << bits <= _SPARSE * (high - low):
                members = zip(self._addresses[low:high], self._lengths[low:high])
                if len({at >> (128 - end) for at, length in members if length > end - STRIDE}) * _SPARSE >= 1 << bits:
                    return agreed, bits
        return agreed // STRIDE * STRIDE, STRIDE
