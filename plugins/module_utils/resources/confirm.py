# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that is taken back by the node itself unless somebody confirms it: commit-confirm.

What leads back is one file. While it is there the change is unconfirmed: written before the first step, removed by the
confirmation, or when all is as it was. systemd starts the watcher as the file appears, and at boot (fastpath-confirm).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from .. import store
from ..errors import FastpathError
from ..plan import StepFailed

DOCUMENT = "unconfirmed"
_BOOT = "/proc/sys/kernel/random/boot_id"
_PATIENCE = 30.0  # seconds for the watcher to start
_PAUSE = 0.1


@dataclass(frozen=True)
class Undo:
    """How a resource goes back. before: what that resource itself wants to know; timeout: seconds to confirm."""

    resource: str
    timeout: int
    before: Mapping[str, Any]


@dataclass(frozen=True)
class Armed:
    """An undo that waits. due: on the clock of the boot in which it was armed, which nobody sets."""

    undo: Undo
    boot: str
    due: float

    def left(self) -> float:
        """Seconds until it is due: none after a reboot, in which all runs that were at work have ended."""
        return max(0.0, self.due - _clock()) if self.boot == _boot() else 0.0


def read() -> Armed | None:
    found = store.read(DOCUMENT)
    try:
        return None if found is None else Armed(Undo(**found["undo"]), found["boot"], found["due"])
    except (KeyError, TypeError) as error:
        raise FastpathError("read", store.path(DOCUMENT), f"it lacks something: {error!r}") from error


def arm(undo: Undo) -> None:
    """Write it, and make sure that somebody watches."""
    _write(undo)
    deadline = time.monotonic() + _PATIENCE
    while not watched():
        if time.monotonic() >= deadline:
            disarm()
            hint = "Run the role runtime, and look at 'systemctl status fastpath-confirm.path'"
            raise FastpathError("arm", "the way back", "nothing on this node watches for unconfirmed changes", hint)
        time.sleep(_PAUSE)


def disarm() -> None:
    store.write(DOCUMENT, None)


@contextmanager
def counted() -> Iterator[None]:
    """The time to confirm begins when the run ends. What a failed run has taken back needs no confirmation.

    Within the lock of the run, so that the watcher never acts in the middle of one.
    """
    before = read()
    try:
        yield
    except StepFailed as failed:
        if not before and not failed.stuck:
            disarm()
        raise
    finally:
        armed = None if before else read()
        if armed:
            _write(armed.undo)


def confirm() -> str:
    """Keep the change; the resource that it was of. With the lock held."""
    armed = read()
    if armed is None:
        cause = "none is unconfirmed: the node has taken it back by itself, or it was confirmed before"
        raise FastpathError("confirm", "the change", cause, "See 'journalctl -u fastpath-confirm'")
    disarm()
    return armed.undo.resource


def pending() -> dict[str, Any] | None:
    """For people: the resource, when it goes back, and whether somebody is there to do that."""
    armed = read()
    if armed is None:
        return None
    deadline = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + armed.left()))
    return {"resource": armed.undo.resource, "deadline": deadline, "watched": watched()}


@contextmanager
def watching() -> Iterator[None]:
    """Be the watcher. Its lock ends with the process; it is on the directory, which is there as long as the file is."""
    try:
        descriptor = os.open(store.DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # confirmed meanwhile
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def watched() -> bool:
    with suppress(FileNotFoundError):
        descriptor = os.open(store.DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _write(undo: Undo) -> None:
    store.write(DOCUMENT, {"undo": asdict(undo), "boot": _boot(), "due": _clock() + undo.timeout})


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    with open(_BOOT, encoding="ascii") as file:
        return file.read().strip()
