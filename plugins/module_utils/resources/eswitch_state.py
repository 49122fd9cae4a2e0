# SPDX-License-Identifier: GPL-3.0-or-later
"""The NICs with VFs of a node: what can be there, and the operations that change it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Union

from ..eswitch.attributes import Attributes
from ..eswitch.profiles import LEGACY, SWITCHDEV, Profile, profile
from .confirm import Undo

Value = Union[str, int, bool]  # of a devlink parameter
Setting = Optional[Union[str, int, bool]]
RESTORED = "restored"  # of a request: as it was before a change that nobody has confirmed
NEW = "?"  # a name that the kernel or udev is going to choose

# The settings of a device, by the names of the config; None in a Device: it has no such setting.
INLINE, ENCAP, OFFLOAD, MTU = "inline_mode", "encap_mode", "hw_tc_offload", "mtu"
SETTINGS = (INLINE, ENCAP, OFFLOAD, MTU)


@dataclass(frozen=True)
class Vf:
    """driver: kernel, vfio-pci, another one's name, or "" for none. user: who has it, in words, "" for nobody.

    carries: Ansible's connection comes in by it. present: it has appeared. representor: its name, "" where it has none.
    """

    driver: str = ""
    attributes: Attributes = field(default_factory=Attributes)
    user: str = ""
    carries: bool = False
    present: bool = True
    representor: str = ""


@dataclass(frozen=True)
class Device:
    """A PF. handle: its name for devlink ("pci/0000:3b:00.0"); uplink: its interface, "" where it has none.

    mac: the permanent one. master: the bridge or bond that the uplink is in. carries: Ansible's connection comes in by
    the uplink or a representor. switchable: its mode can be changed. flags: of its driver, those that are on, where a
    LAG wants some off. autoprobe: drivers take VFs.
    """

    handle: str
    driver: str
    mac: str = ""
    serial: str = ""
    switch_id: str = ""
    uplink: str = ""
    up: bool = False
    master: str = ""
    carries: bool = False
    total_vfs: int = 0
    switchable: bool = False
    mode: str = LEGACY
    inline_mode: str | None = None
    encap_mode: str | None = None
    hw_tc_offload: bool | None = None
    mtu: int | None = None
    params: Mapping[str, Value] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    vfs: tuple[Vf, ...] = ()
    autoprobe: bool = True

    @property
    def profile(self) -> Profile:
        return profile(self.driver)

    @property
    def pci(self) -> str:
        """The PCI address, "" for a device of another bus."""
        bus, _slash, address = self.handle.partition("/")
        return address if bus == "pci" else ""

    def place(self) -> tuple[bool, str]:
        """For sorting: who is in switchdev mode joins a LAG first."""
        return self.mode != SWITCHDEV, self.handle

    def with_vfs(self, changes: Mapping[int, Mapping[str, Any]]) -> Device:
        """index -> what changes in that VF; those that there are not are left out."""
        return replace(self, vfs=tuple(replace(vf, **changes.get(index, {})) for index, vf in enumerate(self.vfs)))


@dataclass(frozen=True)
class Request:
    """confirm_timeout: seconds to confirm a change that may cut the Ansible connection; 0: none is made.

    document: for the state RESTORED, what the node kept before.
    """

    config: tuple[Mapping[str, Any], ...]
    state: str
    confirm_timeout: int = 0
    document: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True)
class Lag:
    """A bond of uplinks that this module has made. mode: by its name in the config."""

    name: str
    mode: str
    mtu: int


@dataclass(frozen=True)
class State:
    """devices: by handle. rules: the file that names interfaces, "" where there is none. lags: by name.

    taken: names of interfaces that are no uplink, no representor and no LAG. unconfirmed: a change waits for that.
    """

    devices: Mapping[str, Device] = field(default_factory=dict)
    rules: str = ""
    document: tuple[Mapping[str, Any], ...] | None = None
    lags: Mapping[str, Lag] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    unconfirmed: bool = False

    def changed(self, handle: str, **changes: Any) -> State:
        return self.put(replace(self.devices[handle], **changes))

    def put(self, device: Device) -> State:
        return replace(self, devices={**self.devices, device.handle: device})

    def members(self, lag: str) -> tuple[str, ...]:
        """The handles of the NICs whose uplinks are in this LAG, in the order in which they join."""
        found = [device for device in self.devices.values() if lag and device.master == lag]
        return tuple(device.handle for device in sorted(found, key=Device.place))


# Operations


@dataclass(frozen=True)
class SetUp:
    """Bring the PF's interface up or down."""

    handle: str
    up: bool

    def effect(self, state: State) -> State:
        return state.changed(self.handle, up=self.up)


@dataclass(frozen=True)
class Unbind:
    """Take VFs from their drivers."""

    handle: str
    vfs: tuple[int, ...]

    def effect(self, state: State) -> State:
        return state.put(state.devices[self.handle].with_vfs({index: {"driver": ""} for index in self.vfs}))


