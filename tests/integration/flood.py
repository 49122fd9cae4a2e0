# SPDX-License-Identifier: GPL-3.0-or-later
"""Many numbered datagrams in a node, and what became of each: see flood.c."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.sandbox import Sandbox
from tests.integration.variants import OBJECTS

SOURCE = Path(__file__).with_name("flood.c")

Counts = dict[str, int]


class Way(NamedTuple):
    """Packets a second from a client to an address of a server, and as many back if it hears of the client."""

    client: str
    server: str
    address: str
    rate: float


@dataclass
class Flooded:
    """What became of it, known after the end: for each way there and back."""

    seconds: float = 0.0
    slowest_second: float = 0.0  # packets
    there: list[Counts] = field(default_factory=list)
    back: list[Counts] = field(default_factory=list)


def compiled() -> Path:
    """Static, so that it runs on a machine that has only got it."""
    target = OBJECTS / f"flood-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if not target.exists():
        OBJECTS.mkdir(parents=True, exist_ok=True)
        options = ("-O2", "-static", "-Wall", "-Wextra", "-Werror")
        made = target.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", *options, str(SOURCE), "-o", str(made)], check=True)
        made.rename(target)
    return target


@contextmanager
def flooded(node: Sandbox, ways: Sequence[Way]) -> Iterator[Flooded]:
    """Packets on all ways as long as the block takes."""
    words = [
        str(word)
        for way in ways
        for word in (way.rate, f"/run/netns/{way.client}", f"/run/netns/{way.server}", way.address)
    ]
    found, pipe = Flooded(), subprocess.PIPE
    with subprocess.Popen(node.command([str(compiled()), *words]), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield found
        report: dict[str, Any] = json.loads(process.communicate(timeout=60)[0])
        found.seconds, found.slowest_second = report["seconds"], report["slowest_second"]
        found.there, found.back = ([pair[way] for pair in report["pairs"]] for way in ("there", "back"))


def assert_arrived(counts: Sequence[Counts], why: object) -> None:
    """Each datagram once and in its order, and something was sent. `why` is shown where it is not so."""
    for one in counts:
        wrong = {name: number for name, number in one.items() if number and name not in {"sent", "received"}}
        arrived = 0 < one["sent"] == one["received"] and not wrong
        assert arrived, f"{one}, {why}"


def assert_denied(there: Sequence[Counts], back: Sequence[Counts]) -> None:
    """Not one has come."""
    for asked, answered in zip(there, back, strict=True):
        silent = asked["sent"] > 0 == asked["received"] == answered["sent"]
        assert silent, f"{asked}, {answered}"
