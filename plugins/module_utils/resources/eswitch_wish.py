# SPDX-License-Identifier: GPL-3.0-or-later
"""From a list as users write it to what each NIC shall be. Pure.

What an item does not name of a NIC stays as it is. What it does not name of a VF is a default: a MAC of its own that is
the same after a reboot, no VLAN, no trust, spoof check, no rate; but a VF that stays in use keeps what it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable

from ..errors import InvalidConfig
from ..eswitch import naming
from ..eswitch.attributes import Attributes
from ..eswitch.naming import Names
from ..eswitch.profiles import KERNEL, LEGACY, SWITCHDEV, VFIO
from ..plan import Step
from . import eswitch_confirm, eswitch_lag, eswitch_plan, eswitch_turn, fields
from .eswitch_state import ENCAP, INLINE, MTU, OFFLOAD, RESTORED, SETTINGS, Device, Request, State, Value, Vf
from .eswitch_turn import Want

_KEYS = ("device", "mode", "vfs", *SETTINGS, "params", "vf_driver", "vf", "names", "lag")
_SELECTORS = ("pci", "mac", "driver", "serial", "switch_id")
_VF_KEYS = ("index", "driver", "mac", "vlan", "trust", "spoofcheck", "min_rate", "max_rate")
_INLINE = ("none", "link", "network", "transport")
_ENCAP = ("none", "basic")
_MAX_RATE = 2**31 - 1  # Mbit/s
_MIN_MTU, _MAX_MTU = 1280, 65535
_Check = Callable[[Any, str], Any]  # value, field -> its normal form
_Items = Mapping[str, Mapping[str, Any]]  # by the handle of the device


def plan(have: State, request: Request) -> tuple[Step[State], ...]:
    """The steps from `have` to what is requested; raises InvalidConfig before anything is changed."""
    return eswitch_confirm.guarded(have, request, tuple(eswitch_plan.steps(have, want(have, request))))


def want(have: State, request: Request) -> Want:
    """What the request means on this node."""
    if request.state == RESTORED:
        return _restored(have, request)
    given = _by_device(request.config, have, "config")
    kept, absent = _kept(have)
    if request.state == "deleted":
        gone = given or kept
        rest = {handle: item for handle, item in kept.items() if handle not in gone}
        goals = [_bare(have.devices[handle]) for handle in sorted(gone)]
        return _want(have, goals, rest, absent if given else ())
    if request.state == "merged":
        given = {handle: {**kept.get(handle, {}), **item} for handle, item in given.items()}
    dropped = sorted(set(kept) - set(given)) if request.state == "overridden" else []
    goals = [_bare(have.devices[handle]) for handle in dropped]
    goals += [_goal(item, f"config[{handle}]", have.devices[handle]) for handle, item in sorted(given.items())]
    if request.state == "overridden":
        return _want(have, goals, given, ())
    return _want(have, goals, {**kept, **given}, absent)


def _restored(have: State, request: Request) -> Want:
    """The NICs as they were, the document and the rules too. The uplinks' names are the old ones, whoever gave them."""
    given = _by_device(request.config, have, "config")
    kept, absent = _kept(replace(have, document=request.document))
    there = {handle: _settled(item, have.devices[handle]) for handle, item in given.items()}
    goals = [_goal(item, f"config[{handle}]", have.devices[handle]) for handle, item in sorted(there.items())]
    found = _want(have, goals, kept, absent)
    names = {
        handle: replace(found.names.get(handle, Names()), uplink=_names(item, f"config[{handle}]").uplink)
        for handle, item in given.items()
    }
    return replace(found, names={**found.names, **names})


def _settled(item: Mapping[str, Any], device: Device) -> dict[str, Any]:
    """The item without settings that the device does not have now; in its old mode it has them again."""
    return {name: value for name, value in item.items() if name not in SETTINGS or getattr(device, name) is not None}


def ready(item: Mapping[str, Any], have: State) -> bool:
    """Is the item's NIC there, with its driver at work? One that is still starting has no interface yet."""
    found = _matching(item.get("device"), "document", have)
    if len(found) != 1 or not found[0].driver or not found[0].uplink:
        return False
    return found[0].switchable or item.get("mode") != SWITCHDEV


def bare(have: State) -> State:
    """The node's NICs as if nobody had ever changed them."""
    out = {
        handle: replace(device, master="") if device.master in have.lags else device
        for handle, device in have.devices.items()
    }
    return State({handle: _bare(device) for handle, device in out.items()}, taken=have.taken)


def shown(have: State, request: Request) -> dict[str, frozenset[str]]:
    """What a run reports: the devices of the request and of the document, with the fields that these name.

    What nobody asked for may be the driver's choice, which no plan can promise.
    """
    found: dict[str, frozenset[str]] = {}
    for items in (_by_device(request.config, have, "config"), _kept(have)[0]):
        for handle, item in items.items():
            names = frozenset(item) | (frozenset(["vf"]) if "vf_driver" in item else frozenset())
            found[handle] = found.get(handle, frozenset()) | names
    return found


