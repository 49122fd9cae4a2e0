# SPDX-License-Identifier: GPL-3.0-or-later
"""What the part nic tells."""

from bench.nic import Costs


def test_a_hit_is_compared_within_a_round() -> None:
    told = {"hit": {"10": [100, 400, 100], "1000": [150, 400, 130], "100000": [200, 800, 300]}, "insert": {
        "10": 1, "1000": 2, "100000": 3,
    }}  # fmt: skip
    costs = Costs.of(told)
    assert (costs.ratio(10), costs.ratio(1_000), costs.ratio(100_000)) == (1, 1.3, 2)
