# SPDX-License-Identifier: GPL-3.0-or-later
"""The trie of prefixes as memory, against a plain search for the longest prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel.trie_cells import Cells, Prefix
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.kernel.tries import (
    MAPPED,
    Model,
    bases,
    cells_of,
    identity,
    longest,
    lookup,
    probes,
    random_prefix,
    steps,
)

ALL_V4: Prefix = (MAPPED, 96)
ALL_V6: Prefix = (0, 0)


def check(cells: Cells, model: Model, addresses: list[int]) -> None:
    assert dict(cells.items()) == model
    assert cells.count == len(model)
    for address in addresses:
        assert lookup(cells, address) == longest(model, address), hex(address)


def world(seed: int, size: int) -> tuple[Model, list[int], Callable[[], Prefix]]:
    """A set of prefixes, addresses to ask for, and more prefixes like those."""
    random = Random(seed)
    near = bases(random)

    def another() -> Prefix:
        return random_prefix(random, near)

    model = {another(): identity(number) for number in range(size)}
    return model, probes([*model, *(another() for _index in range(20))]), another


@pytest.mark.parametrize("seed", range(30))
def test_built(seed: int) -> None:
    model, addresses, _another = world(seed, (0, 1, 2, 5, 40, 300)[seed % 6])
    check(cells_of(model), model, addresses)


@pytest.mark.parametrize("seed", range(30))
def test_changed_one_by_one(seed: int) -> None:
    """Whatever is added, changed and removed, in any order; in the end nothing is left."""
    model, addresses, another = world(seed, (0, 1, 5, 60)[seed % 4])
    random, cells = Random(seed), cells_of(model)
    for number in range(200):
        cells.begin()
        if model and random.random() < 0.5:
            gone = random.choice(list(model))
            del model[gone]
            assert cells.delete(gone)
        else:
            prefix = another()
            assert cells.delete(prefix) == (model.pop(prefix, None) is not None)
            model[prefix] = identity(1000 + number)
            if not cells.set(prefix, model[prefix]):
                cells = cells_of(model)
        cells.end()
        if number % 20 == 0:
            check(cells, model, addresses)
    cells.begin()
    assert all(cells.delete(prefix) for prefix in list(model))
    cells.end()
    check(cells, {}, addresses)


@pytest.mark.parametrize("order", [1, -1])
def test_nested_ones_all_the_way_down(order: int) -> None:
    """A prefix of each length, from the longest to the shortest and back: no way is too long for the program."""
    address = 0x20010DB8 << 96 | 0xDEADBEEF
    every = [(address >> (128 - n) << (128 - n), n) for n in range(129)]
    every += [((MAPPED | 0xC0A80101) >> (128 - n) << (128 - n), n) for n in range(96, 129)]
    model: Model = {ALL_V4: identity(1)}
    cells = cells_of(model)
    for number, prefix in enumerate(every[::order]):
        model[prefix] = identity(number)
        cells.set(prefix, model[prefix])
    addresses = probes(every)
    check(cells, model, addresses)
    check(cells_of(model), model, addresses)
    for prefix in every[:: 2 * order]:
        assert cells.delete(prefix)
        del model[prefix]
    check(cells, model, addresses)


def test_families_are_apart() -> None:
    model = {ALL_V6: identity(1)}
    assert lookup(cells_of(model), MAPPED | 1) is None
    assert lookup(cells_of({ALL_V4: identity(1)}), 1) is None
    assert lookup(cells_of(model), 1) == identity(1)


def test_another_identity_takes_no_room() -> None:
    model, addresses, _another = world(5, 100)
    cells = cells_of(model, room=0)
    assert not cells.has_room(1)
    for number, prefix in enumerate(model):
        model[prefix] = identity(5000 + number)
        cells.set(prefix, model[prefix])
    check(cells, model, addresses)


def test_the_way_is_short_again_when_what_made_it_long_has_gone() -> None:
    near, far = (MAPPED | 0x0A010101, 128), (MAPPED | 0x0A010180, 128)
    cells = cells_of({near: identity(1)})
    looks = [len(list(steps(cells, near[0])))]
    cells.set(far, identity(2))
    looks.append(len(list(steps(cells, near[0]))))
    cells.delete(far)
    looks.append(len(list(steps(cells, near[0]))))
    assert looks[0] == looks[2] < looks[1]


@pytest.mark.parametrize("seed", range(20))
def test_room_for_a_prefix_is_enough(seed: int) -> None:
    model, _addresses, another = world(seed, 1 + seed)
    room = next(room for room in range(0, 1000, 32) if cells_of(model, room).has_room(1))
    for _turn in range(20):
        cells, prefix = cells_of(model, room), another()
        if cells.set(prefix, identity(1)):
            assert dict(cells.items()) == {**model, prefix: identity(1)}


def test_memory_is_proportional() -> None:
    random = Random(2)
    for size in (10, 1000, 20000):
        v4 = {(MAPPED | random.getrandbits(24) << 8, 120): identity(1) for _index in range(size)}
        v6 = {(0x20010DB8 << 96 | random.getrandbits(32) << 64, 64): identity(1) for _index in range(size)}
        for model in (v4, v6):
            assert len(cells_of(model, room=0).memory) <= 200 * len(model) + 1024


def test_no_node_has_bits_of_both_halves_of_an_address() -> None:
    model = {(0x20010DB8 << 96 | n << 52, 76): identity(n) for n in range(0, 1 << 16, 37)}
    check(cells_of(model), model, probes(model)[::20])


def test_a_large_node_in_the_way_takes_a_new_build() -> None:
    model = {(MAPPED | 0x0A000000 | n << 8, 120): identity(n) for n in range(5000)}
    cells = cells_of(model)
    assert not cells.set((MAPPED | 0xC0A80000, 112), identity(1))
    check(cells, model, probes(model)[:100])


# What a packet sees meanwhile


class Watched:
    """Words that say when they are written, in the place of those of `cells`."""

    def __init__(self, cells: Cells, name: str, written: Callable[[], None]) -> None:
        self._words, self._written = getattr(cells, name), written
        setattr(cells, name, self)

    def __getitem__(self, index: Any) -> Any:
        return self._words[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._words[index] = value
        self._written()


def one_change(cells: Cells, prefix: Prefix, add: bool) -> None:
    cells.begin()
    if not add:
        cells.delete(prefix)
    elif not cells.set(prefix, identity(9999)):
        pytest.skip("a build makes something new, which takes its place at once")
    cells.end()


def changes(seed: int) -> Iterator[tuple[Model, Model, Prefix, list[int]]]:
    """Before, afterwards, the prefix that makes the difference, addresses."""
    model, addresses, another = world(seed, (1, 3, 12, 50)[seed % 4])
    for number in range(12):
        prefix = another() if number % 2 else Random(number).choice(list(model))
        after = dict(model)
        if prefix in model:
            del after[prefix]
        else:
            after[prefix] = identity(9999)
        yield model, after, prefix, [*addresses, *probes([prefix])]


def _look(cells: Cells, answers: list[tuple[int, set[Any]]], seen: list[bool]) -> None:
    seen.append(True)
    for address, allowed in answers:
        assert lookup(cells, address) in allowed, hex(address)


@pytest.mark.parametrize("seed", range(12))
def test_each_store_leaves_old_or_new(seed: int) -> None:
    """Also for a writer that is killed there."""
    for before, after, prefix, addresses in changes(seed):
        cells = cells_of(before, room=4096)
        answers = [(address, {longest(before, address), longest(after, address)}) for address in addresses]
        seen: list[bool] = []

        look = partial(_look, cells, answers, seen)
        words = Watched(cells, "_words", look), Watched(cells, "_quads", look)
        one_change(cells, prefix, prefix in after)
        assert len(seen) > 3, words
        assert dict(cells.items()) == after


@pytest.mark.parametrize("seed", range(12))
def test_who_began_before_the_change_finds_old_or_new(seed: int) -> None:
    """A packet may stop anywhere on its way and go on after the change: what it stands on is still there."""
    for before, after, prefix, addresses in changes(seed):
        cells = cells_of(before, room=4096)
        late = []
        for address in addresses[:: max(1, len(addresses) // 40)]:
            for stop in range(sum(1 for _step in steps(cells, address))):
                packet = steps(cells, address)
                for _look in range(stop):
                    next(packet)
                late.append((address, packet))
        one_change(cells, prefix, prefix in after)
        for address, packet in late:
            *_looks, answer = packet
            assert (answer or None) in {longest(before, address), longest(after, address)}, hex(address)
