# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps one by one and in batches, TEST_RUN, the ring buffer, layouts."""

from __future__ import annotations

import errno
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, btf, libbpf, maps

from .conftest import Compiler

FRAME = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(50)
MAC = b"\x02\0\0\0\0\x05"
SETTINGS: dict[str, btf.Value] = {"mark": 99, "mac": MAC}


def key(number: int) -> bytes:
    return struct.pack("=I", number)


@pytest.fixture
def layouts(sample: bytes) -> btf.Btf:
    return btf.parse(sample)


@pytest.fixture
def loaded(sample: bytes, layouts: btf.Btf) -> Iterator[bpf.LoadedObject]:
    with bpf.load(sample, rodata={"settings": layouts.structs["settings"].pack(SETTINGS)}) as one:
        yield one


@pytest.fixture
def entries(loaded: bpf.LoadedObject) -> bpf.Map:
    return bpf.Map(loaded.maps["entries"])


@pytest.fixture(params=["batch", "one by one"])
def slow_too(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test again on a kernel that has no batch calls, as it were."""
    if request.param == "one by one":
        real = libbpf.attempt
        monkeypatch.setattr(maps, "attempt", lambda name, *rest: -524 if "batch" in name else real(name, *rest))


def test_get_set_delete(entries: bpf.Map) -> None:
    value = bytes(range(entries.value_size))
    assert entries.get(key(1)) is None
    entries.set(key(1), value)
    assert entries.get(key(1)) == value
    assert entries.delete(key(1))
    assert not entries.delete(key(1))
    assert not entries.replace(key(1), value)
    assert entries.get(key(1)) is None
    assert entries.add(key(1), value)
    assert not entries.add(key(1), bytes(entries.value_size))
    assert entries.get(key(1)) == value
    assert entries.replace(key(1), bytes(entries.value_size))
    assert entries.get(key(1)) == bytes(entries.value_size)


@pytest.mark.usefixtures("slow_too")
def test_many_entries(entries: bpf.Map) -> None:
    wanted = {key(number): key(number).ljust(entries.value_size, b"\1") for number in range(5000)}
    entries.set_many(wanted.items())
    assert dict(entries.items()) == wanted
    assert entries.delete_many([key(number) for number in range(0, 9000, 2)]) == 2500
    assert {name for name, _value in entries.items()} == {key(number) for number in range(1, 5000, 2)}
    entries.set_many([])
    assert entries.delete_many([]) == 0


@pytest.mark.usefixtures("slow_too")
def test_a_full_map_says_so_and_keeps_what_was_written(compiled: Compiler) -> None:
    with bpf.load(compiled("sample", ENTRIES=5)) as loaded:
        entries = bpf.Map(loaded.maps["entries"])
        with pytest.raises(bpf.BpfError, match="all its 5 entries") as caught:
            entries.set_many((key(number), bytes(entries.value_size)) for number in range(9))
        assert caught.value.errno == errno.E2BIG
        assert f"key {key(5).hex()}" in caught.value.object
        assert len(entries.items()) == 5


@pytest.mark.usefixtures("slow_too")
def test_per_cpu_array(loaded: bpf.LoadedObject) -> None:
    seen = bpf.PerCpuMap(loaded.maps["seen"])
    values = [struct.pack("=QQ", cpu + 1, 10 * cpu) for cpu in range(seen.cpus)]
    seen.set_many([(key(1), values)])
    assert seen.get(key(1)) == values
    assert [name for name, _values in seen.items()] == [key(0), key(1), key(2)]
    assert dict(seen.items())[key(1)] == values
    total = seen.cpus * (seen.cpus + 1) // 2
    assert bpf.add_up(values) == (total, 10 * (total - seen.cpus))
    assert seen.get(key(3)) is None


@pytest.mark.usefixtures("slow_too")
def test_per_cpu_hash_with_padded_values(loaded: bpf.LoadedObject) -> None:
    narrow = bpf.PerCpuMap(loaded.maps["narrow"])
    wanted = {key(number): [key(number + cpu) for cpu in range(narrow.cpus)] for number in range(500)}
    narrow.set_many(wanted.items())
    assert dict(narrow.items()) == wanted
    assert narrow.delete_many(wanted) == 500


@pytest.mark.usefixtures("slow_too")
def test_prefixes(loaded: bpf.LoadedObject) -> None:
    prefixes = bpf.Map(loaded.maps["prefixes"])
    wanted = {struct.pack("=I4s", 24, bytes((10, 0, number, 0))): key(number) for number in range(100)}
    prefixes.set_many(wanted.items())
    assert dict(prefixes.items()) == wanted
    assert prefixes.get(struct.pack("=I4s", 32, bytes((10, 0, 7, 9)))) == key(7)
    assert prefixes.delete_many(wanted) == 100


def test_wrong_sizes_never_reach_the_kernel(entries: bpf.Map, loaded: bpf.LoadedObject) -> None:
    seen = bpf.PerCpuMap(loaded.maps["seen"])
    for wrong in (
        lambda: entries.get(b"1"),
        lambda: entries.set(key(1), b"1"),
        lambda: entries.set_many([(key(1), b"1")]),
        lambda: entries.delete_many([b"1"]),
        lambda: seen.set(key(1), [bytes(16)] * (seen.cpus + 1)),
        lambda: seen.set(key(1), [bytes(15)] * seen.cpus),
    ):
        with pytest.raises(ValueError, match="bytes"):
            wrong()


def test_a_per_cpu_map_is_no_plain_map(loaded: bpf.LoadedObject) -> None:
    with pytest.raises(TypeError, match="seen is a per-CPU map"):
        bpf.Map(loaded.maps["seen"])
    with pytest.raises(TypeError, match="entries is no per-CPU map"):
        bpf.PerCpuMap(loaded.maps["entries"])


def test_open_a_pinned_map(sample: bytes, bpffs: Path) -> None:
    bpf.load(sample, bpffs).close()
    with bpf.Map.open(bpffs / "entries") as entries:
        assert entries.items() == []
    with pytest.raises(TypeError):
        bpf.Map.open(bpffs / "seen")


# TEST_RUN


def test_run_sees_and_returns_packet_and_context(loaded: bpf.LoadedObject, entries: bpf.Map) -> None:
    entries.set(key(5), bytes(entries.value_size))
    run = bpf.test_run(loaded.programs["show"], FRAME, ctx={"mark": 5, "ifindex": 1, "cb0": 40}, repeat=1)
    assert run.retval == 7
    assert run.packet == FRAME[:6] + MAC + FRAME[12:]
    assert (run.ctx["mark"], run.ctx["cb1"], run.ctx["ifindex"]) == (99, 41, 1)


def test_run_returns_negative_verdicts(loaded: bpf.LoadedObject) -> None:
    narrow = bpf.PerCpuMap(loaded.maps["narrow"])
    narrow.set(key(0), [bytes(4)] * narrow.cpus)
    assert bpf.test_run(loaded.programs["show"], FRAME).retval == -1


def test_run_measures(loaded: bpf.LoadedObject) -> None:
    assert 0 < bpf.test_run(loaded.programs["first"], FRAME, repeat=10000).duration_ns < 10000


def test_run_refuses_context_that_the_kernel_does_not_take(loaded: bpf.LoadedObject) -> None:
    with pytest.raises(bpf.BpfError) as caught:
        bpf.test_run(loaded.programs["first"], FRAME, ctx={"vlan_tci": 5})
    assert caught.value.errno == errno.EINVAL


# Ring buffer


def test_events_arrive_in_order(loaded: bpf.LoadedObject) -> None:
    got: list[bytes] = []
    with bpf.RingBuffer(loaded.maps["events"]) as ring:
        assert ring.poll(got.append) == 0
        for mark in (3, 1, 2):
            bpf.test_run(loaded.programs["show"], FRAME, ctx={"mark": mark})
        assert ring.poll(got.append, timeout_ms=1000) == 3
    assert got == [key(3), key(1), key(2)]


def test_what_a_callback_raises_comes_out_and_the_rest_stays(loaded: bpf.LoadedObject) -> None:
    def refuse(sample: bytes) -> None:
        raise LookupError(sample.hex())

    got: list[bytes] = []
    with bpf.RingBuffer(loaded.maps["events"]) as ring:
        for mark in (1, 2):
            bpf.test_run(loaded.programs["show"], FRAME, ctx={"mark": mark})
        with pytest.raises(LookupError, match=key(1).hex()):
            ring.poll(refuse, timeout_ms=1000)
        ring.poll(got.append, timeout_ms=1000)
    assert got == [key(2)]


def test_a_signal_waits_for_the_callback(loaded: bpf.LoadedObject) -> None:
    """An exception where C has just called Python would be lost."""
    got: list[bytes] = []

    def interrupted(sample: bytes) -> None:
        signal.raise_signal(signal.SIGINT)
        got.append(sample)

    with bpf.RingBuffer(loaded.maps["events"]) as ring:
        for mark in (1, 2):
            bpf.test_run(loaded.programs["show"], FRAME, ctx={"mark": mark})
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        try:
            with pytest.raises(KeyboardInterrupt):
                ring.poll(interrupted, timeout_ms=1000)
        finally:
            signal.signal(signal.SIGINT, before)
    assert got == [key(1), key(2)]


def test_a_ring_is_made_of_ring_buffers_only(loaded: bpf.LoadedObject) -> None:
    with pytest.raises(bpf.BpfError, match="ring buffer"):
        bpf.RingBuffer(loaded.maps["entries"])


# Layouts


def test_layouts_are_those_of_the_compiler(layouts: btf.Btf, entries: bpf.Map) -> None:
    pair = layouts.structs["pair"]
    assert [field[:3] for field in pair.fields] == [
        ("first", 0, 4),
        ("mac", 4, 6),
        ("port", 10, 2),
        ("v4", 12, 4),
        ("v6", 12, 16),
        ("number", 28, 8),
        ("next", 40, 8),
    ]
    assert pair.size == entries.value_size == 56
    assert layouts.structs["wide"].fields[1] == btf.Field("high", 4, 4, True)
    assert layouts.enums["outcome"] == {"OUTCOME_LOST": -1, "OUTCOME_NONE": 0, "OUTCOME_KEPT": 7}


def test_values_by_layout(layouts: btf.Btf) -> None:
    settings = layouts.structs["settings"]
    raw = settings.pack(SETTINGS)
    assert raw == struct.pack("=I6sH", 99, MAC, 0)
    assert settings.unpack(raw) == {**SETTINGS, "pad": 0}
    with pytest.raises(KeyError, match="colour"):
        settings.pack({"colour": 1})
    with pytest.raises(ValueError, match="mac has 6 bytes, not 5"):
        settings.pack({"mac": bytes(5)})


def test_a_loaded_map_carries_the_same_layouts(loaded: bpf.LoadedObject, layouts: btf.Btf) -> None:
    data = bpf.btf_data(bpf.map_info(loaded.maps["entries"]).btf_id)
    assert btf.parse(data).structs == layouts.structs


@pytest.mark.parametrize("junk", [bytes(100), b"\x7fELF" + bytes(100)])
def test_what_has_no_btf_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match="BTF"):
        btf.parse(junk)
