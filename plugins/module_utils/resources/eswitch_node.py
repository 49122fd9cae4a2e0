# SPDX-License-Identifier: GPL-3.0-or-later
"""The NICs with VFs of a real node: what resources/eswitch.py needs, from sysfs, devlink, rtnetlink and ethtool."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from .. import store
from ..errors import FastpathError
from ..eswitch import naming
from ..eswitch.attributes import Attributes
from ..eswitch.profiles import CAUTIOUS, KERNEL, LEGACY, SWITCHDEV, profile
from ..kernel import bonds, devlink, ethtool, links, rtnl, sriov, vflinks, way
from ..kernel.devlink import Instance, Port
from ..kernel.sriov import Physical
from . import attachments_links as whose
from . import confirm
from .eswitch_state import ENCAP, INLINE, MTU, OFFLOAD, Device, Lag, Setting, Value, Vf

DOCUMENT = "eswitch"
UDEV = "/run/udev"
READS_RULES = 3.0  # seconds from one look of udev at the time stamps of its rules to the next (udev-manager.c)


class Node:
    """Hardware, for Eswitch. connection: how the controller has come in, as in SSH_CONNECTION; "" where it has not."""

    def __init__(self, connection: str = "", sys: str = sriov.SYS) -> None:
        self._sys, self._carrying = sys, sriov.carried(way.interfaces(connection), sys)

    def devices(self) -> dict[str, Device]:
        instances = devlink.instances()
        with rtnl.Netlink() as netlink:
            present = links.links(netlink)
            return {
                one.handle: self._device(one, instances.get(one.handle), netlink, present)
                for one in sriov.physical(self._sys)
            }

    def _device(
        self, one: Physical, instance: Instance | None, netlink: rtnl.Netlink, present: Mapping[str, links.Link]
    ) -> Device:
        link, uplink = present.get(one.uplink.name), one.uplink.name
        told = vflinks.read(netlink, link.index) if link else vflinks.Uplink("", "", "", {})
        eswitch = instance.eswitch if instance else None
        mode = eswitch.mode if eswitch else LEGACY
        device = Device(
            handle=one.handle,
            driver=_driver_of(one),
            mac=told.mac,
            serial=instance.serial if instance else "",
            switch_id=told.switch_id,
            uplink=uplink,
            up=bool(link and link.up),
            master=one.uplink.master,
            carries=any(netdev.name in self._carrying for netdev in one.netdevs),
            total_vfs=one.total,
            switchable=eswitch is not None,
            mode=mode,
            inline_mode=eswitch.inline if eswitch else None,
            encap_mode=eswitch.encap if eswitch else None,
            hw_tc_offload=ethtool.feature(uplink, ethtool.HW_TC_OFFLOAD) if link else None,
            mtu=link.mtu if link else None,
            params=instance.params if instance else {},
            autoprobe=one.autoprobe,
        )
        flags = ethtool.flags(uplink) if link and device.profile.lag and device.profile.lag.off else frozenset()
        macs = {vf: Attributes(mac=port.mac) for vf, port in _ports(instance).items()}
        settings = {**macs, **told.vfs}
        vfs = [_vf(device, one, index, settings.get(index), present) for index in range(one.count)]
        used = {index for index, vf in one.vfs.items() if self._carrying & set(vf.netdevs)}
        carrying = tuple(replace(vf, carries=index in used) for index, vf in enumerate(vfs))
        return replace(device, flags=flags, vfs=carrying)

    def interfaces(self, handle: str) -> frozenset[int]:
        return frozenset(index for index, vf in self._physical(handle).vfs.items() if vf.netdevs)

    def lags(self) -> dict[str, Lag]:
        with rtnl.Netlink() as netlink:
            return {bond.name: Lag(bond.name, bond.mode, bond.mtu) for bond in bonds.ours(netlink).values()}

    def taken(self) -> frozenset[str]:
        ours = {netdev.name for one in sriov.physical(self._sys) for netdev in one.netdevs}
        with rtnl.Netlink() as netlink:
            return frozenset(links.links(netlink)) - ours - frozenset(bonds.ours(netlink))

    def settled(self, handle: str) -> bool:
        """udev keeps a file about each interface that it has looked at, by the interface's number."""
        if not os.path.exists(f"{UDEV}/control"):
            return True  # nobody is there to wait for
        try:
            indexes = [self._index(netdev.name) for netdev in self._physical(handle).netdevs]
        except OSError:
            return False  # it has got another name since
        return all(os.path.exists(f"{UDEV}/data/n{index}") for index in indexes)

    def _index(self, name: str) -> int:
        with open(f"{self._sys}/class/net/{name}/ifindex", encoding="utf-8") as file:
            return int(file.read())

    def rules(self) -> str:
        with suppress(FileNotFoundError), open(naming.PATH, encoding="utf-8") as file:
            return file.read()
        return ""

    def document(self) -> tuple[Mapping[str, Any], ...] | None:
        found = store.read(DOCUMENT)
        return None if found is None else tuple(found)

    def unconfirmed(self) -> bool:
        return confirm.read() is not None

    def arm(self, undo: confirm.Undo) -> None:
        confirm.arm(undo)

    def set_up(self, handle: str, up: bool) -> None:
        with rtnl.Netlink() as netlink:
            links.set_link(netlink, self._link(handle, netlink).index, up=up)

    def set_autoprobe(self, handle: str, on: bool) -> None:
        sriov.set_autoprobe(handle, on, self._sys)

    def set_vfs(self, handle: str, count: int) -> None:
        sriov.set_count(handle, count, self._sys)

    def set_mode(self, handle: str, mode: str) -> None:
        devlink.set_mode(handle, mode)

    def set_setting(self, handle: str, name: str, value: Setting) -> None:
        if name == INLINE:
            devlink.set_inline(handle, str(value))
        elif name == ENCAP:
            devlink.set_encap(handle, str(value))
        elif name == OFFLOAD:
            ethtool.set_feature(self._physical(handle).uplink.name, ethtool.HW_TC_OFFLOAD, bool(value))
        elif name == MTU:
            master = self._physical(handle).uplink.master
            with rtnl.Netlink() as netlink:
                bonded = master and master in bonds.ours(netlink)
                link = links.need(netlink, master) if bonded else self._link(handle, netlink)
                links.set_link(netlink, link.index, mtu=int(value or 0))

    def set_param(self, handle: str, name: str, value: Value) -> None:
        devlink.set_param(handle, name, value)

    def set_attributes(self, handle: str, attributes: Mapping[int, Attributes]) -> None:
        """By the PF's interface; where its driver tells nothing of a VF there (sfc), the MAC by devlink's port."""
        settings = dict(attributes)
        with rtnl.Netlink() as netlink:
            index = self._link(handle, netlink).index
            told, ports = vflinks.read(netlink, index).vfs, _ports(devlink.instances().get(handle))
            for vf in sorted(set(settings) & set(ports) - set(told)):
                devlink.set_port_mac(handle, ports[vf].index, settings.pop(vf).mac or "")
            if settings:
                vflinks.write(netlink, index, settings)

    def unbind(self, handle: str, vf: int) -> None:
        sriov.unbind(self._address(handle, vf), self._sys)

    def bind(self, handle: str, vf: int, driver: str) -> None:
        sriov.bind(self._address(handle, vf), "" if driver == KERNEL else driver, self._sys)

    def rename(self, handle: str, vf: int | None, name: str) -> None:
        one = self._physical(handle)
        before = one.uplink.name if vf is None else one.representor(vf).name
        with rtnl.Netlink() as netlink:
            links.rename(netlink, links.need(netlink, before).index, name)

    def create_lag(self, lag: Lag) -> None:
        with rtnl.Netlink() as netlink:
            bonds.create(netlink, bonds.Bond(lag.name, lag.mode, lag.mtu))

    def delete_lag(self, name: str) -> None:
        with rtnl.Netlink() as netlink:
            bonds.delete(netlink, name)

    def join(self, handle: str, lag: str) -> None:
        self._show_udev(handle)
        with rtnl.Netlink() as netlink:
            bonds.join(netlink, self._link(handle, netlink).index, lag)

    def leave(self, handle: str) -> None:
        with rtnl.Netlink() as netlink:
            bonds.leave(netlink, self._link(handle, netlink))
        self._show_udev(handle)

    def _show_udev(self, handle: str) -> None:
        """Let it look at the uplink again: the rule by which others keep off it is newer than that, or has gone."""
        self._event(self._physical(handle).uplink.name)

    def _event(self, netdev: str) -> None:
        with suppress(OSError), open(f"{self._sys}/class/net/{netdev}/uevent", "w", encoding="utf-8") as file:
            file.write("change")

    def write_rules(self, rules: str) -> None:
        """When it returns, udev goes by them for what appears, and has been shown again what is there."""
        if rules:
            store.replace_file(naming.PATH, rules.encode())
        else:
            with suppress(FileNotFoundError):
                os.unlink(naming.PATH)
        if not os.path.exists(f"{UDEV}/control"):
            return
        time.sleep(READS_RULES)
        for one in sriov.physical(self._sys):
            representors = [netdev.name for netdev in one.netdevs if netdev.vf is not None]
            for name in (*representors, *(name for vf in one.vfs.values() for name in vf.netdevs)):
                self._event(name)

    def record(self, document: tuple[Mapping[str, Any], ...] | None) -> None:
        store.write(DOCUMENT, None if document is None else list(document))

    def _physical(self, handle: str) -> Physical:
        found = [one for one in sriov.physical(self._sys) if one.handle == handle]
        if not found:
            raise FastpathError("find", handle, "it has gone")
        return found[0]

    def _address(self, handle: str, vf: int) -> str:
        found = sriov.address(handle, vf, self._sys)
        if not found:
            raise FastpathError("find", f"VF {vf} of {handle}", "it has gone")
        return found

    def _link(self, handle: str, netlink: rtnl.Netlink) -> links.Link:
        """The uplink. Looked up each time: its name and number may be others after a change of the mode."""
        uplink = self._physical(handle).uplink.name
        if not uplink:
            raise FastpathError("find", f"the interface of {handle}", "it is not in this network namespace")
        return links.need(netlink, uplink)


