# SPDX-License-Identifier: GPL-3.0-or-later
"""What a part of the benchmarks has printed, put in its place in docs/benchmarks.md; its chart goes beside that page.

usage: python3 -m bench PART | python3 -m bench.page PART
"""

from __future__ import annotations

import os
import shutil
import sys

from bench import build

PAGE = build.HERE.parent / "docs" / "benchmarks.md"


def filled(page: str, part: str, printed: str, chart: str = "") -> str:
    """The page with that between its marks for the part, and an image where there is a chart of that name."""
    begin, end = f"<!-- measured: {part} -->\n", "<!-- end -->\n"
    head, found, rest = page.partition(begin)
    _old, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no place for {part}")
    image = f"![{part.capitalize()}]({chart})\n\n" if chart else ""
    return f"{head}{begin}{image}```text\n{_machine()}\n\n{printed.strip()}\n```\n{end}{tail}"


def _machine() -> str:
    return f"Linux {os.uname().release}, {os.uname().machine}, {os.cpu_count()} CPUs"


def main(part: str) -> None:
    printed = sys.stdin.read()
    sys.stdout.write(printed)
    if not printed:
        raise SystemExit(f"{part} has printed nothing")
    chart = build.OUTPUT / f"{part}.svg"
    page = filled(PAGE.read_text(encoding="utf-8"), part, printed, chart.name if chart.exists() else "")
    if chart.exists():
        shutil.copy(chart, PAGE.with_name(chart.name))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
