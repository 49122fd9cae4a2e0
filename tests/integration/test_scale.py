# SPDX-License-Identifier: GPL-3.0-or-later
"""1,000 attachments on one node, made by one run, removed by one run."""

from __future__ import annotations

import ctypes
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run
from tests.integration.conftest import OBJECT
from tests.integration.sandbox import Result, Sandbox, sandbox

COUNT = 1000
_CLONE_NEWNET, _MS_BIND = 0x40000000, 0x1000
DATAPLANE = {"uplinks": [{"name": "up0"}], "prefixes": ["10.128.0.0/16", "fd00:128:3::/64"]}


def _make_containers() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(COUNT):
        path = Path(f"/run/netns/n{number}")
        path.touch()
        assert libc.unshare(_CLONE_NEWNET) == 0
        assert libc.mount(b"/proc/self/ns/net", bytes(path), b"none", _MS_BIND, None) == 0


def _wish() -> list[dict[str, Any]]:
    return [
        {
            "name": f"n{number}",
            "container": {"netns": f"/run/netns/n{number}"},
            "addresses": [f"10.128.{1 + number // 200}.{2 + number % 200}/32", f"fd00:128:3::{number + 256:x}/128"],
        }
        for number in range(COUNT)
    ]


def _timed(title: str, work: Callable[[], Result]) -> Result:
    start = time.monotonic()
    result = work()
    wall = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = f"{used.ru_utime:.2f} s user, {used.ru_stime:.2f} s system, {wall:.1f} s in all"
    print(f"{title}: {len(result['steps'])} steps, {seconds}")
    return result


@pytest.fixture
def crowded() -> Iterator[Sandbox]:
    with sandbox(OBJECT, 0) as node:
        node.call(_make_containers)
        node.dataplane(DATAPLANE)
        yield node


def _links(node: Sandbox) -> int:
    return len(node.run("ip", "-br", "link", "show", "group", "64087").splitlines()) - 2  # the router device's two


def test_a_thousand_attachments(crowded: Sandbox) -> None:
    wish = _wish()
    made = crowded.call(_timed, "create", lambda: run.run_attachments(wish, "overridden"))
    assert len(made["after"]) == COUNT
    assert _links(crowded) == COUNT
    endpoints = crowded.endpoints()
    assert len(endpoints) == 2 * COUNT
    assert len({point.slot for point in endpoints.values()}) == COUNT
    assert len([pin for pin in crowded.pins() if "/links/" in pin]) == COUNT + 2
    crowded.ping("n0", "10.128.5.201", "fd00:128:3::4e7")
    again = crowded.call(_timed, "nothing to do", lambda: run.run_attachments(wish, "overridden"))
    assert again["steps"] == []
    gone = crowded.call(_timed, "remove", lambda: run.run_attachments([], "deleted", allow_disruption=True))
    assert gone["after"] == []
    assert (_links(crowded), crowded.endpoints()) == (0, {})
    assert len([pin for pin in crowded.pins() if "/links/" in pin]) == 2
