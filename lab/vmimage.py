# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of virtual nodes with one kernel: a directory with kernel, initrd, disk, and the memory after a boot.

Every node goes on from that one boot: its disk is an overlay, its memory a private mapping of the file. So it also has
the image's host key, and lets its key in until the node gets the lab's.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import host, image, initrd, machine
from lab.host import LabError
from lab.machine import MANAGEMENT, MANAGEMENT_ADDRESS, MANAGEMENT_MAC, Machine
from lab.node import added
from lab.place import Place
from lab.qmp import Monitor

SUITES = {"6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
_DISK = "4G"  # sparse
_BOOT_SECONDS = 600

# initramfs-tools is the smaller one of those of which a kernel wants one; it is never run.
_PACKAGES = (
    "linux-image-amd64", "initramfs-tools", "udev", "kmod", "busybox-static", "bpftool", "ethtool", "python3-pytest",
)  # fmt: skip

# A virtual machine needs its own network and login management, and no login on its console.
_KEPT = (
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-modules-load.service",
)
_MASKED = ("serial-getty@.service",)

# Modules for what no virtual machine has: most of the disk, and work for udev at each boot.
_EXCLUDED = (
    "arch/x86/kvm", "sound", "net/bluetooth", "net/mac80211", "net/wireless",
    *(
        f"drivers/{name}"
        for name in (
            "accel", "ata", "bluetooth", "comedi", "cpufreq", "firewire", "gpu", "hid", "hwmon", "iio", "input",
            "isdn", "leds", "media", "mfd", "mmc", "mtd", "net/can", "net/wan", "net/wireless", "platform", "scsi",
            "staging", "thunderbolt", "usb", "video", "watchdog",
        )
    ),
)  # fmt: skip

_FILES = {
    # Emulated, a start takes longer than a person would take to get impatient.
    "etc/systemd/system.conf.d/lab.conf": (
        "[Manager]\nDefaultTimeoutStartSec=600\nDefaultTimeoutStopSec=600\nDefaultDeviceTimeoutSec=600\n"
    ),
    # As in container nodes: MACs are fixed, no second of waiting until an address proves unique.
    "etc/sysctl.d/90-lab.conf": "net.ipv6.conf.eth0.accept_dad=0\n",
    "etc/systemd/network/10-mgmt0.link": f"[Match]\nMACAddress={MANAGEMENT_MAC}\n\n[Link]\nName={MANAGEMENT}\n",
    "etc/systemd/network/10-mgmt0.network": (
        f"[Match]\nName={MANAGEMENT}\n\n[Link]\nRequiredForOnline=no\n\n"
        f"[Network]\nAddress={MANAGEMENT_ADDRESS}\nLinkLocalAddressing=no\n"
    ),
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/machine-id": f"{'0' * 31}1\n",
}

# Containers that run already in a new node.
PREPARED = ("lab-container@c1.service", "lab-container@c2.service")

# Brings into memory what every node needs first, and takes the uplink away: it comes back with the node's MAC.
_WARM_UP = f"""
test "$(systemctl is-system-running --wait)" = running || {{ systemctl --failed; exit 1; }}
systemctl start {" ".join(PREPARED)}
python3 -c 'import json, subprocess, pathlib, ctypes, socket'
networkctl reload
ip -j address
nsenter --help
tar --version
date
hostname
echo {machine.UPLINK} > /sys/bus/pci/drivers/virtio-pci/unbind
sync
"""


@dataclass(frozen=True)
class VirtualRecipe(image.Recipe):
    """Also what decides the saved memory."""

    files: tuple[tuple[str, str], ...]
    machine: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"a virtual machine of Debian {self.suite}: two to four minutes"

    @property
    def options(self) -> tuple[str, ...]:
        excluded = (f"*/lib/modules/*/kernel/{name}/*" for name in _EXCLUDED)
        paths = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", *excluded)
        return (
            # What a mirror has of a suite that moves may be older than the suite says is good.
            "--aptopt=Acquire::Check-Valid-Until false",
            *(f"--dpkgopt=path-exclude={path}" for path in paths),
        )


def recipe(kernel: str, flavour: str) -> VirtualRecipe:
    """The recipe of an image with a kernel out of plan.KERNELS."""
    base = image.recipe(flavour)
    version = host.run([machine.QEMU, "--version"]).stdout.splitlines()[0]
    example = Machine("example", Path("/image"), Path("/disk.raw"), Path("/monitor"), "127.0.0.1").to_be_saved()
    return VirtualRecipe(
        suite=SUITES[kernel],
        architecture=platform.machine(),
        packages=(*base.packages, *_PACKAGES),
        hooks=(*base.hooks, *_hooks()),
        files=tuple((_FILES | added(flavour)).items()),
        machine=(version, *example, _DISK, _WARM_UP),
    )


def _hooks() -> tuple[str, ...]:
    return (
        f'for unit in {" ".join(_KEPT)}; do rm -f "$1/etc/systemd/system/$unit"; done',
        f'for unit in {" ".join(_MASKED)}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done',
        'chroot "$1" systemctl enable systemd-networkd.service ssh.service',
    )


def ensure(kernel: str, flavour: str, report: Callable[[str], None]) -> Path:
    """Path of the image; builds it if the cache lacks it. About four minutes of CPU."""
    wanted = recipe(kernel, flavour)
    return image.cached(wanted, lambda target: _build(wanted, target, report), report)


def _build(wanted: VirtualRecipe, target: Path, report: Callable[[str], None]) -> None:
    began = time.monotonic()

    def progress(text: str) -> None:
        report(f"  {time.monotonic() - began:4.0f} s  {text}")

    tree = target / "root"
    target.mkdir()
    image.bootstrap(wanted, tree, report)
    for name, text in wanted.files:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _make_keys(target, tree)
    (target / "kernel").write_bytes(initrd.kernel(tree))
    (target / "initrd").write_bytes(initrd.initrd(tree))
    progress("writing the disk")
    disk = target / "disk.raw"
    host.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(disk), _DISK])
    shutil.rmtree(tree)
    progress("booting it once")
    _freeze(Machine(f"image-{wanted.digest}", target, disk, target / "monitor", "127.0.0.1"))
    progress("done")