def _kept(have: State) -> tuple[_Items, tuple[Mapping[str, Any], ...]]:
    """The document's items by device, and those of NICs that are not there (now): they may come back."""
    items = list(have.document or ())
    there = [len(_matching(item.get("device"), "document", have)) == 1 for item in items]
    absent = tuple(item for item, found in zip(items, there) if not found)
    return _by_device([item for item, found in zip(items, there) if found], have, "document"), absent


def _want(have: State, goals: Sequence[Device], items: _Items, absent: tuple[Mapping[str, Any], ...]) -> Want:
    names = {handle: _names(item, f"config[{handle}]") for handle, item in items.items()}
    counts = {handle: len(device.vfs) for handle, device in have.devices.items()}
    counts.update({goal.handle: len(goal.vfs) for goal in goals})
    _check_free(names, counts, have)
    wished = {
        have.devices[handle].pci: (one, counts[handle]) for handle, one in names.items() if have.devices[handle].pci
    }
    document: tuple[Mapping[str, Any], ...] = (
        *(_lasting(item, have.devices[handle]) for handle, item in sorted(items.items())),
        *absent,
    )
    if len(document) == len(have.document or ()) and all(item in document for item in have.document or ()):
        document = have.document or ()  # the order says nothing: NICs that are not there come last
    lags = eswitch_lag.lags(items, absent, goals, have)
    goals = eswitch_lag.assigned(goals, items, lags, have)
    kept = frozenset(map(eswitch_lag.named, absent)) - {""}
    return Want(tuple(goals), names, naming.rules(wished), document, lags, kept)


def _check_free(names: Mapping[str, Names], counts: Mapping[str, int], have: State) -> None:
    """No name is another's: the kernel refuses it, and udev would leave the interface with the kernel's name."""
    owners = {**dict.fromkeys(have.taken, "another interface"), **dict.fromkeys(have.lags, "a LAG")}
    for handle, one in sorted(names.items()):
        others = {device.uplink: device.handle for device in have.devices.values() if device.handle != handle}
        for name in filter(None, (one.uplink, *map(one.representor, range(counts[handle])))):
            owner = owners.get(name) or others.get(name)
            if owner:
                raise InvalidConfig(f"config[{handle}].names", name, f"a name that is free; {owner} has it")
            owners[name] = handle


def _lasting(item: Mapping[str, Any], device: Device) -> dict[str, Any]:
    """The item for the document: after a boot, in legacy mode, a NIC has no switch_id that would find it."""
    return {**item, "device": {"pci": device.pci}} if "switch_id" in item["device"] and device.pci else dict(item)


def _bare(have: Device) -> Device:
    """Without VFs, in legacy mode; all else stays."""
    return replace(have, mode=LEGACY, vfs=())


