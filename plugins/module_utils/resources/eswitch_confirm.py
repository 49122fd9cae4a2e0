# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of the NIC by which the Ansible connection comes in: made only with a way back that needs nobody. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import FastpathError
from ..eswitch.profiles import KERNEL, VFIO
from ..plan import Op, Step
from . import eswitch_plan
from .confirm import Undo
from .eswitch_state import RESTORED, TOUCHING, Arm, Device, Request, SetAttributes, State, Unbind

RESOURCE = "eswitch"


def guarded(have: State, request: Request, steps: tuple[Step[State], ...]) -> tuple[Step[State], ...]:
    """The steps, with the way back before the first one where one may cut the connection; or refuses them."""
    if request.state == RESTORED or not steps:
        return steps
    if have.unconfirmed:
        hint = "On the node, 'fastpath confirm' keeps it, 'fastpath revert' takes it back, 'fastpath status' shows it"
        raise FastpathError("change", "the NICs", "an earlier change waits to be confirmed", hint)
    cut = [(device, _cutting(device, steps)) for _handle, device in sorted(have.devices.items())]
    for device, actions in cut:
        if actions and not request.confirm_timeout:
            cause = f"the Ansible connection comes in over it, and the plan would {'; '.join(actions)}"
            hint = "Come in over another NIC, or set confirm_timeout: then the node goes back unless it is confirmed"
            raise FastpathError("change", device.handle, cause, hint)
    carrying = [device.handle for device, actions in cut if actions]
    return (_arming(have, request, steps, carrying), *steps) if carrying else steps


def _cutting(have: Device, steps: Iterable[Step[State]]) -> list[str]:
    return [step.action for step in steps if _handle(step.do) == have.handle and _cuts(have, step.do)]


def _cuts(have: Device, op: Op[State]) -> bool:
    """May it cut the Ansible connection?"""
    if isinstance(op, Unbind):
        return _carried(have, op.vfs)
    if isinstance(op, SetAttributes) and _carried(have, [index for index, _given in op.attributes]):
        return True
    return have.carries and isinstance(op, TOUCHING)


def _carried(have: Device, vfs: Iterable[int]) -> bool:
    return any(have.vfs[index].carries for index in vfs if index < len(have.vfs))


def _handle(op: Op[State]) -> str:
    return str(getattr(op, "handle", ""))


def _arming(have: State, request: Request, steps: Sequence[Step[State]], carrying: Sequence[str]) -> Step[State]:
    """It has no inverse: what has been taken back wholly needs none, and what has not is left to the node."""
    timeout = request.confirm_timeout
    touched = sorted({_handle(step.do) for step in steps} - {""})
    undo = Undo(RESOURCE, timeout, {"config": [_before(have, handle) for handle in touched], "document": have.document})
    reason = f"the Ansible connection comes in over {', '.join(carrying)}"
    return Step(f"take all back unless it is confirmed within {timeout} s", reason, Arm(undo))


def _before(have: State, handle: str) -> dict[str, Any]:
    """The device as gathered, with its uplink's name. Drivers that no config can name become the kernel's."""
    device = have.devices[handle]
    (item,) = eswitch_plan.public(State({handle: device}))
    known = [{k: v for k, v in vf.items() if k != "driver" or v in (KERNEL, VFIO)} for vf in item.get("vf", ())]
    return {
        **item,
        "device": {"pci": device.pci} if device.pci else {"mac": device.mac},  # what it has in every mode
        **({"vf": known} if known else {}),
        **({"names": {"uplink": device.uplink}} if device.uplink else {}),
    }
