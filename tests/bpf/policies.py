# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies on the loaded dataplane: tables in its maps, the flows that it knows, and packets between those who talk.

Nothing here waits for packets that are under way: there is one at a time.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, encoding, flows, sides
from ansible_collections.fastpath.node.plugins.module_utils.policy import documents
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Endpoint
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Tables
from tests.bpf import packets
from tests.bpf.dataplane import SHOT, Dataplane, Outcome
from tests.bpf.frames import Family, Flow
from tests.bpf.packets import ICMP, ICMPV6, TCP, UDP
from tests.bpf.topology import (
    C1,
    C2,
    GATEWAY4,
    GATEWAY6,
    GATEWAY_MAC,
    NODE4,
    NODE6,
    UPLINK_MAC,
    WIRE_MAC,
)

CREATED, PROMOTED, CLOSED, EXPIRED, ALLOWED, REVOKED = range(6)  # enum fp_flow_count
FIN, SYN, RST, ACK = 1, 2, 4, 16
CLIENT, SERVER = 40000, 443

# The containers that can be selected; the wire's host is known by no label.
ENDPOINTS = (
    Endpoint("c1", (C1.v4, C1.v6), labels={"app": "c1"}, slot=C1.slot),
    Endpoint("c2", (C2.v4, C2.v6), labels={"app": "c2"}, slot=C2.slot),
)
NODE = (GATEWAY4, GATEWAY6, NODE4, NODE6)

_STATE = struct.Struct("=IIQQ")  # struct fp_policy_state
_FIRST = bytes(4)


@dataclass(frozen=True)
class Who:
    """Somebody who talks: the hook that its packets meet, and the device that they come from."""

    name: str
    hook: str
    device: str
    mac: str
    gateway: str

    def address(self, family: Family) -> str:
        where = {"c1": family.c1, "c2": family.c2, "far": family.far, "host": family.gateway}
        return where[self.name]


ONE = Who("c1", "from_container", "c1", C1.mac, GATEWAY_MAC)
TWO = Who("c2", "from_container", "c2", C2.mac, GATEWAY_MAC)
FAR = Who("far", "from_wire", "up0", WIRE_MAC, UPLINK_MAC)
HOST = Who("host", "from_host", "fastpath0", GATEWAY_MAC, GATEWAY_MAC)


def rule(*peers: str, ports: Sequence[Mapping[str, Any]] = (), side: str = "from", **more: Any) -> dict[str, Any]:
    """A rule for peers given as CIDRs or as a container's name; none: everybody."""
    found: dict[str, Any] = {**more}
    if peers:
        found[side] = [
            {"ipBlock": {"cidr": peer}} if "/" in peer else {"podSelector": {"matchLabels": {"app": peer}}}
            for peer in peers
        ]
    if ports:
        found["ports"] = list(ports)
    return found