def _make_keys(target: Path, tree: Path) -> None:
    for name in ("host", "id"):
        host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fastpath-lab", "-f", str(target / name)])
    (target / "host").rename(tree / "etc/ssh/ssh_host_ed25519_key")
    authorized = tree / "root/.ssh/authorized_keys"
    authorized.parent.mkdir(mode=0o700, exist_ok=True)
    authorized.write_text((target / "id.pub").read_text())


def _freeze(vm: Machine) -> None:
    """Boot, wait for the end of the boot, and save the memory; the disk is then as that memory believes it to be."""
    console = vm.image / "console.log"
    # It must not live on when this process is killed.
    isolated = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    with (
        console.open("wb") as log,
        subprocess.Popen(
            [*isolated, *vm.to_be_saved()], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            with Monitor(vm.monitor) as monitor:
                _warm_up(vm, process.pid)
                monitor.execute("stop")
                monitor.share_memory()
                monitor.execute("migrate", uri=f"exec:cat > '{vm.image}/state'")
                monitor.migrated()
                monitor.execute("quit")
            process.wait(30)
        except LabError as error:
            tail = "\n".join(console.read_text(errors="replace").splitlines()[-20:])
            raise LabError(f"the image does not boot: {error}\n{tail}") from None
        finally:
            process.kill()


def _warm_up(vm: Machine, pid: int) -> None:
    proxy = f"nsenter --net=/proc/{pid}/ns/net -- {sys.executable} -I -S {Path(__file__).with_name('proxy.py')} %h %p"
    options = (
        "BatchMode=yes", f"IdentityFile={vm.image}/id", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
        f"ProxyCommand={proxy}", "ProxyUseFdpass=yes", "ConnectTimeout=10", "LogLevel=ERROR",
    )  # fmt: skip
    ssh = ["ssh", "-F", "none", *(word for option in options for word in ("-o", option)), f"root@{vm.management}"]
    guest = Place("the image", (), tuple(ssh))
    deadline = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < deadline:
        result = guest.run(["true"], check=False)
        if result.returncode == 0:
            guest.run(["sh", "-exc", _WARM_UP], timeout=_BOOT_SECONDS)
            time.sleep(1)  # until the session is over there too
            return
        time.sleep(0.5)
    raise LabError(result.stderr or "nobody answers")
