# SPDX-License-Identifier: GPL-3.0-or-later
"""LAGs of uplinks: what items say of them, the rules of drivers, and which NICs a change of one concerns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidConfig
from ..eswitch.profiles import LAG_MODES, SWITCHDEV, LagRules
from . import fields
from .eswitch_state import MTU, Device, Lag, State

_Items = Mapping[str, Mapping[str, Any]]  # by the handle of the device


def lags(items: _Items, absent: Iterable[Mapping[str, Any]], goals: Sequence[Device], have: State) -> dict[str, Lag]:
    """The LAGs that the items want, by name; raises InvalidConfig where they break a rule.

    absent: items of NICs that are not there now, which count as members.
    """
    wished = {handle: _given(item, f"config[{handle}]") for handle, item in items.items() if item.get("lag")}
    later = [named(item) for item in absent]
    nics = {**have.devices, **{goal.handle: goal for goal in goals}}
    found = {}
    for name in sorted({given["name"] for given in wished.values()}):
        members = {handle: nics[handle] for handle, given in wished.items() if given["name"] == name}
        modes = sorted({wished[handle]["mode"] for handle in members})
        field = f"config[{min(members)}].lag"
        if len(modes) > 1:
            raise InvalidConfig(f"{field}.mode", modes, f"the same mode in all NICs of {name}")
        _check(name, modes[0], members, field, have, later.count(name))
        found[name] = Lag(name, modes[0], _mtu(name, {handle: items[handle] for handle in members}, members, have))
    return found


def assigned(goals: Sequence[Device], items: _Items, wished: Mapping[str, Lag], have: State) -> list[Device]:
    """The goals, each in its LAG. One that is in none of ours stays in what others have put it in."""
    found = []
    for goal in goals:
        name = named(items.get(goal.handle, {}))
        master = "" if goal.master in have.lags else goal.master
        found.append(replace(goal, master=name, mtu=wished[name].mtu) if name else replace(goal, master=master))
    return found


def named(item: Mapping[str, Any]) -> str:
    """The LAG that an item is to be in, "" for none."""
    return str(dict(item.get("lag") or {}).get("name", ""))


def _given(item: Mapping[str, Any], field: str) -> dict[str, str]:
    given = fields.mapping(item["lag"], f"{field}.lag", ("name", "mode"))
    name = fields.interface(given.get("name", ""), f"{field}.lag.name")
    return {"name": name, "mode": fields.choice(given.get("mode"), f"{field}.lag.mode", LAG_MODES)}


def _check(name: str, mode: str, members: Mapping[str, Device], field: str, have: State, later: int) -> None:
    if name in have.taken:
        raise InvalidConfig(
            f"{field}.name", name, "a name that no interface of others has; bonds of others stay theirs"
        )
    drivers = sorted({device.driver for device in members.values()})
    if len(drivers) > 1:
        raise InvalidConfig(field, name, f"NICs of one driver; {name} would have {' and '.join(drivers)}")
    for handle, device in sorted(members.items()):
        if device.master and device.master not in have.lags and device.master != name:
            allowed = f"nothing while {device.uplink} is in {device.master}, which others have made; take it out first"
            raise InvalidConfig(f"config[{handle}].lag", name, allowed)
        if not device.uplink:
            raise InvalidConfig(f"config[{handle}].lag", name, "a NIC whose interface is in this network namespace")
    rules = next(iter(members.values())).profile.lag
    if rules is None:
        raise InvalidConfig(field, name, f"nothing; {drivers[0]} has no VF LAG that is known")
    _obey(rules, name, mode, tuple(members.values()), field, later)


def _obey(rules: LagRules, name: str, mode: str, members: Sequence[Device], field: str, later: int) -> None:
    driver, count = members[0].driver, len(members) + later
    if mode not in rules.modes:
        raise InvalidConfig(f"{field}.mode", mode, f"one of {', '.join(rules.modes)}, for {driver}")
    if not 2 <= count <= rules.most:
        raise InvalidConfig(field, name, f"a LAG of 2{f' to {rules.most}' if rules.most > 2 else ''} NICs, not {count}")
    able = [device.mode == SWITCHDEV for device in members]
    if not all(able) and (rules.all_switchdev or not any(able)):
        words = "all its NICs" if rules.all_switchdev else "one of its NICs"
        raise InvalidConfig(field, name, f"{words} in switchdev mode; {driver} has VF LAG in no other")
    for device in members:
        for flag in sorted(device.flags & rules.off):
            command = f"ethtool --set-priv-flags {device.uplink} {flag} off"
            raise InvalidConfig(f"config[{device.handle}].lag", name, f"a NIC with {flag} off, by '{command}'")
    if rules.one_card and len({device.handle.rpartition(".")[0] for device in members}) > 1:
        raise InvalidConfig(field, name, f"functions of one card; {driver} has no VF LAG over two")


def _mtu(name: str, items: _Items, members: Mapping[str, Device], have: State) -> int:
    """What one of them asks for, else what it is; a bond has one MTU for all."""
    given = sorted({int(members[handle].mtu or 0) for handle, item in items.items() if item.get(MTU) is not None})
    if len(given) > 1:
        raise InvalidConfig(f"config[{min(members)}].mtu", given, f"the same MTU in all NICs of {name}")
    if given:
        return given[0]
    return have.lags[name].mtu if name in have.lags else int(members[min(members)].mtu or 0)
