# SPDX-License-Identifier: GPL-3.0-or-later
"""A line chart of what traffic costs with so many rules, as SVG text from the document that is in policies.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Any

_OURS = "#0b7285"
_COLORS = {"fastpath": _OURS, "iptables-legacy": "#e67700", "iptables-nft": "#c92a2a", "nft map": "#5f3dc4"}
_OTHER, _GRID, _AXIS, _TEXT = "#868e96", "#e9ecef", "#868e96", "#212529"

_PANEL, _HEIGHT = 250, 220
_LEFT, _GAP = 64, 30
_COLUMNS, _LINE = 4, 22  # of the legend


@dataclass(frozen=True)
class _Scale:
    """A logarithmic axis: where a value is between the pixels `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        part = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.start + part * (self.end - self.start)


def draw(document: Mapping[str, Any]) -> str:
    """A panel per metric and a line per way. Both axes are logarithmic; lines about CIDRs are dashed."""
    counts: Sequence[int] = document["counts"]
    metrics = list(document["metrics"].values())
    ways = list(metrics[0]["medians"])
    top = _LINE * ceil(len(ways) / _COLUMNS) + 60
    width, height = _LEFT + len(metrics) * (_PANEL + _LEFT) - _LEFT + _GAP, top + _HEIGHT + 48
    parts = list(_legend(ways))
    for index, metric in enumerate(metrics):
        parts += _panel(metric, counts, _LEFT + index * (_PANEL + _LEFT), top)
    lines = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 font-family="sans-serif" font-size="12" role="img" aria-label="Costs by number of rules">
<rect width="100%" height="100%" fill="#ffffff"/>
{lines}
</svg>
"""


def _style(way: str) -> str:
    name, _comma, about = way.partition(", ")
    dash = {"": "", "CIDRs": ' stroke-dasharray="6 3"'}.get(about, ' stroke-dasharray="1 3"')
    return f'stroke="{_COLORS.get(name, _OTHER)}" stroke-width="2" fill="none"{dash}'


def _legend(ways: Sequence[str]) -> Iterator[str]:
    for index, way in enumerate(ways):
        x, y = _LEFT + index % _COLUMNS * 210, 24 + index // _COLUMNS * _LINE
        yield f'<path d="M{x} {y - 4}h28" {_style(way)}/>'
        yield f'<text x="{x + 36}" y="{y}" fill="#495057">{escape(way)}</text>'


def _panel(metric: Mapping[str, Any], counts: Sequence[int], x: int, top: int) -> Iterator[str]:
    medians: Mapping[str, Sequence[float]] = metric["medians"]
    every = [value for values in medians.values() for value in values]
    low, high = floor(log10(min(every))), ceil(log10(max(every)))
    rules = _Scale(counts[0], counts[-1], x, x + _PANEL)
    costs = _Scale(10**low, 10 ** max(high, low + 1), top + _HEIGHT, top)
    title = f"{metric['title']}, {metric['unit']}"
    yield f'<text x="{x}" y="{top - 16}" font-weight="bold" fill="{_TEXT}">{escape(title)}</text>'
    for power in range(low, max(high, low + 1) + 1):
        y = costs.at(10.0**power)
        yield f'<path d="M{x} {y:.1f}h{_PANEL}" stroke="{_GRID}"/>'
        yield f'<text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{_AXIS}">{10.0**power:,.6g}</text>'
    for count in counts:
        at = rules.at(count)
        yield f'<text x="{at:.1f}" y="{top + _HEIGHT + 18}" text-anchor="middle" fill="{_AXIS}">{count:,}</text>'
    yield f'<text x="{x}" y="{top + _HEIGHT + 36}" fill="{_AXIS}">rules; less is better</text>'
    for way, values in medians.items():
        points = " ".join(f"{rules.at(c):.1f},{costs.at(v):.1f}" for c, v in zip(counts, values, strict=True))
        yield f'<polyline points="{points}" {_style(way)}/>'
