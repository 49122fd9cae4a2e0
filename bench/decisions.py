# SPDX-License-Identifier: GPL-3.0-or-later
"""What a number of rules costs our program per packet, by BPF_PROG_TEST_RUN; what it takes to load them, and memory.

The container has so many rules, each about a peer of its own, and packets come from the wire.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median
from time import monotonic, process_time

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath, policy
from ansible_collections.fastpath.node.plugins.module_utils.kernel.netns import entered
from ansible_collections.fastpath.node.plugins.module_utils.kernel.sides import Side
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Tables
from bench import fastpath, rules, topology
from bench.datapath import rotated
from bench.driver import OK, REDIRECT, Drive, Peer, Plan, driver
from bench.programs import one_core
from bench.rules import CIDRS, EXACT, Rule
from bench.topology import VETH

COUNTS = (10, 1_000, 10_000, 100_000)
HOT = 64
ROUNDS = 7
SERVERS = {4: topology.SERVER, 6: "fd00:128:9::12"}
_UNANSWERED = 8192  # flows at a time, far fewer than the node remembers
_SLOT = 1  # of the server
_MAC = topology.CONTAINERS[_SLOT][2]


@dataclass(frozen=True)
class Case:
    """What packets ask of the program, and whether peers are a few or at random among all that have rules."""

    title: str
    program: str
    hot: bool
    fresh: bool = False
    verdict: int = REDIRECT

    @property
    def key(self) -> str:
        return f"{self.title}, {'hot' if self.hot else 'random'}"


CASES = tuple(
    replace(case, hot=hot)
    for case in (
        Case("established flow", datapath.FROM_WIRE, True),
        Case("first packet", datapath.FROM_WIRE, True, fresh=True),
        Case("decision alone", "asked", True, fresh=True, verdict=OK),
    )
    for hot in (True, False)
)

# Many rules must not look dear because of many flows: only hot peers have one, until the cases about all peers' flows.
_MANY = tuple(case for case in CASES if not case.hot and not case.fresh)
_FEW = tuple(case for case in CASES if case not in _MANY)


@dataclass(frozen=True)
class Load:
    """CPU seconds to compile rules, seconds until they hold, and how many entries of maps that set or deleted."""

    what: str
    compiled: float
    published: float
    written: int


@dataclass(frozen=True)
class Cost:
    """Of rules of a kind and a family: ns by case, number of rules and round; loading all and changing one, by
    number of rules; bytes by map."""

    version: int
    kind: str
    samples: Mapping[str, Mapping[int, Sequence[float]]]
    loads: Sequence[Load]
    memory: Mapping[int, Mapping[str, int]]

    @property
    def title(self) -> str:
        return f"IPv{self.version}, {self.kind}"

    @property
    def counts(self) -> list[int]:
        return list(self.memory)

    def of(self, case: Case, count: int) -> float:
        return median(self.samples[case.key][count])

    def growth(self, case: Case, count: int) -> float:
        """How many times that of the fewest rules; the median over rounds, since noise hits a whole round."""
        values, bases = self.samples[case.key][count], self.samples[case.key][self.counts[0]]
        return median(value / base for value, base in zip(values, bases, strict=True))

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(report: Callable[[str], None]) -> list[Cost]:
    """For both families and kinds of peers; nodes with all numbers of rules are interleaved, on one core."""
    with one_core():
        return [_measure(version, kind, report) for version in SERVERS for kind in (EXACT, CIDRS)]


def _measure(version: int, kind: str, report: Callable[[str], None]) -> Cost:
    title = f"IPv{version} {kind}"
    samples: dict[str, dict[int, list[float]]] = {case.key: {count: [] for count in COUNTS} for case in CASES}
    with ExitStack() as stack:
        nodes = {}
        for count in COUNTS:
            report(f"{title}: loading {count:,} rules")
            nodes[count] = stack.enter_context(_node(version, kind, count))
        for flows, cases in ((HOT, _FEW), (max(COUNTS), _MANY)):
            for node in nodes.values():
                node.establish(flows)
            for index in range(ROUNDS):
                report(f"{title}: round {index + 1} of {ROUNDS}")
                for case in cases:
                    for count in rotated(COUNTS, index):
                        samples[case.key][count].append(nodes[count].time(case))
        memory = {count: _memory(node.programs) for count, node in nodes.items()}
    return Cost(version, kind, samples, [load for node in nodes.values() for load in node.loads], memory)


@dataclass(frozen=True)
class _Node:
    """Programs with rules, and packets for them."""

    programs: bpf.LoadedObject
    drive: Drive
    plan: Plan
    loads: Sequence[Load]

    def time(self, case: Case) -> float:
        """ns of a packet without what it costs to make it."""
        peers = min(HOT, self.plan.peers) if case.hot else self.plan.peers
        plan = replace(self.plan, fresh=case.fresh, peers=peers)
        base = self.drive(None, plan)
        return self.drive(self.programs.programs[case.program], plan, verdict=case.verdict) - base

    def establish(self, most: int) -> None:
        """There and back once for each peer; to some there is no route, but the flow has been answered by then."""
        there, back = (self.programs.programs[hook] for hook in (datapath.FROM_WIRE, datapath.FROM_CONTAINER))
        peers = min(most, self.plan.peers)
        for turn in range(0, peers, _UNANSWERED):
            plan, repeat = replace(self.plan, in_turn=True, turn=turn), min(_UNANSWERED, peers - turn)
            self.drive(there, plan, repeat)
            self.drive(back, replace(plan, outward=True), repeat, verdict=None)
        with bpf.Map(os.dup(self.programs.maps["flows"])) as flows:
            if (found := len(flows.items())) != peers:
                raise RuntimeError(f"{found} flows are established, not {peers}")


@contextmanager
def _node(version: int, kind: str, count: int) -> Iterator[_Node]:
    wanted = rules.scattered(count, kind, version)
    peers = [Peer(rules.member(rule), rule.port) for rule in wanted]
    with topology.prepared(VETH, f"rules-{count}") as net, entered(str(topology.path(net.node))):
        router, server = (socket.if_nametoindex(name) for name in (topology.ROUTER, topology.CONTAINERS[_SLOT][0]))
        with fastpath.load(router) as programs, driver(peers) as drive:
            row = datapath.Endpoint(server, _SLOT, _MAC, topology.MTU)
            fastpath.publish(programs, {SERVERS[version]: row})
            with fastpath.place(programs) as place:
                loads = _load(wanted, SERVERS[version], place)
            yield _Node(programs, drive, Plan(SERVERS[version], _MAC, server, count), loads)


def _load(wanted: Sequence[Rule], server: str, place: policy.Place) -> list[Load]:
    """All rules, of which one is another at first. Between the two both sides get them, as they have after a while.

    What they hold is read in each run, to verify it, whether or not something changes: that is not in the figures.
    """
    first = [replace(wanted[0], port=wanted[0].port + 1), *wanted[1:]]
    before, after = rules.document(first), rules.document(wanted)
    cpu = process_time()
    tables = fastpath.whole(before, server)
    all_ = _publish(f"{len(wanted):,} rules", process_time() - cpu, tables, place)
    policy.publish(tables, 1, {}, place)
    known = policy.read(place)
    cpu = process_time()
    side = fastpath.changed(known, before, after, server)
    return [all_, _publish("one of them changes", process_time() - cpu, side, place, known)]


def _publish(
    what: str, cpu: float, wanted: Tables | Side, place: policy.Place, known: policy.Installed | None = None
) -> Load:
    start = monotonic()
    done = policy.publish(wanted, 1, {}, place, known)
    return Load(what, cpu, monotonic() - start, done.written)


def _memory(programs: bpf.LoadedObject) -> dict[str, int]:
    """Bytes that each map takes, and for a map of maps also those in it."""
    found = {name: fastpath.memory(fd) for name, fd in programs.maps.items()}
    with bpf.Map(os.dup(programs.maps["tries"])) as tries:
        for _side, number in sorted(tries.items()):
            with bpf.map_by_id(int.from_bytes(number, sys.byteorder)) as inner:
                found["tries"] += fastpath.memory(inner)
    return found
