# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that become harder to verify are noticed before a kernel refuses them."""

from __future__ import annotations

import pytest

from bench import verifier


def test_no_program_needs_much_more_than_is_committed() -> None:
    committed = verifier.committed().get(verifier.kernel())
    if committed is None:
        pytest.skip(f"bench/verifier.json has no figures of kernel {verifier.kernel()}")
    counts, _milliseconds = verifier.measure()
    hint = "if it is worth it, run python3 -m bench.verifier --write on this kernel and commit bench/verifier.json"
    assert not verifier.grown(committed, counts), hint


def test_what_counts_as_more() -> None:
    before = {"from_wire": 1000, "from_host": 1000, "gone": 5}
    assert verifier.grown(before, {"from_wire": 1030, "from_host": 900}) == {}
    now = {"from_wire": 1031, "from_host": 1000, "from_netkit": 7}
    assert verifier.grown(before, now) == {"from_wire": "1031 instead of 1000", "from_netkit": "7 instead of none"}


def test_figures_are_of_the_programs_that_there_are() -> None:
    counts, _milliseconds = verifier.measure()
    for kernel, figures in verifier.committed().items():
        assert figures.keys() == counts.keys(), kernel