def policy(
    subject: str,
    ingress: Sequence[Mapping[str, Any]] | None = None,
    egress: Sequence[Mapping[str, Any]] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A document that selects a container; it isolates each direction whose rules are given. spec: for documents of our
    own kind."""
    content: dict[str, Any] = {"podSelector": {"matchLabels": {"app": subject}}, "policyTypes": []}
    for name, rules in (("ingress", ingress), ("egress", egress)):
        if rules is not None:
            content[name] = list(rules)
            content["policyTypes"].append(name.capitalize())
    if spec:
        content |= spec
        return {
            "apiVersion": "fastpath.node/v1",
            "kind": "FastpathPolicy",
            "metadata": {"name": f"own-{subject}"},
            "spec": content,
        }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": subject},
        "spec": content,
    }


def compiled(*given: Mapping[str, Any]) -> Tables:
    return compile_tables(documents.policies(given), ENDPOINTS, {}, NODE)


def tcp(flags: int, sport: int, dport: int, data: bytes = b"") -> bytes:
    """A segment without a checksum: nobody looks at it."""
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 5 << 4, flags, 512, 0, 0) + data


class Policed:
    """The plane with policies, and without any flow at first; `maps`: where its maps are pinned."""

    def __init__(self, plane: Dataplane, maps: Path) -> None:
        self.plane = plane
        self.maps = maps
        for name, fd in plane.loaded.maps.items():
            bpf.pin(fd, maps / name)
        self.flows, self.young = (bpf.Map(plane.loaded.maps[name]) for name in ("flows", "young"))
        self.rule_counts = bpf.PerCpuMap(plane.loaded.maps["rule_counts"])
        self._state = bpf.Map(plane.loaded.maps["policy_state"])

    @property
    def epoch(self) -> int:
        return int(_STATE.unpack(self._state.get(_FIRST) or b"")[0])

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._state.set(_FIRST, _STATE.pack(epoch, 0, 0, 0))

    def write(self, tables: Tables, side: int) -> None:
        """Fill a side."""
        sides.write(self.maps, side, encoding.encode(tables))

    def hold(self, *given: Mapping[str, Any]) -> Tables:
        """From now on these policies hold."""
        tables = compiled(*given)
        self.switch(tables)
        return tables

    def switch(self, tables: Tables) -> None:
        self.write(tables, (self.epoch + 1) & 1)
        self.epoch += 1

    def redecide(self) -> int:
        return bpf.test_run(self.plane.loaded.programs["redecide"], bytes(64)).retval

    def clear(self) -> None:
        """As if there had never been policies."""
        self.epoch = 0
        for side in (0, 1):
            self.write(Tables(), side)
        flows.forget(self.maps)
        self.rule_counts.delete_many([key for key, _value in self.rule_counts.items()])

    def counts(self) -> list[int]:
        """By FP_FLOW_COUNT_*."""
        with bpf.PerCpuMap.open(self.maps / "flow_counts") as table:
            return [bpf.add_up(value)[0] for _key, value in sorted(table.items())]

    def age(self, seconds: int) -> None:
        """As if all flows and fragments had been seen so much earlier."""
        with bpf.Map.open(self.maps / flows.FRAGMENTED) as fragmented:
            for table, place in ((self.flows, 4), (self.young, 4), (fragmented, 8)):
                for key, value in table.items():
                    seen = int.from_bytes(value[place : place + 4], sys.byteorder) - seconds
                    table.set(key, value[:place] + struct.pack("=I", seen & 0xFFFFFFFF) + value[place + 4 :])

    def states(self) -> list[tuple[str, int]]:
        """(map, flags) of all flows."""
        tables = (("flows", self.flows), ("young", self.young))
        return [(name, flows.VALUE.unpack(value)[2]) for name, table in tables for _key, value in table.items()]

    def frame(self, family: Family, sender: Who, receiver: Who, payload: bytes, proto: int, **changes: Any) -> bytes:
        """changes: of the frame's Flow."""
        flow = Flow(sender.address(family), receiver.address(family), sender.mac, sender.gateway)
        return flow.with_(**changes).carrying(payload, proto)

    def run(self, sender: Who, frame: bytes) -> Outcome:
        return self.plane.run(sender.hook, frame, device=sender.device)

    def send(self, family: Family, sender: Who, receiver: Who, payload: bytes, proto: int, **changes: Any) -> str:
        """What frame() makes: "" when it goes on, else why it was dropped."""
        out = self.run(sender, self.frame(family, sender, receiver, payload, proto, **changes))
        assert (out.verdict == SHOT) == (out.dropped is not None)
        assert out.reply is None
        return out.dropped or ""


@dataclass(frozen=True)
class Talk:
    """Two who talk: what the first one sends goes to the port `server`. A result is "" or why it was dropped."""

    policed: Policed
    family: Family
    one: Who
    two: Who
    client: int = CLIENT
    server: int = SERVER

    def tcp(self, flags: int, back: bool = False) -> str:
        src, dst = (self.two, self.one) if back else (self.one, self.two)
        ports = (self.server, self.client) if back else (self.client, self.server)
        return self.policed.send(self.family, src, dst, tcp(flags, *ports), TCP)

    def udp(self, back: bool = False) -> str:
        src, dst = (self.two, self.one) if back else (self.one, self.two)
        ports = (self.server, self.client) if back else (self.client, self.server)
        ends = src.address(self.family), dst.address(self.family)
        return self.policed.send(self.family, src, dst, packets.udp(*ends, b"data", *ports), UDP)

    def ping(self, back: bool = False, reply: bool = False) -> str:
        """back: the second one sends; reply: it sends a reply."""
        src, dst = (self.two, self.one) if back else (self.one, self.two)
        if self.family.icmp == ICMP:
            return self.policed.send(self.family, src, dst, packets.icmp(0 if reply else 8), ICMP)
        message = packets.icmpv6(src.address(self.family), dst.address(self.family), 129 if reply else 128)
        return self.policed.send(self.family, src, dst, message, ICMPV6)

    def connect(self) -> list[str]:
        """The handshake."""
        return [self.tcp(SYN), self.tcp(SYN | ACK, back=True), self.tcp(ACK)]

    def close(self) -> list[str]:
        return [self.tcp(FIN | ACK), self.tcp(FIN | ACK, back=True), self.tcp(ACK)]


@contextmanager
def policed(plane: Dataplane) -> Iterator[Policed]:
    """For a while; at the end there are no policies again."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
        try:
            made = Policed(plane, Path(directory))
            yield made
            made.clear()
        finally:
            subprocess.run(["umount", directory], check=True)
