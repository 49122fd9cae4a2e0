# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of the resource eswitch on the emulated NIC: the states to go between, and runs that end at a change."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

from ansible_collections.fastpath.node.plugins.module_utils import plan
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Device, Request

PCI = "0001:01:00.0"
HANDLE = f"pci/{PCI}"
KERNEL, VFIO = "kernel", "vfio-pci"
PROFILES = ("mlx5", "ice", "bnxt")
Item = dict[str, Any]


class Breaking:
    """The node, of which change number `at` ends with `stop()`, made before if `half`."""

    def __init__(self, at: int, stop: Callable[[], NoReturn], half: bool) -> None:
        self._node, self._left, self._stop, self._half = eswitch_node.Node(), at, stop, half

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._node, name)
        if not name.startswith(("set_", "bind", "unbind", "rename", "write_", "record")):
            return found

        def change(*arguments: Any) -> None:
            self._left -= 1
            if self._left or self._half:
                found(*arguments)
            if not self._left:
                self._stop()

        return change


def item(mode: str, vfs: int, driver: str = KERNEL, **more: Any) -> Item:
    return {"device": {"pci": PCI}, "mode": mode, "vfs": vfs, "vf_driver": driver, **more}


def states() -> list[Item]:
    """Modes, numbers of VFs, their drivers."""
    shapes = ((0, KERNEL), *itertools.product((2, 3), (KERNEL, VFIO)))
    return [item(mode, vfs, driver) for mode in ("legacy", "switchdev") for vfs, driver in shapes]


def few(profile: str) -> list[Item]:
    """What else a VF or the NIC may have, each unlike the others in everything."""
    found = [
        item("legacy", 0),
        item("legacy", 2, vf=[{"index": 0, "vlan": 7, "trust": True}]),
        item("switchdev", 2, hw_tc_offload=True),
        item("switchdev", 3, vf=[{"index": 1, "mac": "02:00:00:00:00:77"}, {"index": 2, "driver": VFIO}]),
    ]
    if profile == "mlx5":
        found[2]["params"] = {"flow_steering_mode": "smfs"}
        found[3]["params"] = {"flow_steering_mode": "dmfs"}
    return found


def impossible(profile: str, wished: Item) -> bool:
    """bnxt_vfr.c before 6.4: EPERM for switchdev while there are no VFs."""
    return profile == "bnxt" and wished["mode"] == "switchdev" and not wished["vfs"]


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


def converge(wished: Item, hardware: Any = None, check: bool = False, patience: float = 20) -> plan.Result:
    resource = Eswitch(hardware or eswitch_node.Node(), patience=patience)
    return plan.converge(resource, Request((wished,), "replaced"), check=check, allow_disruption=True)


def seen() -> Device:
    """The NIC, without names that the kernel or udev chooses."""
    device = eswitch_node.Node().devices()[HANDLE]
    return replace(device, uplink="", vfs=tuple(replace(vf, representor="") for vf in device.vfs))


def killed(wished: Item, at: int, half: bool) -> bool:
    """Was a run killed at change number `at`, by SIGKILL? False: it has fewer, and is through."""
    child = os.fork()
    if not child:
        status = 1
        try:
            converge(wished, Breaking(at, _die, half))
            status = 0
        finally:
            os._exit(status)
    _child, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, f"the run to {wished} has failed by itself"
    return False


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
