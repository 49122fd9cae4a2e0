# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's own firewalls in front of routed containers. They accept what is established, then ask their rules."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic

from bench import rules, topology
from bench.rules import CIDRS, EXACT, Rule
from bench.topology import Way

MAP, CIDR_MAP = "nft map", "nft map, CIDRs"


@dataclass(frozen=True)
class Firewall:
    """How rules get into the kernel; kind: of their peers."""

    command: tuple[str, ...]
    text: Callable[[Sequence[Rule], str], str]
    kind: str = EXACT


# A list takes as long for an address as for a CIDR.
FIREWALLS: Mapping[str, Firewall] = {
    "iptables-legacy": Firewall(("iptables-legacy-restore",), rules.iptables),
    "iptables-nft": Firewall(("iptables-nft-restore",), rules.iptables),
    MAP: Firewall(("nft", "-f", "-"), rules.nftables),
    CIDR_MAP: Firewall(("nft", "-f", "-"), rules.nftables, CIDRS),
}


def way(name: str, count: int, loaded: Callable[[float], None]) -> AbstractContextManager[Way]:
    """A router with `count` rules of the named firewall; loaded: is told how many seconds reading them took."""
    firewall = FIREWALLS[name]

    def load(netns: str) -> None:
        text = firewall.text(rules.traffic(count, firewall.kind), firewall.kind)
        start = monotonic()
        enter = ("nsenter", f"--net={topology.path(netns)}")
        subprocess.run([*enter, *firewall.command], input=text, check=True, text=True)
        loaded(monotonic() - start)

    return topology.routed(name.replace(" ", "-").replace(",", ""), load)
