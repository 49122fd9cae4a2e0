# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 before each change of a move: the container is served on, and any wish that comes next is reached."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run
from tests.integration.fuse import mortal
from tests.integration.moving import L2, L3, REAL, STRIDE, VETH, assert_settled, move, netkit_node, serves, wish
from tests.integration.sandbox import Killed, Sandbox

MOST = 100
TIMES = 12
WAYS = [(VETH, L2), (L2, VETH), *([(L2, L3), (L3, L2), (VETH, L3), (L3, VETH)] if REAL else [])]
KINDS = (VETH, L2, L3) if REAL else (VETH, L2)
Kind = Mapping[str, Any]


@pytest.fixture
def node() -> Iterator[Sandbox]:
    """A node that serves c2, and has netkit."""
    with netkit_node(2) as made:
        move(made, {2: VETH})
        yield made


def killed(node: Sandbox, kind: Kind, limit: int) -> bool:
    """Let c1 become of this kind, killed before change number `limit`; whether it came to that."""
    try:
        node.call(mortal, limit, lambda: run.run_attachments(wish({1: kind, 2: VETH}), "overridden"))
    except Killed:
        return True
    return False


@pytest.mark.parametrize(
    "way", range(len(WAYS)), ids=lambda way: "-".join(kind.get("mode", "veth") for kind in WAYS[way])
)
def test_killed_before_any_change(node: Sandbox, way: int) -> None:
    """The next wish is the same, the old one or another, in turn. Where not all changes are tried, others each way."""
    before, after = WAYS[way]
    for limit in range(1 + way % STRIDE, MOST, STRIDE):
        move(node, {1: before, 2: VETH})
        if not killed(node, after, limit):
            break
        serves(node, 1, 2)
        following = KINDS[limit % len(KINDS)]
        result = move(node, {1: following, 2: VETH})
        assert not any(step["disruptive"] for step in result["steps"])
        assert_settled(node, {1: following, 2: VETH})
        serves(node, 1, 2)
    assert 15 < limit < MOST - STRIDE


def test_killed_again_and_again(node: Sandbox) -> None:
    """Each run gets one change further than the one before; the wish changes all the time."""
    move(node, {1: VETH, 2: VETH})
    for limit in range(1, 40, STRIDE):
        killed(node, KINDS[limit % len(KINDS)], limit)
        serves(node, 1, 2)
    move(node, {1: L2, 2: VETH})
    assert_settled(node, {1: L2, 2: VETH})


def _doomed(kind: Kind, seconds: float) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    run.run_attachments(wish({1: kind, 2: VETH}), "overridden")
    signal.setitimer(signal.ITIMER_REAL, 0)


def test_killed_at_any_time(node: Sandbox) -> None:
    move(node, {1: VETH, 2: VETH})
    start = time.monotonic()
    move(node, {1: L2, 2: VETH})
    duration, count = time.monotonic() - start, 0
    for part in range(1, TIMES, STRIDE):
        kind = (VETH, L2)[part % 2]
        try:
            node.call(_doomed, kind, duration * part / TIMES)
        except Killed:
            count += 1
        serves(node, 1, 2)
        move(node, {1: L2, 2: VETH})
        assert_settled(node, {1: L2, 2: VETH})
    assert count > TIMES / STRIDE / 4
