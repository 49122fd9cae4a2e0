# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until no program runs any more that has seen what was before: a grace period of RCU.

The kernel waits for one when an element of a map of maps is replaced. So a map of maps is made for nothing else.
"""

from __future__ import annotations

import ctypes
from ctypes import c_size_t, c_uint32

from .libbpf import Fd, call

_ARRAY, _ARRAY_OF_MAPS = 2, 12  # map types
_SIZE = 4  # of a key, and of a descriptor


class _Options(ctypes.Structure):  # struct bpf_map_create_opts, as far as it is used
    _fields_ = [
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
    ]


def wait() -> None:
    """Return when every program has ended that was running at the call. Raises BpfError."""
    with (
        _map(_ARRAY, None) as inner,
        _map(_ARRAY_OF_MAPS, _Options(sz=ctypes.sizeof(_Options), inner_map_fd=inner)) as outer,
    ):
        value = ctypes.byref(c_uint32(inner))
        call("wait for", "running programs", "bpf_map_update_elem", outer, bytes(_SIZE), value, 0)


def _map(kind: int, options: _Options | None) -> Fd:
    pointer = None if options is None else ctypes.byref(options)
    arguments = kind, b"fastpath_grace", _SIZE, _SIZE, 1, pointer
    return Fd(call("make", "a map to wait for programs with", "bpf_map_create", *arguments))
