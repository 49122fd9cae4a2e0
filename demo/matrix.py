# SPDX-License-Identifier: GPL-3.0-or-later
"""The connectivity matrix: who probes whom, and the results as text; pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from demo.text import table
from lab.plan import OUTSIDE_ADDRESSES, Topology

PROTOCOLS = ("icmp", "tcp", "udp")
FAMILIES = (4, 6)
OUTSIDE = "outside"
_SHOWN_FAILURES = 12


@dataclass(frozen=True)
class Place:
    """An end of probes. node: where it is, "" outside; netns: its namespace there, None: the host's own."""

    name: str
    node: str
    netns: str | None
    addresses: tuple[str, ...]

    @property
    def container(self) -> bool:
        return self.netns is not None


@dataclass(frozen=True)
class Probe:
    """One probe's outcome; error is None if the right place answered."""

    source: str
    target: str
    protocol: str
    family: int
    error: str | None


def places(topology: Topology) -> list[Place]:
    """All ends: per node its containers and the host itself, then the outside."""
    found = []
    for node in topology:
        found += [
            Place(f"{node.name}/{container.name}", node.name, container.netns,
                  tuple(address.partition("/")[0] for address in container.addresses))
            for container in node.containers
        ]  # fmt: skip
        found.append(Place(node.name, node.name, None, node.addresses))
    return [*found, Place(OUTSIDE, "", None, OUTSIDE_ADDRESSES)]


def kind(source: Place, target: Place) -> str | None:
    """What a pair proves; None: it says nothing about the container network."""
    if source == target or not (source.container or target.container):
        return None
    if not target.node or not source.node:
        return "container to outside" if source.container else "outside to container"
    ends = f"{_word(source)} to {_word(target)}"
    return f"{ends}, {'same node' if source.node == target.node else 'across nodes'}"


def _word(place: Place) -> str:
    return "container" if place.container else "host"


def task(node: str, everywhere: Sequence[Place]) -> list[dict[str, object]]:
    """The task of probe.py for the places of one node, or of the outside ("")."""
    return [
        {
            "name": source.name,
            "netns": source.netns,
            "addresses": source.addresses,
            "targets": [
                {"name": target.name, "addresses": target.addresses} for target in everywhere if kind(source, target)
            ],
        }
        for source in everywhere
        if source.node == node
    ]


def show(everywhere: Sequence[Place], probes: Iterable[Probe]) -> str:
    """Two tables: per kind of pair and protocol, then place by place; then what failed and how."""
    found = list(probes)
    failed = [probe for probe in found if probe.error is not None]
    lines = [_by_kind(everywhere, found), "", _by_place(everywhere, found)]
    lines += ["", *(_failure(probe) for probe in failed[:_SHOWN_FAILURES])] if failed else []
    if len(failed) > _SHOWN_FAILURES:
        lines.append(f"... and {len(failed) - _SHOWN_FAILURES} more")
    return "\n".join(lines)


def _by_kind(everywhere: Sequence[Place], probes: Sequence[Probe]) -> str:
    by_name = {place.name: place for place in everywhere}
    outcomes: dict[tuple[str | None, str, int], list[bool]] = {}
    for probe in probes:
        pair = kind(by_name[probe.source], by_name[probe.target])
        outcomes.setdefault((pair, probe.protocol, probe.family), []).append(probe.error is None)
    columns = [(protocol, family) for family in FAMILIES for protocol in PROTOCOLS]
    rows = [["probes that were answered", *(f"{protocol.upper()} v{family}" for protocol, family in columns)]]
    for pair in sorted({pair for pair, _protocol, _family in outcomes if pair}):
        cells = [outcomes.get((pair, *column), []) for column in columns]
        rows.append([pair, *(f"{sum(cell)}/{len(cell)}" for cell in cells)])
    return table(rows)


def _by_place(everywhere: Sequence[Place], probes: Sequence[Probe]) -> str:
    outcomes: dict[tuple[str, str], list[bool]] = {}
    for probe in probes:
        outcomes.setdefault((probe.source, probe.target), []).append(probe.error is None)
    head = ["from \\ to", *(place.name for place in everywhere)]
    rows = [[source, *(_cell(outcomes.get((source, target))) for target in head[1:])] for source in head[1:]]
    return table([head, *rows])


def _cell(outcomes: list[bool] | None) -> str:
    if not outcomes:
        return "."
    return "ok" if all(outcomes) else f"{sum(outcomes)}/{len(outcomes)}"


def _failure(probe: Probe) -> str:
    return f"FAILED {probe.source} -> {probe.target}, {probe.protocol.upper()} over IPv{probe.family}: {probe.error}"
