# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated NIC on each of the kernels that people have: checked in there, told here."""

from __future__ import annotations

import pytest

from lab import packages
from tests.nic.conftest import Guest

# kernel -> the checks that it runs.
SMOKE = {"6.12": ["check_first.py", "check_profiles.py"]}
_ALL = [
    *("check_first.py", "check_profiles.py", "check_table.py", "check_faults.py", "check_life.py"),
    "check_model.py --sets 64",
]
FULL = {
    "6.1": _ALL,
    "6.12": [
        "check_table.py",
        "check_faults.py",
        "check_table.py -k a_hit_costs --largest 100000",
        "check_life.py",
        "check_life.py -k churn --rounds 2000 --seed 2",
        "check_model.py --sets 10000 --seed 2",
    ],
    "7.2": _ALL,
}


def _marks(kernel: str, suite: dict[str, list[str]]) -> list[pytest.MarkDecorator]:
    """Each check has a machine of its own; those of a kernel run one after the other."""
    return [pytest.mark.xdist_group(kernel), *([pytest.mark.full] if suite is FULL else [])]


_GUESTS = [pytest.param(kernel, marks=_marks(kernel, SMOKE if kernel in SMOKE else FULL)) for kernel in FULL]
_CHECKS = [
    pytest.param(kernel, checks, id=f"{kernel} {checks}", marks=_marks(kernel, suite))
    for kernel in FULL
    for suite in (SMOKE, FULL)
    for checks in suite.get(kernel, [])
]


@pytest.mark.parametrize("guest", _GUESTS, indirect=True)
def test_it_builds_without_a_warning(guest: Guest) -> None:
    assert "warning" not in guest.said, guest.said


@pytest.mark.parametrize(("guest", "checks"), _CHECKS, indirect=["guest"])
def test_inside(guest: Guest, checks: str) -> None:
    done = guest.check(checks)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


@pytest.mark.full
@pytest.mark.parametrize("guest", [pytest.param("6.12", marks=pytest.mark.xdist_group("6.12"))], indirect=True)
def test_open_vswitch_offloads(guest: Guest) -> None:
    packages.install(guest.node, ("openvswitch-switch",))
    done = guest.check("check_ovs.py")
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
