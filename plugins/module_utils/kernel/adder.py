# SPDX-License-Identifier: GPL-3.0-or-later
"""Add to a row of a per-CPU array while programs count in it: user space would overwrite what they count meanwhile.

So a program of a few instructions does it, on the CPU where it happens to run: of counters only the sum matters.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .libbpf import Fd, call
from .testrun import test_run

_SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS
_DATA, _DATA_END = 76, 80  # of struct __sk_buff
_KEY, _WORDS = 16, 24  # where they are in the packet, behind its Ethernet header
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD
_LOOKUP = 1  # BPF_FUNC_map_lookup_elem


class Adder:
    """For the array of descriptor `map_fd`, whose rows are `words` u64; at the end of a `with` block it is gone."""

    def __init__(self, map_fd: int, words: int) -> None:
        code = _program(map_fd, words)
        arguments = _SCHED_CLS, b"fastpath_add", b"GPL", code, len(code) // 8, None
        self._fd = Fd(call("load", "the program that adds counters up", "bpf_prog_load", *arguments))

    def __enter__(self) -> Adder:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._fd.close()

    def add(self, index: int, words: Sequence[int]) -> None:
        """Raises BpfError."""
        test_run(self._fd, bytes(_KEY) + struct.pack(f"=Ixxxx{len(words)}Q", index, *words))


def _program(map_fd: int, words: int) -> bytes:
    adding = [step for word in range(words) for step in (
        _code(0x79, 2, 7, _WORDS + 8 * word),  # r2 = the word in the packet
        _code(0xDB, 0, 2, 8 * word),  # *(u64 *)(row + ...) += r2, in one instruction
    )]  # fmt: skip
    found = [
        _code(0x61, 2, 7, _KEY),
        _code(0x63, 10, 2, -4),
        _code(0xBF, 2, 10),
        _code(0x07, 2, 0, 0, -4),
        _code(0x18, 1, _MAP_FD, 0, map_fd),
        _code(0x00),
        _code(0x85, 0, 0, 0, _LOOKUP),
        _code(0x15, 0, 0, len(adding)),  # no such row
        *adding,
    ]
    return b"".join((
        _code(0x61, 7, 1, _DATA),
        _code(0x61, 8, 1, _DATA_END),
        _code(0xBF, 2, 7),
        _code(0x07, 2, 0, 0, _WORDS + 8 * words),
        _code(0x2D, 2, 8, len(found)),  # the packet is too short
        *found,
        _code(0xB7, 0),
        _code(0x95),
    ))  # fmt: skip


def _code(operation: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", operation, source << 4 | to, offset, value)
