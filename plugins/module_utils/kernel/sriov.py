# SPDX-License-Identifier: GPL-3.0-or-later
"""SR-IOV in sysfs: PFs, their VFs, and the drivers of both.

Every function takes the mount point of sysfs, so that tests can bring a tree of their own. Formats:
Documentation/ABI/testing/sysfs-bus-pci.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

SYS = "/sys"
_BUSES = ("pci", "netdevsim")
_UNKNOWN_TOTAL = 65535  # netdevsim says it only in debugfs; the kernel refuses what is too much
_OF_FUNCTION = re.compile(r"(c\d+)?pf\d")
_REPRESENTOR = re.compile(r"(c\d+)?pf\d+vf(\d+)")  # net/core/devlink.c __devlink_port_phys_port_name_get
# Drivers that make no interface of a VF, but give it to a process or a virtual machine.
FOR_USER_SPACE = ("vfio-pci", "mlx5_vfio_pci", "uio_pci_generic", "igb_uio", "pci-stub")


@dataclass(frozen=True)
class Netdev:
    """An interface of a device. vf: the number of the VF that it represents, None for another one.

    master: the bridge or bond that it is in, "" for none.
    """

    name: str
    port: str
    vf: int | None
    master: str


@dataclass(frozen=True)
class Function:
    """A VF. driver "": none has it. netdevs: its interfaces in this network namespace."""

    pci: str
    driver: str
    override: str
    netdevs: tuple[str, ...]


@dataclass(frozen=True)
class Physical:
    """A PF. count: its VFs, as the driver says; vfs: those that have appeared. autoprobe: drivers take VFs.

    offset, stride: where the addresses of VFs begin, and how far apart they are; 0 where the hardware does not tell.
    """

    handle: str
    driver: str
    total: int
    count: int
    autoprobe: bool
    vfs: dict[int, Function]
    netdevs: tuple[Netdev, ...]
    offset: int = 0
    stride: int = 0

    @property
    def uplink(self) -> Netdev:
        """The PF's own interface, without a name where it is not here. Representors lie beside it, often first.

        Those of other PFs and of subfunctions too: pf1, pf0sf3.
        """
        return next((one for one in self.netdevs if not _OF_FUNCTION.match(one.port)), Netdev("", "", None, ""))

    def representor(self, vf: int) -> Netdev:
        """The same for that of a VF."""
        return next((one for one in self.netdevs if one.vf == vf), Netdev("", "", vf, ""))

    def address(self, vf: int) -> str:
        """The PCI address of a VF, also of one that is not there yet; "" where only making it tells."""
        if vf in self.vfs or not self.offset:
            return self.vfs[vf].pci if vf in self.vfs else ""
        domain, bus, device = self.handle.partition("/")[2].split(":")
        slot, _dot, function = device.partition(".")
        number = (int(bus, 16) << 8 | int(slot, 16) << 3 | int(function)) + self.offset + self.stride * vf
        return f"{domain}:{number >> 8:02x}:{number >> 3 & 31:02x}.{number & 7}"  # drivers/pci/iov.c pci_iov_virtfn_bus


def physical(sys: str = SYS) -> tuple[Physical, ...]:
    """The devices that can have VFs."""
    found = []
    for bus in _BUSES:
        directory = os.path.join(sys, "bus", bus, "devices")
        for name in _entries(directory):
            path = os.path.join(directory, name)
            if os.path.exists(os.path.join(path, "sriov_numvfs")) and _total(path):
                found.append(_physical(f"{bus}/{name}", path))
    return tuple(found)


def _physical(handle: str, path: str) -> Physical:
    links = [name for name in _entries(path) if name.startswith("virtfn")]
    return Physical(
        handle=handle,
        driver=_link(path, "driver") or ("netdevsim" if handle.startswith("netdevsim/") else ""),
        total=_total(path),
        count=int(_read(path, "sriov_numvfs") or 0),
        autoprobe=_read(path, "sriov_drivers_autoprobe") != "0",
        vfs={int(name[len("virtfn") :]): _function(os.path.join(path, name)) for name in links},
        netdevs=tuple(_netdev(path, name) for name in _entries(os.path.join(path, "net"))),
        offset=int(_read(path, "sriov_offset") or 0),
        stride=int(_read(path, "sriov_stride") or 0),
    )


def _function(path: str) -> Function:
    override = _read(path, "driver_override")
    return Function(
        pci=os.path.basename(os.path.realpath(path)),
        driver=_link(path, "driver"),
        override="" if override == "(null)" else override,
        netdevs=tuple(_entries(os.path.join(path, "net"))),
    )


def _netdev(path: str, name: str) -> Netdev:
    port = _read(path, "net", name, "phys_port_name")
    match = _REPRESENTOR.fullmatch(port)
    return Netdev(name, port, int(match[2]) if match else None, _link(os.path.join(path, "net", name), "master"))


def address(handle: str, vf: int, sys: str = SYS) -> str:
    """The PCI address of a VF, "" where there is none; without a look at all others, of which there may be many."""
    return _link(_path(sys, handle), f"virtfn{vf}")


def driver(pci: str, sys: str = SYS) -> str:
    """Of a VF, "" for none; again without a look at the others."""
    return _link(_path(sys, f"pci/{pci}"), "driver")


def representor(pci: str, sys: str = SYS) -> str:
    """The name of a VF's representor, "" where it has none."""
    path = _path(sys, f"pci/{_link(_path(sys, f'pci/{pci}'), 'physfn')}")
    numbers = (name[len("virtfn") :] for name in _entries(path) if name.startswith("virtfn"))
    vf = next((int(number) for number in numbers if _link(path, f"virtfn{number}") == pci), None)
    found = (_netdev(path, name) for name in _entries(os.path.join(path, "net")) if vf is not None)
    return next((one.name for one in found if one.vf == vf), "")


