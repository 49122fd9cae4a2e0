# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change of NICs needs: which go together, what has to give way first, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..eswitch import profiles
from ..eswitch.naming import Names
from ..eswitch.profiles import LEGACY, SWITCHDEV
from .eswitch_state import Device, Lag, State


@dataclass(frozen=True)
class Want:
    """The request, checked. goals: what each of these devices shall be; names: of those whose names are ours.

    lags: by name; those in kept_lags stay too, for NICs that are not there now.
    """

    goals: tuple[Device, ...]
    names: Mapping[str, Names]
    rules: str
    document: tuple[Mapping[str, Any], ...] | None
    lags: Mapping[str, Lag] = field(default_factory=dict)
    kept_lags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Turn:
    """What a change of one device needs.

    legacy: it goes through legacy mode. empty: its VFs go first, because of `why`. rest: its VFs lose their drivers.
    leaves, joins: LAGs. held: a LAG that changes, while which its VFs have no drivers.
    """

    start: Device
    goal: Device
    names: Names
    why: str
    legacy: bool
    empty: bool
    leaves: str = ""
    joins: str = ""
    held: str = ""

    @property
    def rest(self) -> bool:
        return self.legacy or self.empty or self.start.mode != self.goal.mode


def remakes(have: Device, goal: Device) -> bool:
    """Does the way to `goal` take the VFs from their drivers, or make them anew?"""
    return _turn(have, goal, Names()).rest


def _turn(have: Device, goal: Device, names: Names) -> Turn:
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
    return Turn(have, goal, names, why, via_legacy and profiles.TO_LEGACY in want.order, bool(have.vfs and why))


def _broken(have: Device) -> str:
    """What is wrong with the VFs that are there, so that they are made anew."""
    missing = [index for index, vf in enumerate(have.vfs) if not vf.present]
    if missing:
        return f"{len(missing)} of {len(have.vfs)} VFs have not appeared"
    bare = [index for index, vf in enumerate(have.vfs) if not vf.representor] if have.mode == SWITCHDEV else []
    return f"{len(bare)} of {len(have.vfs)} representors have not appeared" if bare else ""


def groups(have: State, want: Want) -> Iterator[tuple[Device, ...]]:
    """The goals: each alone, but for those that are or will be in LAGs, with all others of these LAGs."""
    goals = {goal.handle: goal for goal in want.goals}
    masters = {handle: {have.devices[handle].master, goal.master} for handle, goal in goals.items()}
    lags = set().union(*masters.values()) & {*have.lags, *want.lags}
    rest = [device for device in have.devices.values() if device.master in lags and device.handle not in goals]
    staying = [replace(one, mtu=want.lags[one.master].mtu) if one.master in want.lags else one for one in rest]
    joined = [goal for handle, goal in goals.items() if masters[handle] & lags]
    yield tuple(sorted([*joined, *staying], key=Device.place))
    yield from ((goal,) for goal in want.goals if goal not in joined)


def turns(have: State, goals: Iterable[Device], want: Want) -> tuple[Turn, ...]:
    """A turn for each goal, and what the changes of LAGs ask of all that are in them."""
    found = [_turn(have.devices[goal.handle], goal, want.names.get(goal.handle, Names())) for goal in goals]
    found = [_moving(turn, have, want) for turn in found]
    changing = {lag for turn in found for lag in (turn.leaves, turn.joins)} - {""}
    return tuple(_held(turn, changing) for turn in found)


def _moving(turn: Turn, have: State, want: Want) -> Turn:
    now, then = turn.start.master, turn.goal.master
    if now in have.lags:
        other = then != now or (then in want.lags and want.lags[then].mode != have.lags[now].mode)
        leaves = now if other or turn.legacy or turn.start.mode != turn.goal.mode else ""
        return replace(turn, leaves=leaves, joins=then if leaves and then in want.lags else "")
    return replace(turn, joins=then if then in want.lags else "")


def _held(turn: Turn, changing: Iterable[str]) -> Turn:
    """With the name of a LAG that changes, where its driver wants no VF bound while it does."""
    mine = sorted({turn.start.master, turn.goal.master}.intersection(changing))
    rules = turn.start.profile.lag
    return replace(turn, held=mine[0]) if mine and rules and rules.vfs_free else turn
