# SPDX-License-Identifier: GPL-3.0-or-later
"""The resource eswitch on the emulated NIC: from state to state, a run that fails, and one that is killed."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import plan, store
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Device, Request
from tests.nic.inside.device import load, run

PROFILES = ("mlx5", "ice", "bnxt")
PCI = "0001:01:00.0"
HANDLE = f"pci/{PCI}"
Item = dict[str, Any]


class Killed(BaseException):
    """The run ends here and now."""


class Breaking:
    """The node, of which the Nth change raises; with `half` it has been carried out before."""

    def __init__(self, at: int, problem: BaseException, half: bool) -> None:
        self._node, self._left, self._problem, self._half = eswitch_node.Node(), at, problem, half

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._node, name)
        if not name.startswith(("set_", "bind", "unbind")):
            return found

        def change(*arguments: Any) -> None:
            self._left -= 1
            if self._left or self._half:
                found(*arguments)
            if not self._left:
                raise self._problem

        return change


def item(mode: str, vfs: int, driver: str = "kernel", **more: Any) -> Item:
    return {"device": {"pci": PCI}, "mode": mode, "vfs": vfs, "vf_driver": driver, **more}


def states(profile: str) -> list[Item]:
    found = [
        item("legacy", 0),
        item("legacy", 2, vf=[{"index": 0, "vlan": 7, "trust": True}]),
        item("legacy", 3, "vfio-pci"),
        item("switchdev", 2, hw_tc_offload=True),
        item("switchdev", 3, vf=[{"index": 1, "mac": "02:00:00:00:00:77"}, {"index": 2, "driver": "vfio-pci"}]),
    ]
    if profile == "mlx5":
        found[3]["params"] = {"flow_steering_mode": "smfs"}
        found[4]["params"] = {"flow_steering_mode": "dmfs"}
    return found


def tour(count: int) -> Iterator[tuple[int, int]]:
    """Every ordered pair of `count` states once, each beginning where the one before it has ended."""
    left = {start: [end for end in range(count) if end != start] for start in range(count)}
    way, stack = [], [0]
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            way.append(stack.pop())
    return itertools.pairwise(reversed(way))


def converge(item: Item, hardware: Any = None, check: bool = False) -> plan.Result:
    resource = Eswitch(hardware or eswitch_node.Node(), patience=20)
    return plan.converge(resource, Request((item,), "replaced"), check=check, allow_disruption=True)


def seen() -> Device:
    """The NIC, without names that the kernel or udev chooses."""
    device = eswitch_node.Node().devices()[HANDLE]
    return replace(device, uplink="", vfs=tuple(replace(vf, representor="") for vf in device.vfs))


def failure(item: Item, at: int) -> plan.StepFailed | None:
    """What a run says whose change number `at` fails, each second one after it was made; None if there are fewer."""
    try:
        converge(item, Breaking(at, OSError(errno.EIO, "as if"), half=at % 2 == 0))
    except plan.StepFailed as failed:
        return failed
    return None


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    run("modprobe", "vfio-pci")
    yield
    store.write(eswitch_node.DOCUMENT, None)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pair(profile: str) -> None:
    nic = load(profile=profile, vfs=4)
    wanted = states(profile)
    for start, end in tour(len(wanted)):
        checked = converge(wanted[end], check=True)
        done = converge(wanted[end])
        words = f"{wanted[start]} -> {wanted[end]}"
        assert done.steps == checked.steps, words
        assert not converge(wanted[end]).changed, words
        assert nic.mode() == wanted[end]["mode"]
        assert (nic.sysfs / "sriov_numvfs").read_text().strip() == str(wanted[end]["vfs"])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_run_that_fails_leaves_what_was(profile: str) -> None:
    load(profile=profile, vfs=4)
    wanted = states(profile)
    converge(wanted[1])
    before = seen()
    at = 0
    while failed := failure(wanted[4], at := at + 1):
        assert not failed.stuck, failed
        assert seen() == before, failed
    assert at > 5


@pytest.mark.parametrize("profile", PROFILES)
def test_a_run_that_is_killed_is_finished_by_the_next(profile: str) -> None:
    load(profile=profile, vfs=4)
    wanted = states(profile)
    for at in (2, 5, 8):
        converge(wanted[1])
        with pytest.raises(Killed):
            converge(wanted[4], Breaking(at, Killed(), half=at == 5))
        assert converge(wanted[4]).changed
        assert not converge(wanted[4]).changed
