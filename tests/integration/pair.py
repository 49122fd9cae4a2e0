# SPDX-License-Identifier: GPL-3.0-or-later
"""Two nodes with containers of several namespaces, an outside, and somebody in each place who sends and answers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from ansible_collections.fastpath.node.plugins.module_utils import explain, run
from tests.integration.conftest import OBJECT
from tests.integration.sandbox import FABRIC, UPLINK, Result, Sandbox, sandbox

TCP, UDP = (80, 81, 443, 8079, 8080, 9090, 9091), (53, 80, 81)
NAMESPACES = {"prod": {"team": "shop"}, "ops": {"team": "ops"}}
Document = Mapping[str, Any]

_TALKER = str(Path(__file__).with_name("talker.py"))
_PATIENCE = 10.0  # seconds for what must arrive
_SILENCE = 0.15  # seconds more for what must not
_POLL = 0.02
_FAMILY = {"icmp": 0, "icmpv6": 1}  # position in a pair of addresses; the other kinds go over both


class Home(NamedTuple):
    """A container: its node, counted from 0, and what policies see of it."""

    node: int
    number: int
    namespace: str = "default"
    labels: Mapping[str, str] = {}
    ports: tuple[Mapping[str, Any], ...] = ()

    @property
    def ips(self) -> tuple[str, str]:
        return f"10.128.{3 + self.node}.{10 + self.number}", f"fd00:128:{3 + self.node}::{10 + self.number}"

    def endpoint(self, name: str) -> dict[str, Any]:
        own = {"name": name, "namespace": self.namespace, "labels": dict(self.labels), "ports": list(self.ports)}
        return {**own, "addresses": [f"{self.ips[0]}/32", f"{self.ips[1]}/128"]}


HOMES = {
    "web": Home(
        0,
        1,
        "default",
        {"app": "web", "tier": "front"},
        ({"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}),
    ),
    "db": Home(0, 2, "default", {"app": "db", "tier": "back"}),
    "shop": Home(0, 3, "prod", {"app": "web"}),
    "web2": Home(1, 1, "default", {"app": "web", "tier": "back"}, ({"name": "http", "port": 8080},)),
    "client": Home(1, 2, "default", {"quarantine": "yes"}),
    "probe": Home(1, 3, "ops", {"app": "probe"}),
}
# Places that are no containers: the outside of the first node, and the nodes themselves.
OTHERS = {"out": (0, FABRIC), "node1": (0, None), "node2": (1, None)}
ADDRESSES: dict[str, tuple[str, str]] = {
    **{name: home.ips for name, home in HOMES.items()},
    "out": ("192.0.2.1", "fd00:192::1"),
    "node1": ("192.0.2.2", "fd00:192::2"),
    "node2": ("203.0.113.2", "fd00:203::2"),
}


class Flow(NamedTuple):
    """From one place to another; kind: see talker.py; port: or type * 256 + code of ICMP, or 0."""

    source: str
    target: str
    kind: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Flow:
        """Like db>web:80, db>web:53/udp, db>web/ping, db>web:13.0/icmp, db>web/gre."""
        source, _sign, rest = text.partition(">")
        rest, _slash, kind = rest.partition("/")
        target, _colon, port = rest.partition(":")
        first, _dot, second = port.partition(".")
        number = int(first or 0) * 256 + int(second) if second else int(first or 0)
        assert {source, target} <= ADDRESSES.keys(), text
        return cls(source, target, kind or "tcp", number)

    def __str__(self) -> str:
        return f"{self.source}>{self.target}:{self.port}/{self.kind}"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Source and target address by family."""
        both = list(zip(ADDRESSES[self.source], ADDRESSES[self.target], strict=True))
        return both if self.kind not in _FAMILY else [both[_FAMILY[self.kind]]]

    def question(self, address: str) -> str:
        """As `fastpath explain --to` takes it."""
        place = f"[{address}]" if ":" in address else address
        if self.kind == "ping":
            return f"{place}/icmp"
        if self.kind == "gre":
            return f"{place}/47"
        if self.kind in _FAMILY:
            return f"{place}:{self.port >> 8}.{self.port & 255}/{self.kind}"
        return f"{place}:{self.port}/{'udp' if self.kind in ('big', 'closed') else self.kind}"


