# SPDX-License-Identifier: GPL-3.0-or-later
"""The trie of prefixes in the kernel: what programs find in it, also while it changes and when its writer is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, migrate, trie
from ansible_collections.fastpath.node.plugins.module_utils.kernel.trie_cells import Cells
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Prefix
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Change, change
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.kernel.tries import (
    MAPPED,
    Model,
    bases,
    identity,
    is_v4,
    longest,
    probes,
    random_prefix,
)

from .conftest import Compiler

NONE = 0xFFFFFFFF
CASES = 64
ETHERNET = bytes(12) + b"\x88\xb5"


class Kernel:
    """The loaded program and its pinned maps."""

    def __init__(self, loaded: bpf.LoadedObject, pins: Path) -> None:
        self.loaded, self.pins = loaded, pins

    def side(self, side: int = 0) -> trie.Trie:
        return trie.Trie(self.pins / "tries", side)

    def ask(self, address: int, side: int = 0) -> bytes | None:
        """The identity that a program finds."""
        run = bpf.test_run(self.loaded.programs["ask"], ETHERNET + question(address), ctx={"cb0": side})
        assert run.retval in (0, 3), "TC_ACT_OK, TC_ACT_PIPE"
        return None if run.retval else struct.pack("=II", run.ctx["cb1"], run.ctx["cb2"])

    def size(self, side: int = 0) -> int:
        """Cells of the array; 0: there is none."""
        with bpf.Map.open(self.pins / "tries") as outer:
            found = outer.get(struct.pack("=I", side))
        if found is None:
            return 0
        with bpf.map_by_id(struct.unpack("=I", found)[0]) as array:
            return bpf.map_info(array).max_entries


def question(address: int) -> bytes:
    return struct.pack("=16sI", address.to_bytes(16, "big"), not is_v4(address))


def keys(model: Model) -> dict[bytes, bytes]:
    return {trie.key(public(prefix)): value for prefix, value in model.items()}


def public(prefix: tuple[int, int]) -> Prefix:
    address, length = prefix
    if length >= 96 and is_v4(address):
        return Prefix(4, address & 0xFFFFFFFF, length - 96)
    return Prefix(6, address, length)


def become(table: trie.Trie, wanted: Mapping[bytes, bytes]) -> None:
    table.apply(change(table.read(), wanted))


def some(chance: random.Random, size: int) -> Model:
    near = bases(chance)
    return {random_prefix(chance, near): identity(number) for number in range(size)}


@pytest.fixture
def kernel(compiled: Compiler, bpffs: Path) -> Iterator[Kernel]:
    with bpf.load(compiled("trie"), bpffs) as loaded:
        yield Kernel(loaded, bpffs)


def test_answers(kernel: Kernel) -> None:
    """Of sets that follow each other on both sides, by small changes and by large ones."""
    chance = random.Random(7)
    for size in (0, 1, 3, 60, 61, 64, 400, 380, 30, 0):
        models = some(chance, size), some(chance, size // 2)
        for turn in range(3):
            for side, model in enumerate(models):
                with kernel.side(side) as table:
                    become(table, keys(model))
                with kernel.side(side) as table:
                    assert table.read() == keys(model)
            for side, model in enumerate(models):
                for address in chance.sample(probes(some(chance, 20) | model), 40):
                    assert kernel.ask(address, side) == longest(model, address), (size, turn, hex(address))
            for model in models:
                for prefix in chance.sample(list(model), len(model) // 10):
                    del model[prefix]
                model.update(some(chance, size // 10))


def test_what_is_not_there_takes_no_memory(kernel: Kernel) -> None:
    assert kernel.size() == 0
    assert kernel.ask(MAPPED | 1) is None
    many = {(MAPPED | number << 8, 120): identity(number) for number in range(5000)}
    few = dict(list(many.items())[:50])
    with kernel.side() as table:
        for model, most in ((few, 256), (many, 40000), (few, 256), ({}, 0)):
            become(table, keys(model))
            assert len(model) <= kernel.size() <= most
            assert table.read() == keys(model)
        become(table, keys(many))
        while len(many) > len(few):
            many = dict(list(many.items())[: len(many) * 2 // 3])
            become(table, keys(many))
        assert kernel.size() <= 256
    assert kernel.size(1) == 0


def test_churn_takes_no_more_memory(kernel: Kernel) -> None:
    """Several times as many prefixes come and go as there are at a time."""
    with kernel.side() as table:
        become(table, keys({(MAPPED | number << 8, 120): identity(number) for number in range(2000)}))
        for turn in range(15):
            there = list(table.read())
            new = {(MAPPED | (500 * turn + number + 2000) << 8, 120): identity(turn) for number in range(500)}
            table.apply(Change(keys(new), frozenset(random.Random(turn).sample(there, 500))))
            assert len(table.read()) == 2000
            assert kernel.size() <= 6 * 2000


def test_programs_of_the_next_version_use_the_same_trie(kernel: Kernel, compiled: Compiler, bpffs: Path) -> None:
    model = {(MAPPED, 96): identity(5)}
    with kernel.side() as table:
        become(table, keys(model))
    following = bpffs / "following"
    with bpf.load(compiled("trie"), following, shared=bpffs) as loaded:
        migrate.fill(bpffs, following, idle=True)
        migrate.settle(bpffs, following)
        assert Kernel(loaded, following).ask(MAPPED | 1) == identity(5)


def test_the_verifier_has_little_to_do(kernel: Kernel) -> None:
    """Both families; a way for each of their steps and no more, whatever the kernel prunes."""
    assert bpf.program_info(kernel.loaded.programs["ask"]).verified_insns < 8000


class Asking:
    """All the while a program asks, on another thread. It gets an answer that is allowed."""

    def __init__(self, kernel: Kernel) -> None:
        self._program = kernel.loaded.programs["ask_again"]
        self._seen = bpf.Map(os.dup(kernel.loaded.maps["seen"]))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            bpf.test_run(self._program, bytes(14), repeat=5000)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        wrong = self._count(2)
        self._seen.fd.close()
        assert wrong == 0

    def _count(self, which: int) -> int:
        return int.from_bytes(self._seen.get(struct.pack("=I", which)) or b"", sys.byteorder)

    def wait(self, which: int) -> None:
        """Until this answer has been given once more."""
        before, deadline = self._count(which), time.monotonic() + 30
        while self._count(which) == before:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.mark.parametrize("seed", range(6))
def test_changed_while_programs_ask(kernel: Kernel, seed: int) -> None:
    """One prefix comes and goes, and with it the room of several arrays: each answer is the old or the new one."""
    chance = random.Random(seed)
    model = some(chance, (3, 40, 400)[seed % 3])
    prefix = next(new for new in iter(lambda: random_prefix(chance, [a for a, _n in model]), None) if new not in model)
    after = {**model, prefix: identity(77777)}
    addresses = (probes([prefix]) + chance.sample(probes(model), min(CASES, len(model)) // 2)) * CASES
    with bpf.Map(os.dup(kernel.loaded.maps["choices"])) as choices:
        for index, address in enumerate(addresses[:CASES]):
            answers = [number(longest(world, address)) for world in (after, model)]
            choices.set(struct.pack("=I", index), question(address) + struct.pack("=II", *answers))
    with kernel.side() as table:
        become(table, keys(after))
        with Asking(kernel) as asking:
            for turn in range(200):
                become(table, keys(model))
                if turn % 20 == 0:
                    asking.wait(1)
                become(table, keys(after))
            asking.wait(0)


def number(found: bytes | None) -> int:
    value: int = struct.unpack_from("=I", found)[0] if found else NONE
    return value


def test_what_is_half_written_goes(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing shall be, as it is read."""
    with kernel.side() as table:
        become(table, keys(some(random.Random(1), 100)))
        monkeypatch.setattr(Cells, "end", lambda _cells: None)
        table.apply(Change({trie.key(public((MAPPED, 96))): identity(5)}, frozenset()))
        monkeypatch.undo()
    assert kernel.ask(MAPPED) == identity(5)
    with kernel.side() as table:
        assert table.read() == {}
        table.apply(Change({}, frozenset()))
    assert kernel.ask(MAPPED) is None
    assert kernel.size() == 0


