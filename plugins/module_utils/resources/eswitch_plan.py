# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps from the NICs that are there to those that are wished, in the order of each driver. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable

from ..errors import FastpathError
from ..eswitch import profiles
from ..eswitch.attributes import Attributes
from ..eswitch.profiles import LEGACY, VFIO
from ..plan import Op, Step
from . import eswitch_turn
from .eswitch_state import (
    ENCAP,
    INLINE,
    MTU,
    NEW,
    OFFLOAD,
    Autoprobe,
    Bind,
    CreateLag,
    CreateVfs,
    DeleteLag,
    Device,
    Join,
    Leave,
    Name,
    Record,
    RemoveVfs,
    Set,
    SetAttributes,
    SetMode,
    SetParam,
    Setting,
    SetUp,
    State,
    Unbind,
    WriteRules,
)
from .eswitch_turn import Turn, Want


def steps(have: State, want: Want) -> Iterator[Step[State]]:
    """Names first, since what appears is named as it appears; NICs one after the other, those of LAGs together."""
    if have.rules != want.rules:
        reason = "interfaces get their names, and others keep off them, as they appear"
        yield Step("write the rules of interfaces for udev", reason, WriteRules(want.rules), (WriteRules(have.rules),))
    left = have
    for goals in eswitch_turn.groups(have, want):
        turns = eswitch_turn.turns(left, goals, want)
        for step in (found := tuple(_together(left, turns, want))):
            left = step.do.effect(left)
        gone = {step.do.name for step in found if isinstance(step.do, DeleteLag)}
        for turn in turns:
            _guard_connection(turn, gone)
            _guard(turn.start, [step for step in found if _of(step.do) == turn.start.handle])
        yield from found
    if (have.document or None) != (want.document or None):
        reason = "the node restores it at boot" if want.document else "none is left"
        action = "record the NICs in /etc/fastpath"
        yield Step(action, reason, Record(want.document or None), (Record(have.document),))


def _guard_connection(turn: Turn, gone: Iterable[str]) -> None:
    """What has the addresses goes; no way back would bring these back."""
    now, then = turn.start.master, turn.goal.master
    if turn.start.carries and (now != then or now in gone):
        words = " and ".join(([f"out of {now}"] if now else []) + ([f"into {then}"] if then else []))
        cause = f"the Ansible connection comes in over it, and addresses do not follow it {words}"
        raise FastpathError("change", turn.start.handle, cause, "Come in over another NIC")


def _guard(have: Device, found: Sequence[Step[State]]) -> None:
    """Stop before what would break what others have built on the uplink."""
    modes = [step.action for step in found if isinstance(step.do, SetMode)]
    leaves = any(isinstance(step.do, Leave) for step in found)
    if have.master and not leaves and modes and have.profile.free_for_mode:
        cause = f"its interface {have.uplink} is in {have.master}, and the plan would {modes[0]}"
        raise FastpathError("change", have.handle, cause, "Take it out first, and put it back afterwards")


def _of(op: Op[State]) -> str:
    """The handle of the NIC that an operation is about, "" for none."""
    return str(getattr(op, "handle", ""))


def _together(have: State, turns: Sequence[Turn], want: Want) -> Iterator[Step[State]]:
    """The phases of the drivers' profiles, each from what the ones before it leave."""
    left = have
    for part in profiles.PARTS:
        if profiles.JOIN in part:
            for step in _lags_made(left, turns, want):
                yield step
                left = step.do.effect(left)
        for turn in turns:
            for phase in [phase for phase in turn.start.profile.order if phase in part]:
                for step in _PHASES[phase](left.devices[turn.start.handle], turn):
                    yield step
                    left = step.do.effect(left)
        if profiles.LEAVE in part:
            for step in _lags_removed(left, want):
                yield step
                left = step.do.effect(left)


