# SPDX-License-Identifier: GPL-3.0-or-later
"""What the table of the device must do, written down once more: rules as tc takes them, and what becomes of a frame."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.nic.inside.frames import ETH_TYPE, VLAN, Frame

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
TYPES = {"ip": 0x0800, "ipv6": 0x86DD}

# A key of flower and what is asked of it, as tc writes it.
Match = Mapping[str, str]


@dataclass(frozen=True)
class Action:
    """One action: drop, trap, goto, redirect, mirror, push, pop, modify, macs, ttl, hops.

    The arguments are a port, or the id and priority of a tag, or MACs, or "set"/"add" and a number.
    """

    name: str
    arguments: tuple[str, ...] = ()

    def words(self, devices: Mapping[str, str]) -> str:
        """As tc takes it; devices: names of the netdevs of ports."""
        return _WORDS.get(self.name, f"action {self.name}").format(
            *(devices.get(word, word) for word in self.arguments)
        )


_WORDS = {
    "redirect": "action mirred egress redirect dev {0}",
    "mirror": "action mirred egress mirror dev {0}",
    "goto": "action goto chain 1",
    "push": "action vlan push id {0} priority {1} pipe",
    "modify": "action vlan modify id {0} priority {1} pipe",
    "pop": "action vlan pop pipe",
    "macs": "action pedit ex munge eth dst set {0} munge eth src set {1} pipe",
    "ttl": "action pedit ex munge ip ttl {0} {1} pipe action csum ip pipe",
    "hops": "action pedit ex munge ip6 hoplimit {0} {1} pipe",
}


@dataclass(frozen=True)
class Rule:
    """A flower rule of one port."""

    chain: int
    preference: int
    handle: int
    protocol: str  # all, ip, ipv6, 802.1Q
    match: Match
    actions: tuple[Action, ...]

    def words(self, device: str, devices: Mapping[str, str]) -> str:
        """The line for tc -batch."""
        keys = " ".join(f"{key} {value}" for key, value in self.match.items())
        actions = " ".join(action.words(devices) for action in self.actions)
        return (
            f"filter add dev {device} ingress protocol {self.protocol} prio {self.preference} chain {self.chain} "
            f"handle {self.handle} flower skip_sw {keys} {actions}"
        )

    def matches(self, frame: Frame) -> bool:
        if self.protocol == "802.1Q" and not frame.tags:
            return False
        if self.protocol in TYPES and (frame.tags or ETH_TYPE[frame.version] != TYPES[self.protocol]):
            return False
        return all(_KEYS[key](frame, value) for key, value in self.match.items())


def _masked(value: int, wish: str, full: int) -> bool:
    number, _slash, mask = wish.partition("/")
    bits = int(mask, 0) if mask else full
    return value & bits == int(number, 0) & bits


def _mac(value: bytes, wish: str) -> bool:
    address, _slash, mask = wish.partition("/")
    bits = int((mask or "ff:ff:ff:ff:ff:ff").replace(":", ""), 16)
    return int.from_bytes(value, "big") & bits == int(address.replace(":", ""), 16) & bits


def _has_network(frame: Frame) -> bool:
    return len(frame.tags) < 2 and frame.version in (4, 6)


def _has_transport(frame: Frame) -> bool:
    return _has_network(frame) and frame.fragment == "no"


def _address(frame: Frame, value: str, wish: str) -> bool:
    return _has_network(frame) and ipaddress.ip_address(value) in ipaddress.ip_network(wish, strict=False)


def _port(frame: Frame, value: int, wish: str) -> bool:
    # A field that a frame does not have is zero.
    return _masked(value if _has_transport(frame) else 0, wish, 0xFFFF)


def _icmp(frame: Frame, value: int, wish: str) -> bool:
    return _masked(value if _has_transport(frame) else 0, wish, 0xFF)


def _fragments(frame: Frame, wish: str) -> bool:
    some, first = frame.fragment != "no" and _has_network(frame), frame.fragment == "first" and _has_network(frame)
    return {"frag": some, "nofrag": not some, "firstfrag": first, "nofirstfrag": not first}[wish]


def _inner_type(frame: Frame) -> int:
    return VLAN if len(frame.tags) > 1 else ETH_TYPE[frame.version]


_KEYS: dict[str, Callable[[Frame, str], bool]] = {
    "dst_mac": lambda frame, wish: _mac(frame.dst_mac, wish),
    "src_mac": lambda frame, wish: _mac(frame.src_mac, wish),
    "vlan_id": lambda frame, wish: frame.tags[0][1] == int(wish),
    "vlan_prio": lambda frame, wish: frame.tags[0][0] == int(wish),
    "vlan_ethtype": lambda frame, wish: _inner_type(frame) == TYPES[wish],
    "src_ip": lambda frame, wish: _address(frame, frame.src, wish),
    "dst_ip": lambda frame, wish: _address(frame, frame.dst, wish),
    "ip_proto": lambda frame, wish: _has_network(frame) and frame.protocol == PROTOCOLS[wish],
    "ip_tos": lambda frame, wish: _has_network(frame) and _masked(frame.tos, wish, 0xFF),
    "ip_ttl": lambda frame, wish: _has_network(frame) and _masked(frame.ttl, wish, 0xFF),
    "ip_flags": _fragments,
    "src_port": lambda frame, wish: _port(frame, frame.src_port, wish),
    "dst_port": lambda frame, wish: _port(frame, frame.dst_port, wish),
    "type": lambda frame, wish: _icmp(frame, frame.src_port, wish),
    "code": lambda frame, wish: _icmp(frame, frame.dst_port, wish),
    "tcp_flags": lambda frame, wish: _masked(
        frame.tcp_flags if _has_transport(frame) and frame.protocol == socket.IPPROTO_TCP else 0, wish, 0xFFF
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Where a frame arrives, as what; which rules it hit, with how many bytes."""

    arrivals: tuple[tuple[str, bytes], ...]
    hits: tuple[tuple[Rule, int], ...]