def test_killed_writers_leave_nothing_that_the_next_cannot_use(kernel: Kernel) -> None:
    """What it reads then is what programs find, or nothing, so that it writes everything."""
    chance = random.Random(3)
    worlds = [some(chance, 2000)]
    worlds.append(dict(list(worlds[0].items())[20:]) | some(chance, 5))
    both = {trie.key(public(prefix)): prefix for prefix in worlds[0] | worlds[1]}
    addresses = chance.sample(probes(both.values()), 100)
    turn, incomplete = 0, 0
    while turn < 20 or not incomplete:
        assert turn < 500, "never killed in the middle"
        turn += 1
        with kernel.side() as table:
            become(table, keys(worlds[turn % 2]))
        _kill_while_writing(kernel, [keys(world) for world in worlds], chance.uniform(0, 0.03))
        for repaired in (False, True):
            with kernel.side() as table:
                if repaired:
                    become(table, keys(worlds[turn % 2]))
                left = {both[packed]: value for packed, value in table.read().items()}
            if left:
                assert [kernel.ask(one) for one in addresses] == [longest(left, one) for one in addresses]
            if repaired:
                assert left == worlds[turn % 2]
            incomplete += not left


def _kill_while_writing(kernel: Kernel, worlds: list[dict[bytes, bytes]], seconds: float) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), kernel.side() as table:
            os.close(tell)
            while True:
                for world in worlds:
                    become(table, world)
        os._exit(1)
    os.close(tell)
    os.read(ready, 1)  # it has begun: its end of the pipe is closed as well
    os.close(ready)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
