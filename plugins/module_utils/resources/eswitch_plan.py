# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps from the NICs that are there to those that are wished, in the order of each driver. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ..errors import FastpathError
from ..eswitch import profiles
from ..eswitch.attributes import Attributes
from ..eswitch.naming import Names
from ..eswitch.profiles import LEGACY, SWITCHDEV, VFIO
from ..plan import Op, Step
from .eswitch_state import (
    ENCAP,
    INLINE,
    MTU,
    NEW,
    OFFLOAD,
    TOUCHING,
    Autoprobe,
    Bind,
    CreateVfs,
    Device,
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


@dataclass(frozen=True)
class Want:
    """The request, checked. goals: what each of these devices shall be; names: of those whose names are ours."""

    goals: tuple[Device, ...]
    names: Mapping[str, Names]
    rules: str
    document: tuple[Mapping[str, Any], ...] | None
    confirmed: bool = False


def steps(have: State, want: Want) -> Iterator[Step[State]]:
    """Names first, since what appears is named as it appears; devices one after the other."""
    if have.rules != want.rules:
        reason = "interfaces get their names, and others keep off them, as they appear"
        yield Step("write the rules of interfaces for udev", reason, WriteRules(want.rules), (WriteRules(have.rules),))
    for goal in want.goals:
        found = tuple(device_steps(have, goal, want.names.get(goal.handle, Names())))
        _guard(have.devices[goal.handle], found, want.confirmed)
        yield from found
    if (have.document or None) != (want.document or None):
        reason = "the node restores it at boot" if want.document else "none is left"
        action = "record the NICs in /etc/fastpath"
        yield Step(action, reason, Record(want.document or None), (Record(have.document),))


def _guard(have: Device, found: Iterable[Step[State]], confirmed: bool) -> None:
    """Stop before what cannot be taken back from here, or would break what others have built on the uplink."""
    cutting = [step.action for step in found if _cuts(have, step.do)]
    if cutting and not confirmed:
        cause = f"the Ansible connection comes in over it, and the plan would {'; '.join(cutting)}"
        hint = "Come in over another NIC, or let the node go back by itself when it is not confirmed (commit-confirm)"
        raise FastpathError("change", have.handle, cause, hint)
    modes = [step.action for step in found if isinstance(step.do, SetMode)]
    if have.master and modes and have.profile.free_for_mode:
        cause = f"its interface {have.uplink} is in {have.master}, and the plan would {modes[0]}"
        raise FastpathError("change", have.handle, cause, "Take it out first, and put it back afterwards")


def _cuts(have: Device, op: Op[State]) -> bool:
    """May it cut the Ansible connection?"""
    if isinstance(op, Unbind):
        return any(have.vfs[index].carries for index in op.vfs if index < len(have.vfs))
    return have.carries and isinstance(op, TOUCHING)


@dataclass(frozen=True)
class _Turn:
    """What a change of one device needs.

    legacy: it goes through legacy mode. empty: its VFs go first, because of `why`. rest: its VFs lose their drivers.
    """

    start: Device
    goal: Device
    names: Names
    why: str
    legacy: bool
    empty: bool

    @property
    def rest(self) -> bool:
        return self.legacy or self.empty or self.start.mode != self.goal.mode


def remakes(have: Device, goal: Device) -> bool:
    """Does the way to `goal` take the VFs from their drivers, or make them anew?"""
    return _turn(have, goal, Names()).rest


def _turn(have: Device, goal: Device, names: Names) -> _Turn:
    want = have.profile
    switches = have.mode != goal.mode
    params = sorted(n for n in want.legacy_params & set(goal.params) if goal.params[n] != have.params.get(n))
    broken = _broken(have)
    counts = f"{len(goal.vfs)} are wanted" if len(have.vfs) != len(goal.vfs) else ""
    why = broken or counts or (f"{params[0]} is set without VFs" if params else "")
    if not why and switches and want.mode_without_vfs:
        why = f"{have.driver} changes its mode without VFs"
    moved = bool(broken or counts) and want.vfs_in == LEGACY
    via_legacy = have.mode == SWITCHDEV and bool(moved or params or goal.mode == LEGACY)
    return _Turn(have, goal, names, why, via_legacy and profiles.TO_LEGACY in want.order, bool(have.vfs and why))


def _broken(have: Device) -> str:
    """What is wrong with the VFs that are there, so that they are made anew."""
    missing = [index for index, vf in enumerate(have.vfs) if not vf.present]
    if missing:
        return f"{len(missing)} of {len(have.vfs)} VFs have not appeared"
    bare = [index for index, vf in enumerate(have.vfs) if not vf.representor] if have.mode == SWITCHDEV else []
    return f"{len(bare)} of {len(have.vfs)} representors have not appeared" if bare else ""


def device_steps(have: State, goal: Device, names: Names) -> Iterator[Step[State]]:
    """The phases of the driver's profile, each from what the ones before it leave."""
    left = have
    turn = _turn(have.devices[goal.handle], goal, names)
    for phase in turn.start.profile.order:
        for step in _PHASES[phase](left.devices[goal.handle], turn):
            yield step
            left = step.do.effect(left)


_Phase = Iterator[Step[State]]


def _up(left: Device, turn: _Turn) -> _Phase:
    changes = turn.empty or len(turn.start.vfs) != len(turn.goal.vfs)
    if changes and left.profile.up_for_vfs and not left.up and left.uplink:
        reason = f"{left.driver} changes the number of VFs only while it is up"
        handle = left.handle
        yield Step(f"bring up {left.uplink}", reason, SetUp(handle, True), (SetUp(handle, False),))


def _unbind(left: Device, turn: _Turn) -> _Phase:
    yield from _autoprobe(left, "without it nobody can bind one")
    bound = [index for index, vf in enumerate(left.vfs) if vf.driver]
    why = {index: _rebinding(left, turn, index) for index in bound}
    vfs = [index for index in bound if why[index]]
    if vfs:
        handle, drivers = left.handle, tuple((index, left.vfs[index].driver) for index in vfs)
        reason = " or ".join(sorted({why[index] for index in vfs}))
        undo, disrupts = (Bind(handle, drivers),), _users(left, vfs)
        yield Step(f"unbind {_vfs(vfs)} of {handle}", reason, Unbind(handle, tuple(vfs)), undo, disrupts)


def _rebinding(left: Device, turn: _Turn, index: int) -> str:
    """Why a VF leaves its driver, "" where it stays."""
    if turn.rest:
        return "no driver may hold it during the change"
    vf, goal = left.vfs[index], turn.goal.vfs[index]
    if vf.driver != goal.driver:
        return "another driver is wanted"
    return "a driver reads the new MAC when it is bound" if goal.attributes.differing(vf.attributes).mac else ""


def _to_legacy(left: Device, turn: _Turn) -> _Phase:
    if turn.legacy:
        yield _mode_step(left, LEGACY, turn.why or "it is wanted", profiles.TO_LEGACY)


def _mode(left: Device, turn: _Turn) -> _Phase:
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


def _no_vfs(left: Device, turn: _Turn) -> _Phase:
    if turn.empty:
        handle, attributes = left.handle, _known(turn.start)
        undo: list[Any] = [CreateVfs(handle, len(left.vfs))]
        undo += [SetAttributes(handle, attributes)] if attributes else []
        undo += [Autoprobe(handle, left.autoprobe)] if left.profile.binds else []
        action = f"remove the {len(left.vfs)} VFs of {handle}"
        disrupts = _uplink(left, profiles.NO_VFS)
        yield Step(action, turn.why, RemoveVfs(handle), tuple(undo), disrupts)


def _vfs_made(left: Device, turn: _Turn) -> _Phase:
    count = len(turn.goal.vfs)
    if len(left.vfs) != count:
        handle, reason = left.handle, turn.why or "they are wanted"
        action = f"make {count} VFs of {handle}"
        undo: list[Any] = [RemoveVfs(handle)]
        undo += [Autoprobe(handle, left.autoprobe)] if left.profile.binds else []
        yield Step(action, reason, CreateVfs(handle, count), tuple(undo), _uplink(left, profiles.VFS))


def _params(left: Device, turn: _Turn) -> _Phase:
    for name, value in sorted(turn.goal.params.items()):
        before = left.params.get(name)
        if before != value and before is not None:
            handle = left.handle
            undo = (SetParam(handle, name, before),)
            yield Step(f"set {name} of {handle} to {value}", f"it is {before}", SetParam(handle, name, value), undo)


def _settings(left: Device, turn: _Turn) -> _Phase:
    for name in (INLINE, ENCAP, OFFLOAD, MTU):
        before, value = getattr(left, name), getattr(turn.goal, name)
        if before != value:
            handle, words = left.handle, name.replace("_", " ")
            action, undo = f"set {words} of {handle} to {_word(value)}", (Set(handle, name, before),)
            yield Step(action, f"it is {_word(before)}", Set(handle, name, value), undo)


def _attributes(left: Device, turn: _Turn) -> _Phase:
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


def _bind(left: Device, turn: _Turn) -> _Phase:
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


def _names(left: Device, turn: _Turn) -> _Phase:
    ports: list[tuple[int | None, str, str]] = [(None, left.uplink, turn.names.uplink)]
    ports += [(index, vf.representor, turn.names.representor(index)) for index, vf in enumerate(left.vfs)]
    wrong = [(port, before, name) for port, before, name in ports if name and before not in ("", name)]
    if wrong:
        handle, old = left.handle, tuple((port, before) for port, before, _name in wrong if before != NEW)
        action = f"name {', '.join(name for _port, _before, name in wrong)} of {handle}"
        reason = f"the first one is {wrong[0][1]}" if wrong[0][1] != NEW else "they are new"
        name = Name(handle, tuple((port, name) for port, _before, name in wrong))
        yield Step(action, reason, name, (Name(handle, old),) if old else ())


_PHASES: Mapping[str, Callable[[Device, _Turn], _Phase]] = {
    profiles.UP: _up,
    profiles.UNBIND: _unbind,
    profiles.TO_LEGACY: _to_legacy,
    profiles.NO_VFS: _no_vfs,
    profiles.PARAMS: _params,
    profiles.VFS: _vfs_made,
    profiles.MODE: _mode,
    profiles.SETTINGS: _settings,
    profiles.SETUP: _attributes,
    profiles.BIND: _bind,
    profiles.NAMES: _names,
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
        return [_public(device, frozenset(_FIELDS)) for device in devices]
    return [_public(device, shown[device.handle]) for device in devices if device.handle in shown]


_FIELDS = (INLINE, ENCAP, OFFLOAD, MTU, "params", "vf")


def _public(device: Device, shown: frozenset[str]) -> dict[str, Any]:
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
    }
