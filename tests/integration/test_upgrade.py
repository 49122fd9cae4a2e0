# SPDX-License-Identifier: GPL-3.0-or-later
"""Another version of the programs replaces the running one under traffic, and the old one goes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath, hooks
from tests.integration.sandbox import FABRIC, Sandbox, attachment, ips

# 400 packets a second for 4 s, each with its own number
_STREAM = ("ping", "-q", "-i", "0.0025", "-c", "1600", "-W", "2")


def _loaded(program: int) -> bool:
    try:
        bpf.program_by_id(program).close()
    except bpf.BpfError:
        return False
    return True


def _maps() -> dict[str, int]:
    """The map behind each name that user space goes by."""
    found = {}
    for pin in datapath.MAPS.iterdir():
        with bpf.get(pin) as fd:
            found[pin.name] = bpf.map_info(fd).id
    return found


def _eventually(true: Callable[[], bool], seconds: float = 5) -> bool:
    """The kernel frees programs some time after their last user."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_an_upgrade_loses_no_packet(node: Sandbox, newer: Path) -> None:
    node.dataplane()
    node.attachments([attachment(1), attachment(2)])
    node.ping("c1", *ips(2))
    node.ping(FABRIC, *ips(1))
    before = node.call(hooks.read)
    assert set(before) == {"router", "uplink-up0", "at-c1", "at-c2"}
    streams = (("c1", ips(2)[0]), ("c2", ips(1)[1]), (FABRIC, ips(1)[0]), ("c2", "192.0.2.1"))
    running = [node.start(*_STREAM, target, container=source) for source, target in streams]
    time.sleep(0.5)
    upgraded = node.dataplane(path=str(newer))
    downgraded = node.dataplane()
    assert [process.poll() for process in running] == [None] * len(running), "the streams ended too early to tell"
    for process in running:
        report = process.communicate()[0]
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", report)
        assert counts is not None
        assert counts[1] == counts[2] == "1600", report
    actions = [step["action"] for step in upgraded["steps"]]
    assert [action.split()[0] for action in actions] == [
        "keep",
        "test",
        "load",
        *["replace"] * 4,
        "check",
        "hand",
        "record",
    ]
    assert not any(step["disruptive"] for step in (*upgraded["steps"], *downgraded["steps"]))
    after = node.call(hooks.read)
    assert {key: hook.ifindex for key, hook in after.items()} == {key: hook.ifindex for key, hook in before.items()}
    assert after == before


def test_counters_and_endpoints_survive_an_upgrade(node: Sandbox, newer: Path) -> None:
    node.dataplane()
    node.attachments([attachment(1), attachment(2)])
    node.ping("c1", *ips(2))
    endpoints, maps = node.endpoints(), node.call(_maps)
    node.dataplane(path=str(newer))
    assert node.endpoints() == endpoints
    assert node.call(_maps) == maps
    assert not node.attachments([attachment(1), attachment(2)])["changed"]
