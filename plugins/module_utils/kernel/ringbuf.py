# SPDX-License-Identifier: GPL-3.0-or-later
"""Events that programs send through a ring buffer map."""

from __future__ import annotations

import ctypes
import errno as codes
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int, c_size_t, c_void_p
from typing import Callable

from .libbpf import BpfError, attempt, library

_SAMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)


class RingBuffer:
    """Reads the ring buffer map `fd`, which stays the caller's; `with` frees the memory that is shared with it."""

    def __init__(self, fd: int) -> None:
        self._wait = select.poll()
        self._wait.register(fd, select.POLLIN)
        self._callback: Callable[[bytes], None] = lambda _sample: None
        self._failure: BaseException | None = None
        self._entry = _SAMPLE(self._on_sample)  # libbpf keeps the address: it must live as long as this object
        self._ring: int | None = library().ring_buffer__new(fd, self._entry, None, None)
        if not self._ring:
            raise BpfError("read", f"the ring buffer (fd {int(fd)})", ctypes.get_errno())

    def __enter__(self) -> RingBuffer:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._ring:
            library().ring_buffer__free(self._ring)
            self._ring = None

    def poll(self, callback: Callable[[bytes], None], timeout_ms: int = 0) -> int:
        """Wait at most timeout_ms (-1: for ever), call `callback` with each event; returns how many there were.

        What the callback raises is raised here; the event counts as read, those behind it are not.
        """
        self._callback, self._failure = callback, None
        self._wait.poll(timeout_ms)
        with _undisturbed():
            result = attempt("ring_buffer__poll", self._ring, 0)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if result < 0:
            raise BpfError("read", "a ring buffer", -result)
        return max(result, 0)

    def _on_sample(self, _context: int, data: int, size: int) -> int:
        try:
            self._callback(ctypes.string_at(data, size))
        except BaseException as error:  # noqa: BLE001 - no exception passes through C
            self._failure = error
            return -codes.ECANCELED
        return 0


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait: what Ctrl-C raises at the start of a callback would get lost in C, and with it the result."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
