# SPDX-License-Identifier: GPL-3.0-or-later
"""Each check leaves no module, and nothing in the kernel's log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.nic.inside.device import kernel_complaints, run, unload


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    run("dmesg", "-C")
    yield
    unload()
    assert kernel_complaints() == []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sets", type=int, default=320, help="random sets of rules")
    parser.addoption("--seed", type=int, default=1)
    parser.addoption("--rounds", type=int, default=100, help="of churn")
    parser.addoption("--largest", type=int, default=1000, help="rules in the largest table")


@pytest.fixture
def sets(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--sets"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


@pytest.fixture
def largest(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--largest"))


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--rounds"))
