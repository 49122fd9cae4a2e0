# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks print gets to its place in the page, again and again."""

import pytest

from bench import page

PLACES = ("policies", "tries", "revocation")  # what `make bench-page` fills


def test_the_page_has_a_place_for_each_part_and_only_that_changes() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for part in PLACES:
        once = page.filled(text, part, "printed before\n")
        assert "printed before" in once
        again = page.filled(once, part, "printed now")
        assert again == page.filled(text, part, "printed now")
        assert "printed before" not in again
        for other in set(PLACES) - {part}:
            assert text[slice(*_place(text, other))] in once


def test_a_chart_is_shown_where_there_is_one() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert "](policies.svg)" in page.filled(text, "policies", "table", "policies.svg")
    assert "](tries.svg)" not in page.filled(text, "tries", "table")


def test_a_part_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for programs"):
        page.filled(page.PAGE.read_text(encoding="utf-8"), "programs", "table")


def _place(text: str, part: str) -> tuple[int, int]:
    begin = text.index(f"<!-- measured: {part} -->")
    return begin, text.index("<!-- end -->", begin)