def _by_device(config: Iterable[object], have: State, field: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for index, item in enumerate(config):
        where = f"{field}[{index}]"
        given = fields.mapping(item, where, _KEYS)
        devices = _matching(given.get("device"), where, have)
        if len(devices) != 1:
            ((by, value),) = given["device"].items()
            there = sorted({_words(device, by) for device in have.devices.values()} - {""})
            raise InvalidConfig(
                f"{where}.device.{by}", value, f"one NIC with VFs; there are: {', '.join(there) or 'none'}"
            )
        if devices[0].handle in found:
            raise InvalidConfig(f"{where}.device", given["device"], "each NIC once")
        found[devices[0].handle] = given
    return found


def _matching(value: object, field: str, have: State) -> list[Device]:
    given = fields.mapping(value, f"{field}.device", _SELECTORS)
    if len(given) != 1:
        raise InvalidConfig(f"{field}.device", value, f"exactly one of {', '.join(_SELECTORS)}")
    ((by, wished),) = given.items()
    checks = {"pci": fields.pci, "mac": fields.mac}
    checked = checks[by](wished, f"{field}.device.{by}") if by in checks else str(wished)
    return [device for device in have.devices.values() if _words(device, by) == checked]


def _words(device: Device, by: str) -> str:
    return str(getattr(device, by))


def _goal(item: Mapping[str, Any], field: str, have: Device) -> Device:
    mode = fields.choice(item.get("mode", have.mode), f"{field}.mode", (LEGACY, SWITCHDEV))
    if mode != have.mode and not have.switchable:
        raise InvalidConfig(f"{field}.mode", mode, f"{have.mode}; {have.driver} of this kernel cannot change it")
    count = fields.number(item.get("vfs", len(have.vfs)), f"{field}.vfs", 0, have.total_vfs)
    goal = replace(have, mode=mode, params=_params(item, field, have), **_settings(item, field, have))
    return replace(goal, vfs=_vfs(item, field, have, goal, count), autoprobe=True)


def _settings(item: Mapping[str, Any], field: str, have: Device) -> dict[str, Any]:
    given = {name: item[name] for name in SETTINGS if name in item}
    for name, value in given.items():
        if getattr(have, name) is None:
            raise InvalidConfig(f"{field}.{name}", value, f"nothing; {have.driver} has no such setting")
    checks: dict[str, _Check] = {
        INLINE: lambda value, where: fields.choice(value, where, _INLINE),
        ENCAP: lambda value, where: fields.choice(value, where, _ENCAP),
        OFFLOAD: _flag,
        MTU: lambda value, where: fields.number(value, where, _MIN_MTU, _MAX_MTU),
    }
    return {name: checks[name](value, f"{field}.{name}") for name, value in given.items()}


def _flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidConfig(field, value, "true or false")
    return value


def _params(item: Mapping[str, Any], field: str, have: Device) -> dict[str, Value]:
    wished = fields.mapping(item.get("params", {}), f"{field}.params", sorted(have.params))
    return {
        **have.params,
        **{name: _like(have.params[name], value, f"{field}.params.{name}") for name, value in wished.items()},
    }


def _like(now: Value, value: object, field: str) -> Value:
    """A value of the type that the parameter has."""
    if isinstance(now, bool):
        return _flag(value, field)
    return fields.number(value, field, 0, 2**64 - 1) if isinstance(now, int) else str(value)


def _vfs(item: Mapping[str, Any], field: str, have: Device, goal: Device, count: int) -> tuple[Vf, ...]:
    wished = _wished_vfs(item, field, goal, count)
    driver = fields.choice(item["vf_driver"], f"{field}.vf_driver", (KERNEL, VFIO)) if "vf_driver" in item else ""
    anew = eswitch_turn.remakes(have, replace(goal, vfs=(Vf(),) * count))
    before = {index: vf for index, vf in enumerate(have.vfs) if vf.present}
    return tuple(
        _vf(before.get(index, Vf()), wished.get(index, {}), driver, anew, goal, index) for index in range(count)
    )


def _vf(now: Vf, wished: Mapping[str, Any], driver: str, anew: bool, goal: Device, index: int) -> Vf:
    base = Attributes(derived_mac(goal, index), 0, False, True, 0, 0)
    given = Attributes(**{name: value for name, value in wished.items() if name != "driver"})
    bound = wished.get("driver") or driver or now.driver or KERNEL
    # with another driver, or bound anew to the kernel's, it is nobody's any more
    loses = bound == KERNEL and (anew or given.mac not in (None, now.attributes.mac))
    if now.user and bound == now.driver and not loses:
        base = now.attributes.over(base) if anew else now.attributes
    allowed = goal.profile.attributes[goal.mode]
    return Vf(bound if goal.profile.binds else "", given.over(base).only(allowed), now.user)


def derived_mac(device: Device, index: int) -> str:
    """A VF's own MAC: locally administered, unicast, from the PF's, of which there is one in the world."""
    seed = f"{device.mac or device.serial or device.handle} {index}"
    return "02:" + hashlib.sha256(seed.encode()).digest()[:5].hex(":")


def _wished_vfs(item: Mapping[str, Any], field: str, goal: Device, count: int) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for place, one in enumerate(fields.sequence(item.get("vf", []), f"{field}.vf")):
        where = f"{field}.vf[{place}]"
        given = fields.mapping(one, where, _VF_KEYS)
        index = fields.number(given.pop("index", None), f"{where}.index", 0, count - 1)
        if index in found:
            raise InvalidConfig(f"{where}.index", index, "each VF once")
        found[index] = _checked_vf(given, where, goal)
    return found


def _checked_vf(given: Mapping[str, Any], where: str, goal: Device) -> dict[str, Any]:
    allowed = goal.profile.attributes[goal.mode] | ({"driver"} if goal.profile.binds else frozenset())
    for name, value in given.items():
        if name not in allowed:
            raise InvalidConfig(f"{where}.{name}", value, f"nothing; {goal.driver} has none in {goal.mode} mode")
    checks: dict[str, _Check] = {
        "driver": lambda value, name: fields.choice(value, name, (KERNEL, VFIO)),
        "mac": fields.mac,
        "vlan": lambda value, name: fields.number(value, name, 0, 4094),
        "trust": _flag,
        "spoofcheck": _flag,
        "min_rate": lambda value, name: fields.number(value, name, 0, _MAX_RATE),
        "max_rate": lambda value, name: fields.number(value, name, 0, _MAX_RATE),
    }
    return {name: checks[name](value, f"{where}.{name}") for name, value in given.items()}


def _names(item: Mapping[str, Any], field: str) -> Names:
    given = fields.mapping(item.get("names", {}), f"{field}.names", ("uplink", "representors"))
    for name, value in given.items():
        longest = f"{value}999" if name == "representors" else value
        fields.interface(longest, f"{field}.names.{name}")
    return Names(**{name: str(value) for name, value in given.items()}, bonded=bool(item.get("lag")))
