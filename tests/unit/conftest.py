# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated examples are the same in every run; FASTPATH_EXAMPLES asks for more of them, at random."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = os.environ.get("FASTPATH_EXAMPLES", "")
settings.register_profile(
    "fastpath",
    max_examples=int(EXAMPLES or 40),
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,  # the machine is shared
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("fastpath")
