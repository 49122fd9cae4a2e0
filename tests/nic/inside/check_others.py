# SPDX-License-Identifier: GPL-3.0-or-later
"""The resource eswitch on NICs that are not ours: the kernel's simulated one, and the one that QEMU emulates."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import plan, store
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Device, Request
from tests.nic.inside.device import run
from tests.nic.inside.eswitch import VFIO, Breaking, Item, converge, tour

_MAC = "02:00:00:00:00:77"
_SIMULATED = Path("/sys/bus/netdevsim")
_NETDEVSIM: Item = {"device": {"driver": "netdevsim"}}
_IGB: Item = {"device": {"driver": "igb"}}
WANTED: dict[str, list[Item]] = {
    "netdevsim": [
        {**_NETDEVSIM, "mode": "legacy", "vfs": 0},
        {**_NETDEVSIM, "mode": "legacy", "vfs": 3, "vf": [{"index": 1, "vlan": 7, "trust": True}]},
        {**_NETDEVSIM, "mode": "switchdev", "vfs": 0},
        {**_NETDEVSIM, "mode": "switchdev", "vfs": 3, "vf": [{"index": 2, "mac": _MAC}]},
    ],
    "igb": [
        {**_IGB, "vfs": 0},
        {**_IGB, "vfs": 7},
        {**_IGB, "vfs": 3, "vf": [{"index": 0, "mac": _MAC, "vlan": 7}, {"index": 1, "spoofcheck": False}]},
        {**_IGB, "vfs": 2, "mtu": 1400},
    ],
}


@pytest.fixture(params=list(WANTED))
def wanted(request: pytest.FixtureRequest) -> Iterator[list[Item]]:
    if request.param == "netdevsim":
        run("modprobe", "netdevsim")
        (_SIMULATED / "new_device").write_text("1 1 4")
        run("udevadm", "settle")  # it gives the NIC another MAC, from which those of VFs are derived
    yield WANTED[request.param]
    plan.converge(Eswitch(eswitch_node.Node()), Request((), "deleted"), allow_disruption=True)
    store.write(eswitch_node.DOCUMENT, None)
    if request.param == "netdevsim":
        (_SIMULATED / "del_device").write_text("1")
        run("rmmod", "netdevsim")


def seen(wished: Item) -> Device:
    """The NIC, without names that the kernel or udev chooses."""
    (found,) = (one for one in eswitch_node.Node().devices().values() if one.driver == wished["device"]["driver"])
    return replace(found, uplink="", up=False, vfs=tuple(replace(vf, representor="") for vf in found.vfs))


def failing() -> NoReturn:
    raise OSError(errno.EIO, "as if")


def test_every_pair(wanted: list[Item]) -> None:
    """Check mode says what the run does, a second run does nothing, and a run that fails is taken back."""
    converge(wanted[0])
    for start, end in tour(len(wanted)):
        words, before = f"{wanted[start]} -> {wanted[end]}", seen(wanted[end])
        checked = converge(wanted[end], check=True)
        assert seen(wanted[end]) == before, words
        with pytest.raises(plan.StepFailed) as caught:
            converge(wanted[end], Breaking(2, failing, half=True))
        assert not caught.value.stuck, words
        assert seen(wanted[end]) == before, words
        done = converge(wanted[end])
        assert (done.steps, done.before, done.after) == (checked.steps, checked.before, checked.after), words
        assert not converge(wanted[end]).changed, words
        there = seen(wanted[end])
        assert (there.mode, len(there.vfs)) == (wanted[end].get("mode", "legacy"), wanted[end]["vfs"]), words


def test_a_driver_that_does_not_take_its_vf(wanted: list[Item]) -> None:
    """vfio-pci has no IOMMU there, and netdevsim no devices: told, and taken back."""
    driver = wanted[0]["device"]["driver"]
    converge(wanted[1])
    before = seen(wanted[1])
    if driver == "netdevsim":
        (step,) = converge({**wanted[1], "vf_driver": VFIO}).steps
        assert step["action"] == "record the NICs in /etc/fastpath"
        return
    with pytest.raises(plan.StepFailed, match=r"vfio-pci did not take .*: is it loaded"):
        converge({**wanted[1], "vf_driver": VFIO})
    assert seen(wanted[1]) == before
