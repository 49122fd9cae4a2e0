# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers of the node are one subject: the same policies select them in a direction. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .model import DIRECTIONS, INGRESS, Pods, Policy
from .numbers import Space, digest
from .select import Profile, Selection

Ports = Mapping[tuple[str, str], int]  # name, protocol -> port


@dataclass
class Group:
    """A subject before it has a number. Towards the container its own named ports matter too, else they are None."""

    direction: int
    policies: tuple[Policy, ...]
    ports: Ports | None
    slots: list[int] = field(default_factory=list)

    @property
    def content(self) -> int:
        keys = " ".join("/".join(policy.key) for policy in self.policies)
        return digest(f"{DIRECTIONS[self.direction]} {sorted((self.ports or {}).items())} {keys}")


def group(
    policies: Sequence[Policy],
    profiles: Sequence[Profile],
    slots: Mapping[int, Sequence[int]],
    selection: Selection,
) -> list[Group]:
    """Subjects; slots: those that have a profile, by its position. Who is not in any is not restricted."""
    selectors: dict[Pods, list[int]] = defaultdict(list)
    for number, policy in enumerate(policies):
        selectors[Pods(policy.namespace, policy.pods)].append(number)
    chosen: dict[int, list[int]] = defaultdict(list)
    for number, pods in enumerate(selectors):
        for position in selection.select(pods):
            if position in slots:
                chosen[position].append(number)
    applying = _Applying(policies, list(selectors.values()))
    found: dict[tuple[int, int, tuple[tuple[tuple[str, str], int], ...]], Group] = {}
    for position, numbers in sorted(chosen.items()):
        for direction in range(len(DIRECTIONS)):
            some, which, names = applying.of(tuple(numbers), direction)
            if which:
                ports = {(p.name, p.protocol): p.port for p in profiles[position][2] if (p.name, p.protocol) in names}
                known = ports if direction == INGRESS else None
                key = (direction, some, tuple(sorted((known or {}).items())))
                found.setdefault(key, Group(direction, which, known)).slots.extend(slots[position])
    return list(found.values())


class _Applying:
    """The policies of a set of selectors that say something about a direction, each combination looked at once."""

    def __init__(self, policies: Sequence[Policy], selected: Sequence[Sequence[int]]) -> None:
        self._policies = policies
        self._selected = selected
        self._known: dict[tuple[tuple[int, ...], int], tuple[int, tuple[Policy, ...], frozenset[tuple[str, str]]]] = {}
        self._numbers: dict[tuple[int, ...], int] = {}

    def of(
        self, selectors: tuple[int, ...], direction: int
    ) -> tuple[int, tuple[Policy, ...], frozenset[tuple[str, str]]]:
        """A number that stands for the policies, they themselves in their order, and the port names that they use."""
        found = self._known.get((selectors, direction))
        if found is None:
            numbers = sorted(number for selector in selectors for number in self._selected[selector])
            numbers = [number for number in numbers if self._policies[number].rules[direction] is not None]
            policies = tuple(self._policies[number] for number in numbers)
            some = self._numbers.setdefault(tuple(numbers), len(self._numbers))
            found = self._known[selectors, direction] = (some, policies, _names(policies, direction))
        return found


def _names(policies: Sequence[Policy], direction: int) -> frozenset[tuple[str, str]]:
    return frozenset(
        (port.name, port.protocol)
        for policy in policies
        for rule in policy.rules[direction] or ()
        for port in rule.ports or ()
        if port.name
    )


def number(groups: Sequence[Group]) -> list[int]:
    """Numbers by content."""
    space = Space(1 << 32)
    return [space.give(item.content) for item in groups]
