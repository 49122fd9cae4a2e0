# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 before each change that a run makes to the kernel or to a file; a normal run after it finishes the work."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run
from tests.integration.conftest import OBJECT
from tests.integration.fuse import mortal
from tests.integration.sandbox import DATAPLANE, Killed, Refused, Sandbox, addresses, attachment, ips, sandbox

WORKERS = 5
MOST = 200
TIMES = 16

CREATED = [attachment(1), attachment(2)]
CHANGED_DATAPLANE = {**DATAPLANE, "routing": "direct", "routes": [{"to": "10.128.4.0/24", "via": "192.0.2.1"}]}
CHANGED = [
    attachment(1, mtu=1400, addresses=[*addresses(1), "10.128.3.200/32"]),
    {**attachment(2), "container": {"netns": "/run/netns/c3"}, "interface": "net1"},
]


def create(path: str) -> None:
    run.run_dataplane(DATAPLANE, "replaced", path=path)
    run.run_attachments(CREATED, "overridden")


def change(path: str) -> None:
    run.run_dataplane(CHANGED_DATAPLANE, "replaced", path=path, allow_disruption=True)
    run.run_attachments(CHANGED, "overridden", allow_disruption=True)


def delete(_path: str) -> None:
    run.run_attachments([], "deleted", allow_disruption=True)
    run.run_dataplane({}, "deleted", allow_disruption=True)


def survived(node: Sandbox, work: Callable[[str], None], path: Path, limit: int) -> bool:
    """Work with a kill at `limit`, then again without; whether there was no kill."""
    try:
        node.call(mortal, limit, lambda: work(str(path)))
    except Killed:
        node.call(work, str(path))
        return False
    return True


def assert_complete(
    node: Sandbox, containers: dict[str, tuple[str, str]], published: set[str], routes: int, versions: int
) -> None:
    """Exactly what belongs there; containers: attachment -> (container, its interface); versions: of the programs."""
    links = {line.split()[0].partition("@")[0] for line in node.run("ip", "-br", "link").splitlines()}
    assert links == {"lo", "up0", "fastpath0", "fastpath1", *containers}
    for container in ("c1", "c2", "c3"):
        inside = node.run("ip", "-br", "link", container=container)
        present = {line.split()[0].partition("@")[0] for line in inside.splitlines()}
        assert present == {"lo"} | {interface for place, interface in containers.values() if place == container}
    pins = {pin.removeprefix("fastpath/") for pin in node.pins()}
    programs = {pin for pin in pins if pin.startswith("progs/")}
    assert pins - programs >= {f"links/{name}" for name in ("router", "uplink-up0", *(f"at-{n}" for n in containers))}
    assert len([pin for pin in pins if pin.startswith("links/")]) == 2 + len(containers)
    assert [pin for pin in pins if "~" in pin] == []
    assert len(programs) == 6 * versions
    assert len({pin.rpartition("/")[0] for pin in programs}) == versions
    assert len({pin.partition("/")[0] for pin in pins if pin.startswith("maps_")}) == versions
    assert len(node.run("ls", "-A", "/usr/lib/fastpath/objects").split()) == versions
    endpoints = node.endpoints()
    assert set(endpoints) == published
    assert len({point.slot for point in endpoints.values()}) == len(containers)
    ours = node.run("ip", "route", "show", "proto", "157") + node.run("ip", "-6", "route", "show", "proto", "157")
    assert len(ours.splitlines()) == routes
    assert node.run("ls", "-A", "/etc/fastpath").split() == ["attachments.json", "dataplane.json", "programs.json"]


def assert_created(node: Sandbox) -> None:
    assert_complete(node, {"c1": ("c1", "eth0"), "c2": ("c2", "eth0")}, {*ips(1), *ips(2)}, 2, 1)
    node.ping("c1", *ips(2), "192.0.2.1", "fd00:192::1")


def assert_changed(node: Sandbox) -> None:
    containers = {"c1": ("c1", "eth0"), "c2": ("c3", "net1")}
    assert_complete(node, containers, {*ips(1), *ips(2), "10.128.3.200"}, 3, 2)
    node.ping("c3", *ips(1), "10.128.3.200", "fd00:192::1")


def lives(limits: range, newer: Path) -> list[str]:
    """What goes wrong when a node is created, changed and deleted, with a kill in each before one of its changes."""
    wrong: list[str] = []
    for limit in limits:
        with sandbox(OBJECT, 3) as node:
            bare = node.snapshot()
            try:
                done = [survived(node, create, OBJECT, limit)]
                assert_created(node)
                done.append(survived(node, change, newer, limit))
                assert_changed(node)
                done.append(survived(node, delete, newer, limit))
                assert node.snapshot() == bare
            except (AssertionError, Refused) as error:
                wrong.append(f"killed before change {limit}: {error}")
            else:
                if all(done):
                    return wrong
    return [*wrong, f"after {MOST} changes still no end"]


@pytest.mark.parametrize("step", [2, pytest.param(1, marks=pytest.mark.full)])
def test_a_run_killed_before_any_change_is_finished_by_the_next(newer: Path, step: int) -> None:
    # mostly it waits for the kernel to let go of deleted links: several nodes at a time
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as pool:
        parts = [range(1 + worker * step, MOST, WORKERS * step) for worker in range(WORKERS)]
        results = [pool.submit(lives, part, newer) for part in parts]
        wrong = [text for result in results for text in result.result()]
    assert not wrong, "\n".join(wrong)


def _doomed(path: str, seconds: float) -> None:
    """Create, but end after that time: inside of libbpf too, where a load is many calls of the kernel."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    create(path)
    signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_run_killed_at_any_time_is_finished_by_the_next(node: Sandbox) -> None:
    bare = node.snapshot()
    start = time.monotonic()
    path = str(OBJECT)
    node.call(create, path)
    duration = time.monotonic() - start
    node.call(delete, "")
    killed = 0
    for part in range(1, TIMES):
        try:
            node.call(_doomed, path, duration * part / TIMES)
        except Killed:
            killed += 1
        node.call(create, path)
        assert_created(node)
        node.call(delete, "")
        assert node.snapshot() == bare, f"killed after {part / TIMES:.0%}"
    assert killed > TIMES / 3
