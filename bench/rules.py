# SPDX-License-Identifier: GPL-3.0-or-later
"""One set of rules in every language that is compared: which peer may reach which port of the server.

Each rule is about a peer of its own. The client's rules, by which the measured traffic passes, are the last ones: a
list is asked as far as that, a map does not care.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from bench.topology import CLIENT, SERVER

EXACT, CIDRS = "addresses", "CIDRs"
PORT = 7007  # of the traffic, see load.c


@dataclass(frozen=True)
class Rule:
    """A peer, an address or a CIDR, may reach this port."""

    peer: str
    protocol: str  # tcp or udp
    port: int


CLIENTS = (Rule(CLIENT, "tcp", PORT), Rule(CLIENT, "udp", PORT))


class _Room(NamedTuple):
    """Where peers live, each one within a block of its own; the last is how long CIDRs may be."""

    first: int
    size: int
    bits: int
    block: int  # length of its prefix
    longest: int


_ROOMS = {
    4: _Room(int(ipaddress.ip_address("64.0.0.0")), 1 << 29, 32, 22, 28),
    6: _Room(int(ipaddress.ip_address("2400::")), 1 << 116, 128, 40, 64),
}


def scattered(count: int, kind: str, version: int) -> list[Rule]:
    """`count` rules about peers that lie all over their room and not within each other: the same in every run."""
    room = _ROOMS[version]
    found: dict[int, Rule] = {}
    for number in itertools.count():
        if len(found) == count:
            break
        some = int.from_bytes(blake2b(str(number).encode(), digest_size=16).digest(), "big")
        address = room.first + some % room.size
        length = room.bits if kind == EXACT else room.block + (some >> 120) % (room.longest - room.block + 1)
        peer = ipaddress.ip_network((address, length), strict=False)
        rule = Rule(str(peer.network_address if kind == EXACT else peer), "udp", 1024 + number % 1000)
        found.setdefault(address >> (room.bits - room.block), rule)
    return list(found.values())


def traffic(count: int, kind: str) -> list[Rule]:
    """`count` rules, the client's at the end."""
    return [*scattered(count - len(CLIENTS), kind, 4), *CLIENTS]


def member(rule: Rule) -> str:
    """An address that the rule is about."""
    return str(ipaddress.ip_network(rule.peer)[-1])


def document(rules: Iterable[Rule]) -> dict[str, Any]:
    """As a NetworkPolicy for the containers that are labelled as a server."""
    ingress = [{"from": [{"ipBlock": {"cidr": _cidr(rule.peer)}}], "ports": [_port(rule)]} for rule in rules]
    spec = {"podSelector": {"matchLabels": {"role": "server"}}, "policyTypes": ["Ingress"], "ingress": ingress}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "bench"}, "spec": spec}


def _port(rule: Rule) -> dict[str, Any]:
    return {"protocol": rule.protocol.upper(), "port": rule.port}


def _cidr(peer: str) -> str:
    return str(ipaddress.ip_network(peer))


def iptables(rules: Iterable[Rule], _kind: str) -> str:
    """For iptables-restore, legacy or nft: a chain for the server, what is established before it."""
    chain = "\n".join(f"-A server -s {r.peer} -p {r.protocol} --dport {r.port} -j ACCEPT" for r in rules)
    return f"""*filter
:FORWARD ACCEPT
:server -
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -d {SERVER} -j server
{chain}
-A server -j DROP
COMMIT
"""


def nftables(rules: Sequence[Rule], kind: str) -> str:
    """For nft: one lookup in a map of verdicts, a hash for addresses and an interval set for CIDRs."""
    elements = ",\n".join(f"{rule.peer} . {rule.protocol} . {rule.port} : accept" for rule in rules)
    return f"""table ip bench {{
map server {{
type ipv4_addr . inet_proto . inet_service : verdict
{"flags interval" if kind == CIDRS else ""}
elements = {{ {elements} }}
}}
chain server {{
ip saddr . meta l4proto . th dport vmap @server
drop
}}
chain forward {{
type filter hook forward priority filter; policy accept
ct state established,related accept
ip daddr vmap {{ {SERVER} : jump server }}
}}
}}
"""
