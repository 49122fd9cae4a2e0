# SPDX-License-Identifier: GPL-3.0-or-later
"""Load, pin, use again, refuse: what the kernel really does with our objects."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import Unsupported
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, libbpf

from .conftest import Compiler

MAPS = {"entries", "seen", "narrow", "prefixes", "events"}
SETTINGS = struct.pack("=I6sH", 99, b"\x02\0\0\0\0\x01", 0)


def test_a_node_that_can_load_passes_the_check() -> None:
    bpf.check()


def test_load_gives_programs_and_maps_by_name(sample: bytes) -> None:
    with bpf.load(sample) as loaded:
        assert set(loaded.programs) == {"first", "second", "show"}
        assert set(loaded.maps) == MAPS
        info = bpf.program_info(loaded.programs["first"])
        entries = bpf.map_info(loaded.maps["entries"])
        assert info.name == "first"
        assert bpf.map_info(loaded.maps["seen"]).id in info.map_ids
    assert len(info.tag) == 16
    assert info.verified_insns > 10
    assert info.xlated_size > 80
    assert info.load_time > 0
    assert (entries.type, entries.key_size, entries.max_entries, entries.flags) == (1, 4, 10000, 1)


def test_descriptors_do_not_reach_child_processes(sample: bytes) -> None:
    with bpf.load(sample) as loaded:
        assert not any(os.get_inheritable(fd) for fd in (*loaded.programs.values(), *loaded.maps.values()))


def test_closing_twice_closes_nobody_elses_descriptor(sample: bytes) -> None:
    loaded = bpf.load(sample)
    loaded.close()
    with Path(os.devnull).open() as other:  # gets one of the numbers
        loaded.close()
        os.fstat(other.fileno())


def test_what_is_not_pinned_goes(sample: bytes) -> None:
    with bpf.load(sample) as loaded:
        number = bpf.program_info(loaded.programs["first"]).id
        with bpf.program_by_id(number) as fd:
            assert bpf.program_info(fd).id == number
    with pytest.raises(bpf.BpfError) as caught:
        bpf.program_by_id(number)
    assert caught.value.errno == errno.ENOENT


# Pins


def test_maps_are_pinned_and_used_again(sample: bytes, bpffs: Path) -> None:
    pins = bpffs / "maps_1"
    with bpf.load(sample, pins) as loaded:
        assert {pin.name for pin in pins.iterdir()} == MAPS
        bpf.Map(loaded.maps["entries"]).set(bytes(4), b"x" * bpf.Map(loaded.maps["entries"]).value_size)
        before = {name: bpf.map_info(fd).id for name, fd in loaded.maps.items()}
    with bpf.load(sample, pins) as again:
        assert {name: bpf.map_info(fd).id for name, fd in again.maps.items()} == before
        assert bpf.Map(again.maps["entries"]).get(bytes(4))
        assert set(before.values()) <= set().union(*(bpf.program_info(fd).map_ids for fd in again.programs.values()))


def test_a_missing_pin_is_made_beside_those_that_are_there(sample: bytes, bpffs: Path) -> None:
    bpf.load(sample, bpffs).close()
    bpf.unpin(bpffs / "seen")
    with bpf.load(sample, bpffs), bpf.get(bpffs / "seen") as fd:
        assert bpf.map_info(fd).name == "seen"


def ids(pins: Path) -> dict[str, int]:
    """The map behind each pin."""
    found = {}
    for pin in pins.iterdir():
        with bpf.get(pin) as fd:
            found[pin.name] = bpf.map_info(fd).id
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"ENTRIES": 5},
        {"FLAGS": 0},
        {"VALUE": "__u64"},
        {"KIND": "BPF_MAP_TYPE_LRU_HASH", "FLAGS": 0},
    ],
)
def test_only_maps_of_the_same_form_are_shared(
    compiled: Compiler, sample: bytes, bpffs: Path, change: dict[str, object]
) -> None:
    old, new = bpffs / "old", bpffs / "new"
    bpf.load(sample, old).close()
    before = ids(old)
    bpf.load(compiled("sample", **change), new, shared=old).close()
    assert ids(old) == before
    assert {name for name, number in ids(new).items() if number == before[name]} == MAPS - {"entries"}


def test_member_of_another_name_is_another_form(compiled: Compiler, sample: bytes, bpffs: Path) -> None:
    """Of the same size and at the same place: only BTF tells."""
    bpf.load(sample, bpffs / "old").close()
    bpf.load(compiled("sample", VALUE="struct other"), bpffs / "new", shared=bpffs / "old").close()
    assert ids(bpffs / "old")["entries"] != ids(bpffs / "new")["entries"]


def test_pins_of_a_failed_load_go(sample: bytes, bpffs: Path) -> None:
    (bpffs / "seen~").mkdir()  # no draft can be made there
    with pytest.raises(OSError, match="seen"):
        bpf.load(sample, bpffs)
    assert [pin.name for pin in bpffs.iterdir()] == ["seen~"]


def test_a_foreign_pin_among_the_shared_is_refused_and_kept(sample: bytes, bpffs: Path) -> None:
    with bpf.load(sample) as loaded:
        bpf.pin(loaded.programs["first"], bpffs / "seen")
    with pytest.raises(bpf.BpfError):
        bpf.load(sample, bpffs)
    assert [pin.name for pin in bpffs.iterdir()] == ["seen"]


def test_pin_refuses_what_is_there_unless_it_replaces(sample: bytes, bpffs: Path) -> None:
    path = bpffs / "progs" / "1" / "hook"
    with bpf.load(sample) as loaded:
        bpf.pin(loaded.programs["first"], path)
        with pytest.raises(bpf.BpfError) as caught:
            bpf.pin(loaded.programs["second"], path)
        assert caught.value.errno == errno.EEXIST
        bpf.pin(loaded.programs["second"], path.with_name("hook~"))  # as if killed between pin and rename
        bpf.pin(loaded.programs["second"], path, replace=True)
    with bpf.get(path) as fd:
        assert bpf.program_info(fd).name == "second"
    assert [pin.name for pin in path.parent.iterdir()] == ["hook"]
    bpf.unpin(path)
    bpf.unpin(path)


def test_pin_names_hold_any_interface_name(sample: bytes, bpffs: Path) -> None:
    with bpf.load(sample) as loaded:
        for key in ("eth0.100", "a%2Eb", "..", "%", "plain"):
            name = bpf.pin_name(key)
            bpf.pin(loaded.programs["first"], bpffs / name)
            assert bpf.pin_key(name) == key
        with pytest.raises(bpf.BpfError, match="a dot"):
            bpf.pin(loaded.programs["first"], bpffs / "eth0.100")


def test_pin_outside_of_a_bpf_file_system_says_so(sample: bytes, tmp_path: Path) -> None:
    with bpf.load(sample) as loaded, pytest.raises(bpf.BpfError, match="BPF file system"):
        bpf.pin(loaded.programs["first"], tmp_path / "pin")


def test_get_of_nothing_is_enoent(bpffs: Path) -> None:
    with pytest.raises(bpf.BpfError) as caught:
        bpf.get(bpffs / "nothing")
    assert caught.value.errno == errno.ENOENT


# Read-only data


def test_rodata_is_set_by_name_and_read_back_from_the_program(sample: bytes) -> None:
    with bpf.load(sample, rodata={"settings": SETTINGS}) as loaded:
        program = loaded.programs["show"]
        variables = bpf.rodata_variables(program)
        assert variables["settings"] == SETTINGS
        assert variables["step"] == struct.pack("=Q", 1)  # the object's own value stays
        assert SETTINGS in bpf.rodata(program)


def test_unknown_rodata_is_refused(sample: bytes) -> None:
    with pytest.raises(bpf.BpfError, match=r"cannot set stride in fastpath: .* settings, step"):
        bpf.load(sample, rodata={"stride": b"1"})


def test_rodata_of_another_size_is_refused(sample: bytes) -> None:
    with pytest.raises(bpf.BpfError, match="it has 12 bytes, not 11"):
        bpf.load(sample, rodata={"settings": SETTINGS[:-1]})


def test_a_program_without_rodata_has_none(compiled: Compiler, sample: bytes) -> None:
    with bpf.load(compiled("plain")) as loaded:
        assert bpf.rodata(loaded.programs["plain"]) == b""
        assert bpf.rodata_variables(loaded.programs["plain"]) == {}


# Refusals


def test_the_verifiers_words_are_in_the_error(
    compiled: Compiler, bpffs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(bpf.BpfError) as caught:
        bpf.load(compiled("rejected"), bpffs, name="trial")
    error = caught.value
    assert error.errno == errno.EACCES
    assert "cannot load trial" in str(error)
    assert "careless" in error.cause  # which program
    assert "invalid access to packet" in error.cause
    assert "invalid access to packet" in error.log
    assert len(error.cause.splitlines()) <= 50
    assert capfd.readouterr() == ("", "")
    assert list(bpffs.iterdir()) == []


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x7fELF" + bytes(100)])
def test_what_is_no_object_is_refused_quietly(junk: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(bpf.BpfError, match="cannot open fastpath"):
        bpf.load(junk)
    assert capfd.readouterr() == ("", "")


def test_without_root_the_error_says_what_is_missing(sample: bytes, tmp_path: Path) -> None:
    file = tmp_path / "sample.o"
    file.write_bytes(sample)
    code = (
        "import os, sys, pathlib\n"
        "from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf\n"
        f"data = pathlib.Path({str(file)!r}).read_bytes()\n"
        "os.setuid(65534)\n"
        "for refused in (bpf.check, lambda: bpf.load(data)):\n"
        "    try: refused()\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    first, second = said.stdout.splitlines()[0], said.stdout.splitlines()[1]
    assert first.startswith("Unsupported cannot load BPF programs: bpf(): Operation not permitted. It needs root")
    assert second.startswith("BpfError")
    assert "CAP_BPF" in said.stdout.splitlines()[-1]


def test_a_node_without_libbpf_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_SONAME", "libbpf.so.missing")
    libbpf.library.cache_clear()
    try:
        with pytest.raises(Unsupported, match="Install libbpf1"):
            bpf.check()
    finally:
        libbpf.library.cache_clear()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
