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
