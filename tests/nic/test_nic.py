# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated NIC on each of the kernels that people have: checked in there, told here."""

from __future__ import annotations

import pytest

from tests.nic.conftest import Guest

# kernel -> the checks that it runs.
SMOKE = {"6.12": ["check_first.py", "check_profiles.py"]}


@pytest.mark.parametrize("guest", [pytest.param(k, marks=pytest.mark.xdist_group(k)) for k in SMOKE], indirect=True)
def test_it_builds_without_a_warning(guest: Guest) -> None:
    assert guest.said == ""


@pytest.mark.parametrize(
    ("guest", "checks"),
    [pytest.param(k, c, id=f"{k} {c}", marks=pytest.mark.xdist_group(k)) for k in SMOKE for c in SMOKE[k]],
    indirect=["guest"],
)
def test_inside(guest: Guest, checks: str) -> None:
    done = guest.check(checks)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