def outcome(rules: Sequence[Rule], frame: Frame, near: str) -> Outcome:
    """What becomes of a frame that comes in by the port of these rules; near is the end of the host."""
    arrivals: list[tuple[str, bytes]] = []
    hits: list[tuple[Rule, int]] = []
    current = frame
    for chain in (0, 1):
        found = [rule for rule in rules if rule.chain == chain and rule.matches(current)]
        if not found:
            return Outcome((*arrivals, (near, frame.pack())), tuple(hits))
        rule = min(found, key=lambda rule: rule.preference)
        hits.append((rule, len(current.pack())))
        for action in rule.actions:
            if action.name == "goto":
                break
            if action.name in {"redirect", "mirror"}:
                arrivals.append((action.arguments[0], current.pack()))
            if action.name == "trap":
                arrivals.append((near, current.pack()))
            changed = _changed(current, action)
            if action.name in {"redirect", "trap", "drop"} or changed is None:
                return Outcome(tuple(arrivals), tuple(hits))
            current = changed
        else:
            return Outcome(tuple(arrivals), tuple(hits))
    raise AssertionError("there are two chains")


def _changed(frame: Frame, action: Action) -> Frame | None:
    """The frame after an action; None if the device drops it, for there is nothing to change."""
    if action.name in {"ttl", "hops"}:
        how, number = action.arguments
        ttl = (int(number) + (frame.ttl if how == "add" else 0)) & 0xFF
        return replace(frame, ttl=ttl) if _has_network(frame) else None
    if action.name == "macs":
        dst, src = (bytes.fromhex(address.replace(":", "")) for address in action.arguments)
        return replace(frame, dst_mac=dst, src_mac=src)
    return replace(frame, tags=_changed_tags(frame.tags, action))


def _changed_tags(tags: tuple[tuple[int, int], ...], action: Action) -> tuple[tuple[int, int], ...]:
    match action.name:
        case "push":
            number, priority = action.arguments
            return ((int(priority), int(number)), *tags)
        case "pop":
            return tags[1:]
        case "modify" if tags:
            number, priority = action.arguments
            return ((int(priority), int(number)), *tags[1:])
    return tags
