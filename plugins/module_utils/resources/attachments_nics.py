# SPDX-License-Identifier: GPL-3.0-or-later
"""What attachments find once NICs are what they are going to be: for check mode, where nothing has changed yet. Pure.

Of what appears only then, names and numbers of interfaces are not known. They are not needed: what is new is free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..errors import FastpathError
from ..eswitch.profiles import KERNEL
from ..plan import Op
from . import eswitch_state as nics
from .attachments_state import State, Vf, without
from .eswitch_change import Change
from .eswitch_state import NEW, Bind, CreateVfs, Device, RemoveVfs, SetMode, Unbind


def foreseen(state: State, change: Change | None) -> State:
    """The state after the change, where there is one."""
    if change is None:
        return state
    left = change.have
    for step in change.steps:
        left = step.do.effect(left)
        state = _after(state, step.do, left, change)
    return replace(state, foreign=state.foreign - _names(change.have) | _names(left))


def _after(state: State, op: Op[nics.State], left: nics.State, change: Change) -> State:
    """left: the NICs after the operation."""
    if isinstance(op, (CreateVfs, RemoveVfs, SetMode)) and left.devices[op.handle].pci:
        return _remade(state, left.devices[op.handle], change)
    if isinstance(op, Unbind):
        return _rebound(state, left.devices[op.handle], op.vfs, change)
    if isinstance(op, Bind):
        return _rebound(state, left.devices[op.handle], [number for number, _driver in op.drivers], change)
    return state


def _remade(state: State, device: Device, change: Change) -> State:
    """All VFs and representors are new ones; who had an old one is without, as if somebody had deleted it."""
    kept = {pci: vf for pci, vf in state.vfs.items() if vf.nic != device.pci}
    new = {_address(device, number, change): _new(device, number) for number in range(len(device.vfs))}
    gone = {name for name, end in state.links.items() if end.vf in state.vfs and end.vf not in kept}
    return replace(
        state,
        vfs={**kept, **new},
        links=without(state.links, *gone),
        interfaces=without(state.interfaces, *gone),
        programs={
            name: runs and name not in gone
            for name, runs in state.programs.items()
            if change.pinned or name not in gone
        },
        endpoints={
            address: replace(point, attachment="") if point.attachment in gone else point
            for address, point in state.endpoints.items()
        },
    )


def _rebound(state: State, device: Device, numbers: Iterable[int], change: Change) -> State:
    """A driver that lets go of a VF ends its interface, wherever it is; one that takes it makes one on the node."""
    there = {_address(device, number, change): device.vfs[number] for number in numbers}
    vfs = {pci: _driven(state.vfs[pci], vf) for pci, vf in there.items() if pci in state.vfs}
    parted = {name for name, end in state.links.items() if end.vf in vfs}
    return replace(
        state,
        vfs={**state.vfs, **vfs},
        links={name: replace(end, connected=end.connected and name not in parted) for name, end in state.links.items()},
        interfaces=without(state.interfaces, *parted),
    )


def _new(device: Device, number: int) -> Vf:
    vf = device.vfs[number]
    return _driven(Vf(device.pci, "", representor=vf.representor), vf)


def _driven(now: Vf, vf: nics.Vf) -> Vf:
    """By its present driver, which has made an interface or not."""
    home = vf.driver == KERNEL
    mac = vf.attributes.mac or now.mac if home else now.mac if now.user else ""
    return replace(now, mac=mac, home=home, busy="", driver=vf.driver)


def _address(device: Device, number: int, change: Change) -> str:
    found = change.address(device.handle, number)
    if not found:
        cause = f"{device.handle} tells their PCI addresses only when they are there"
        raise FastpathError("foresee", "its VFs", cause, "Have them made first: fastpath.node.eswitch")
    return found


def _names(state: nics.State) -> frozenset[str]:
    """Names of interfaces that a change of NICs may give or take."""
    devices = state.devices.values()
    found = {name for device in devices for name in (device.uplink, *(vf.representor for vf in device.vfs))}
    return frozenset(found | set(state.lags)) - {"", NEW}