def _lags_removed(left: State, want: Want) -> Iterator[Step[State]]:
    for name, lag in sorted(left.lags.items()):
        wished = want.lags.get(name)
        if left.members(name) or wished == lag or name in want.kept_lags:
            continue
        reason = "it is made anew" if wished else "no NIC is to be in it"
        yield Step(f"remove {name}", reason, DeleteLag(name), (CreateLag(lag),))


def _lags_made(left: State, turns: Sequence[Turn], want: Want) -> Iterator[Step[State]]:
    for name in sorted({turn.joins for turn in turns} - {""} - set(left.lags)):
        lag = want.lags[name]
        yield Step(f"make {name}, {lag.mode}", "it is wanted", CreateLag(lag), (DeleteLag(name),))


_Phase = Iterator[Step[State]]


def _up(left: Device, turn: Turn) -> _Phase:
    changes = turn.empty or len(turn.start.vfs) != len(turn.goal.vfs)
    if changes and left.profile.up_for_vfs and not left.up and left.uplink:
        reason = f"{left.driver} changes the number of VFs only while it is up"
        handle = left.handle
        yield Step(f"bring up {left.uplink}", reason, SetUp(handle, True), (SetUp(handle, False),))


def _unbind(left: Device, turn: Turn) -> _Phase:
    yield from _autoprobe(left, "without it nobody can bind one")
    bound = [index for index, vf in enumerate(left.vfs) if vf.driver]
    why = {index: _rebinding(left, turn, index) for index in bound}
    vfs = [index for index in bound if why[index]]
    if vfs:
        handle, drivers = left.handle, tuple((index, left.vfs[index].driver) for index in vfs)
        reason = " or ".join(sorted({why[index] for index in vfs}))
        undo, disrupts = (Bind(handle, drivers),), _users(left, vfs)
        yield Step(f"unbind {_vfs(vfs)} of {handle}", reason, Unbind(handle, tuple(vfs)), undo, disrupts)


def _rebinding(left: Device, turn: Turn, index: int) -> str:
    """Why a VF leaves its driver, "" where it stays."""
    if turn.rest:
        return "no driver may hold it during the change"
    if turn.held:
        return f"no driver may hold it while {turn.held} changes"
    vf, goal = left.vfs[index], turn.goal.vfs[index]
    if vf.driver != goal.driver:
        return "another driver is wanted"
    return "a driver reads the new MAC when it is bound" if goal.attributes.differing(vf.attributes).mac else ""


def _leave(left: Device, turn: Turn) -> _Phase:
    lag = turn.leaves
    if lag:
        stays = turn.joins == lag
        reason = f"it comes back when {left.handle} is what it shall be" if stays else "it is not to be in it"
        disrupts = f"traffic of {lag}" if left.up else ""
        yield Step(
            f"take {left.uplink} out of {lag}", reason, Leave(left.handle, lag), (Join(left.handle, lag),), disrupts
        )


def _join(left: Device, turn: Turn) -> _Phase:
    handle, name = left.handle, left.uplink if left.uplink != NEW else f"the uplink of {left.handle}"
    if turn.joins:
        undo = (Leave(handle, turn.joins), Set(handle, MTU, left.mtu), SetUp(handle, left.up))
        disrupts = f"traffic of {name}" if left.up else ""
        yield Step(f"put {name} into {turn.joins}", "it is wanted", Join(handle, turn.joins), undo, disrupts)


def _to_legacy(left: Device, turn: Turn) -> _Phase:
    if turn.legacy:
        yield _mode_step(left, LEGACY, turn.why or "it is wanted", profiles.TO_LEGACY)


def _mode(left: Device, turn: Turn) -> _Phase:
    if left.mode != turn.goal.mode:
        yield _mode_step(left, turn.goal.mode, "it is wanted", profiles.MODE)


def _mode_step(left: Device, mode: str, reason: str, phase: str) -> Step[State]:
    handle, attributes = left.handle, _known(left)
    undo: list[Any] = [SetMode(handle, left.mode)]
    undo += [SetAttributes(handle, attributes)] if attributes else []
    return Step(f"set {handle} to {mode}", reason, SetMode(handle, mode), tuple(undo), _uplink(left, phase))


