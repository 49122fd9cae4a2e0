# SPDX-License-Identifier: GPL-3.0-or-later
"""The resource eswitch on the emulated NIC, in a machine that has it."""

from __future__ import annotations

import pytest

from tests.nic.conftest import Guest, copy_collection

# Some pairs of states, with check mode and a second run, and what went wrong elsewhere; all else takes long.
CHECKS = {
    "few states": "check_eswitch.py -k 'few and mlx5'",
    "breakages": "check_breakages.py",
    "every state": "check_eswitch.py -k 'state and not (few and mlx5)'",
    "broken runs": "check_eswitch.py -k run",
}
QUICK = ("few states",)


def _params() -> list[object]:
    return [pytest.param(words, id=name, marks=[] if name in QUICK else pytest.mark.full)
            for name, words in CHECKS.items()]  # fmt: skip


@pytest.mark.parametrize("guest", [pytest.param("6.12", marks=pytest.mark.xdist_group("6.12"))], indirect=True)
@pytest.mark.parametrize("words", _params())
def test_inside(guest: Guest, words: str) -> None:
    copy_collection(guest.node)
    done = guest.check(words)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