@dataclass(frozen=True)
class Bind:
    """Give VFs to drivers."""

    handle: str
    drivers: tuple[tuple[int, str], ...]

    def effect(self, state: State) -> State:
        new = {index: {"driver": driver} for index, driver in self.drivers}
        return state.put(state.devices[self.handle].with_vfs(new))


@dataclass(frozen=True)
class Autoprobe:
    """May drivers take VFs? Where not, nobody can bind one."""

    handle: str
    on: bool

    def effect(self, state: State) -> State:
        return state.changed(self.handle, autoprobe=self.on)


@dataclass(frozen=True)
class CreateVfs:
    """Make VFs where there are none, and keep drivers from taking them, which would have to be undone one by one."""

    handle: str
    count: int

    def effect(self, state: State) -> State:
        device = state.devices[self.handle]
        vf = Vf(representor=NEW if device.mode == SWITCHDEV else "")
        autoprobe = device.autoprobe and not device.profile.binds
        return state.changed(self.handle, vfs=(vf,) * self.count, autoprobe=autoprobe)


@dataclass(frozen=True)
class RemoveVfs:
    handle: str

    def effect(self, state: State) -> State:
        return state.changed(self.handle, vfs=())


@dataclass(frozen=True)
class SetMode:
    """legacy or switchdev. What a driver makes of the VFs' attributes is not known."""

    handle: str
    mode: str

    def effect(self, state: State) -> State:
        device = state.devices[self.handle]
        if device.mode == self.mode:
            return state
        change = {"attributes": Attributes(), "representor": NEW if self.mode == SWITCHDEV else ""}
        return state.put(replace(device.with_vfs(dict.fromkeys(range(len(device.vfs)), change)), mode=self.mode))


@dataclass(frozen=True)
class Set:
    """One of SETTINGS. The MTU of a LAG's member is that of the LAG, and of all in it."""

    handle: str
    name: str
    value: Setting

    def effect(self, state: State) -> State:
        lag = state.lags.get(state.devices[self.handle].master)
        if self.name != MTU or lag is None:
            return state.changed(self.handle, **{self.name: self.value})
        for member in state.members(lag.name):
            state = state.changed(member, mtu=self.value)
        return replace(state, lags={**state.lags, lag.name: replace(lag, mtu=int(self.value or 0))})


@dataclass(frozen=True)
class SetParam:
    """A devlink parameter, at run time."""

    handle: str
    name: str
    value: Value

    def effect(self, state: State) -> State:
        return state.changed(self.handle, params={**state.devices[self.handle].params, self.name: self.value})


@dataclass(frozen=True)
class SetAttributes:
    """Of some VFs, in one request."""

    handle: str
    attributes: tuple[tuple[int, Attributes], ...]

    def effect(self, state: State) -> State:
        device = state.devices[self.handle]
        new = {
            index: {"attributes": given.over(device.vfs[index].attributes)}
            for index, given in self.attributes
            if index < len(device.vfs)
        }
        return state.put(device.with_vfs(new))


@dataclass(frozen=True)
class Name:
    """Name the uplink (None) and representors (by the VF's number), where the rules for udev have not."""

    handle: str
    names: tuple[tuple[int | None, str], ...]

    def effect(self, state: State) -> State:
        new = {vf: {"representor": name} for vf, name in self.names if vf is not None}
        device = state.devices[self.handle].with_vfs(new)
        return state.put(replace(device, uplink=dict(self.names).get(None, device.uplink)))


@dataclass(frozen=True)
class CreateLag:
    """Make a bond, without members and up."""

    lag: Lag

    def effect(self, state: State) -> State:
        return replace(state, lags={**state.lags, self.lag.name: self.lag})


@dataclass(frozen=True)
class DeleteLag:
    """Of a bond that has no members any more."""

    name: str

    def effect(self, state: State) -> State:
        return replace(state, lags={name: lag for name, lag in state.lags.items() if name != self.name})


@dataclass(frozen=True)
class Join:
    """Put the uplink into a LAG, where it is up."""

    handle: str
    lag: str

    def effect(self, state: State) -> State:
        return state.changed(self.handle, master=self.lag, up=True, mtu=state.lags[self.lag].mtu)


@dataclass(frozen=True)
class Leave:
    """Take the uplink out of its LAG; it stays up."""

    handle: str
    lag: str

    def effect(self, state: State) -> State:
        return state.changed(self.handle, master="")


@dataclass(frozen=True)
class WriteRules:
    """The file that names interfaces as they appear; "" removes it."""

    rules: str

    def effect(self, state: State) -> State:
        return replace(state, rules=self.rules)


@dataclass(frozen=True)
class Record:
    """Keep the list as this node's desired state; None removes it."""

    document: tuple[Mapping[str, Any], ...] | None

    def effect(self, state: State) -> State:
        return replace(state, document=self.document)


@dataclass(frozen=True)
class Arm:
    """Have the node take back by itself what comes next, unless it is confirmed."""

    undo: Undo

    def effect(self, state: State) -> State:
        return replace(state, unconfirmed=True)


# What may cut the uplink off for a moment, or for good when it goes wrong.
TOUCHING = (SetUp, CreateVfs, RemoveVfs, SetMode, Set, SetParam, Name, Join, Leave)
