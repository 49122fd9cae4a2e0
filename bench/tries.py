# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to find an address among prefixes, in our trie and in the kernel's, by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, trie
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import BITS, Prefix
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Change
from bench import build, fastpath
from bench.programs import one_core

OURS, KERNELS, NOTHING = "ours", "kernels", "nothing"
WAYS = (OURS, KERNELS)
SIZES = (10, 1_000, 10_000, 100_000)
SPREADS = {"hot": 64, "warm": 8_192, "random": 1 << 17}  # addresses
ROUNDS, REPEAT = 9, 50_000

_LENGTHS = {4: (16, 20, 22, 24, 24, 24, 24, 28), 6: (32, 40, 48, 48, 48, 56, 64)}
_GLOBAL = {4: (0, 0), 6: (0b001, 3)}  # first bits of an address, and how many
_FRAME = bytes(14)

Samples = dict[str, list[float]]  # by spread, a figure for each round


@dataclass(frozen=True)
class Cost:
    """ns to find an address, by trie and spread; bytes by trie; to fill ours, s, and to change one prefix, us."""

    version: int
    prefixes: int
    samples: Mapping[str, Samples]
    memory: Mapping[str, int]
    filled: float
    changed: float

    def of(self, way: str, spread: str) -> float:
        return median(self.samples[way][spread])

    def ratio(self, spread: str) -> float:
        """How many times as long the kernel's takes, round by round."""
        pairs = zip(self.samples[OURS][spread], self.samples[KERNELS][spread], strict=True)
        return median(theirs / ours for ours, theirs in pairs)

    def growth(self, spread: str, fewest: Cost) -> float:
        """How many times as long ours takes as with other prefixes, round by round."""
        pairs = zip(self.samples[OURS][spread], fewest.samples[OURS][spread], strict=True)
        return median(now / then for now, then in pairs)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(report: Callable[[str], None]) -> list[Cost]:
    """All numbers of prefixes side by side, on one core."""
    found = []
    for version in BITS:
        with ExitStack() as stack:
            loads = []
            for size in SIZES:
                report(f"tries: IPv{version}, {size:,} prefixes")
                loads.append(stack.enter_context(_loaded(version, size)))
            with one_core():
                for index in range(ROUNDS):
                    report(f"tries: IPv{version}, round {index + 1} of {ROUNDS}")
                    for programs, cost in loads:
                        _round(programs, cost)
            found += [cost for _programs, cost in loads]
    return found


def _round(programs: Mapping[str, int], cost: Cost) -> None:
    """What it takes to choose an address is taken off."""
    for spread in SPREADS:
        base = _run(programs[NOTHING], spread)
        for way in WAYS:
            cost.samples[way][spread].append(max(1.0, _run(programs[f"{way}_v{cost.version}"], spread) - base))


def _run(program: int, spread: str) -> float:
    many = {"cb0": SPREADS[spread]}
    bpf.test_run(program, _FRAME, ctx=many, repeat=1000)  # uses up what was chosen before, and warms up
    run = bpf.test_run(program, _FRAME, ctx=many, repeat=REPEAT)
    if run.retval:  # to find nothing would be cheap
        raise RuntimeError("the address was not found")
    return float(run.duration_ns)


@contextmanager
def _loaded(version: int, size: int) -> Iterator[tuple[Mapping[str, int], Cost]]:
    """Programs with both tries full and addresses to ask for; no samples yet."""
    random = Random(size)  # noqa: S311 - the same ones each time
    prefixes = _prefixes(random, version, size)
    with bpf.load(build.tries().read_bytes(), name="bench") as loaded, fastpath.pinned(loaded.maps) as pins:
        filled, changed = _fill(pins, prefixes)
        kernels = loaded.maps[f"lpm_v{version}"]
        with bpf.Map(os.dup(kernels)) as table:
            table.set_many((_lpm_key(prefix), _identity(index)) for index, prefix in enumerate(prefixes, 1))
        with bpf.Map(os.dup(loaded.maps["addresses"])) as addresses:
            drawn = (_address(random, random.choice(prefixes)) for _each in range(max(SPREADS.values())))
            addresses.set_many((struct.pack("=I", index), address) for index, address in enumerate(drawn))
        memory = {OURS: _trie_size(pins), KERNELS: fastpath.memory(kernels)}
        samples: dict[str, Samples] = {way: {spread: [] for spread in SPREADS} for way in WAYS}
        yield loaded.programs, Cost(version, size, samples, memory, filled, changed)


def _prefixes(random: Random, version: int, size: int) -> list[Prefix]:
    """Different ones, most of the usual lengths; some are in others."""
    found: dict[Prefix, None] = {}
    first, count = _GLOBAL[version]
    while len(found) < size:
        length = random.choice(_LENGTHS[version])
        number = first << (length - count) | random.getrandbits(length - count)
        found[Prefix(version, number << (BITS[version] - length), length)] = None
    return list(found)


def _address(random: Random, prefix: Prefix) -> bytes:
    """One in the prefix, as struct fp_addr."""
    number = prefix.address | random.getrandbits(BITS[prefix.version] - prefix.length)
    return (number | 0xFFFF << 32 if prefix.version == 4 else number).to_bytes(16, "big")


def _lpm_key(prefix: Prefix) -> bytes:
    return struct.pack("=I", prefix.length) + prefix.address.to_bytes(BITS[prefix.version] // 8, "big")


def _identity(number: int) -> bytes:
    return struct.pack("=II", number, number)


def _fill(pins: Path, prefixes: list[Prefix]) -> tuple[float, float]:
    """Seconds to put them all in, microseconds to take one out or put it in."""
    entries = {trie.key(prefix): _identity(index) for index, prefix in enumerate(prefixes, 1)}
    samples = []
    with trie.Trie(pins / "tries", 0) as table:
        begin = perf_counter()
        table.apply(Change(entries, frozenset()))
        filled = perf_counter() - begin
        for key in list(entries)[:: max(1, len(entries) // 100)]:
            for change in (Change({}, frozenset([key])), Change({key: entries[key]}, frozenset())):
                begin = perf_counter()
                table.apply(change)
                samples.append((perf_counter() - begin) * 1e6)
    return filled, median(samples)


def _trie_size(pins: Path) -> int:
    with bpf.Map.open(pins / "tries") as outer:
        (number,) = struct.unpack("=I", outer.get(bytes(4)) or bytes(4))
    with bpf.map_by_id(number) as array:
        return fastpath.memory(array)
