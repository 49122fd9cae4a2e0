# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a compiled object: set its read-only data, reuse pinned maps, keep the verifier's words."""

from __future__ import annotations

import ctypes
import errno as codes
import mmap
import os
from collections.abc import Iterator, Mapping
from ctypes import c_bool, c_char_p, c_size_t, c_uint32, c_void_p
from pathlib import Path

from . import btf, migrate
from .libbpf import BpfError, Fd, attempt, call, library, messages
from .objects import get, pin, pin_name, unpin

_LOG_SIZE = 8 << 20  # only touched when the verifier refuses
_LOG_TAIL = 40  # lines of it that an error shows
_RODATA = ".rodata"
_RINGBUF = 27  # BPF_MAP_TYPE_RINGBUF


class LoadedObject:
    """A loaded object: descriptors by name, closed at the end of its `with`; pins stay."""

    def __init__(self, programs: dict[str, Fd], maps: dict[str, Fd]) -> None:
        self.programs = programs
        self.maps = maps

    def close(self) -> None:
        for fd in (*self.programs.values(), *self.maps.values()):
            fd.close()

    def __enter__(self) -> LoadedObject:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class _OpenOptions(ctypes.Structure):  # struct bpf_object_open_opts of libbpf 1.0
    _fields_ = [
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", c_bool),
        ("pin_root_path", c_char_p),
        ("unused", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
        ("kernel_log_buf", c_void_p),
        ("kernel_log_size", c_size_t),
        ("kernel_log_level", c_uint32),
    ]


def load(
    obj: bytes,
    map_pins: Path | None = None,
    rodata: Mapping[str, bytes] | None = None,
    name: str = "fastpath",
    shared: Path | None = None,
) -> LoadedObject:
    """Load all programs and maps of the compiled object `obj`.

    map_pins: all maps are pinned in this directory, in the place of what is there.
    shared: of the maps pinned in this directory, or else in that one, those of the object's form are used again.
    rodata: values of read-only variables by name. name: of the object, in errors and in `bpftool`.
    Raises BpfError and leaves nothing behind then.
    """
    messages.clear()
    with mmap.mmap(-1, _LOG_SIZE) as log:
        window = ctypes.c_char.from_buffer(log)
        handle = None
        try:
            handle = _open(obj, name, ctypes.addressof(window))
            _set_rodata(handle, name, rodata or {})
            if map_pins:
                _reuse(handle, shared or map_pins)
            _load(handle, name, log)
            loaded = _take(handle)
        finally:
            del window  # else the log could not be unmapped
            if handle:
                library().bpf_object__close(handle)
    if map_pins:
        try:
            _pin_all(loaded, map_pins)
        except BaseException:
            loaded.close()
            raise
    return loaded


def _open(obj: bytes, name: str, log: int) -> int:
    options = _OpenOptions(
        sz=ctypes.sizeof(_OpenOptions),
        object_name=name.encode(),
        kernel_log_buf=log,
        kernel_log_size=_LOG_SIZE,
        kernel_log_level=0,  # libbpf loads quietly, and once more with the log when that fails
    )
    handle: int | None = library().bpf_object__open_mem(obj, len(obj), ctypes.byref(options))
    if not handle:
        raise BpfError("open", name, ctypes.get_errno(), cause="; ".join(messages))
    return handle


def _load(handle: int, name: str, log: mmap.mmap) -> None:
    result = attempt("bpf_object__load", handle)
    if result < 0:
        text = log[: log.find(b"\0")].decode(errors="replace")
        tail = text.splitlines()[-_LOG_TAIL:]
        raise BpfError("load", name, -result, cause="\n".join([*messages, *tail]), log=text)


def _take(handle: int) -> LoadedObject:
    """Copies of the descriptors, so that libbpf's object can go, and its memory with it."""
    lib = library()
    loaded = LoadedObject({}, {})
    for program in _each(handle, "bpf_object__next_program"):
        if lib.bpf_program__fd(program) >= 0:  # SEC("?...") is not loaded
            loaded.programs[lib.bpf_program__name(program).decode()] = Fd(os.dup(lib.bpf_program__fd(program)))
    for map in _maps(handle):
        loaded.maps[lib.bpf_map__name(map).decode()] = Fd(os.dup(lib.bpf_map__fd(map)))
    return loaded


def _each(handle: int, following: str) -> Iterator[int]:
    step = getattr(library(), following)
    item = step(handle, None)
    while item:
        yield item
        item = step(handle, item)


def _maps(handle: int) -> Iterator[int]:
    """The maps that the source defines; those that hold its variables are libbpf's own business."""
    return (map for map in _each(handle, "bpf_object__next_map") if not library().bpf_map__is_internal(map))


def _set_rodata(handle: int, name: str, values: Mapping[str, bytes]) -> None:
    if not values:
        return
    variables = btf.parse(_raw_btf(handle)).sections.get(_RODATA, {})
    image = _rodata_image(handle)
    for variable, value in values.items():
        if variable not in variables or not image:
            cause = f"the object has no such read-only variable, only: {', '.join(sorted(variables)) or 'none'}"
            raise BpfError("set", f"{variable} in {name}", codes.ENOENT, cause=cause)
        offset, size = variables[variable]
        if len(value) != size:
            raise BpfError("set", f"{variable} in {name}", codes.EINVAL, cause=f"it has {size} bytes, not {len(value)}")
        ctypes.memmove(image + offset, value, size)


def _raw_btf(handle: int) -> bytes:
    """The object's BTF as libbpf has completed it: the compiler leaves the variables' offsets to the linker."""
    size = c_uint32()
    data = library().btf__raw_data(library().bpf_object__btf(handle), ctypes.byref(size))
    return ctypes.string_at(data, size.value)


def _rodata_image(handle: int) -> int:
    """The address of the initial content of .rodata; 0: the object has none."""
    for map in _each(handle, "bpf_object__next_map"):
        if library().bpf_map__name(map).decode().endswith(_RODATA):
            return int(library().bpf_map__initial_value(map, ctypes.byref(c_size_t())) or 0)
    return 0


def _reuse(handle: int, pins: Path) -> None:
    """Put pinned maps into the object where they are what it defines."""
    lib, types = library(), _raw_btf(handle)
    for map in _maps(handle):
        lib.bpf_map__set_pin_path(map, None)  # where to pin is our decision, not the object's
        path = pins / pin_name(lib.bpf_map__name(map).decode())
        if not path.exists():
            continue
        with get(path) as fd:
            if migrate.form(fd) == _form(map, types):
                call("use again", str(path), "bpf_map__reuse_fd", map, fd)


def _form(map: int, types: bytes) -> migrate.Form:
    """The object's definition of a map, as the kernel will report it."""
    lib = library()
    kind, entries = lib.bpf_map__type(map), lib.bpf_map__max_entries(map)
    return migrate.Form(
        type=kind,
        key_size=lib.bpf_map__key_size(map),
        value_size=lib.bpf_map__value_size(map),
        max_entries=_ring_size(entries) if kind == _RINGBUF else entries,
        flags=lib.bpf_map__map_flags(map),
        key=migrate.layout(types, lib.bpf_map__btf_key_type_id(map)),
        value=migrate.layout(types, lib.bpf_map__btf_value_type_id(map)),
    )


def _ring_size(size: int) -> int:
    """libbpf makes a ring buffer a power of two of pages."""
    pages = -(-size // mmap.PAGESIZE)
    return mmap.PAGESIZE << max(pages - 1, 0).bit_length()


def _pin_all(loaded: LoadedObject, map_pins: Path) -> None:
    """All or none."""
    done = []
    try:
        for name, fd in loaded.maps.items():
            path = map_pins / pin_name(name)
            pin(fd, path, replace=True)
            done.append(path)
    except BaseException:
        for path in done:
            unpin(path)
        raise
