# SPDX-License-Identifier: GPL-3.0-or-later
"""All rules of all policies, with their numbers, and the groups of peers that they name. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .model import DIRECTIONS, EGRESS, Block, NamedPort, Peers, Pods, Policy, Port, Rule
from .numbers import Numbers, Space, assign, digest
from .ports import EVERYTHING, stretch
from .select import Profile, Selection
from .tables import RuleName

Line = tuple[int, int]


class Item(NamedTuple):
    """A rule as compiled. Ports with names are kept apart: they depend on the destination."""

    name: RuleName
    number: int
    group: int | None  # position in Groups; None: everybody
    allow: bool
    lines: tuple[Line, ...]
    named: tuple[tuple[str, str], ...]  # name, protocol
    policy: Policy


@dataclass
class Groups:
    """Distinct peers, and who has a named port that an egress rule names. Positions are local, numbers stay."""

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
    group_numbers: tuple[int, ...]  # by position
    numbers: Numbers


def read(policies: Sequence[Policy], profiles: Sequence[Profile], previous: Numbers, space: Space) -> Book:
    """Number the rules and the groups of all policies."""
    groups = Groups({}, [], {})
    wanted: dict[str, list[tuple[int, int]]] = {}
    for policy, direction, rules in _places(policies):
        wanted[_place(policy, direction)] = [_contents(rule, groups) for rule in rules]
    _name_ports(policies, profiles, groups)
    group_space = Space(1 << 32)
    numbers = assign(wanted, groups.digests, previous, space, group_space)
    items: dict[tuple[tuple[str, str, str], int], tuple[Item, ...]] = {}
    for policy, direction, _rules in _places(policies):
        known = numbers.rules[_place(policy, direction)]
        items[policy.key, direction] = tuple(
            _item(policy, direction, index, item.number, groups) for index, item in enumerate(known)
        )
    return Book(items, groups, tuple(numbers.groups[content] for content in groups.digests), numbers)


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


def isolation(policy: Policy, direction: int, space: Space) -> tuple[RuleName, int]:
    """What denies where a policy isolates and no rule allows."""
    name = RuleName(policy.kind, policy.namespace, policy.name, direction, None)
    return name, space.give(digest(f"{_place(policy, direction)} isolates"))


def _places(policies: Sequence[Policy]) -> list[tuple[Policy, int, tuple[Rule, ...]]]:
    return [
        (policy, direction, rules)
        for policy in policies
        for direction, rules in enumerate(policy.rules)
        if rules is not None
    ]


def _place(policy: Policy, direction: int) -> str:
    return f"{policy.kind} {policy.namespace}/{policy.name} {DIRECTIONS[direction]}"


def _contents(rule: Rule, groups: Groups) -> tuple[int, int]:
    peers = groups.digests[groups.position(rule.peers)] if rule.peers else 0
    return digest(f"{peers} {rule.ports} {rule.allow}"), peers


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


def _item(policy: Policy, direction: int, index: int, number: int, groups: Groups) -> Item:
    rule = (policy.rules[direction] or ())[index]
    lines, named = _ports(rule.ports)
    name = RuleName(policy.kind, policy.namespace, policy.name, direction, index)
    group = groups.positions[rule.peers] if rule.peers else None
    return Item(name, number, group, rule.allow, lines, named, policy)


def _ports(ports: Sequence[Port] | None) -> tuple[tuple[Line, ...], tuple[tuple[str, str], ...]]:
    if ports is None:
        return (EVERYTHING,), ()
    lines = tuple(stretch(port) for port in ports if not port.name)
    return lines, tuple((port.name, port.protocol) for port in ports if port.name)
