# SPDX-License-Identifier: GPL-3.0-or-later
"""One bar chart of the data path, as SVG text from the document that is written to datapath.json."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_COLORS = {"fastpath": "#0b7285"}
_OTHER = "#adb5bd"
_PANEL, _GAP, _TOP = 250, 20, 64
_ROW, _BAR = 34, 14


def draw(document: Mapping[str, Any]) -> str:
    """A panel per metric, a bar per way; each panel has its own scale and says which end of it is good."""
    metrics = list(document["metrics"].values())
    ways = len(metrics[0]["medians"])
    width = len(metrics) * (_PANEL + _GAP) + _GAP
    height = _TOP + ways * _ROW + 16
    panels = "\n".join(_panel(metric, _GAP + index * (_PANEL + _GAP)) for index, metric in enumerate(metrics))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 font-family="sans-serif" font-size="12" role="img" aria-label="Data path: medians">
<rect width="100%" height="100%" fill="#ffffff"/>
{panels}
</svg>
"""


def _panel(metric: Mapping[str, Any], x: int) -> str:
    medians: Mapping[str, float] = metric["medians"]
    largest = max(medians.values()) or 1
    better = "less is better" if metric["less_is_better"] else "more is better"
    lines = [
        f'<text x="{x}" y="24" font-weight="bold" fill="#212529">{escape(metric["title"])}, {metric["unit"]}</text>',
        f'<text x="{x}" y="42" fill="#868e96">{better}</text>',
    ]
    for index, (way, value) in enumerate(medians.items()):
        y = _TOP + index * _ROW
        length = value / largest * _PANEL
        lines += [
            f'<text x="{x}" y="{y}" fill="#495057">{escape(way)}</text>',
            f'<text x="{x + _PANEL}" y="{y}" text-anchor="end" fill="#212529">{value:.2f}</text>',
            f'<rect x="{x}" y="{y + 4}" width="{length:.1f}" height="{_BAR}" rx="2" '
            f'fill="{_COLORS.get(way, _OTHER)}"/>',
        ]
    return "\n".join(lines)
