# SPDX-License-Identifier: GPL-3.0-or-later
"""What is too slow for every run is marked `full`, and left out without --full."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run what is marked `full` too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: too slow for every run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Pytest says how many are left out."""
    if config.getoption("--full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
