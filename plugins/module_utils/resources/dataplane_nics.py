# SPDX-License-Identifier: GPL-3.0-or-later
"""What the dataplane finds once NICs are what they are going to be: uplinks by other names, bonds. Pure."""

from __future__ import annotations

from dataclasses import replace

from ..kernel.uplinks import Uplink
from .dataplane_state import State
from .eswitch_change import Change
from .eswitch_state import CreateLag, DeleteLag


def foreseen(state: State, change: Change | None) -> State:
    """The state after the change, where there is one."""
    if change is None:
        return state
    then = change.then
    after = {device.uplink: then.devices[handle] for handle, device in change.have.devices.items() if device.uplink}
    ended = {step.do.name for step in change.steps if isinstance(step.do, DeleteLag)}
    made = {step.do.lag.name for step in change.steps if isinstance(step.do, CreateLag)} & set(then.lags)
    names = {**{name: device.uplink for name, device in after.items()}, **dict.fromkeys(ended, "")}
    mtus = {
        **{name: device.mtu for name, device in after.items()},
        **{name: lag.mtu for name, lag in then.lags.items()},
    }
    uplinks = [
        replace(uplink, name=names.get(uplink.name, uplink.name), mtu=mtus.get(uplink.name) or uplink.mtu)
        for uplink in state.uplinks
        if uplink.name not in ended
    ]
    uplinks += [Uplink(name, 0, "", "", then.lags[name].mtu, True) for name in sorted(made)]
    hooks = {key: (names.get(name, name), generation) for key, (name, generation) in state.hooks.items()}
    lost = {key for key, (name, _generation) in state.hooks.items() if name in ended}
    return replace(
        state,
        uplinks=tuple(uplinks),
        hooks={key: hook for key, hook in hooks.items() if change.pinned or key not in lost},
        strangers={names.get(name, name): found for name, found in state.strangers.items() if name not in ended},
    )