def _known(left: Device) -> tuple[tuple[int, Attributes], ...]:
    found = [(index, vf.attributes) for index, vf in enumerate(left.vfs)]
    return tuple((index, given) for index, given in found if given.given())


def _no_vfs(left: Device, turn: Turn) -> _Phase:
    if turn.empty:
        handle, attributes = left.handle, _known(turn.start)
        undo: list[Any] = [CreateVfs(handle, len(left.vfs))]
        undo += [SetAttributes(handle, attributes)] if attributes else []
        undo += [Autoprobe(handle, left.autoprobe)] if left.profile.binds else []
        action = f"remove the {len(left.vfs)} VFs of {handle}"
        disrupts = _uplink(left, profiles.NO_VFS)
        yield Step(action, turn.why, RemoveVfs(handle), tuple(undo), disrupts)


def _vfs_made(left: Device, turn: Turn) -> _Phase:
    count = len(turn.goal.vfs)
    if len(left.vfs) != count:
        handle, reason = left.handle, turn.why or "they are wanted"
        action = f"make {count} VFs of {handle}"
        undo: list[Any] = [RemoveVfs(handle)]
        undo += [Autoprobe(handle, left.autoprobe)] if left.profile.binds else []
        yield Step(action, reason, CreateVfs(handle, count), tuple(undo), _uplink(left, profiles.VFS))


def _params(left: Device, turn: Turn) -> _Phase:
    for name, value in sorted(turn.goal.params.items()):
        before = left.params.get(name)
        if before != value and before is not None:
            handle = left.handle
            undo = (SetParam(handle, name, before),)
            yield Step(f"set {name} of {handle} to {value}", f"it is {before}", SetParam(handle, name, value), undo)


def _settings(left: Device, turn: Turn) -> _Phase:
    for name in (INLINE, ENCAP, OFFLOAD, MTU):
        before, value = getattr(left, name), getattr(turn.goal, name)
        if before != value and not (name == MTU and turn.joins):  # it gets that of the LAG
            handle, words = left.handle, name.replace("_", " ")
            action, undo = f"set {words} of {handle} to {_word(value)}", (Set(handle, name, before),)
            yield Step(action, f"it is {_word(before)}", Set(handle, name, value), undo)


def _attributes(left: Device, turn: Turn) -> _Phase:
    pairs = [(index, vf.attributes, turn.goal.vfs[index].attributes) for index, vf in enumerate(left.vfs)]
    new = tuple((index, goal.differing(now)) for index, now, goal in pairs if goal.differing(now).given())
    if new:
        handle, made = left.handle, not any(now.given() for _index, now, _goal in pairs)
        old = tuple((index, now.only(goal.differing(now).given())) for index, now, goal in pairs)
        undo = tuple((index, given) for index, given in old if given.given())
        names = sorted({name for _index, given in new for name in given.given()})
        action = f"set {', '.join(names)} of {_vfs([index for index, _given in new])} of {handle}"
        reason = "they are new" if made else "it differs"
        # another VLAN cuts who is in it; a MAC comes with an unbinding, and the rest lets packets pass as before
        disrupts = _users(left, [index for index, given in new if given.vlan is not None and left.vfs[index].driver])
        undoing = (SetAttributes(handle, undo),) if undo else ()
        yield Step(action, reason, SetAttributes(handle, new), undoing, disrupts)


def _bind(left: Device, turn: Turn) -> _Phase:
    free = [(index, turn.goal.vfs[index].driver) for index, vf in enumerate(left.vfs) if not vf.driver]
    drivers = tuple((index, driver) for index, driver in free if driver)
    yield from _autoprobe(left, "they have all they need")
    if drivers:
        vfs, handle = tuple(index for index, _driver in drivers), left.handle
        kinds = sorted({VFIO if driver == VFIO else "their drivers" for _index, driver in drivers})
        action = f"bind {_vfs(vfs)} of {handle} to {' and '.join(kinds)}"
        yield Step(action, "they are free", Bind(handle, drivers), (Unbind(handle, vfs),))


