# SPDX-License-Identifier: GPL-3.0-or-later
"""The network as an SVG picture; a pure function of the data."""

from __future__ import annotations

from html import escape

from demo.network import Attachment, Network, NodeView

_CARD, _GAP, _MARGIN, _PER_ROW = 296, 24, 24, 3
_TOP = 190  # where the first row of nodes begins
_BOX_W, _BOX_H, _PER_LINE = 130, 78, 2
_SHOWN = 6  # containers in a card

_INK, _SOFT, _LINE = "#1f2933", "#616e7c", "#9aa5b1"
_PAPER, _NODE, _CONTAINER, _OURS = "#ffffff", "#f5f7fa", "#ffffff", "#0b7285"

_STYLE = f"""
text {{ font-family: system-ui, sans-serif; font-size: 12px; fill: {_INK}; }}
.name {{ font-weight: 600; font-size: 14px; }}
.mono {{ font-family: ui-monospace, monospace; font-size: 11px; fill: {_SOFT}; }}
.ours {{ fill: {_PAPER}; font-weight: 600; }}
.wire {{ stroke: {_LINE}; stroke-width: 2; fill: none; }}
"""


def draw(network: Network) -> str:
    """Outside and router on top, one card per node below, its containers inside."""
    columns = min(_PER_ROW, len(network.nodes))
    width = 2 * _MARGIN + columns * _CARD + (columns - 1) * _GAP
    rows = [network.nodes[first : first + _PER_ROW] for first in range(0, len(network.nodes), _PER_ROW)]
    parts, y = [_top(network, width)], _TOP
    for row in rows:
        height = max(_card_height(node) for node in row)
        for index, node in enumerate(row):
            x = _MARGIN + index * (_CARD + _GAP)
            parts.insert(0, _wire(width // 2, x + _CARD // 2, y))  # below the cards that it passes
            parts.append(_card(node, x, y, height))
        y += height + 2 * _GAP
    height = y - _GAP
    body = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"
 role="img" aria-label="The container network">
<style>{_STYLE}</style>
<rect width="{width}" height="{height}" fill="{_PAPER}"/>
{body}
</svg>
"""


def _top(network: Network, width: int) -> str:
    middle = width // 2
    return "\n".join([
        f'<path class="wire" d="M{middle} 66 V92"/>',
        _labelled(middle - 110, 20, 220, "outside", network.outside),
        _labelled(middle - 110, 92, 220, "router", network.router),
    ])  # fmt: skip


def _labelled(x: int, y: int, width: int, name: str, addresses: tuple[str, ...]) -> str:
    middle = x + width // 2
    return "\n".join([
        f'<rect x="{x}" y="{y}" width="{width}" height="46" rx="8" fill="{_NODE}" stroke="{_LINE}"/>',
        _text(middle, y + 19, name, "name", "middle"),
        _text(middle, y + 36, "  ".join(addresses), "mono", "middle"),
    ])  # fmt: skip


def _wire(start: int, end: int, y: int) -> str:
    """From the router down to a card; all share one rail."""
    return f'<path class="wire" d="M{start} 138 V164 H{end} V{y}"/>'


def _lines(node: NodeView) -> int:
    return -(-min(len(node.attachments), _SHOWN) // _PER_LINE) or 1


def _card_height(node: NodeView) -> int:
    return 170 + _lines(node) * (_BOX_H + 14) + (18 if len(node.attachments) > _SHOWN else 0)


def _card(node: NodeView, x: int, y: int, height: int) -> str:
    parts = [
        f'<rect x="{x}" y="{y}" width="{_CARD}" height="{height}" rx="10" fill="{_NODE}" stroke="{_LINE}"/>',
        _text(x + 16, y + 26, node.name, "name"),
        _text(x + _CARD - 16, y + 26, f"{node.uplink}  {node.addresses[0]}", "mono", "end"),
        *(_text(x + _CARD - 16, y + 42, address, "mono", "end") for address in node.addresses[1:2]),
        _dataplane(node, x + 12, y + 54),
    ]
    for index, item in enumerate(node.attachments[:_SHOWN]):
        column, line = index % _PER_LINE, index // _PER_LINE
        parts.append(_container(item, x + 12 + column * (_BOX_W + 12), y + 160 + line * (_BOX_H + 14), line == 0))
    if not node.attachments:
        parts.append(_text(x + _CARD // 2, y + 200, "no container attached", "mono", "middle"))
    if len(node.attachments) > _SHOWN:
        more = f"and {len(node.attachments) - _SHOWN} more"
        parts.append(_text(x + _CARD // 2, y + height - 10, more, "mono", "middle"))
    return "\n".join(parts)


def _dataplane(node: NodeView, x: int, y: int) -> str:
    """The programs of a node with the packets that each has seen, and the prefixes that they serve."""
    parts = [
        f'<rect x="{x}" y="{y}" width="{_CARD - 24}" height="92" rx="6" fill="{_OURS}"/>',
        _text(x + 12, y + 20, "  ".join(node.prefixes), "ours"),
    ]
    hooks = node.hooks or {"no program attached": 0}
    for index, (name, count) in enumerate(hooks.items()):
        line = y + 42 + index * 19
        parts.append(_text(x + 12, line, name, "ours"))
        if node.hooks:
            parts.append(_text(x + _CARD - 36, line, f"{count:,} packets", "ours", "end"))
    return "\n".join(parts)


def _container(item: Attachment, x: int, y: int, wired: bool) -> str:
    parts = [f'<path class="wire" d="M{x + _BOX_W // 2} {y - 14} V{y}"/>'] if wired else []
    parts += [
        f'<rect x="{x}" y="{y}" width="{_BOX_W}" height="{_BOX_H}" rx="6" fill="{_CONTAINER}" stroke="{_LINE}"/>',
        _text(x + 10, y + 19, item.name, "name"),
        _text(x + _BOX_W - 10, y + 19, item.kind, "mono", "end"),
        *(
            _text(x + 10, y + 37 + index * 15, address.partition("/")[0], "mono")
            for index, address in enumerate(item.addresses[:2])
        ),
    ]
    if item.received is not None and item.sent is not None:
        parts.append(_text(x + 10, y + 69, f"in {item.received:,}  out {item.sent:,}", "mono"))
    return "\n".join(parts)


def _text(x: int, y: int, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}" xml:space="preserve">{escape(text)}</text>'
