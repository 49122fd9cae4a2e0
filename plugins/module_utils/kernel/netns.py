# SPDX-License-Identifier: GPL-3.0-or-later
"""Network namespaces: enter one for a moment, tell whether two names mean the same one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns exists since Python 3.12 only
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@contextmanager
def entered(path: str) -> Iterator[None]:
    """Be in the namespace at `path`; sockets opened inside stay there. Only this thread moves."""
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        away = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(away)
        finally:
            os.close(away)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def inode(path: str) -> int:
    """The namespace's identity on this node; raises OSError when there is none at `path`."""
    return os.stat(path).st_ino


def own() -> int:
    return inode(OWN)
