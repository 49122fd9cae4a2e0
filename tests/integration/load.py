# SPDX-License-Identifier: GPL-3.0-or-later
"""A node with policies and traffic of all sorts: what they allow, which must not notice, and what they deny."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils import run, status
from tests.integration.flood import Counts, Flooded, Way, assert_arrived, assert_denied, flooded
from tests.integration.policy_cases import DB, WEB, ingress, policy, sources
from tests.integration.sandbox import FABRIC, FABRIC_ADDRESSES, Sandbox, attachment, ips

SCRIPT = str(Path(__file__).with_name("flows.py"))
TICK = "0.2"  # seconds between two datagrams, and two pieces of the stream, of each connection
# c1 is web, c2 is db, which may only answer: what it sends passes because its flow is known.
LABELS = ({"app": "web"}, {"app": "db"})
ITEMS = [attachment(number, labels=labels) for number, labels in enumerate(LABELS, 1)]
POLICIES = [ingress({}), policy({**DB, "policyTypes": ["Ingress", "Egress"], "ingress": [sources(WEB)]}, "db")]
DENIED = {FABRIC: ips(2), "c2": ips(1)}  # nobody outside asks db, and db asks nobody

Report = dict[str, Any]


@contextmanager
def script(node: Sandbox, container: str, verb: str, *addresses: str) -> Iterator[subprocess.Popen[str]]:
    """flows.py in a container; its standard input ends with the block."""
    command, pipe = node.command([sys.executable, SCRIPT, verb, *addresses], container), subprocess.PIPE
    environment = {**os.environ, "FLOWS_TICK": TICK}
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def end(process: subprocess.Popen[str]) -> Any:
    """Its report."""
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0, out
    return json.loads(out)


def allowed(rate: float) -> list[Way]:
    """So many packets a second in all: within the node and over the wire, begun here and there, of both families."""
    pairs = [("c1", "c2", ips(2)[0]), ("c1", "c2", ips(2)[1]), (FABRIC, "c1", ips(1)[1]), ("c1", FABRIC, "192.0.2.1")]
    return [Way(*pair, rate / len(pairs) / 2) for pair in pairs]


def denied(rate: float) -> list[Way]:
    targets = {FABRIC: "c2", "c2": "c1"}
    return [Way(source, targets[source], address, rate) for source, found in DENIED.items() for address in found]


def targets(connections: int) -> dict[str, list[str]]:
    """By who opens them: half within the node and half over the wire, from here and from there, of both families."""
    within, out, into = connections // 2, connections // 4, connections // 4
    return {
        "c1": [ips(2)[number % 2] for number in range(within)] + [FABRIC_ADDRESSES[n % 2] for n in range(out)],
        FABRIC: [ips(1)[number % 2] for number in range(into)],
    }


@dataclass
class Load:
    """What became of the traffic, known after the end; `passing` counts the first ways of the flood."""

    flood: Flooded
    passing: int
    connections: list[Report] = field(default_factory=list)
    knocks: list[Counts] = field(default_factory=list)
    devices: dict[str, int] = field(default_factory=dict)

    @property
    def allowed(self) -> list[Counts]:
        return self.flood.there[: self.passing] + self.flood.back[: self.passing]

    @property
    def sent(self) -> int:
        return sum(counts["sent"] for counts in self.allowed)

    def assert_unnoticed(self, connections: int) -> None:
        """Nothing that is allowed was lost, nothing that is denied has passed."""
        assert_arrived(self.allowed, self.devices)
        assert_denied(self.flood.there[self.passing :], self.flood.back[self.passing :])
        assert len(self.connections) == connections, self.connections
        for flow in self.connections:
            harmed = flow["lost"] or flow["refused"] or flow["missing"]
            assert not harmed, f"{flow}, {self.devices}"
            assert min(flow["datagrams"], flow["bytes"]) > 0, flow
        for knocks in self.knocks:
            assert knocks["tried"] > 0 == knocks["opened"], knocks

    def assert_counted(self, node: Sandbox) -> None:
        """Every packet once, in whichever version's map."""
        found = node.call(status.status)
        statistics = {item["name"]: item["statistics"] for item in found["attachments"]}
        ways = list(zip(allowed(0), self.flood.there, self.flood.back, strict=False))
        from_c1 = [there["sent"] for way, there, _back in ways if way.client == "c1"]
        from_c1 += [back["sent"] for way, _there, back in ways if way.server == "c1"]
        to_c2 = [there["sent"] for way, there, _back in ways if way.server == "c2"]
        others = statistics["c1"]["tx_packets"] - sum(from_c1)
        assert 0 <= statistics["c2"]["rx_packets"] - sum(to_c2) <= others, statistics
        dropped = sum(counts["sent"] for counts in self.flood.there[self.passing :])
        asked = sum(knocks["tried"] for knocks in self.knocks)
        least, most = dropped + asked, dropped + 3 * asked  # some SYNs are sent again
        assert least <= found["drops"]["policy"] <= most, (least, found["drops"], most)


def prepared(node: Sandbox, items: Sequence[Report] = ITEMS) -> None:
    """With the policies in force, and neighbours known."""
    node.dataplane()
    node.attachments(items)
    node.call(run.run_policies, POLICIES, "overridden")
    node.ping("c1", *ips(2), *FABRIC_ADDRESSES)
    node.ping(FABRIC, *ips(1))


@contextmanager
def load(node: Sandbox, rate: float, connections: int) -> Iterator[Load]:
    """Datagrams, connections with data, and some who must not get through, as long as the block takes."""
    ways, opened = allowed(rate), targets(connections)
    before = _lost(node)
    with ExitStack() as stack:
        for place, addresses in {"c1": ips(1), "c2": ips(2), FABRIC: FABRIC_ADDRESSES}.items():
            stack.enter_context(script(node, place, "serve", *addresses))
        senders = [stack.enter_context(script(node, place, "send", *found)) for place, found in opened.items()]
        knocking = [stack.enter_context(script(node, place, "knock", *found)) for place, found in DENIED.items()]
        with flooded(node, [*ways, *denied(rate / 100)]) as flood:
            report = Load(flood, len(ways))
            yield report
        report.connections = [flow for sender in senders for flow in end(sender)]
        report.knocks = [end(process) for process in knocking]
    report.devices = {name: count for name, count in _lost(node).items() if count > before.get(name, 0)}


def _lost(node: Sandbox) -> dict[str, int]:
    """What the interfaces have lost, so that it is known who lost a packet."""
    return {
        f"{place or 'node'} {link['ifname']} {way} {kind}": link["stats64"][way][kind]
        for place in (None, "c1", "c2", FABRIC)
        for link in json.loads(node.run("ip", "-s", "-j", "link", container=place))
        for way in ("rx", "tx")
        for kind in ("dropped", "errors")
        if link["stats64"][way][kind]
    }
