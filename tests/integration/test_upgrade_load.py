# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades one after the other under load and policies, one in ten to another schema and back: nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run, status
from ansible_collections.fastpath.node.plugins.module_utils.kernel import hooks
from tests.integration.conftest import OBJECT
from tests.integration.policy_cases import DB, WEB, ingress, policy, sources
from tests.integration.sandbox import DATAPLANE, FABRIC, Sandbox, attachment, ips
from tests.integration.variants import SCHEMA, variant

HERE = Path(__file__).parent
RATE = 25_000  # packets a second, on each of two ways
CONNECTIONS = 100
# c1 is web, c2 is db, which may only answer: what it sends passes because its flow is known.
ITEMS = [attachment(1, labels={"app": "web"}), attachment(2, labels={"app": "db"})]
POLICIES = [ingress({}), policy({**DB, "policyTypes": ["Ingress", "Egress"], "ingress": [sources(WEB)]}, "db")]
Report = dict[str, Any]


@contextmanager
def script(node: Sandbox, container: str, name: str, *arguments: str, ready: bool) -> Iterator[subprocess.Popen[str]]:
    """A process with the script; its standard input ends with the block."""
    command = node.command([sys.executable, str(HERE / name), *arguments], container)
    environment, pipe = {**os.environ, "FLOWS_TICK": "0.2"}, subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        if ready:
            assert process.stdout.readline() == "ready\n"
        yield process


def end(process: subprocess.Popen[str]) -> Any:
    """Its report."""
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0, out
    return json.loads(out)


@contextmanager
def load(node: Sandbox, reports: dict[str, Report]) -> Iterator[None]:
    """Datagrams from container to container and from the wire, and TCP connections with data; the reports are filled in
    at the end of the block."""
    ways = {"container": ("c1", "c2", ips(2)[0]), "wire": (FABRIC, "c1", ips(1)[1])}
    with ExitStack() as stack:
        receivers = {
            way: stack.enter_context(script(node, to, "flood.py", "receive", address, ready=True))
            for way, (_source, to, address) in ways.items()
        }
        stack.enter_context(script(node, "c2", "flows.py", "serve", *ips(2), ready=True))
        targets = [ips(2)[number % 2] for number in range(CONNECTIONS)]
        flows = stack.enter_context(script(node, "c1", "flows.py", "send", *targets, ready=True))
        senders = {
            way: stack.enter_context(script(node, source, "flood.py", "send", address, str(RATE), ready=False))
            for way, (source, _to, address) in ways.items()
        }
        yield
        for way, sender in senders.items():
            reports[way] = {**end(sender), **end(receivers[way])}
        reports["flows"] = {"connections": end(flows)}


def upgrade(paths: list[str]) -> None:
    for path in paths:
        result = run.run_dataplane(DATAPLANE, "replaced", path=path)
        assert [step for step in result["steps"] if step["action"].startswith("replace")]


def objects(folder: Path, count: int) -> list[str]:
    """`count` versions, each another than the one before; every tenth has another schema."""
    whole, other = OBJECT.read_bytes(), variant("schema", SCHEMA).read_bytes()
    paths = []
    for number in range(count):
        path = folder / f"{number % 30}.bpf.o"
        path.write_bytes((other if number % 10 == 9 else whole) + b"%d" % (number % 30))
        paths.append(str(path))
    return paths


def tcx() -> None:
    """As the kernel is."""


def without_tcx() -> None:
    hooks._tcx = lambda: False  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("count", "prepare"),
    [(60, tcx), (20, without_tcx), pytest.param(1000, tcx, marks=pytest.mark.full)],
    ids=["tcx", "cls_bpf", "thousand"],
)
def test_upgrades_under_load_lose_nothing(
    node: Sandbox, tmp_path: Path, count: int, prepare: Callable[[], None]
) -> None:
    node = replace(node, prepare=prepare)
    node.dataplane()
    node.attachments(ITEMS)
    node.call(run.run_policies, POLICIES, "overridden")
    for target in ips(2):
        node.ping("c1", target)
    reports: dict[str, Report] = {}
    with load(node, reports):
        start = time.monotonic()
        node.call(upgrade, objects(tmp_path, count))
        seconds = time.monotonic() - start
    found = {item["name"]: item["statistics"] for item in node.call(status.status)["attachments"]}
    connections = reports.pop("flows")["connections"]
    sent = sum(report["sent"] for report in reports.values())
    print(f"{count} upgrades in {seconds:.1f} s, {sent} packets, {sent / seconds:.0f} a second: {reports}")
    for report in reports.values():
        assert report["sent"] > 0
        assert report["overflown"] == 0
        assert report["numbers"] == report["received"] == report["sent"]
    assert len(connections) == CONNECTIONS
    for flow in connections:
        assert (flow["lost"], flow["refused"], flow["missing"]) == ([], [], 0)
        assert flow["datagrams"] > 0
        assert flow["bytes"] > 0
    # every packet is counted once, in whichever version's map
    assert found["c1"]["tx_packets"] >= reports["container"]["sent"]
    others = found["c1"]["tx_packets"] - reports["container"]["sent"]
    assert found["c2"]["rx_packets"] - reports["container"]["sent"] <= others
