# SPDX-License-Identifier: GPL-3.0-or-later
"""The network as a picture of plain characters; a pure function of the data."""

from __future__ import annotations

from demo.network import Network, NodeView

_WIDTH = 26  # of a node's box, borders included
_GAP = "  "
_PER_ROW = 3
_SHOWN = 4  # containers in a box


def draw(network: Network) -> str:
    """Outside and router on top, the nodes in rows below, their containers inside."""
    columns = min(_PER_ROW, len(network.nodes))
    width = columns * _WIDTH + (columns - 1) * len(_GAP)
    lines = [
        _centred(f"outside  {'  '.join(network.outside)}", width),
        _centred("|", width),
        _centred(f"router  {'  '.join(network.router)}", width),
    ]
    for first in range(0, len(network.nodes), _PER_ROW):
        row = network.nodes[first : first + _PER_ROW]
        lines += [_wires(len(row), width), *_boxes(row)]
    return "\n".join(lines)


def _centred(text: str, width: int) -> str:
    return f"{' ' * (width // 2 - len(text) // 2)}{text}"


def _wires(count: int, width: int) -> str:
    """A rail from the router to the middle of each box."""
    drops = [index * (_WIDTH + len(_GAP)) + _WIDTH // 2 for index in range(count)]
    middle = width // 2
    first, last = min(*drops, middle), max(*drops, middle)
    rail = "".join("+" if column in drops or column == middle else "-" for column in range(first, last + 1))
    stems = "".join("|" if column in drops else " " for column in range(width)).rstrip()
    return f"{' ' * first}{rail}\n{stems}"


def _boxes(row: tuple[NodeView, ...]) -> list[str]:
    contents = [_content(node) for node in row]
    height = max(map(len, contents))
    boxes = [
        _box(node.name, [*lines, *[""] * (height - len(lines))]) for node, lines in zip(row, contents, strict=True)
    ]
    return [_GAP.join(parts) for parts in zip(*boxes, strict=True)]


def _box(title: str, lines: list[str]) -> list[str]:
    inner = _WIDTH - 4
    edge = f"+-- {title} {'-' * (_WIDTH - len(title) - 6)}+"
    return [edge, *(f"| {line[:inner].ljust(inner)} |" for line in lines), f"+{'-' * (_WIDTH - 2)}+"]


def _content(node: NodeView) -> list[str]:
    lines = [f"{node.uplink} {node.addresses[0]}", *(f"     {address}" for address in node.addresses[1:])]
    lines += [f"{name:15}{count:>7}" for name, count in node.hooks.items()]
    for item in node.attachments[:_SHOWN]:
        first, *others = [address.partition("/")[0] for address in item.addresses] or ["-"]
        lines += ["  |", f"[{item.name}] {first}", *(f"{' ' * (len(item.name) + 3)}{other}" for other in others)]
    if len(node.attachments) > _SHOWN:
        lines += ["  |", f"and {len(node.attachments) - _SHOWN} more"]
    return lines if node.attachments else [*lines, "", "no container attached"]
