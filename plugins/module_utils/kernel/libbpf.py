# SPDX-License-Identifier: GPL-3.0-or-later
"""libbpf.so.1 through ctypes: the library, its prototypes, its errors and its messages.

Only what libbpf 1.0 already had is used, so that one code runs with 1.1 (Debian 12) and all later ones.
Its wrappers stand in for the bpf(2) system call: they know the call's number on each architecture.
"""

from __future__ import annotations

import ctypes
import errno as codes
import os
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from ..errors import FastpathError, Unsupported

_SONAME = "libbpf.so.1"
_LIBBPF_ERRORS = 4000  # libbpf's own error numbers start here
_ENOTSUPP = 524  # the kernel's own, unknown to libc
_WARNING = 0  # level of libbpf's messages
_MESSAGE_SIZE = 4096

_HINTS = {
    codes.EPERM: "It needs root with CAP_BPF and CAP_NET_ADMIN, and no seccomp filter that refuses bpf().",
}

_NUMBERS = POINTER(c_uint32)
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "libbpf_version_string": (c_char_p, []),
    "libbpf_strerror": (c_int, [c_int, c_char_p, c_size_t]),
    "libbpf_num_possible_cpus": (c_int, []),
    # objects
    "bpf_object__open_mem": (c_void_p, [c_void_p, c_size_t, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "btf__raw_data": (c_void_p, [c_void_p, _NUMBERS]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_object__next_map": (c_void_p, [c_void_p, c_void_p]),
    "bpf_map__name": (c_char_p, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__is_internal": (ctypes.c_bool, [c_void_p]),
    "bpf_map__type": (c_uint32, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map__max_entries": (c_uint32, [c_void_p]),
    "bpf_map__map_flags": (c_uint32, [c_void_p]),
    "bpf_map__btf_key_type_id": (c_uint32, [c_void_p]),
    "bpf_map__btf_value_type_id": (c_uint32, [c_void_p]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_map__set_pin_path": (c_int, [c_void_p, c_char_p]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    # descriptors
    "bpf_obj_pin": (c_int, [c_int, c_char_p]),
    "bpf_obj_get": (c_int, [c_char_p]),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, _NUMBERS]),
    "bpf_map_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_prog_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_btf_get_fd_by_id": (c_int, [c_uint32]),
    # maps
    "bpf_map_create": (c_int, [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, c_uint64]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_get_next_key": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_lookup_batch": (c_int, [c_int, c_void_p, c_void_p, c_void_p, c_void_p, _NUMBERS, c_void_p]),
    "bpf_map_update_batch": (c_int, [c_int, c_void_p, c_void_p, _NUMBERS, c_void_p]),
    "bpf_map_delete_batch": (c_int, [c_int, c_void_p, _NUMBERS, c_void_p]),
    "ring_buffer__new": (c_void_p, [c_int, c_void_p, c_void_p, c_void_p]),
    "ring_buffer__poll": (c_int, [c_void_p, c_int]),
    "ring_buffer__free": (None, [c_void_p]),
    # programs and links
    "bpf_prog_load": (c_int, [c_int, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p]),
    "bpf_link_create": (c_int, [c_int, c_int, c_int, c_void_p]),
    "bpf_link_update": (c_int, [c_int, c_int, c_void_p]),
    "bpf_link_detach": (c_int, [c_int]),
    "bpf_prog_query": (c_int, [c_int, c_int, c_uint32, _NUMBERS, _NUMBERS, _NUMBERS]),
    "bpf_prog_test_run_opts": (c_int, [c_int, c_void_p]),
}

messages: list[str] = []
"""What libbpf warned of since the list was last cleared."""


class BpfError(FastpathError):
    """The kernel or libbpf refused. `errno` is positive; `log` is the verifier's whole log, often empty."""

    def __init__(self, operation: str, object: str, errno: int, cause: str = "", hint: str = "", log: str = "") -> None:
        super().__init__(operation, object, cause or strerror(errno), hint or _HINTS.get(errno, ""))
        self.errno = errno
        self.log = log


class Fd(int):
    """A file descriptor that somebody owns: `with` closes it, close() may be called twice."""

    _closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self)

    def __enter__(self) -> Fd:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _print(level: int, template: int, arguments: int) -> int:
    if level == _WARNING:
        buffer = ctypes.create_string_buffer(_MESSAGE_SIZE)
        _libc().vsnprintf(buffer, c_size_t(_MESSAGE_SIZE), c_void_p(template), c_void_p(arguments))
        messages.append(buffer.value.decode(errors="replace").rstrip())
    return 0


# The va_list is a pointer on the ABIs that we run on: an array on x86-64, passed by reference on aarch64.
_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)(_print)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@cache
def library() -> ctypes.CDLL:
    """libbpf, loaded once, its messages kept off stderr; raises Unsupported when the node has none."""
    try:
        lib = ctypes.CDLL(_SONAME, use_errno=True)
    except OSError as error:
        raise Unsupported("load", _SONAME, str(error), "Install libbpf1 (Debian, Ubuntu) or libbpf (RHEL).") from error
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.libbpf_set_print(_PRINT)
    return lib


def version() -> str:
    """libbpf's version, like "1.1"."""
    text: bytes = library().libbpf_version_string()
    return text.decode().lstrip("v")


def strerror(errno: int) -> str:
    if errno == _ENOTSUPP:
        return "not supported by this kernel"
    if errno < _LIBBPF_ERRORS:
        return os.strerror(errno)
    buffer = ctypes.create_string_buffer(128)
    library().libbpf_strerror(errno, buffer, len(buffer))
    return buffer.value.decode()


def attempt(function: str, *arguments: Any) -> int:
    """Call a function that returns a negative errno when it fails; returns what it returned."""
    result: int = getattr(library(), function)(*arguments)
    return result


def call(operation: str, object: str, function: str, *arguments: Any) -> int:
    """attempt(), but a failure raises BpfError about `operation` on `object`."""
    result = attempt(function, *arguments)
    if result < 0:
        raise BpfError(operation, object, -result)
    return result
