# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of moves share: a node that has netkit or a stand-in for it, traffic that must not notice, and the end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath
from tests.integration.conftest import OBJECT
from tests.integration.sandbox import FABRIC, FABRIC_ADDRESSES, Sandbox, attachment, ips, sandbox
from tests.integration.standin import pretend

REAL = bpf.has_netkit()
LIVE_RENAME = tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 2)
VETH: dict[str, Any] = {"kind": "veth"}
L2: dict[str, Any] = {"kind": "netkit", "mode": "l2"}
L3: dict[str, Any] = {"kind": "netkit", "mode": "l3"}
OTHERS = (L2, L3) if REAL else (L2,)  # what a veth can move to here
NODE_ADDRESSES = ("192.0.2.2", "fd00:192::2")
STRIDE = 5 if REAL else 1  # between two places in which a move is killed
TICK = 0.2 if REAL else 0.01  # seconds between two packets of a flow: netkit is mostly seen in an emulated machine
_FLOWS = str(Path(__file__).with_name("flows.py"))


def wish(kinds: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Containers by number, each with the kind of its attachment."""
    return [attachment(number, **kind) for number, kind in kinds.items()]


def move(node: Sandbox, kinds: Mapping[int, Mapping[str, Any]], **options: Any) -> dict[str, Any]:
    return node.attachments(wish(kinds), "overridden", **options)


def serves(node: Sandbox, *numbers: int) -> None:
    """All reach each other, the fabric, and are reached."""
    for number in numbers:
        others = [address for other in numbers if other != number for address in ips(other)]
        node.ping(f"c{number}", *others, *FABRIC_ADDRESSES, "10.128.3.1", "fd00:128:3::1")
        node.ping(FABRIC, *ips(number))
        node.ping(None, *ips(number))


@contextmanager
def netkit_node(containers: int) -> Iterator[Sandbox]:
    """A node with a dataplane and netkit, or the stand-in for it."""
    if not LIVE_RENAME:
        pytest.skip("before Linux 6.2 an interface that is up cannot be renamed, and there was no netkit to move to")
    with sandbox(OBJECT, containers) as made:
        node = made if REAL else replace(made, prepare=pretend)
        node.dataplane()
        yield node


class _Process:
    """One of flows.py; it goes on until its input ends."""

    def __init__(self, node: Sandbox, place: str | None, what: str, addresses: Sequence[str]) -> None:
        command = node.command([sys.executable, _FLOWS, what, *addresses], place)
        pipe, environment = subprocess.PIPE, {**os.environ, "FLOWS_TICK": str(TICK)}
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError(self.process.communicate()[1])

    def end(self) -> str:
        output, errors = self.process.communicate()
        assert not self.process.returncode, errors
        return output


@contextmanager
def traffic(node: Sandbox, containers: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
    """Between each two containers, and each and the node and the fabric, in both families, begun at either side.

    The list that it gives is filled at the end: a report for each flow.
    """
    reports: list[dict[str, Any]] = []
    places: dict[str | None, tuple[str, ...]] = {f"c{number}": ips(number) for number in containers}
    places.update({None: NODE_ADDRESSES, FABRIC: FABRIC_ADDRESSES})
    running: list[_Process] = []
    try:
        running += [_Process(node, place, "serve", addresses) for place, addresses in places.items()]
        for place in places:
            outer = place in (None, FABRIC)
            targets = [a for other, found in places.items() if other != place for a in found]
            if outer:  # what does not touch a container is not our business
                targets = [a for number in containers for a in ips(number)]
            running.append(_Process(node, place, "send", targets))
        yield reports
        for place, process in zip(places, running[len(places) :], strict=True):
            reports += [{"from": place, **report} for report in json.loads(process.end())]
    finally:
        for process in running:
            process.process.kill()
            process.process.communicate()


def assert_nothing_lost(reports: list[dict[str, Any]], least: int) -> None:
    """least: datagrams that each flow must have sent for the test to mean something."""
    assert reports
    assert [report for report in reports if report["lost"] or report["refused"] or report["missing"]] == []
    assert [report for report in reports if report["datagrams"] < least or not report["bytes"]] == []


def assert_settled(node: Sandbox, kinds: Mapping[int, Mapping[str, Any]]) -> None:
    """Each attachment is there once, of that kind, and of no move is anything left."""
    present = {link["ifname"]: link for link in json.loads(node.run("ip", "-json", "link"))}
    assert set(present) == {"lo", "up0", "fastpath0", "fastpath1", *(f"c{number}" for number in kinds)}
    for number in kinds:
        assert present[f"c{number}"]["ifalias"] == f"netns:/run/netns/c{number}"
        inside = json.loads(node.run("ip", "-json", "link", container=f"c{number}"))
        assert sorted(link["ifname"] for link in inside) == ["eth0", "lo"]
    pins = [pin.removeprefix("fastpath/links/").partition(":")[0] for pin in node.pins() if "/links/" in pin]
    prefixes = {number: "nk" if kind["kind"] == "netkit" else "at" for number, kind in kinds.items()}
    assert sorted(pins) == sorted(["router", "uplink-up0", *(f"{prefixes[number]}-c{number}" for number in kinds)])
    assert node.call(datapath.moves) == {}
    indexes = {number: present[f"c{number}"]["ifindex"] for number in kinds}
    points = {address: indexes[number] for number in kinds for address in ips(number)}
    assert {address: point.ifindex for address, point in node.endpoints().items()} == points
    gathered = node.attachments([], "gathered")["gathered"]
    assert [{"kind": item["kind"], **({"mode": item["mode"]} if "mode" in item else {})} for item in gathered] == [
        dict(kinds[number]) for number in sorted(kinds)
    ]
    assert not move(node, kinds)["changed"]
