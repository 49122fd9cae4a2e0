# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane's reports of the packets that it drops, which it makes only while somebody watches."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from contextlib import ExitStack

from ..errors import FastpathError
from . import bpf, datapath

_FIRST = bytes(4)  # the key of an array's only entry
_NUMBER = struct.Struct("=Q")
_PATIENCE_NS = 3 * 10**9  # after that long without a read() the dataplane takes it that nobody watches
_LEFT_OUT = 2  # its place in struct fp_drop_limit


class Watch:
    """One at a time on a node: an event is read once. At the end of its `with` the reports end."""

    def __init__(self) -> None:
        """Raises FastpathError: there is no dataplane, or somebody else watches."""
        with ExitStack() as stack:
            _lock(stack)
            self._path = datapath.MAPS / "events"
            if not self._path.exists():
                raise FastpathError("watch", "drops", "the programs are older and do not report them", "fastpath apply")
            events = stack.enter_context(bpf.get(self._path))
            self._id = bpf.map_info(events).id
            self._ring = stack.enter_context(bpf.RingBuffer(events))
            self._until = stack.enter_context(bpf.Map.open(datapath.MAPS / "drop_watch"))
            self._limit = stack.enter_context(bpf.PerCpuMap.open(datapath.MAPS / "drop_limit"))
            self._ring.poll(lambda _old: None)  # what a killed one has left
            self._told = self._total()
            self._deadline = self._unwatched = 0
            self._stack = stack.pop_all()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._stack:  # the lock comes last
            self._until.set(_FIRST, _NUMBER.pack(0))

    def read(self, timeout_ms: int) -> list[bytes]:
        """The events that are there, each a struct fp_event; waits for the first."""
        now = time.monotonic_ns()
        if self._deadline:
            self._unwatched += max(0, now - self._deadline)
        self._deadline = now + _PATIENCE_NS
        self._until.set(_FIRST, _NUMBER.pack(self._deadline))
        events: list[bytes] = []
        self._ring.poll(events.append, timeout_ms)
        return events

    def left_out(self) -> int:
        """Packets without an event since the last call, because there were too many at once."""
        total, told = self._total(), self._told
        self._told = total
        return total - told

    def unwatched(self) -> float:
        """Seconds without events since the last call, because read() came too late."""
        unwatched, self._unwatched = self._unwatched, 0
        return unwatched / 10**9

    def replaced(self) -> bool:
        """Has the dataplane another map now? Raises FastpathError when it has none."""
        if not self._path.exists():
            raise FastpathError("watch", "drops", "the dataplane was removed")
        with bpf.get(self._path) as fd:
            return bpf.map_info(fd).id != self._id

    def _total(self) -> int:
        return bpf.add_up(self._limit.get(_FIRST) or [])[_LEFT_OUT]


def _lock(stack: ExitStack) -> None:
    """On the directory of pins: it is there as long as the dataplane is, and a lock on it leaves no file."""
    try:
        directory = os.open(datapath.PINS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FastpathError("watch", "drops", "no dataplane is installed") from error
    stack.callback(os.close, directory)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FastpathError("watch", "drops", "somebody already does, and only one can") from error
