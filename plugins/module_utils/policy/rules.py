# SPDX-License-Identifier: GPL-3.0-or-later
"""All rules of all policies, with their numbers, and the groups of peers that they name. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .model import DIRECTIONS, EGRESS, Block, NamedPort, Peers, Pods, Policy, Port, Rule
from .numbers import digest
from .ports import EVERYTHING, stretch
from .select import Profile, Selection
from .tables import RuleName

Line = tuple[int, int]


class Item(NamedTuple):
    """A rule as compiled. Ports with names are kept apart: they depend on the destination."""

    name: RuleName
    content: int  # a digest; the same rule twice in a policy is one
    group: int | None  # position in Groups; None: everybody
    allow: bool
    lines: tuple[Line, ...]
    named: tuple[tuple[str, str], ...]  # name, protocol
    policy: Policy


@dataclass
class Groups:
    """Distinct peers, and who has a named port that an egress rule names."""

    positions: dict[Peers | NamedPort, int]
    digests: list[int]
    named: dict[tuple[str, str], dict[int, int]]  # name, protocol -> group -> port

    def position(self, peers: Peers | NamedPort) -> int:
        found = self.positions.setdefault(peers, len(self.positions))
        if found == len(self.digests):
            self.digests.append(digest(repr(peers)))
        return found


@dataclass(frozen=True)
class Book:
    """What was made of the policies."""

    items: Mapping[tuple[tuple[str, str, str], int], tuple[Item, ...]]  # by policy and direction
    groups: Groups


def read(policies: Sequence[Policy], profiles: Sequence[Profile]) -> Book:
    """The rules and the groups of all policies."""
    groups = Groups({}, [], {})
    items: dict[tuple[tuple[str, str, str], int], tuple[Item, ...]] = {}
    for policy, direction, rules in _places(policies):
        place = _place(policy, direction)
        items[policy.key, direction] = tuple(
            _item(policy, direction, index, rule, place, groups) for index, rule in enumerate(rules)
        )
    _name_ports(policies, profiles, groups)
    return Book(items, groups)


def blocks(groups: Groups) -> dict[Block, list[int]]:
    """The groups of each block."""
    found: dict[Block, list[int]] = {}
    for peers, group in groups.positions.items():
        for peer in peers or ():
            if isinstance(peer, Block):
                found.setdefault(peer, []).append(group)
    return found


def labelled(groups: Groups, profiles: Sequence[Profile], selection: Selection) -> list[frozenset[int]]:
    """The groups that select each profile by its labels or its named ports."""
    found: list[set[int]] = [set() for _profile in profiles]
    selected: dict[Pods, list[int]] = {}
    for peers, group in groups.positions.items():
        for peer in peers or ():
            if isinstance(peer, Pods):
                if peer not in selected:
                    selected[peer] = selection.select(peer)
                for position in selected[peer]:
                    found[position].add(group)
    for position, (_namespace, _labels, ports) in enumerate(profiles):
        for port in ports:
            group_of = groups.positions.get(port)
            if group_of is not None:
                found[position].add(group_of)
    return [frozenset(item) for item in found]


def isolation(policy: Policy, direction: int) -> tuple[RuleName, int]:
    """What denies where a policy isolates and no rule allows; and the digest of that."""
    name = RuleName(policy.kind, policy.namespace, policy.name, direction, None)
    return name, digest(f"{_place(policy, direction)} isolates")


def _places(policies: Sequence[Policy]) -> list[tuple[Policy, int, tuple[Rule, ...]]]:
    return [
        (policy, direction, rules)
        for policy in policies
        for direction, rules in enumerate(policy.rules)
        if rules is not None
    ]


def _place(policy: Policy, direction: int) -> str:
    return f"{policy.kind} {policy.namespace}/{policy.name} {DIRECTIONS[direction]}"


def _name_ports(policies: Sequence[Policy], profiles: Sequence[Profile], groups: Groups) -> None:
    """A group for each port that an egress rule may mean by a name."""
    for _policy, direction, rules in _places(policies):
        if direction == EGRESS:
            for rule in rules:
                for port in rule.ports or ():
                    if port.name:
                        groups.named.setdefault((port.name, port.protocol), {})
    for _namespace, _labels, ports in profiles:
        for port_ in ports:
            meant = groups.named.get((port_.name, port_.protocol))
            if meant is not None:
                meant[groups.position(port_)] = port_.port


def _item(policy: Policy, direction: int, index: int, rule: Rule, place: str, groups: Groups) -> Item:
    lines, named = _ports(rule.ports)
    name = RuleName(policy.kind, policy.namespace, policy.name, direction, index)
    group = groups.position(rule.peers) if rule.peers else None
    peers = 0 if group is None else groups.digests[group]
    content = digest(f"{place} {peers} {rule.ports} {rule.allow}")
    return Item(name, content, group, rule.allow, lines, named, policy)


def _ports(ports: Sequence[Port] | None) -> tuple[tuple[Line, ...], tuple[tuple[str, str], ...]]:
    if ports is None:
        return (EVERYTHING,), ()
    lines = tuple(stretch(port) for port in ports if not port.name)
    return lines, tuple((port.name, port.protocol) for port in ports if port.name)
