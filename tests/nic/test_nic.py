# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated NIC on each of the kernels that people have: checked in there, told here."""

from __future__ import annotations

import pytest

from tests.nic.conftest import Guest

# kernel -> the checks that it runs.
SMOKE = {
    "6.1": ["check_first.py", "check_life.py -k 'vfio or forgets or reload'"],
    "6.12": ["check_first.py", "check_profiles.py", "check_table.py", "check_life.py", "check_model.py --sets 64"],
    "7.2": ["check_first.py", "check_life.py -k 'vfio or forgets or reload'"],
}
_REST = ["check_profiles.py", "check_table.py", "check_life.py", "check_model.py --sets 64"]
FULL = {
    "6.1": _REST,
    "7.2": _REST,
    "6.12": [
        "check_model.py --sets 10000 --seed 2",
        "check_table.py -k hit_costs --largest 100000",
        "check_life.py -k churn --rounds 2000 --seed 2",
    ],
}


def _params() -> list[object]:
    """Kernel by kernel, so that each is booted once."""
    return [
        pytest.param(kernel, checks, id=f"{kernel} {checks}", marks=[pytest.mark.xdist_group(kernel), *marks])
        for kernel in SMOKE
        for suite, marks in ((SMOKE, []), (FULL, [pytest.mark.full]))
        for checks in suite.get(kernel, [])
    ]


@pytest.mark.parametrize("guest", [pytest.param(k, marks=pytest.mark.xdist_group(k)) for k in SMOKE], indirect=True)
def test_it_builds_without_a_warning(guest: Guest) -> None:
    assert "warning" not in guest.said, guest.said


@pytest.mark.parametrize(("guest", "checks"), _params(), indirect=["guest"])
def test_inside(guest: Guest, checks: str) -> None:
    done = guest.check(checks)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
