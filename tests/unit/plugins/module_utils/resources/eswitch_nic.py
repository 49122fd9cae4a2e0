# SPDX-License-Identifier: GPL-3.0-or-later
"""NICs in memory that refuse what their drivers refuse. Written from the drivers, not from our profiles.

Each refusal names where it comes from: a file of the kernel's tree, or an issue as project#number.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils.eswitch.attributes import Attributes
from ansible_collections.fastpath.node.plugins.module_utils.resources.confirm import Undo
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import (
    Device,
    Lag,
    Setting,
    Value,
    Vf,
)

LEGACY, SWITCHDEV = "legacy", "switchdev"
ALL = {"mac", "vlan", "trust", "spoofcheck", "min_rate", "max_rate"}


class Killed(BaseException):
    """The run ends here and now."""


@dataclass
class Function:
    """A VF. address: the MAC that its driver has read."""

    driver: str = ""
    attributes: Attributes = field(default_factory=Attributes)
    interface: bool = False
    address: str | None = None
    representor: str = ""
    user: str = ""
    carries: bool = False


@dataclass
class Nic:
    """old: the driver of an older kernel. late: looks until what was made appears; lost: VFs without an interface.

    offloaded: rules in its tables.
    """

    driver: str
    old: bool = False
    total: int = 8
    up: bool = True
    mode: str = LEGACY
    autoprobe: bool = True
    vfs: list[Function] = field(default_factory=list)
    params: dict[str, Value] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    offloaded: int = 0
    late: int = 0
    lost: set[int] = field(default_factory=set)
    uplink: str = "ens1np0"
    master: str = ""
    carries: bool = False
    pending: int = 0
    own_mtu: Setting = None
    flags: frozenset[str] = frozenset()

    @property
    def binds(self) -> bool:
        return self.driver != "netdevsim"

    def refuse(self, code: int, words: str = "") -> None:
        raise OSError(code, words or errno.errorcode[code])

    def set_vfs(self, count: int) -> None:
        """drivers/pci/iov.c sriov_numvfs_store, and what the drivers do below it."""
        if count > self.total:
            self.refuse(errno.ENOMEM if self.driver == "netdevsim" else errno.ERANGE)
        if count == len(self.vfs):
            return
        if count and self.vfs:
            self.refuse(errno.EBUSY, "VFs already enabled. Disable before enabling")
        if self.driver == "bnxt_en" and not self.up:
            return  # bnxt_sriov.c bnxt_sriov_configure: a warning in the log, and success (systemd#40739)
        self.pending = self.late
        self.vfs = [self._made(index) for index in range(count)]
        # mlx5/core/sriov.c before 5.8, bnxt_vfr.c bnxt_vf_reps_destroy; netdevsim/dev.c nsim_drv_configure_vfs
        if not count and (self.driver == "netdevsim" or (self.old and self.driver in ("mlx5_core", "bnxt_en"))):
            self.mode = LEGACY

    def _made(self, index: int) -> Function:
        random = f"aa:00:00:00:00:{index:02x}" if self.driver in ("igb", "ice") else None
        function = Function(attributes=Attributes(random, 0, False, self.driver == "igb", 0, 0))
        if self.mode == SWITCHDEV:
            function.representor = f"eth{index}"
        if self.autoprobe and self.binds:
            self._probe(index, function, "kernel")
        return function

    def set_mode(self, mode: str) -> None:
        for driver, old, true, code, words in (
            # mlx5/core/eswitch_offloads.c; the second one is the firmware's (sriov-network-operator#1015)
            ("mlx5_core", False, self.offloaded, errno.EBUSY, "Can't change mode, E-Switch is busy"),
            ("mlx5_core", False, any(vf.driver for vf in self.vfs), errno.EINVAL, "bad resource state"),
            # the same file before 5.7
            ("mlx5_core", True, mode == SWITCHDEV and not self.vfs, errno.EINVAL, "SRIOV legacy not enabled"),
            # intel/ice/ice_eswitch.c; of others nothing is known
            ("ice", False, self.vfs, errno.EOPNOTSUPP, "allowed only if there is no VFs created"),
            ("unknown", False, self.vfs, errno.EOPNOTSUPP, "allowed only if there is no VFs created"),
            # broadcom/bnxt/bnxt_vfr.c before 6.4
            ("bnxt_en", True, mode == self.mode, errno.EINVAL, "already in that mode"),
            ("bnxt_en", True, mode == SWITCHDEV and not self.vfs, errno.EPERM, "Enable VFs before"),
            # no eswitch in devlink
            ("igb", False, True, errno.EOPNOTSUPP, ""),
        ):
            if driver == self.driver and true and (self.old or not old):
                self.refuse(code, words)
        self.mode, self.pending = mode, self.late
        for index, vf in enumerate(self.vfs):
            vf.representor = f"eth{index}" if mode == SWITCHDEV else ""
            if self.old:  # nothing says that a driver keeps them
                vf.attributes = Attributes(None, 0, False, False, 0, 0)

    def set_up(self, up: bool) -> None:
        self.up = up

    def set_param(self, name: str, value: Value) -> None:
        if name not in self.params:
            self.refuse(errno.EINVAL)
        if name == "flow_steering_mode" and value == "smfs" and self.mode == SWITCHDEV:
            self.refuse(errno.EOPNOTSUPP, "not supported when eswitch offloads enabled")  # fs_core.c
        self.params[name] = value

    def set_setting(self, name: str, value: Setting) -> None:
        if name in ("inline_mode", "encap_mode") and self.offloaded:
            self.refuse(errno.EOPNOTSUPP, "flows are configured")  # eswitch_offloads.c
        self.settings[name] = value

    def set_attributes(self, index: int, given: Attributes) -> None:
        for name, value in given.given().items():
            if name in self._refused(name, value):
                self.refuse(errno.EOPNOTSUPP, f"{name} of a VF")
        self.vfs[index].attributes = given.over(self.vfs[index].attributes)

    def _refused(self, name: str, value: object) -> set[str]:
        if self.driver == "igb":
            return {"min_rate", "max_rate"}  # igb_main.c igb_ndo_set_vf_bw, all but the 82576
        if self.mode == LEGACY:
            return set()
        return {
            "mlx5_core": {"trust", "spoofcheck"} | ({"vlan"} if value else set()),  # esw/legacy.c
            "ice": {"trust"},  # ice_sriov.c ice_set_vf_trust
            "bnxt_en": set(),
            "netdevsim": {"min_rate", "max_rate"},  # netdev.c nsim_set_vf_rate
            "unknown": ALL - {"mac"},
        }[self.driver]

    def unbind(self, index: int) -> None:
        vf = self.vfs[index]
        if not vf.driver:
            self.refuse(errno.ENODEV)
        vf.driver, vf.interface, vf.address = "", False, None

    def bind(self, index: int, driver: str) -> None:
        vf = self.vfs[index]
        if vf.driver:
            self.refuse(errno.EBUSY)
        if driver == "kernel" and not self.autoprobe:
            self.refuse(errno.ENODEV)  # drivers/pci/pci-driver.c pci_device_can_probe
        self._probe(index, vf, driver)

    def _probe(self, index: int, vf: Function, driver: str) -> None:
        vf.driver, vf.address = driver, vf.attributes.mac
        vf.interface = driver == "kernel" and index not in self.lost
        self.lost.discard(index)

    def view(self, handle: str) -> Device:
        """What a reader finds; what was made is seen piece by piece."""
        hidden, self.pending = self.pending, max(0, self.pending - 1)
        settings: dict[str, Any] = self.settings
        device = Device(
            handle, self.driver, "02:aa:00:00:00:01", "MT1", "aabb", self.uplink, self.up, self.master, self.carries,
            self.total, self.driver != "igb", self.mode, params=dict(self.params), flags=self.flags,
            autoprobe=self.autoprobe, **settings,
        )  # fmt: skip
        allowed = device.profile.attributes[self.mode]
        seen = len(self.vfs) - hidden
        vfs = tuple(
            Vf(
                vf.driver,
                vf.attributes.only(allowed),
                vf.user,
                vf.carries,
                index < seen,
                vf.representor if index < seen else "",
            )
            for index, vf in enumerate(self.vfs)
        )
        return replace(device, vfs=vfs)


@dataclass
class Node:
    """A node's hardware and files, for Eswitch. fail_at: the number of the change that fails; kill_at: ends the run.

    half: a change that fails or ends the run has had its effect.
    """

    nics: dict[str, Nic]
    fail_at: int = 0
    kill_at: int = 0
    half: bool = False
    changes: list[str] = field(default_factory=list)
    file: str = ""
    kept: tuple[Mapping[str, Any], ...] | None = None
    bonds: dict[str, Lag] = field(default_factory=dict)
    others: frozenset[str] = frozenset()
    waiting: Undo | None = None

    def _change(self, name: str, *arguments: Any) -> None:
        self.changes.append(f"{name} {' '.join(map(str, arguments[1:]))}".strip())
        number = len(self.changes)
        if number in (self.fail_at, self.kill_at) and not self.half:
            self._stop(number)
        if handle := arguments[0]:
            getattr(self.nics[handle], name)(*arguments[1:])
        else:
            getattr(self, f"_{name}")(*arguments[1:])
        if number in (self.fail_at, self.kill_at):
            self._stop(number)

    def _stop(self, number: int) -> None:
        if number == self.kill_at:
            raise Killed
        raise OSError(errno.EIO, f"change {number} fails")

    def devices(self) -> dict[str, Device]:
        return {handle: nic.view(handle) for handle, nic in self.nics.items()}

    def interfaces(self, handle: str) -> frozenset[int]:
        return frozenset(index for index, vf in enumerate(self.nics[handle].vfs) if vf.interface)

    def settled(self, _handle: str) -> bool:
        return True

    def rules(self) -> str:
        return self.file

    def document(self) -> tuple[Mapping[str, Any], ...] | None:
        return self.kept

    def lags(self) -> dict[str, Lag]:
        return dict(self.bonds)

    def taken(self) -> frozenset[str]:
        return self.others

    def create_lag(self, lag: Lag) -> None:
        self._change("create_lag", "", lag)

    def _create_lag(self, lag: Lag) -> None:
        if lag.name in self.bonds or lag.name in self.others:
            raise OSError(errno.EEXIST, "File exists")
        self.bonds[lag.name] = lag

    def delete_lag(self, name: str) -> None:
        self._change("delete_lag", "", name)

    def _delete_lag(self, name: str) -> None:
        """bonding/bond_main.c bond_uninit: whoever is in it leaves it."""
        for nic in self._members(name):
            self._released(nic)
        del self.bonds[name]

    def join(self, handle: str, lag: str) -> None:
        self._change("join", "", handle, lag)

    def _join(self, handle: str, lag: str) -> None:
        nic = self.nics[handle]
        if nic.master:
            raise OSError(errno.EBUSY, "Device or resource busy")
        nic.master, nic.up, nic.own_mtu = lag, True, nic.settings["mtu"]
        nic.settings["mtu"] = self.bonds[lag].mtu
        self._lag_changes(lag)

    def leave(self, handle: str) -> None:
        self._change("leave", "", handle)

    def _leave(self, handle: str) -> None:
        nic = self.nics[handle]
        up, mtu = nic.up, nic.settings["mtu"]
        self._released(handle)
        nic.up, nic.settings["mtu"] = up, mtu

    def _released(self, handle: str) -> None:
        """bonding/bond_main.c __bond_release_one."""
        nic = self.nics[handle]
        lag, nic.master, nic.up, nic.settings["mtu"] = nic.master, "", False, nic.own_mtu
        self._lag_changes(lag, handle)

    def _members(self, lag: str) -> list[str]:
        return [handle for handle, nic in self.nics.items() if nic.master == lag]

    def _lag_changes(self, lag: str, *left: str) -> None:
        """mlx5/core/lag/lag.c: with more than one port in it VF LAG begins or ends; then no VF may be bound.

        The kernel only logs that; here it is an error, so that no test passes over it.
        """
        nics = [self.nics[handle] for handle in (*self._members(lag), *left)]
        if len(nics) < 2 or nics[0].driver != "mlx5_core":
            return
        if any(vf.driver for nic in nics for vf in nic.vfs):
            raise OSError(errno.EINVAL, "Make sure all VFs are unbound prior to VF LAG activation or deactivation")

    def unconfirmed(self) -> bool:
        return self.waiting is not None

    def arm(self, undo: Undo) -> None:
        self.changes.append("arm")
        self.waiting = undo

    def set_up(self, handle: str, up: bool) -> None:
        self._change("set_up", handle, up)

    def set_autoprobe(self, handle: str, on: bool) -> None:
        self.nics[handle].autoprobe = on

    def set_vfs(self, handle: str, count: int) -> None:
        self._change("set_vfs", handle, count)

    def set_mode(self, handle: str, mode: str) -> None:
        if self.nics[handle].master:
            raise OSError(errno.EBUSY, "in a bond")  # no driver has VF LAG whose mode changes in the bond
        self._change("set_mode", handle, mode)

    def set_setting(self, handle: str, name: str, value: Setting) -> None:
        master = self.nics[handle].master
        if name == "mtu" and master in self.bonds:
            self._change("set_bond_mtu", "", master, value)
        else:
            self._change("set_setting", handle, name, value)

    def _set_bond_mtu(self, bond: str, mtu: int) -> None:
        """bonding/bond_main.c bond_change_mtu."""
        self.bonds[bond] = replace(self.bonds[bond], mtu=mtu)
        for member in self._members(bond):
            self.nics[member].settings["mtu"] = mtu

    def set_param(self, handle: str, name: str, value: Value) -> None:
        self._change("set_param", handle, name, value)

    def set_attributes(self, handle: str, attributes: Mapping[int, Attributes]) -> None:
        for index, given in attributes.items():
            self._change("set_attributes", handle, index, given)

    def unbind(self, handle: str, vf: int) -> None:
        self._change("unbind", handle, vf)

    def bind(self, handle: str, vf: int, driver: str) -> None:
        self._change("bind", handle, vf, driver)

    def rename(self, handle: str, vf: int | None, name: str) -> None:
        nic = self.nics[handle]
        if vf is None:
            nic.uplink = name
        else:
            nic.vfs[vf].representor = name

    def write_rules(self, rules: str) -> None:
        self.file = rules

    def record(self, document: tuple[Mapping[str, Any], ...] | None) -> None:
        self.kept = document
