# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated NIC of the machine that this runs in: its netdevs, its modes, its rules, and frames through it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_OUTGOING = 4
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40


class CommandError(Exception):
    """A command failed; the text is what it said."""


def run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(0.02)


@dataclass
class End:
    """A netdev from which frames are sent and at which they arrive."""

    name: str
    socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self.socket.bind((self.name, 0x0003))

    def send(self, frame: bytes) -> None:
        self.socket.send(frame)

    def received(self) -> list[bytes]:
        """What has arrived since the last time, with its VLAN tag."""
        frames = []
        with contextlib.suppress(OSError):  # nothing more, or the netdev is gone
            while True:
                data, aux, _flags, address = self.socket.recvmsg(65536, 256, socket.MSG_DONTWAIT)
                if address[2] != _OUTGOING:
                    frames.append(_tagged(data, aux))
        return frames


def _tagged(frame: bytes, aux: list[tuple[int, int, bytes]]) -> bytes:
    """The frame as it was on the wire: the kernel gives the tag beside it."""
    for level, kind, data in aux:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _length, _snap, _mac, _net, tci, tpid = struct.unpack("IIIHHHH", data[:20])
            if status & _VLAN_VALID:
                return frame[:12] + struct.pack("!HH", tpid if status & _VLAN_TPID_VALID else 0x8100, tci) + frame[12:]
    return frame


@dataclass(frozen=True)
class Nic:
    """A device; its module is loaded."""

    address: str = "0001:01:00.0"

    @property
    def sysfs(self) -> Path:
        return Path("/sys/bus/pci/devices") / self.address

    @property
    def handle(self) -> str:
        return f"pci/{self.address}"

    def set_vfs(self, count: int) -> None:
        (self.sysfs / "sriov_numvfs").write_text(str(count))

    def set_mode(self, mode: str) -> None:
        run("devlink", "dev", "eswitch", "set", self.handle, "mode", mode)

    def mode(self) -> str:
        return run("devlink", "dev", "eswitch", "show", self.handle).split()[2]

    def knob(self, name: str, value: int | str | None = None) -> str:
        """Read or write a file of debugfs."""
        path = Path("/sys/kernel/debug/fastpath_nic") / self.address / name
        if value is not None:
            path.write_text(str(value))
            return ""
        return path.read_text().strip()

    def vf(self, number: int) -> str:
        """The name of a VF's own netdev."""
        return next((self.sysfs / f"virtfn{number}" / "net").iterdir()).name

    def bind(self, number: int, driver: str | None) -> None:
        """Give a VF to a driver, or take it from the one that it has."""
        vf = (self.sysfs / f"virtfn{number}").resolve()
        if (vf / "driver").exists():
            (vf / "driver" / "unbind").write_text(vf.name)
        if driver:
            (vf / "driver_override").write_text(driver)
            (Path("/sys/bus/pci/drivers") / driver / "bind").write_text(vf.name)
            (vf / "driver_override").write_text("\n")

    def nears(self) -> dict[str, str]:
        """Names of the netdevs of the host by their phys_port_name: p0, pf0vf0 and so on."""
        found = {}
        for path in (self.sysfs / "net").iterdir():
            with contextlib.suppress(OSError):
                found[(path / "phys_port_name").read_text().strip()] = path.name
        return found

    def near(self, port_name: str) -> str:
        return self.nears()[port_name]

    @property
    def uplink(self) -> str:
        return self.near("p0")

    @property
    def wire(self) -> str:
        return f"wire{int(self.address[:4], 16) - 1}"


def load(**parameters: object) -> Nic:
    """Load the modules anew."""
    unload()
    run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")  # no frames but those of the tests
    run("modprobe", "fastpath_iommu")
    run("modprobe", "fastpath_nic", *(f"{name}={value}" for name, value in parameters.items()))
    return Nic()


def unload() -> None:
    stays = os.uname().release.startswith("6.1.")  # see iommu.c
    for module in ("fastpath_nic", *([] if stays else ["fastpath_iommu"])):
        if (Path("/sys/module") / module).exists():
            run("rmmod", module)


@contextlib.contextmanager
def switchdev(vfs: int, **parameters: object) -> Iterator[tuple[Nic, dict[str, End]]]:
    """A device in switchdev mode, all up; its ends: far (w0, v0, ...) and near (p0, r0, ...)."""
    nic = load(vfs=max(vfs, 1), **parameters)
    nic.set_vfs(vfs)
    nic.set_mode("switchdev")
    nears = nic.nears()
    names = {"w0": nic.wire, "p0": nears["p0"]}
    for number in range(vfs):
        names |= {f"v{number}": nic.vf(number), f"r{number}": nears[f"pf0vf{number}"]}
    run("ethtool", "-K", names["p0"], "hw-tc-offload", "on")
    lines = [f"link set {name} up promisc on" for name in names.values()]
    run("ip", "-batch", "-", stdin="\n".join(lines))
    run("tc", "-batch", "-", stdin="\n".join(f"qdisc add dev {names[end]} clsact" for end in names if end[0] in "pr"))
    ends = {end: End(name) for end, name in names.items()}
    try:
        yield nic, ends
    finally:
        for end in ends.values():
            end.socket.close()
        unload()


def arrivals(ends: dict[str, End]) -> dict[str, list[bytes]]:
    """What has arrived anywhere, once nothing more comes."""
    arrived: dict[str, list[bytes]] = {}
    while True:
        time.sleep(0.01)  # lets a thread deliver what an interrupted send() has left to it
        new = {name: frames for name, end in ends.items() if (frames := end.received())}
        if not new:
            return arrived
        for name, frames in new.items():
            arrived.setdefault(name, []).extend(frames)


def rule(
    device: str, *words: str, preference: int = 1, chain: int = 0, protocol: str = "all", flags: str = "skip_sw"
) -> None:
    """Add a flower rule: keys, then "action" and so on."""
    place = ("ingress", "prio", str(preference), "chain", str(chain), "protocol", protocol)
    run("tc", "filter", "add", "dev", device, *place, "flower", *flags.split(), *words)


def rules(device: str) -> list[dict[str, Any]]:
    """The options of a device's rules, as tc shows them."""
    shown = json.loads(run("tc", "-s", "-j", "filter", "show", "dev", device, "ingress"))
    return [entry["options"] for entry in shown if "handle" in entry.get("options", {})]


def kernel_complaints() -> list[str]:
    """Lines of the kernel's log that tell of a defect."""
    words = ("WARNING", "BUG:", "Oops", "Call Trace", "refcount", "unregister_netdevice: waiting", "leak", "rcu_sched")
    return [line for line in run("dmesg").splitlines() if any(word in line for word in words)]
