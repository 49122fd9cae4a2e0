# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades one after the other under load and policies, one in ten to another schema and back: nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run
from ansible_collections.fastpath.node.plugins.module_utils.kernel import hooks
from tests.integration.conftest import OBJECT
from tests.integration.load import ITEMS, load, prepared
from tests.integration.moving import L2, L3, REAL, VETH
from tests.integration.sandbox import DATAPLANE, Sandbox
from tests.integration.variants import FLOW, SCHEMA, variant

WHOLE = (50_000, 100)  # packets a second, and connections
LITTLE = (2_000, 12)  # for netkit, which is mostly seen in an emulated machine
ORDINARY, NETKIT = (VETH, VETH), (L2, L3)


def upgrade(paths: list[str]) -> None:
    for path in paths:
        result = run.run_dataplane(DATAPLANE, "replaced", path=path)
        assert [step for step in result["steps"] if step["action"].startswith("replace")]


def objects(folder: Path, count: int) -> list[str]:
    """`count` versions, each another than the one before; one in ten has another schema, also of the flows."""
    whole, other = OBJECT.read_bytes(), variant("schema", (*SCHEMA, FLOW)).read_bytes()
    paths = []
    for number in range(count):
        path = folder / f"{number % 30}.bpf.o"
        path.write_bytes((other if number % 10 == 4 else whole) + b"%d" % (number % 30))
        paths.append(str(path))
    return paths


def tcx() -> None:
    """As the kernel is."""


def without_tcx() -> None:
    hooks._tcx = lambda: False  # type: ignore[assignment]


full = pytest.mark.full
netkit = pytest.mark.skipif(not REAL, reason="this kernel has no netkit")


@pytest.mark.parametrize(
    ("count", "kinds", "prepare", "traffic"),
    [
        pytest.param(50, ORDINARY, tcx, WHOLE, id="tcx"),
        pytest.param(20, ORDINARY, without_tcx, WHOLE, id="cls_bpf"),
        pytest.param(6, NETKIT, tcx, LITTLE, id="netkit", marks=netkit),
        pytest.param(1000, ORDINARY, tcx, WHOLE, id="tcx, thousand", marks=full),
        pytest.param(100, ORDINARY, without_tcx, WHOLE, id="cls_bpf, hundred", marks=full),
    ],
)
def test_upgrades_under_load_lose_nothing(
    node: Sandbox,
    tmp_path: Path,
    count: int,
    kinds: tuple[dict[str, str], ...],
    prepare: Callable[[], None],
    traffic: tuple[int, int],
) -> None:
    node = replace(node, prepare=prepare)
    prepared(node, [{**item, **kind} for item, kind in zip(ITEMS, kinds, strict=True)])
    paths = objects(tmp_path, count)
    rate, connections = traffic
    with load(node, rate, connections) as report:
        start = time.monotonic()
        node.call(upgrade, paths)
        seconds = time.monotonic() - start
    reached, slowest = report.sent / report.flood.seconds, report.flood.slowest_second
    print(f"{count} upgrades in {seconds:.1f} s, {report.sent} packets that may pass, {reached:.0f} a second;", end=" ")
    print(f"{slowest:.0f} of all in the slowest second; lost by devices: {report.devices or 'none'}")
    report.assert_unnoticed(connections)
    report.assert_counted(node)
