# SPDX-License-Identifier: GPL-3.0-or-later
"""Random prefixes that have much to do with each other, the plain answer, and a packet's way through a trie's cells."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from random import Random

from ansible_collections.fastpath.node.plugins.module_utils.kernel import trie_build
from ansible_collections.fastpath.node.plugins.module_utils.kernel.trie_cells import Cells, Identity, Prefix

MAPPED = 0xFFFF << 32
ROOM = 1 << 20
Model = dict[Prefix, Identity]
_ONES = (1 << 64) - 1
_ITEM = struct.Struct("=QQIBBH8s")


def identity(number: int) -> Identity:
    return struct.pack("=II", number, number ^ 0x55)


def cells_of(model: Mapping[Prefix, Identity], room: int = ROOM) -> Cells:
    return Cells(bytearray(trie_build.build(model.items()) + bytes(room)))


def is_v4(address: int) -> bool:
    return address >> 32 == 0xFFFF


def longest(model: Mapping[Prefix, Identity], address: int) -> Identity | None:
    """The specification."""
    for length in range(128, 95 if is_v4(address) else -1, -1):
        found = model.get((address >> (128 - length) << (128 - length), length))
        if found is not None and is_v4(address) == (length >= 96 and is_v4(address)):
            return found
    return None


def steps(cells: Cells, address: int) -> Iterator[Identity | bool | None]:
    """What trie_lookup() of bpf/trie.h does: yields False before each look into the memory, and last the answer."""
    cover, slot, cell, v4 = 0, 0 if is_v4(address) else 1, 0, is_v4(address)
    for _step in range(9 if v4 else 33):
        yield False
        (item,) = struct.unpack_from("=I", cells.memory, cell * 32 + 4 * slot)
        if not item:
            break
        yield False
        high, low, below, length, bits, _pad, found = _ITEM.unpack_from(cells.memory, item * 32)
        differs = (low ^ address) & 0xFFFFFFFF if v4 else (high << 64 | low) ^ address
        within = differs >> (128 - length) == 0
        if within and not bits:
            yield found
            return
        cover = below or cover
        if not within:
            break
        half = address >> 64 if length < 64 else address & _ONES
        slot = (half << length % 64 & _ONES) >> 64 - bits
        cell, slot = item + 1 + slot // 8, slot % 8
    else:
        raise AssertionError(f"the way to {address:#x} is too long for the program")
    yield False
    yield _ITEM.unpack_from(cells.memory, cover * 32)[-1] if cover else None


def lookup(cells: Cells, address: int) -> Identity | None:
    *_looks, answer = steps(cells, address)
    assert answer is not True
    return answer or None


def random_prefix(random: Random, bases: Iterable[int]) -> Prefix:
    """One of few addresses, or one that differs from it in a bit, cut at any length."""
    address = random.choice(list(bases))
    if random.random() < 0.6:
        address ^= 1 << random.randrange(32 if is_v4(address) else 128)
    v4 = is_v4(address)
    length = random.choice((96, 127, 128, random.randint(96, 128)) if v4 else (0, 64, 128, random.randint(0, 128)))
    if not v4 and length > 96 and is_v4(address):
        return random_prefix(random, bases)
    return address >> (128 - length) << (128 - length), length


def bases(random: Random) -> list[int]:
    """Some addresses of both families."""
    count = random.choice((1, 2, 8))
    v4 = [MAPPED | random.getrandbits(32) for _index in range(count)]
    return v4 + [0x20010DB8 << 96 | random.getrandbits(random.choice((8, 60, 96))) for _index in range(count)]


def probes(prefixes: Iterable[Prefix]) -> list[int]:
    """Addresses at the edges of the prefixes, inside and beside."""
    found = set()
    for address, length in prefixes:
        last = address | (1 << (128 - length)) - 1
        near = {address, last, address - 1, last + 1, (address + last) // 2}
        v4 = length >= 96 and is_v4(address)
        found |= {one for one in near if 0 <= one < 1 << 128 and is_v4(one) == v4}
    return sorted(found)
