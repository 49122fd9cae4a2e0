# SPDX-License-Identifier: GPL-3.0-or-later
"""NICs with VFs: carries out the operations of eswitch_state on hardware, and waits for what appears later."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Protocol, TypeVar

from ..errors import FastpathError
from ..eswitch.attributes import Attributes
from ..eswitch.profiles import KERNEL, SWITCHDEV
from ..plan import Op, Step
from . import eswitch_plan, eswitch_wish
from . import eswitch_state as pure
from .confirm import Undo
from .eswitch_state import Device, Lag, Request, Setting, State, Value

PATIENCE = 120.0  # seconds for all VFs, or all representors, to appear; 125 VFs took 65 (sriov-network-operator#1015)
_PAUSE = 0.05  # seconds between two looks
_READS = 20
T = TypeVar("T")


class Hardware(Protocol):
    """The NICs, and the node's files about them. Each change raises OSError with the kernel's words."""

    def devices(self) -> Mapping[str, Device]: ...

    def interfaces(self, handle: str) -> frozenset[int]:
        """The VFs that have an interface in the host's name space."""

    def lags(self) -> Mapping[str, Lag]:
        """The bonds that this module has made."""

    def taken(self) -> frozenset[str]:
        """Names of interfaces that are no uplink, no representor and none of lags()."""

    def rules(self) -> str: ...

    def document(self) -> tuple[Mapping[str, Any], ...] | None: ...

    def unconfirmed(self) -> bool: ...

    def arm(self, undo: Undo) -> None: ...

    def settled(self, handle: str) -> bool:
        """Has udev done with the interfaces of the NIC?"""

    def set_up(self, handle: str, up: bool) -> None: ...

    def set_autoprobe(self, handle: str, on: bool) -> None: ...

    def set_vfs(self, handle: str, count: int) -> None: ...

    def set_mode(self, handle: str, mode: str) -> None: ...

    def set_setting(self, handle: str, name: str, value: Setting) -> None: ...

    def set_param(self, handle: str, name: str, value: Value) -> None: ...

    def set_attributes(self, handle: str, attributes: Mapping[int, Attributes]) -> None: ...

    def unbind(self, handle: str, vf: int) -> None: ...

    def bind(self, handle: str, vf: int, driver: str) -> None: ...

    def rename(self, handle: str, vf: int | None, name: str) -> None: ...

    def create_lag(self, lag: Lag) -> None: ...

    def delete_lag(self, name: str) -> None: ...

    def join(self, handle: str, lag: str) -> None:
        """The uplink is up there, whatever it was before."""

    def leave(self, handle: str) -> None:
        """The uplink stays as it was in the LAG."""

    def write_rules(self, rules: str) -> None: ...

    def record(self, document: tuple[Mapping[str, Any], ...] | None) -> None: ...


