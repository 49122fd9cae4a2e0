# SPDX-License-Identifier: GPL-3.0-or-later
"""`fastpath drops --follow`: a line for each packet that the dataplane drops, as it happens."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from . import drops, explain
from .kernel.watch import Watch
from .resources import attachments_links

_SECOND_MS = 1000


def follow(as_json: bool, count: int | None = None) -> None:
    """Print until `count` packets are shown (None: for ever), Ctrl-C, or nobody reads on. Raises FastpathError."""
    try:
        with suppress(KeyboardInterrupt):
            _follow(as_json, count)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end


def _follow(as_json: bool, count: int | None) -> None:
    shown, names = 0, explain.Names()
    while True:
        with Watch() as watch:
            while not watch.replaced():
                if _abandoned():
                    return
                for event in _second(watch):
                    _print(_event(event, as_json, names))
                    shown += 1
                    if shown == count:
                        return
                missed = drops.missed(watch.left_out(), watch.unwatched())
                if missed:
                    _print(json.dumps(missed) if as_json else drops.missed_line(missed))


def _second(watch: Watch) -> Iterator[bytes]:
    """The events of one second."""
    end = time.monotonic_ns() // 10**6 + _SECOND_MS
    while True:
        rest = end - time.monotonic_ns() // 10**6
        if rest <= 0:
            return
        yield from watch.read(rest)


def _event(event: bytes, as_json: bool, names: explain.Names) -> str:
    drop, epoch_ns = drops.decode(event), time.time_ns() - time.monotonic_ns()
    if drop.rule:
        drop = replace(drop, policy=names(drop.rule, drop.kind == drops.AUDITED))
    interface = attachments_links.called(drop.ifindex)
    if as_json:
        return json.dumps(drops.public(drop, interface, epoch_ns))
    return drops.line(drop, interface, epoch_ns)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _abandoned() -> bool:
    """Has the reader of our output gone? A quiet node would be watched until its next drop tells."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _fd, events in poll.poll(0))
