# SPDX-License-Identifier: GPL-3.0-or-later
"""The resource eswitch on the emulated NIC: from any state to any other, runs that fail, and runs that are killed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NoReturn

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import plan, store
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from tests.nic.inside.device import Nic, load, run
from tests.nic.inside.eswitch import (
    PROFILES,
    Breaking,
    Item,
    converge,
    few,
    impossible,
    item,
    killed,
    seen,
    states,
    tour,
)


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(eswitch_node, "READS_RULES", 0)  # there are many runs, and none looks at marks
    run("modprobe", "vfio-pci")
    yield
    store.write(eswitch_node.DOCUMENT, None)
    eswitch_node.Node().write_rules("")


def failing() -> NoReturn:
    raise OSError(errno.EIO, "as if")


def failure(wished: Item, at: int) -> plan.StepFailed | None:
    """What a run says whose change number `at` fails, for an even one after it was made; None if it has fewer."""
    try:
        converge(wished, Breaking(at, failing, half=at % 2 == 0))
    except plan.StepFailed as failed:
        return failed
    return None


def assert_is(nic: Nic, wished: Item, words: object) -> None:
    """By the kernel's own words, not by what the resource reads."""
    assert nic.mode() == wished["mode"], words
    assert (nic.sysfs / "sriov_numvfs").read_text().strip() == str(wished["vfs"]), words
    own = {one["index"]: one for one in wished.get("vf", ())}
    for number in range(wished["vfs"]):
        driver = own.get(number, {}).get("driver", wished["vf_driver"])
        bound = (nic.sysfs / f"virtfn{number}" / "driver").resolve().name
        assert bound == {"kernel": "fastpath_nic_vf"}.get(driver, driver), words
        assert (f"pf0vf{number}" in nic.nears()) == (wished["mode"] == "switchdev"), words


def assert_every_pair(nic: Nic, wanted: list[Item]) -> None:
    converge(wanted[0])
    for start, end in tour(len(wanted)):
        words = f"{wanted[start]} -> {wanted[end]}"
        checked = converge(wanted[end], check=True)
        done = converge(wanted[end])
        assert (done.steps, done.before, done.after) == (checked.steps, checked.before, checked.after), words
        assert not converge(wanted[end]).changed, words
        assert_is(nic, wanted[end], words)


@pytest.mark.parametrize("profile", PROFILES)
def test_few_states(profile: str) -> None:
    assert_every_pair(load(profile=profile, vfs=4), few(profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_every_state(profile: str) -> None:
    wanted = [one for one in states() if not impossible(profile, one)]
    assert_every_pair(load(profile=profile, vfs=4), wanted)


def test_from_every_state_to_an_impossible_one() -> None:
    """Taken back, and the driver's words are told."""
    load(profile="bnxt", vfs=4)
    wanted = [one for one in states() if not impossible("bnxt", one)]
    for start in wanted:
        converge(start)
        before = seen()
        with pytest.raises(plan.StepFailed, match="Enable VFs before setting switchdev mode") as caught:
            converge(item("switchdev", 0))
        assert not caught.value.stuck, start
        assert seen() == before, start


@pytest.mark.parametrize("profile", PROFILES)
def test_a_run_that_fails_leaves_what_was(profile: str) -> None:
    """At each change, half of the times after it was made."""
    load(profile=profile, vfs=4)
    wanted = few(profile)
    for start, end in ((wanted[1], wanted[3]), (wanted[3], wanted[1])):
        converge(start)
        before, at = seen(), 0
        while failed := failure(end, at := at + 1):
            assert not failed.stuck, failed
            assert seen() == before, (at, failed)
        assert at > 5


@pytest.mark.parametrize("profile", PROFILES)
def test_a_run_that_is_killed_is_finished_or_undone_by_the_next(profile: str) -> None:
    """At each change, before it or after it: the next run may want what that one wanted, or what was before."""
    nic = load(profile=profile, vfs=4)
    wanted = few(profile)
    for start, end in ((wanted[1], wanted[3]), (wanted[3], wanted[1]), (wanted[2], wanted[3])):
        through = {}
        for index, one in enumerate((start, end, start)):
            converge(one)
            through[index % 2] = seen()
        at = 0
        while killed(end, at := at + 1, half=at % 2 == 0):
            for index, one in ((1, end), (0, start)) if at % 4 < 2 else ((0, start),):
                converge(one)
                assert seen() == through[index], (at, one)
                assert not converge(one).changed, (at, one)
                assert_is(nic, one, at)
        assert at > 5
        assert seen() == through[1]
