# SPDX-License-Identifier: GPL-3.0-or-later
"""When new programs count as broken."""

from __future__ import annotations

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel.health import Traffic, is_worse

QUIET, BUSY = Traffic(0, 0, {}), Traffic(200, 190, {"malformed": 2})
ATTACKED = Traffic(200, 20, {"spoofed": 180})


@pytest.mark.parametrize(
    ("before", "now", "worse"),
    [
        (BUSY, BUSY, False),
        (BUSY, QUIET, False),
        (BUSY, ATTACKED, True),
        (BUSY, Traffic(12, 1, {"malformed": 11}), True),  # who gets no answer sends less
        (BUSY, Traffic(3, 0, {"malformed": 3}), False),
        (BUSY, Traffic(200, 0, {}), False),  # dropped for reasons of the packets'
        (ATTACKED, ATTACKED, False),
        (QUIET, Traffic(12, 1, {"spoofed": 11}), False),  # as a container that starts
        (QUIET, ATTACKED, True),
        (None, ATTACKED, True),
        (None, BUSY, False),
    ],
)
def test_programs_are_compared_with_those_before(before: Traffic | None, now: Traffic, worse: bool) -> None:
    assert is_worse(before, now) is worse
