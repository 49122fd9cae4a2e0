# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane's maps and programs pinned in a place of their own, and tables to publish there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from ansible_collections.fastpath.node.plugins.module_utils.kernel.policy import Place
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Prefix
from ansible_collections.fastpath.node.plugins.module_utils.policy.ports import ALLOW, LOG, NUMBER, Entry
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Identity, Subject, Tables
from tests.integration.fuse import mortal

OBJECT = Path(__file__).parents[2] / "roles/runtime/files/fastpath.bpf.o"
KILLED = 9


def placed(pins: Path) -> Place:
    """Of newly loaded programs; no container is attached."""
    place = Place(pins / "maps", pins / "redecide")
    with bpf.load(OBJECT.read_bytes(), place.maps) as loaded:
        bpf.pin(loaded.programs["redecide"], place.redecide)
    return place


def tables(count: int, port: int = 80) -> Tables:
    """So many rows and peers of each kind; every second rule is logged."""
    rows = {(7, n + 2): (Entry(1, port, port, n + 1 << NUMBER | ALLOW | LOG * (n % 2)),) for n in range(count)}
    return Tables(
        exact={(4, 0x0A000000 + n): Identity(n + 2, n + 2) for n in range(count)},
        prefix={Prefix(4, (192 << 16 | n) << 8, 24): Identity(n + 2, n + 2) for n in range(count)},
        subject={(1, 0): Subject(7, True, False, ()), (4095, 1): Subject(8, False, False, ())},
        policy=rows,
        pages=dict.fromkeys(range(count // 4), (port << NUMBER,) * 256),
    )


def killed(limit: int, work: Callable[[], object]) -> bool:
    """Work in another process that is killed before its change number `limit`; False: it came to its end first."""
    child = os.fork()
    if not child:
        status = 1
        try:
            mortal(limit, work)
            status = 0
        finally:
            os._exit(status)
    _pid, status = os.waitpid(child, 0)
    assert status in (0, KILLED), status
    return status == KILLED
