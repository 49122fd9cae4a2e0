# SPDX-License-Identifier: GPL-3.0-or-later
"""BPF objects in the kernel: pin and get them, find them by id, describe them."""

from __future__ import annotations

import ctypes
import errno as codes
from ctypes import c_char, c_size_t, c_uint8, c_uint32, c_uint64
from pathlib import Path
from typing import NamedTuple, TypeVar

from .libbpf import BpfError, Fd, call

_MAX_MAPS = 64  # what one program may use (MAX_USED_MAPS)
_NOT_BPFFS = "Is a BPF file system mounted there? mount -t bpf bpf /sys/fs/bpf"
_ESCAPES = (("%", "%25"), (".", "%2E"), ("/", "%2F"))  # the escape character first


class ProgramInfo(NamedTuple):
    """A loaded program. `name` has at most 15 characters; load_time is in ns since boot."""

    id: int
    name: str
    tag: str
    map_ids: tuple[int, ...]
    verified_insns: int
    xlated_size: int
    load_time: int


class MapInfo(NamedTuple):
    """A map in the kernel; value_size of a per-CPU map is that of one CPU. btf_id 0: it has no BTF."""

    id: int
    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key: int = 0
    btf_value: int = 0


class LinkInfo(NamedTuple):
    """An attached program. ifindex 0: its interface is gone, or it is no link of an interface.

    With netkit's peer it is that of the peer, a number of the peer's own network namespace.
    """

    id: int
    prog_id: int
    attach_type: int
    ifindex: int


class _Program(ctypes.Structure):  # struct bpf_prog_info
    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("jited_len", c_uint32),
        ("xlated_len", c_uint32),
        ("jited_insns", c_uint64),
        ("xlated_insns", c_uint64),
        ("load_time", c_uint64),
        ("uid", c_uint32),
        ("map_count", c_uint32),
        ("map_ids", c_uint64),
        ("name", c_char * 16),
        ("skipped", c_uint8 * 136),  # device, JIT symbols, BTF, line info, run statistics
        ("verified_insns", c_uint32),
    ]


class _Map(ctypes.Structure):  # struct bpf_map_info
    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("flags", c_uint32),
        ("name", c_char * 16),
        ("skipped", c_uint8 * 24),  # device
        ("btf_id", c_uint32),
        ("btf_key", c_uint32),  # type ids in it
        ("btf_value", c_uint32),
    ]


class _MapOptions(ctypes.Structure):  # struct bpf_map_create_opts, as far as it is used
    _fields_ = [
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key", c_uint32),
        ("btf_value", c_uint32),
        ("btf_vmlinux_value", c_uint32),
        ("inner_fd", c_uint32),
        ("flags", c_uint32),
    ]


class _Link(ctypes.Structure):  # struct bpf_link_info of tcx and netkit
    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("pad", c_uint32),
        ("ifindex", c_uint32),
        ("attach_type", c_uint32),
    ]


class _Btf(ctypes.Structure):  # struct bpf_btf_info
    _fields_ = [("data", c_uint64), ("size", c_uint32), ("id", c_uint32)]


_INTERFACE_LINKS = (11, 13)  # BPF_LINK_TYPE_TCX, BPF_LINK_TYPE_NETKIT

_S = TypeVar("_S", bound=ctypes.Structure)


def _describe(fd: int, kind: str, info: _S) -> _S:
    """Fill `info`; what the kernel knows beyond the structure is cut off, what it does not know stays zero."""
    size = c_uint32(ctypes.sizeof(info))
    call("describe", f"{kind} (fd {int(fd)})", "bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))
    return info


def program_info(fd: int) -> ProgramInfo:
    ids = (c_uint32 * _MAX_MAPS)()
    info = _describe(fd, "a program", _Program(map_count=_MAX_MAPS, map_ids=ctypes.addressof(ids)))
    return ProgramInfo(
        id=info.id,
        name=info.name.decode(),
        tag=bytes(info.tag).hex(),
        map_ids=tuple(ids[: info.map_count]),
        verified_insns=info.verified_insns,
        xlated_size=info.xlated_len,
        load_time=info.load_time,
    )


def map_info(fd: int) -> MapInfo:
    info = _describe(fd, "a map", _Map())
    return MapInfo(
        id=info.id,
        name=info.name.decode(),
        type=info.type,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.flags,
        btf_id=info.btf_id,
        btf_key=info.btf_key,
        btf_value=info.btf_value,
    )


def link_info(fd: int) -> LinkInfo:
    info = _describe(fd, "a link", _Link())
    if info.type not in _INTERFACE_LINKS:
        return LinkInfo(info.id, info.prog_id, 0, 0)
    return LinkInfo(info.id, info.prog_id, info.attach_type, info.ifindex)


def btf_data(btf_id: int) -> bytes:
    """The raw BTF with this id, as the kernel holds it: for btf.parse()."""
    with Fd(call("open", f"BTF {btf_id}", "bpf_btf_get_fd_by_id", btf_id)) as fd:
        size = _describe(fd, "BTF", _Btf()).size
        data = ctypes.create_string_buffer(size)
        _describe(fd, "BTF", _Btf(data=ctypes.addressof(data), size=size))
        return data.raw


def create_map(
    type: int, name: str, key_size: int, value_size: int, max_entries: int, flags: int = 0, inner: int = 0
) -> Fd:
    """A new map; inner: of a map of maps, a map like those that it will have. Raises BpfError."""
    options = _MapOptions(sz=ctypes.sizeof(_MapOptions), inner_fd=inner, flags=flags)
    arguments = type, name.encode(), key_size, value_size, max_entries, ctypes.byref(options)
    return Fd(call("make", f"the map {name}", "bpf_map_create", *arguments))


def map_by_id(id: int) -> Fd:
    return Fd(call("open", f"map {id}", "bpf_map_get_fd_by_id", id))


def program_by_id(id: int) -> Fd:
    return Fd(call("open", f"program {id}", "bpf_prog_get_fd_by_id", id))


def get(path: Path) -> Fd:
    """The object pinned at `path`; raises BpfError (errno ENOENT when nothing is there)."""
    return Fd(call("open", str(path), "bpf_obj_get", bytes(path)))


def pin(fd: int, path: Path, replace: bool = False) -> None:
    """Pin the object, its directory created as needed. A pin in the way is an error or replaced; either is atomic."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = path.with_name(path.name + "~") if replace else path
    if replace:
        target.unlink(missing_ok=True)  # of an earlier run that was killed here
    try:
        call("pin", str(path), "bpf_obj_pin", fd, bytes(target))
    except BpfError as error:
        raise BpfError("pin", str(path), error.errno, hint=_pin_hint(path, error.errno)) from None
    if replace:
        target.rename(path)


def unpin(path: Path) -> None:
    """Remove the pin, if there is one; the object goes when nothing else holds it.

    A link's program runs on for a moment, until the kernel gets to it: bpf.detach() waits for that.
    """
    path.unlink(missing_ok=True)


def pin_name(key: str) -> str:
    """`key` as a file name that bpffs accepts: it refuses dots, as in "eth0.100"."""
    for character, escape in _ESCAPES:
        key = key.replace(character, escape)
    return key


def pin_key(name: str) -> str:
    """The key that pin_name() turned into `name`."""
    for character, escape in reversed(_ESCAPES):
        name = name.replace(escape, character)
    return name


def _pin_hint(path: Path, errno: int) -> str:
    if errno != codes.EPERM:
        return ""
    return "bpffs refuses names with a dot." if "." in path.name else _NOT_BPFFS