def _driver_of(one: Physical) -> str:
    """The name in sysfs; where no profile knows it, what it calls itself, as the lab's NIC does."""
    return one.driver if profile(one.driver) is not CAUTIOUS else ethtool.driver(one.uplink.name) or one.driver


def _ports(instance: Instance | None) -> dict[int, Port]:
    """The ports whose functions have a MAC, by the number of the VF."""
    return {port.vf: port for port in (instance.ports if instance else ()) if port.vf is not None and port.mac}


def _vf(device: Device, one: Physical, index: int, told: Attributes | None, present: Mapping[str, links.Link]) -> Vf:
    function, netdev, want = one.vfs.get(index), one.representor(index), device.profile
    return Vf(
        driver=_bound(function.driver) if function else "",
        attributes=told.only(want.attributes[device.mode]) if told else Attributes(),
        user=_user(function, netdev, present) if function else "",
        present=function is not None or not want.binds,
        representor=netdev.name if device.mode == SWITCHDEV else "",
    )


def _bound(driver: str) -> str:
    return driver if not driver or driver in sriov.FOR_USER_SPACE else KERNEL


def _user(function: sriov.Function, representor: sriov.Netdev, present: Mapping[str, links.Link]) -> str:
    """Who may have a VF. Nobody has one without a driver, or whose interface is here and down."""
    lent = present.get(representor.name)
    if lent and lent.group == links.GROUP and whose.owner(lent).vf:
        return f"container {whose.owner(lent).container}"
    if representor.master:
        return f"{representor.master}, where its representor is"
    if not function.driver:
        return ""
    if function.driver in sriov.FOR_USER_SPACE:
        return f"whoever uses {function.pci} by {function.driver}"
    up = [name for name in function.netdevs if name not in present or present[name].up]
    if up:
        return f"interface {up[0]}"
    return "" if function.netdevs else f"whoever has the interface of {function.pci}"