def _autoprobe(left: Device, reason: str) -> _Phase:
    if not left.autoprobe:
        undo = (Autoprobe(left.handle, False),)
        yield Step(f"let drivers take VFs of {left.handle}", reason, Autoprobe(left.handle, True), undo)


def _names(left: Device, turn: Turn) -> _Phase:
    ports: list[tuple[int | None, str, str]] = [(None, left.uplink, turn.names.uplink)]
    ports += [(index, vf.representor, turn.names.representor(index)) for index, vf in enumerate(left.vfs)]
    wrong = [(port, before, name) for port, before, name in ports if name and before not in ("", name)]
    if wrong:
        handle, old = left.handle, tuple((port, before) for port, before, _name in wrong if before != NEW)
        action = f"name {', '.join(name for _port, _before, name in wrong)} of {handle}"
        reason = f"the first one is {wrong[0][1]}" if wrong[0][1] != NEW else "they are new"
        name = Name(handle, tuple((port, name) for port, _before, name in wrong))
        yield Step(action, reason, name, (Name(handle, old),) if old else ())


_PHASES: Mapping[str, Callable[[Device, Turn], _Phase]] = {
    profiles.UP: _up,
    profiles.UNBIND: _unbind,
    profiles.LEAVE: _leave,
    profiles.TO_LEGACY: _to_legacy,
    profiles.NO_VFS: _no_vfs,
    profiles.PARAMS: _params,
    profiles.VFS: _vfs_made,
    profiles.MODE: _mode,
    profiles.SETTINGS: _settings,
    profiles.SETUP: _attributes,
    profiles.NAMES: _names,
    profiles.JOIN: _join,
    profiles.BIND: _bind,
}


def _users(left: Device, vfs: Iterable[int]) -> str:
    return ", ".join(sorted({f"VF {index} of {left.vfs[index].user}" for index in vfs if left.vfs[index].user}))


def _uplink(left: Device, phase: str) -> str:
    return f"traffic of {left.uplink}" if phase in left.profile.disturbs and left.up and left.uplink else ""


def _vfs(indexes: Iterable[int]) -> str:
    """VF 3, VFs 0-7: runs are shortened."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    words = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"{'VFs' if len(runs) > 1 or len(runs[0]) > 1 else 'VF'} {words}" if runs else "no VF"


def _word(value: Setting) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def public(state: State, shown: Mapping[str, frozenset[str]] | None = None) -> list[dict[str, Any]]:
    """The devices in the config's shape. shown: handle -> the fields to show beside mode and vfs; None shows all."""
    devices = [device for _handle, device in sorted(state.devices.items())]
    if shown is None:
        return [_public(device, frozenset(_FIELDS), state) for device in devices]
    return [_public(device, shown[device.handle], state) for device in devices if device.handle in shown]


_FIELDS = (INLINE, ENCAP, OFFLOAD, MTU, "params", "vf", "lag")


def _public(device: Device, shown: frozenset[str], state: State) -> dict[str, Any]:
    lag = state.lags.get(device.master)
    settings = {name: getattr(device, name) for name in (INLINE, ENCAP, OFFLOAD, MTU) if name in shown}
    allowed = device.profile.attributes[device.mode]
    vfs = [
        {"index": index, **({"driver": vf.driver} if vf.driver else {}), **vf.attributes.only(allowed).given()}
        for index, vf in enumerate(device.vfs)
    ]
    return {
        "device": {"pci": device.pci} if device.pci else {"switch_id": device.switch_id},
        "mode": device.mode,
        "vfs": len(device.vfs),
        **{name: value for name, value in settings.items() if value is not None},
        **({"params": dict(sorted(device.params.items()))} if "params" in shown and device.params else {}),
        **({"vf": vfs} if "vf" in shown and vfs else {}),
        **({"lag": {"name": lag.name, "mode": lag.mode}} if lag and "lag" in shown else {}),
    }
