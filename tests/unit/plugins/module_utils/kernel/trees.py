# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of sysfs for NICs with VFs, made from the kernel's documents and drivers, not recorded on a machine.

Documentation/ABI/testing/sysfs-bus-pci: sriov_totalvfs, sriov_numvfs, sriov_drivers_autoprobe, virtfn<N>, physfn,
drivers_probe, driver/unbind, driver_override ("(null)" when unset). Documentation/ABI/testing/sysfs-class-net:
phys_port_name, lower_<name>. net/core/devlink.c __devlink_port_phys_port_name_get: "p0" of an uplink, "pf0vf3" of a
representor, which lies in the PF's own net/ from kernel 5.8 on (sriov-network-operator#75).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tree:
    """One PF below a mount point of sysfs."""

    root: Path
    pci: str
    driver: str
    vf_driver: str
    vfs: dict[int, str] = field(default_factory=dict)

    @property
    def device(self) -> Path:
        return self.root / "bus/pci/devices" / self.pci

    def function(self, index: int) -> Path:
        return self.root / "bus/pci/devices" / self.vfs[index]

    def written(self, *path: str) -> str:
        """What was written last to a file."""
        return self.root.joinpath(*path).read_text()


def tree(
    root: Path,
    driver: str,
    vfs: int,
    *,
    total: int = 8,
    count: int | None = None,
    uplink: str = "ens1np0",
    port: str = "p0",
    representors: str = "",
    vf_driver: str = "",
    pci: str = "0000:3b:00.0",
) -> Tree:
    """A PF with VFs bound to vf_driver. representors: what their names begin with; count: what numvfs says."""
    made = Tree(root, pci, driver, vf_driver)
    _driver(root, driver)
    _file(root / "bus/pci/drivers_probe", "")
    made.device.mkdir(parents=True)
    (made.device / "subsystem").symlink_to(root / "bus/pci")
    _file(made.device / "sriov_totalvfs", f"{total}\n")
    _file(made.device / "sriov_numvfs", f"{vfs if count is None else count}\n")
    _file(made.device / "sriov_drivers_autoprobe", "1\n")
    (made.device / "driver").symlink_to(root / "bus/pci/drivers" / driver)
    _netdev(made, uplink, port)
    for index in range(vfs):
        made.vfs[index] = f"{pci[:-4]}{index // 8 + 2:02x}.{index % 8}"
        _virtual(made, index)
        if representors:
            _netdev(made, f"{representors}{index}", f"pf0vf{index}")
    return made


def _virtual(made: Tree, index: int) -> None:
    path = made.function(index)
    _file(path / "driver_override", "(null)\n")
    (made.device / f"virtfn{index}").symlink_to(path)
    (path / "physfn").symlink_to(made.device)
    if made.vf_driver:
        give(made, index, made.vf_driver)


def give(made: Tree, index: int, driver: str) -> None:
    """Let a driver have the VF; a kernel driver makes an interface of it."""
    _driver(made.root, driver)
    path = made.function(index)
    (path / "driver").symlink_to(made.root / "bus/pci/drivers" / driver)
    if driver != "vfio-pci":
        _file(path / "net" / f"ens1v{index}" / "phys_port_name", "")


def join(made: Tree, netdev: str, master: str) -> None:
    """Put an interface into a bridge or bond."""
    (made.root / "class/net" / netdev / "master").symlink_to(made.root / "class/net" / master)
    lower = made.root / "class/net" / master
    lower.mkdir(parents=True, exist_ok=True)
    (lower / f"lower_{netdev}").symlink_to(made.root / "class/net" / netdev)


def simulated(root: Path, vfs: int, representors: bool) -> None:
    """A device of netdevsim: drivers/net/netdevsim/bus.c, dev.c. VFs are a number; their representors lie in net/."""
    path = root / "bus/netdevsim/devices/netdevsim1"
    _file(path / "sriov_numvfs", f"{vfs}\n")
    _file(path / "net/eni1np1/phys_port_name", "p1\n")
    for index in range(vfs if representors else 0):
        _file(path / f"net/eni1npf0vf{index}/phys_port_name", f"pf0vf{index}\n")


def _driver(root: Path, name: str) -> None:
    _file(root / "bus/pci/drivers" / name / "unbind", "")


def _netdev(made: Tree, name: str, port: str) -> None:
    path = made.root / "class/net" / name
    _file(path / "phys_port_name", f"{port}\n" if port else "")
    (path / "device").symlink_to(made.device)
    (made.device / "net").mkdir(exist_ok=True)
    (made.device / "net" / name).symlink_to(path)


def _file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