class Eswitch:
    """For plan.converge(). patience: seconds to wait for what appears; waiting: is told what is still missing."""

    def __init__(
        self, hardware: Hardware, patience: float = PATIENCE, waiting: Callable[[str], None] = lambda _missing: None
    ) -> None:
        self._hardware, self._patience, self._waiting = hardware, patience, waiting
        self._shown: Mapping[str, frozenset[str]] | None = None
        self._armed = False
        self._do: dict[type, Callable[[Any], None]] = {
            pure.SetUp: lambda op: hardware.set_up(op.handle, op.up),
            pure.Unbind: self._unbind,
            pure.Bind: self._bind,
            pure.Autoprobe: lambda op: hardware.set_autoprobe(op.handle, op.on),
            pure.CreateVfs: self._create,
            pure.RemoveVfs: self._remove,
            pure.SetMode: self._set_mode,
            pure.Set: self._set,
            pure.SetParam: self._set_param,
            pure.SetAttributes: self._set_attributes,
            pure.Name: self._name,
            pure.CreateLag: self._create_lag,
            pure.DeleteLag: self._delete_lag,
            pure.Join: self._join,
            pure.Leave: self._leave,
            pure.WriteRules: lambda op: hardware.write_rules(op.rules),
            pure.Record: lambda op: hardware.record(op.document),
            pure.Arm: self._arm,
        }

    def have(self) -> State:
        hardware = self._hardware
        devices, lags, taken = _read(lambda: (hardware.devices(), hardware.lags(), hardware.taken()))
        unconfirmed = hardware.unconfirmed() and not self._armed  # what this very run has armed is its own
        return State(devices, hardware.rules(), hardware.document(), lags, taken, unconfirmed)

    def ready(self, items: Sequence[Mapping[str, Any]], seconds: float) -> tuple[Mapping[str, Any], ...]:
        """Those of the items whose NICs are there; waits for all of them, since drivers may start late at boot."""
        deadline = time.monotonic() + seconds
        while True:
            have = self.have()
            found = tuple(item for item in items if eswitch_wish.ready(item, have))
            if len(found) == len(items) or time.monotonic() >= deadline:
                return found
            time.sleep(_PAUSE)

    def plan(self, have: State, want: Request) -> tuple[Step[State], ...]:
        if self._shown is None:
            self._shown = eswitch_wish.shown(have, want)
        return eswitch_wish.plan(have, want)

    def public(self, state: State) -> list[dict[str, Any]]:
        """All that there is; after a plan, what it is about."""
        return eswitch_plan.public(state, self._shown)

    def execute(self, op: Op[State]) -> None:
        self._do[type(op)](op)

    def _arm(self, op: pure.Arm) -> None:
        self._hardware.arm(op.undo)
        self._armed = True

    def _device(self, handle: str) -> Device:
        devices = _read(self._hardware.devices)
        if handle not in devices:
            raise FastpathError("find", handle, "it has gone")
        return devices[handle]

    def _unbind(self, op: pure.Unbind) -> None:
        vfs = self._device(op.handle).vfs
        for index in op.vfs:
            if index < len(vfs) and vfs[index].driver:
                self._hardware.unbind(op.handle, index)

    def _bind(self, op: pure.Bind) -> None:
        device = self._device(op.handle)
        taken = {index for index, driver in op.drivers if self._bind_one(device, index, driver)}
        # only of those that were bound now: another one's interface may be in a container
        expected = taken & {index for index, driver in op.drivers if driver == KERNEL}
        if expected - self._hardware.interfaces(op.handle):
            self._rebind(op.handle, expected)

    def _bind_one(self, device: Device, index: int, driver: str) -> bool:
        now = device.vfs[index].driver if index < len(device.vfs) else driver
        if now == driver:
            return False
        if now:
            self._hardware.unbind(device.handle, index)
        self._hardware.bind(device.handle, index, driver)
        return True

    def _rebind(self, handle: str, expected: set[int]) -> None:
        """A driver may take a VF and make no interface of it; a second try helps (sriov-network-operator#233)."""
        for index in sorted(expected - self._hardware.interfaces(handle)):
            self._hardware.unbind(handle, index)
            self._hardware.bind(handle, index, KERNEL)

        def missing() -> str:
            left = expected - self._hardware.interfaces(handle)
            return f"{len(expected) - len(left)} of {len(expected)} VFs have an interface" if left else ""

        self._wait(handle, missing)

    def _create(self, op: pure.CreateVfs) -> None:
        device = self._device(op.handle)
        if len(device.vfs) != op.count:
            if device.profile.binds:
                self._hardware.set_autoprobe(op.handle, False)
            self._hardware.set_vfs(op.handle, op.count)
            self._check_count(op.handle, op.count)
        self._wait_for_vfs(op.handle)

    def _remove(self, op: pure.RemoveVfs) -> None:
        if self._device(op.handle).vfs:
            self._hardware.set_vfs(op.handle, 0)
            self._check_count(op.handle, 0)

    def _check_count(self, handle: str, count: int) -> None:
        """Some drivers report success and do nothing."""
        there = len(self._device(handle).vfs)
        if there != count:
            cause = f"the driver reported success, and there are {there}; its reason is in the kernel's log"
            raise FastpathError("have", f"{count} VFs of {handle}", cause)

    def _set_mode(self, op: pure.SetMode) -> None:
        if self._device(op.handle).mode != op.mode:  # some drivers refuse the mode that they have
            self._hardware.set_mode(op.handle, op.mode)
        self._wait_for_vfs(op.handle)

    def _wait_for_vfs(self, handle: str) -> None:
        def missing() -> str:
            device = self._device(handle)
            present = [vf for vf in device.vfs if vf.present]
            if len(present) < len(device.vfs):
                return f"{len(present)} of {len(device.vfs)} VFs have appeared"
            shown = [vf for vf in present if vf.representor or device.mode != SWITCHDEV]
            return "" if len(shown) == len(present) else f"{len(shown)} of {len(present)} representors have appeared"

        self._wait(handle, missing)

    def _name(self, op: pure.Name) -> None:
        """After udev has done what its rules say to what is new: it goes by the interface's number, not its name."""

        def busy() -> str:
            return "" if self._hardware.settled(op.handle) else "udev has not looked at all interfaces"

        def wrong() -> list[tuple[int | None, str]]:
            device = self._device(op.handle)
            now: dict[int | None, str] = {None: device.uplink, **dict(enumerate(vf.representor for vf in device.vfs))}
            return [(port, name) for port, name in op.names if now.get(port, name) not in ("", name)]

        self._wait(op.handle, busy)
        failed: dict[str, str] = {}
        left = wrong()
        for _try in range(_READS):
            for port, name in left:
                try:
                    self._hardware.rename(op.handle, port, name)
                except (OSError, FastpathError) as error:  # it may have got another name since
                    failed[name] = str(error)
            left = wrong()
            if not left:
                return
            time.sleep(_PAUSE)
        words = ", ".join(f"{name} ({failed.get(name, 'somebody renamed it again')})" for _port, name in left)
        raise FastpathError("name", f"interfaces of {op.handle}", f"not done: {words}")

    def _create_lag(self, op: pure.CreateLag) -> None:
        if op.lag.name not in _read(self._hardware.lags):
            self._hardware.create_lag(op.lag)

    def _delete_lag(self, op: pure.DeleteLag) -> None:
        if op.name in _read(self._hardware.lags):
            self._hardware.delete_lag(op.name)

    def _join(self, op: pure.Join) -> None:
        if self._device(op.handle).master != op.lag:
            self._hardware.join(op.handle, op.lag)

    def _leave(self, op: pure.Leave) -> None:
        if self._device(op.handle).master == op.lag:
            self._hardware.leave(op.handle)

    def _wait(self, handle: str, missing: Callable[[], str]) -> None:
        deadline = time.monotonic() + self._patience
        while True:
            words = missing()
            if not words:
                return
            if time.monotonic() >= deadline:
                raise FastpathError("wait for", handle, f"after {self._patience:g} s {words}")
            self._waiting(words)
            time.sleep(_PAUSE)

    def _set(self, op: pure.Set) -> None:
        if getattr(self._device(op.handle), op.name) != op.value:
            self._hardware.set_setting(op.handle, op.name, op.value)

    def _set_param(self, op: pure.SetParam) -> None:
        if self._device(op.handle).params.get(op.name) != op.value:
            self._hardware.set_param(op.handle, op.name, op.value)

    def _set_attributes(self, op: pure.SetAttributes) -> None:
        vfs = self._device(op.handle).vfs
        changes = {index: given.differing(vfs[index].attributes) for index, given in op.attributes if index < len(vfs)}
        new = {index: given for index, given in changes.items() if given.given()}
        if new:
            self._hardware.set_attributes(op.handle, new)


def _read(look: Callable[[], T]) -> T:
    """Read again when an interface was renamed, or went, while it was read: udev is at work on what is new."""
    for _try in range(_READS - 1):
        try:
            return look()
        except OSError:
            time.sleep(_PAUSE)
    return look()
