# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's command line for a virtual machine: pure.

A node goes on from a machine that was saved after its boot, and later boots cold from its own disk: both need the same
devices in the same slots. There is no KVM: every instruction is emulated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QEMU = "qemu-system-x86_64"
MEMORY = 768  # MiB
TRANSLATED = 256  # MiB of translated code that QEMU keeps
COST = MEMORY + TRANSLATED  # MiB that a machine takes at most; one that was resumed takes half of it

# The guest's end of the management link: QEMU itself is the other, so all machines can have the same.
MANAGEMENT = "mgmt0"
MANAGEMENT_MAC = "02:1a:b0:00:02:01"
MANAGEMENT_ADDRESS = "10.0.2.15/24"

UPLINK = "0000:00:03.0"  # the guest's PCI address of it

_COMMAND_LINE = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off random.trust_cpu=on quiet"


@dataclass(frozen=True)
class Machine:
    """A virtual machine.

    image is the directory with the kernel, the initrd and the saved memory, management the address where ssh listens,
    tap the name of the uplink's other end; without one the uplink is not plugged in.
    """

    name: str
    image: Path
    disk: Path
    monitor: Path
    management: str
    mac: str = "02:1a:b0:00:01:00"
    tap: str = ""

    def to_be_saved(self) -> list[str]:
        """The machine that boots once: its memory is a file."""
        return self._command(self._memory_file(shared=True))

    def resumed(self) -> list[str]:
        """A machine that goes on from the saved one: it shares the pages that it does not change."""
        return [*self._command(self._memory_file(shared=False)), "-incoming", "defer"]

    def booted(self, devices: Sequence[str] = (), qemu: Sequence[str] = (QEMU,)) -> list[str]:
        """A machine that boots from its disk, maybe with more devices, or by another QEMU."""
        command = self._command({"qom-type": "memory-backend-ram"})
        return [*qemu, *command[1:], *devices]

    def _memory_file(self, *, shared: bool) -> dict[str, Any]:
        return {"qom-type": "memory-backend-file", "mem-path": str(self.image / "memory"), "share": shared}

    def _command(self, memory: dict[str, Any]) -> list[str]:
        memory |= {"id": "ram", "size": MEMORY << 20}
        disk = {
            "node-name": "disk",
            "driver": "qcow2" if self.disk.suffix == ".qcow2" else "raw",
            "file": {"driver": "file", "filename": str(self.disk)},
        }
        uplink = ["-netdev", f"tap,id=uplink,ifname={self.tap},script=no,downscript=no"] if self.tap else []
        # rdrand: else nothing random is there at boot; vmgenid tells the kernel that it is a copy of another.
        return [
            QEMU, "-name", self.name, "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
            "-machine", "q35,memory-backend=ram", "-accel", f"tcg,thread=multi,tb-size={TRANSLATED}",
            "-cpu", "qemu64,+rdrand", "-smp", "1", "-m", f"{MEMORY}M", "-object", json.dumps(memory),
            "-kernel", str(self.image / "kernel"), "-initrd", str(self.image / "initrd"), "-append", _COMMAND_LINE,
            "-qmp", f"unix:{self.monitor},server=on,wait=off",
            "-device", "vmgenid,guid=auto",
            "-blockdev", json.dumps(disk), "-device", "virtio-blk-pci,drive=disk,addr=2",
            # The uplink first: so the kernel itself calls it eth0.
            *uplink, "-device", f"virtio-net-pci,mac={self.mac},addr=3,id=nic0{',netdev=uplink' if self.tap else ''}",
            "-netdev", f"user,id=management,restrict=on,ipv6=off,hostfwd=tcp:{self.management}:22-:22",
            "-device", f"virtio-net-pci,mac={MANAGEMENT_MAC},addr=4,id=nic1,netdev=management",
        ]  # fmt: skip
