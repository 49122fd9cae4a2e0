# SPDX-License-Identifier: GPL-3.0-or-later
"""From groups of peers to classes of addresses. Pure.

A group is the peers of a rule. Two addresses are of one class if they are in the same groups. So a group of 100,000
prefixes makes few classes, and nested prefixes are resolved here: each one carries all the groups of those around it.

A group is broad if it covers many other things that policies tell apart, like 10.0.0.0/8 around 100,000 prefixes of
other rules. A policy that uses only broad groups must not have a row for each class inside: so a class keeps its broad
groups apart, and they are a class as well, which is asked second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Callable, Generic, NamedTuple, TypeVar

from .model import BITS, Address, Block, Prefix

BROAD = 256  # things inside, from which on a group is broad

_NOTHING: frozenset[int] = frozenset()


class PeerClass(NamedTuple):
    """Addresses that are in exactly these groups."""

    narrow: frozenset[int] = _NOTHING
    broad: frozenset[int] = _NOTHING


def host(address: Address) -> Prefix:
    """The prefix of one address."""
    return Prefix(address[0], address[1], BITS[address[0]])


def nodes(blocks: Iterable[Block], owners: Iterable[Prefix]) -> list[Prefix]:
    """All that policies tell apart, in order. owners: the known addresses."""
    found = set(owners)
    for block in blocks:
        found.add(block.cidr)
        found.update(block.excepts)
    return sorted(found)


def classify(
    nodes: Sequence[Prefix],
    blocks: Mapping[Block, Sequence[int]],
    owners: Mapping[Prefix, int],
    labelled: Sequence[frozenset[int]],
    broad: frozenset[int],
) -> dict[Prefix, PeerClass]:
    """The class of each prefix, by longest match; those that change nothing are left out, except single addresses of
    known endpoints.

    blocks: the groups that have a block; owners: the profile of each known address; labelled: the groups that select a
    profile by its labels; broad: see broad_groups().
    """
    return _Tree(blocks, broad).walk(nodes, owners, labelled)


def broad_groups(
    inside: Callable[[Prefix], int],
    blocks: Mapping[Block, Sequence[int]],
    owners: Mapping[Prefix, int],
    labelled: Sequence[frozenset[int]],
) -> frozenset[int]:
    """The groups that cover more than BROAD of the nodes; inside: how many lie within one, itself included."""
    covered: dict[int, int] = defaultdict(int)
    for block, groups in blocks.items():
        size = inside(block.cidr) - sum(map(inside, block.excepts))
        for group in groups:
            covered[group] += size
    for profile in owners.values():
        for group in labelled[profile]:
            covered[group] += 1
    return frozenset(group for group, size in covered.items() if size > BROAD)


def sizes(nodes: Sequence[Prefix]) -> dict[Prefix, int]:
    """How many nodes lie within each one, itself included; they follow it in the order."""
    found: dict[Prefix, int] = {}
    around = _Around[int]()
    for index, node in enumerate(nodes):
        for outer, start in around.leave(node):
            found[outer] = index - start
        around.enter(node, index)
    for outer, start in around.rest():
        found[outer] = len(nodes) - start
    return found


T = TypeVar("T")


class _Around(Generic[T]):
    """The prefixes around a place, from the outside inwards, with something about each. They nest or are apart."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, int, Prefix, T]] = []  # version, last address

    def leave(self, node: Prefix) -> Iterator[tuple[Prefix, T]]:
        """Those that do not contain this one, which comes later in the order."""
        stack = self._stack
        while stack and (stack[-1][1] < node.address or stack[-1][0] != node.version):
            yield stack.pop()[2:]

    def enter(self, node: Prefix, about: T) -> None:
        self._stack.append((node.version, node.last, node, about))

    def rest(self) -> Iterator[tuple[Prefix, T]]:
        return (item[2:] for item in self._stack)

    def inmost(self, default: T) -> T:
        return self._stack[-1][3] if self._stack else default


class _State(NamedTuple):
    """The blocks around a point: those with narrow groups, those with broad ones, and what they mean."""

    narrow: frozenset[int]
    broad: frozenset[int]
    groups: PeerClass


class _Tree:
    """Walks the prefixes from the outside to the inside."""

    def __init__(self, blocks: Mapping[Block, Sequence[int]], broad: frozenset[int]) -> None:
        self._broad = broad
        self._narrow_groups: list[frozenset[int]] = []
        self._broad_groups: list[frozenset[int]] = []
        self._opens: dict[Prefix, list[int]] = defaultdict(list)
        self._closes: dict[Prefix, list[int]] = defaultdict(list)
        for number, (block, groups) in enumerate(blocks.items()):
            self._narrow_groups.append(frozenset(groups) - broad)
            self._broad_groups.append(broad.intersection(groups))
            self._opens[block.cidr].append(number)
            for part in block.excepts:
                self._closes[part].append(number)

    def walk(
        self, nodes: Sequence[Prefix], owners: Mapping[Prefix, int], labelled: Sequence[frozenset[int]]
    ) -> dict[Prefix, PeerClass]:
        found: dict[Prefix, PeerClass] = {}
        around = _Around[_State]()
        outside = _State(_NOTHING, _NOTHING, PeerClass())
        for node in nodes:
            for _left in around.leave(node):
                pass
            before = around.inmost(outside)
            state = self._step(before, self._opens.get(node, ()), self._closes.get(node, ()))
            around.enter(node, state)
            if node in owners:
                found[node] = self._with(state.groups, labelled[owners[node]])
            elif state.groups != before.groups:
                found[node] = state.groups
        return found

    def _step(self, state: _State, opens: Sequence[int], closes: Sequence[int]) -> _State:
        if not opens and not closes:
            return state
        narrow = _moved(state.narrow, opens, closes, self._narrow_groups)
        broad = _moved(state.broad, opens, closes, self._broad_groups)
        groups = PeerClass(
            state.groups.narrow if narrow is state.narrow else _union(narrow, self._narrow_groups),
            state.groups.broad if broad is state.broad else _union(broad, self._broad_groups),
        )
        return _State(narrow, broad, groups)

    def _with(self, groups: PeerClass, more: frozenset[int]) -> PeerClass:
        return PeerClass(groups.narrow | (more - self._broad), groups.broad | (more & self._broad))


def _moved(
    state: frozenset[int], opens: Sequence[int], closes: Sequence[int], groups: Sequence[frozenset[int]]
) -> frozenset[int]:
    """The blocks after a step, and the very same set if it is none for them: sets are shared along the way."""
    gone = [block for block in closes if groups[block]]
    come = [block for block in opens if groups[block]]
    return state.difference(gone).union(come) if gone or come else state


def _union(blocks: frozenset[int], groups: Sequence[frozenset[int]]) -> frozenset[int]:
    return _NOTHING.union(*(groups[block] for block in blocks))