class Talker:
    """The process in a place."""

    def __init__(self, node: Sandbox, container: str | None, stack: ExitStack) -> None:
        command = [sys.executable, _TALKER, ",".join(map(str, TCP)), ",".join(map(str, UDP))]
        pipe = subprocess.PIPE
        popen = subprocess.Popen(node.command(command, container), stdin=pipe, stdout=pipe, text=True)
        process = stack.enter_context(popen)
        stack.callback(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        assert self._output.readline() == "ready\n"

    def tell(self, *command: Any) -> None:
        self._input.write(json.dumps(command) + "\n")
        self._input.flush()

    def state(self) -> tuple[set[int], set[int]]:
        self.tell("state")
        answered, seen = json.loads(self._output.readline())
        return set(answered), set(seen)


@dataclass
class Pair:
    nodes: tuple[Sandbox, Sandbox]
    talkers: dict[str, Talker] = field(default_factory=dict)
    number: int = 0

    def attach(self) -> list[Result]:
        """All containers, with their labels."""
        return [node.attachments(self._wish(index), "overridden") for index, node in enumerate(self.nodes)]

    @staticmethod
    def _wish(node: int) -> list[dict[str, Any]]:
        return [
            {**home.endpoint(name), "container": {"netns": f"/run/netns/c{home.number}"}}
            for name, home in HOMES.items()
            if home.node == node
        ]

    def policies(self, documents: Sequence[Document], **options: Any) -> list[Result]:
        """Put them in force on both nodes; each is told of the containers of both."""
        everybody = [home.endpoint(f"node{home.node + 1}/{name}") for name, home in HOMES.items()]
        everybody = [
            {**item, "addresses": [text.partition("/")[0] for text in item["addresses"]]} for item in everybody
        ]
        given: dict[str, Any] = {"endpoints": everybody, "namespaces": NAMESPACES, **options}
        return [node.call(run.run_policies, documents, "overridden", **given) for node in self.nodes]

    def passing(self, flows: Sequence[Flow], expected: Sequence[Flow]) -> set[tuple[Flow, int]]:
        """Really sent: which of the flows arrive, by position of the family. Waits for those that are expected."""
        numbers: dict[int, tuple[Flow, int]] = {}
        by_source: dict[str, list[Any]] = {}
        for flow in flows:
            for family, (_source, address) in enumerate(flow.pairs):
                self.number += 1
                numbers[self.number] = flow, family
                by_source.setdefault(flow.source, []).append([self.number, flow.kind, address, flow.port])
        places = {place for flow in flows for place in (flow.source, flow.target)}
        for place, probes in by_source.items():
            self.talkers[place].tell("send", probes)
        wanted = {number for number, (flow, _family) in numbers.items() if flow in expected}
        arrived = self._arrived(places, numbers, wanted, time.monotonic() + _PATIENCE)
        if len(wanted) < len(numbers):
            time.sleep(_SILENCE)
            arrived = self._arrived(places, numbers, set(), 0)
        for place in places:
            self.talkers[place].tell("forget")
        return {numbers[number] for number in arrived}

    def _arrived(
        self, places: set[str], numbers: Mapping[int, tuple[Flow, int]], wanted: set[int], deadline: float
    ) -> set[int]:
        while True:
            states = {place: self.talkers[place].state() for place in places}
            found = {
                number
                for number, (flow, _family) in numbers.items()
                if number in states[flow.source][0] or number in states[flow.target][1]
            }
            if wanted <= found or time.monotonic() > deadline:
                return found
            time.sleep(_POLL)

    def explained(self, flows: Sequence[Flow]) -> set[tuple[Flow, int]]:
        """Which of them both nodes say pass, by documents and by kernel alike."""
        denied: set[tuple[Flow, int]] = set()
        asked = [(flow, family, *pair) for flow in flows for family, pair in enumerate(flow.pairs)]
        for index, node in enumerate(self.nodes):
            mine = {name for name, home in HOMES.items() if home.node == index}
            here = [item for item in asked if {item[0].source, item[0].target} & mine]
            answers = node.call(_explain, [(source, flow.question(target)) for flow, _family, source, target in here])
            for (flow, family, _source, _target), (answer,) in zip(here, answers, strict=True):
                assert answer["current"], answer
                assert answer["disagree"] == [], answer
                if any(side["verdict"] == "deny" for side in answer["verdicts"].values()):
                    denied.add((flow, family))
        return {(flow, family) for flow, family, _source, _target in asked} - denied


def _explain(questions: Sequence[tuple[str, str]]) -> list[list[dict[str, Any]]]:
    """In a process that ends with it: the node is read once for all questions."""
    with patch.object(explain, "_world", cache(explain._world)):
        return [explain.explain(source, target) for source, target in questions]


# The second node and its router get addresses of their own; a trunk joins the two routers.
_RENUMBER = f"""
ip addr flush dev {UPLINK} scope global
ip addr add 203.0.113.2/24 dev {UPLINK}
ip addr add fd00:203::2/64 dev {UPLINK} nodad
"""
_RENUMBER_ROUTER = """
ip addr flush dev eth0 scope global
ip addr add 203.0.113.1/24 dev eth0
ip addr add fd00:203::1/64 dev eth0 nodad
ip route add 10.128.4.0/24 via 203.0.113.2
ip route add fd00:128:4::/64 via fd00:203::2
"""
_ROUTE = """
sysctl -qw net.ipv4.conf.all.forwarding=1 net.ipv6.conf.all.forwarding=1
ip addr add 198.51.100.{own}/30 dev trunk
ip addr add fd00:198::{own}/64 dev trunk nodad
ip link set trunk up
for to in {v4}; do ip route replace $to via 198.51.100.{other} src {src4}; done
for to in {v6}; do ip route replace $to via fd00:198::{other} src {src6}; done
"""


def _join(first: Sandbox, second: Sandbox) -> None:
    second.run("sh", "-euc", _RENUMBER)
    second.run("sh", "-euc", _RENUMBER_ROUTER, container=FABRIC)
    far = f"/proc/{second.holder}/root/run/netns/{FABRIC}"
    first.run("ip", "link", "add", "trunk", "type", "veth", "peer", "name", "trunk", "netns", far, container=FABRIC)
    there = {"v4": "10.128.4.0/24 203.0.113.0/24", "v6": "fd00:128:4::/64 fd00:203::/64"}
    back = {"v4": "10.128.3.0/24 192.0.2.0/24", "v6": "fd00:128:3::/64 fd00:192::/64"}
    sides = (
        (first, {"own": 1, "other": 2, "src4": "192.0.2.1", "src6": "fd00:192::1", **there}),
        (second, {"own": 2, "other": 1, "src4": "203.0.113.1", "src6": "fd00:203::1", **back}),
    )
    for node, values in sides:
        node.run("sh", "-euc", _ROUTE.format(**values), container=FABRIC)
        for gateway in (values["src4"], values["src6"]):
            node.run("ip", "route", "add", "default", "via", str(gateway))


@contextmanager
def pair() -> Iterator[Pair]:
    """Everybody is attached, talks, and is not restricted."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(sandbox(OBJECT, 3)) for _number in range(2))
        _join(first, second)
        made = Pair((first, second))
        for index, node in enumerate(made.nodes):
            prefixes = [f"10.128.{3 + index}.0/24", f"fd00:128:{3 + index}::/64"]
            node.dataplane({"uplinks": [{"name": UPLINK}], "prefixes": prefixes})
        made.attach()
        places = {**{name: (home.node, f"c{home.number}") for name, home in HOMES.items()}, **OTHERS}
        made.talkers = {name: Talker(made.nodes[node], place, stack) for name, (node, place) in places.items()}
        yield made