def set_count(handle: str, count: int, sys: str = SYS) -> None:
    """Raises OSError with the kernel's number; some drivers report success and do nothing."""
    _write(str(count), _path(sys, handle), "sriov_numvfs")


def set_autoprobe(handle: str, on: bool, sys: str = SYS) -> None:
    _write("1" if on else "0", _path(sys, handle), "sriov_drivers_autoprobe")


def unbind(pci: str, sys: str = SYS) -> None:
    """Take a VF from its driver, and from the one that it was kept for."""
    path = _path(sys, f"pci/{pci}")
    _write(pci, path, "driver", "unbind")
    if os.path.exists(os.path.join(path, "driver_override")):
        _write("\n", path, "driver_override")


def bind(pci: str, driver: str = "", sys: str = SYS) -> None:
    """Give a VF to this driver, or to the one that the kernel has for it. Raises OSError where no driver takes it."""
    path = _path(sys, f"pci/{pci}")
    _write(driver or "\n", path, "driver_override")  # an empty line clears it
    _write(pci, sys, "bus", "pci", "drivers_probe")
    taken = _link(path, "driver")
    if not taken or (driver and taken != driver):
        words = f"{driver} did not take {pci}: is it loaded?" if driver else f"no driver took {pci}"
        raise OSError(errno.ENODEV, words)


def is_representor(name: str, sys: str = SYS) -> bool:
    """Does the interface stand for another function or port? The device behind it is the PF all the same."""
    return bool(_OF_FUNCTION.match(_read(sys, "class", "net", name, "phys_port_name")))


def lower(name: str, sys: str = SYS) -> frozenset[str]:
    """The interface, and those that it stands on: a VLAN's, a bond's, a bridge's."""
    entries = _entries(os.path.join(sys, "class", "net", name))
    below = [entry[len("lower_") :] for entry in entries if entry.startswith("lower_")]
    return frozenset([name]).union(*(lower(one, sys) for one in below))


def carried(names: Iterable[str], sys: str = SYS) -> frozenset[str]:
    """All interfaces that traffic over these takes."""
    return frozenset().union(*(lower(name, sys) for name in names))


def _path(sys: str, handle: str) -> str:
    bus, _slash, device = handle.partition("/")
    return os.path.join(sys, "bus", bus, "devices", device)


def _total(path: str) -> int:
    """0: it can have none. A VF has no such file, a device of another bus says it elsewhere."""
    text = _read(path, "sriov_totalvfs")
    return int(text) if text else _UNKNOWN_TOTAL


def _entries(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _read(*path: str) -> str:
    """The text, "" where there is none; a driver may also refuse to tell."""
    try:
        with open(os.path.join(*path), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _link(path: str, name: str) -> str:
    try:
        return os.path.basename(os.readlink(os.path.join(path, name)))
    except OSError:
        return ""


def _write(text: str, *path: str) -> None:
    descriptor = os.open(os.path.join(*path), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
