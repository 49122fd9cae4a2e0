# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: PT028 - nothing here is a test
"""Run a loaded program on one packet, without any interface (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import NamedTuple

from .libbpf import call

_ROOM = 16384  # for the packet that comes back: programs may make it longer


class TestRun(NamedTuple):
    """What the program returned, the packet as it left it, mean ns a run, and its __sk_buff afterwards."""

    retval: int
    packet: bytes
    duration_ns: int
    ctx: dict[str, int]


TestRun.__test__ = False  # type: ignore[attr-defined]  # else pytest takes it for tests


class _SkBuff(ctypes.Structure):  # struct __sk_buff
    _fields_ = [
        ("len", c_uint32),
        ("pkt_type", c_uint32),
        ("mark", c_uint32),
        ("queue_mapping", c_uint32),
        ("protocol", c_uint32),
        ("vlan_present", c_uint32),
        ("vlan_tci", c_uint32),
        ("vlan_proto", c_uint32),
        ("priority", c_uint32),
        ("ingress_ifindex", c_uint32),
        ("ifindex", c_uint32),
        ("tc_index", c_uint32),
        ("cb0", c_uint32),
        ("cb1", c_uint32),
        ("cb2", c_uint32),
        ("cb3", c_uint32),
        ("cb4", c_uint32),
        ("hash", c_uint32),
        ("tc_classid", c_uint32),
        ("data", c_uint32),
        ("data_end", c_uint32),
        ("napi_id", c_uint32),
        ("sockets", c_uint32 * 12),  # family, addresses and ports: of socket programs only
        ("data_meta", c_uint32),
        ("flow_keys", c_uint64),
        ("tstamp", c_uint64),
        ("wire_len", c_uint32),
        ("gso_segs", c_uint32),
        ("sk", c_uint64),
        ("gso_size", c_uint32),
        ("tstamp_type", c_uint32),
        ("hwtstamp", c_uint64),
    ]


_NUMBERS = tuple(name for name, *_type in _SkBuff._fields_ if name != "sockets")


class _Options(ctypes.Structure):  # struct bpf_test_run_opts
    _fields_ = [
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


def test_run(prog_fd: int, packet: bytes, *, ctx: Mapping[str, int] | None = None, repeat: int = 1) -> TestRun:
    """Run a tc program on `packet` (from its Ethernet header on), `repeat` times.

    ctx: fields of __sk_buff by name (cb[0] is "cb0"); an `ifindex` must exist in the caller's network namespace.
    The kernel takes mark, priority, ifindex, ingress_ifindex, cb*, tstamp, wire_len, gso_segs, gso_size and hwtstamp,
    and refuses all others (BpfError, EINVAL). A packet that a program redirects is not sent. With repeat > 1 each
    run gets the packet that the one before left.
    """
    before, after = _SkBuff(**(ctx or {})), _SkBuff()
    data, out = ctypes.create_string_buffer(packet, len(packet)), ctypes.create_string_buffer(_ROOM)
    options = _Options(
        sz=ctypes.sizeof(_Options),
        data_in=ctypes.addressof(data),
        data_size_in=len(packet),
        data_out=ctypes.addressof(out),
        data_size_out=_ROOM,
        ctx_in=ctypes.addressof(before),
        ctx_size_in=ctypes.sizeof(before),
        ctx_out=ctypes.addressof(after),
        ctx_size_out=ctypes.sizeof(after),
        repeat=repeat,
    )
    call("run", f"a program (fd {int(prog_fd)})", "bpf_prog_test_run_opts", prog_fd, ctypes.byref(options))
    return TestRun(
        retval=ctypes.c_int32(options.retval).value,
        packet=out.raw[: options.data_size_out],
        duration_ns=options.duration,
        ctx={name: getattr(after, name) for name in _NUMBERS},
    )


test_run.__test__ = False  # type: ignore[attr-defined]
