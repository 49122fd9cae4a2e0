# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual node: QEMU in the fabric's network namespace, resumed from the image's memory, with a disk of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import fabric, host, machine
from lab.host import LabError
from lab.machine import QEMU, Machine
from lab.node import Keys, Node, container_units, identity, secret, wanted_units
from lab.place import Place
from lab.plan import FABRIC_GATEWAYS, FABRIC_LENGTHS, UPLINK, NodePlan, Topology
from lab.qmp import Monitor
from lab.vmimage import PREPARED

_BOOT_SECONDS = 600
_STOP_SECONDS = 120

# Turns the machine that was saved into this node; its files come as standard input.
_JOIN = f"""
date --set="@$1" > /dev/null
tar -x -C / -f -
hostname "$2"
networkctl reload
test -e /sys/bus/pci/devices/{machine.UPLINK}/driver || echo {machine.UPLINK} > /sys/bus/pci/drivers/virtio-pci/bind
test -z "$3" || systemctl stop $3
test -z "$4" || systemctl start $4
sync
"""


@dataclass(frozen=True)
class VirtualNode(Node):
    """A node that is a virtual machine; state holds its disk."""

    @property
    def machine(self) -> Machine:
        """The machine as QEMU is to run it."""
        return Machine(
            name=self.plan.netns,
            image=self._image,
            disk=self.state / "disk.qcow2",
            monitor=host.RUN / self.plan.lab / "vm" / self.name,
            management=self.plan.management,
            mac=self.plan.mac,
            tap=self.name,
        )

    @property
    def _image(self) -> Path:
        return Path((self.state / "image").read_text())

    # Life

    def ensure(self, image: Path, keys: Keys) -> bool:
        running = self.supervisor() is not None and fabric.tap_connected(self.topology, self.plan)
        if not running:
            self.stop(graceful=False)  # what a crash may have left of it
        if not self._joined.exists():
            self.stop(graceful=False)  # an interrupted `up` may have left half a node
            self._create(image)
            self._resume()
        elif not running:
            self.boot()
        archive = _archive(self.topology, self.plan, keys)
        if not self._joined.exists() or self._joined.read_bytes() != archive:
            self._join(archive)
        return not running

    def wait(self) -> list[str]:
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            if self.supervisor() is None:
                raise LabError(f"{self.name} ended while it booted:\n{self._console()}")
            if (failed := self._failed_units()) is not None:
                return failed
            time.sleep(0.1)
        raise LabError(f"{self.name} did not boot in {_BOOT_SECONDS} s:\n{self._console()}")

    def restart(self) -> list[str]:
        before = self._boot_id()
        with contextlib.suppress(LabError):  # the connection may end before the command
            self.run(["systemctl", "reboot"], check=False)
        self._close_ssh()
        deadline = time.monotonic() + _BOOT_SECONDS
        while self._boot_id() in (before, ""):
            if self.supervisor() is None or time.monotonic() > deadline:
                raise LabError(f"{self.name} did not come back:\n{self._console()}")
            time.sleep(0.2)
        return self.wait()

    def stop(self, *, graceful: bool) -> None:
        supervisor = self.supervisor()
        if supervisor is not None:
            if graceful:
                with contextlib.suppress(LabError):  # the connection may end before the command
                    self.run(["systemctl", "poweroff"], check=False)
                graceful = host.gone(supervisor, _STOP_SECONDS)
            if not graceful:
                host.kill(supervisor)
                host.gone(supervisor, _STOP_SECONDS)
        self._close_ssh()

    def supervisor(self) -> int | None:
        for pid in host.pids():
            argv = host.arguments(pid)
            if QEMU in argv and self.plan.netns in argv:
                return pid
        return None

    # Commands

    def place(self, container: str | None = None) -> Place:
        ssh = ("ssh", "-F", str(self.state.parent / "ssh_config"), self.name)
        if container is None:
            return Place(self.name, (), ssh)
        return Place(f"{self.name}/{container}", ("nsenter", f"--net=/run/netns/{container}", "--"), ssh)

    def _boot_id(self) -> str:
        """What the kernel calls this boot; empty while the node cannot be reached."""
        with contextlib.suppress(LabError):
            return self.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
        return ""

    def _close_ssh(self) -> None:
        """End the shared connection: it would wait for a machine that has forgotten it."""
        command = [*self.place().ssh, "-O", "exit"]
        subprocess.run(command, capture_output=True, check=False)

    # Parts

    @property
    def _joined(self) -> Path:
        """What the node was given when it became itself."""
        return self.state / "joined.tar"

    def _create(self, image: Path) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "image").write_text(str(image))
        self.machine.disk.unlink(missing_ok=True)
        base = ["-b", str(image / "disk.raw"), "-F", "raw"]
        host.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(self.machine.disk)])

    def _resume(self) -> None:
        self._start(self.machine.resumed())
        with Monitor(self.machine.monitor) as monitor:
            monitor.share_memory()
            monitor.execute("migrate-incoming", uri=f"exec:cat '{self.machine.image}/state'")
            monitor.migrated()
            monitor.execute("cont")

    def _join(self, archive: bytes) -> None:
        """Give the node its identity and its network; then its containers, also those that a grown lab adds."""
        wanted = container_units(self.plan)
        surplus, missing = (
            (set(), wanted) if self._joined.exists() else (set(PREPARED) - set(wanted), set(wanted) - set(PREPARED))
        )
        words = ["sh", "-euc", _JOIN, "sh", f"{time.time():.3f}", self.name, " ".join(surplus), " ".join(missing)]
        # The image's key; ssh_config has the lab's.
        place = Place(self.name, (), (*self.place().ssh, "-i", f"{self._image}/id"))
        result = subprocess.run(place.command(words), input=archive, capture_output=True, check=False)
        if result.returncode:
            raise LabError(f"{self.name} did not become a node: {result.stderr.decode(errors='replace')}")
        self._joined.write_bytes(archive)

    def boot(self, devices: Sequence[str] = (), qemu: Sequence[str] = (QEMU,)) -> None:
        """Switch on; until it is stopped, with more devices, or by another QEMU. See wait."""
        self._start(self.machine.booted(devices, qemu))

    def _start(self, command: list[str]) -> None:
        self.machine.monitor.parent.mkdir(parents=True, exist_ok=True)
        self.machine.monitor.unlink(missing_ok=True)
        with (self.state / "console.log").open("wb") as console:
            process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.topology.fabric}", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while not self.machine.monitor.is_socket() and process.poll() is None:
                time.sleep(0.02)
            Monitor(self.machine.monitor).close()  # it answers when all devices are there
        except LabError:
            raise LabError(f"{self.name} did not start:\n{self._console()}") from None
        process.returncode = 0  # it outlives this process, which does not wait for it
        fabric.connect_tap(self.topology, self.plan)


def _archive(topology: Topology, node: NodePlan, keys: Keys) -> bytes:
    """All that makes the saved machine a node: a tar archive, the same for the same node."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in (identity(topology, node, keys) | network(node)).items():
            if secret(Path(name).parent):
                directory = tarfile.TarInfo(str(Path(name).parent))
                directory.type, directory.mode = tarfile.DIRTYPE, 0o700
                archive.addfile(directory)
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(text.encode()), 0o600 if secret(Path(name)) else 0o644
            archive.addfile(file, io.BytesIO(text.encode()))
        for name, target in wanted_units(topology, node).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return buffer.getvalue()


def network(node: NodePlan) -> dict[str, str]:
    """systemd-networkd's file for the uplink; the image has that of the management link."""
    lines = (
        f"[Match]\nMACAddress={node.mac}\n\n[Network]",
        *(f"Address={address}/{length}" for address, length in zip(node.addresses, FABRIC_LENGTHS, strict=True)),
        *(f"Gateway={gateway}" for gateway in FABRIC_GATEWAYS),
        "IPv6AcceptRA=no\n",
    )
    return {f"etc/systemd/network/10-{UPLINK}.network": "\n".join(lines)}
