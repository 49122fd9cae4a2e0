# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 before each change of an upgrade to another schema and of the way back: packets pass, the next finishes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import cli, run, versions
from ansible_collections.fastpath.node.plugins.module_utils.kernel import datapath, hooks
from tests.integration.conftest import OBJECT
from tests.integration.flood import compiled
from tests.integration.fuse import mortal
from tests.integration.load import ITEMS, POLICIES, load, prepared
from tests.integration.sandbox import DATAPLANE, FABRIC, Killed, Refused, Sandbox, ips, sandbox
from tests.integration.variants import SCHEMA, variant

WORKERS = 2 * len(os.sched_getaffinity(0))
MOST = 300
RATE, CONNECTIONS = 2_000, 12  # of each worker


def replace(path: str) -> None:
    run.run_dataplane(DATAPLANE, "replaced", path=path)


def back() -> None:
    run.run_dataplane({}, "rolled_back")


def restore() -> None:
    assert cli.main(["apply"]) == 0


def killed(node: Sandbox, limit: int, work: Callable[[], None]) -> bool:
    try:
        node.call(mortal, limit, work)
    except Killed:
        return True
    return False


def recorded() -> str:
    return versions.object_id(versions.wanted())


def assert_whole(node: Sandbox, expected: str) -> None:
    """All hooks run this object, nothing half-made is left, and user space sees what there is."""
    owner, generations = node.call(datapath.owner), node.call(datapath.generations)
    programs = set(generations[owner].programs.values())
    assert owner.partition("_")[0] == expected
    assert {hook.program_id for hook in node.call(hooks.read).values()} <= programs
    assert all(generation.complete for generation in generations.values())
    assert [pin for pin in node.pins() if "~" in pin] == []
    assert {name.partition("_")[0] for name in generations} <= node.call(versions.kept)
    assert len(generations) <= 2
    assert len(node.run("ls", "-A", versions.OBJECTS).split()) <= 2
    assert set(node.endpoints()) == {*ips(1), *ips(2)}
    assert not node.attachments(ITEMS, "overridden")["changed"]
    assert not node.call(run.run_policies, POLICIES, "overridden")["changed"]


def forwards(node: Sandbox) -> None:
    """What the policies allow, and nothing else."""
    node.ping("c1", ips(2)[0], "fd00:192::1")
    node.ping(FABRIC, ips(1)[1])
    assert not node.succeeds("ping", "-c1", "-W0.1", ips(2)[1], container=FABRIC)


def lives(first: int, stride: int, folder: Path) -> list[str]:
    """What goes wrong in upgrades killed at every change of those, and in the ways back from them."""
    content, wrong = variant("schema", SCHEMA).read_bytes(), []
    with sandbox(OBJECT, 2) as node:
        prepared(node)
        with load(node, RATE, CONNECTIONS) as report:
            for turn, limit in enumerate(range(first, MOST, stride)):
                path = folder / f"{limit}.o"
                path.write_bytes(content + b"%d" % limit)
                try:
                    if not life(node, limit, turn, str(path)):
                        break
                except (AssertionError, Refused) as error:
                    wrong.append(f"killed before change {limit}: {error}")
            else:
                wrong.append(f"after {MOST} changes still no end")
        try:
            report.assert_unnoticed(CONNECTIONS)
        except AssertionError as error:
            wrong.append(str(error))
    return wrong


def life(node: Sandbox, limit: int, turn: int, newer: str) -> bool:
    """One upgrade and one way back, each killed and finished; whether there was a kill."""
    old, new, kills = versions.object_id(str(OBJECT)), versions.object_id(newer), 0
    node.call(replace, str(OBJECT))
    if killed(node, limit, lambda: replace(newer)):
        kills += 1
        forwards(node)
        # whoever comes next: the same run again, the boot unit, or a controller that wants the version before
        follows, expected = [
            (lambda: replace(newer), new),
            (restore, node.call(recorded)),
            (lambda: replace(str(OBJECT)), old),
        ][turn % 3]
        node.call(follows)
        assert_whole(node, expected)
        forwards(node)
        node.call(replace, newer)
    assert_whole(node, new)
    if killed(node, limit, back):
        kills += 1
        forwards(node)
        node.call(back)
    assert_whole(node, old)
    forwards(node)
    return bool(kills)


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.full)])
def test_killed_upgrades_and_rollbacks_lose_nothing_and_are_finished(tmp_path: Path, step: int) -> None:
    """At every change, or at every third one."""
    variant("schema", SCHEMA)  # compiled once, not by each worker
    compiled()
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as pool:
        firsts = range(1, WORKERS * step + 1, step)
        results = [pool.submit(lives, first, WORKERS * step, tmp_path) for first in firsts]
        wrong = [text for result in results for text in result.result()]
    assert not wrong, "\n".join(wrong)
