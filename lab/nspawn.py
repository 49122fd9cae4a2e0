# SPDX-License-Identifier: GPL-3.0-or-later
"""A container node: an overlay on the image, booted by systemd-nspawn in its own network namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab import fabric, host
from lab.host import LabError
from lab.node import Keys, Node, added, container_units, identity, secret, wanted_units
from lab.place import Place

_BOOT_SECONDS = 90
_STOP_SECONDS = 30
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", "LANG=C.UTF-8")


@dataclass(frozen=True)
class ContainerNode(Node):
    """A node that is a system container; state holds its overlay."""

    @property
    def root(self) -> Path:
        """The node's file system as the machine sees it: mounted as long as the lab is up."""
        return self.state / "root"

    # Life

    def ensure(self, image: Path, keys: Keys) -> bool:
        running = self.supervisor() is not None and fabric.node_connected(self.topology, self.plan)
        if not running:
            self.stop(graceful=False)  # what a crash may have left of it
        self._mount(image)
        files = identity(self.topology, self.plan, keys) | added(self.topology.image)
        for name, text in {**files, "etc/ssh/ssh_host_ed25519_key": keys.host_key}.items():
            _write(self.root / name, text)
        self._enable_units()
        if running:
            self.wait()  # what an interrupted `up` left may be in the middle of its boot
            self._start_missing_containers()
            return False
        # Also after a clean end: a namespace would carry links over a reboot, a machine does not.
        fabric.connect_node(self.topology, self.plan)
        self._boot()
        return True

    def wait(self) -> list[str]:
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            if self.supervisor() is None:
                raise LabError(f"{self.name} ended while it booted:\n{self._console()}")
            if self._init() is not None and (failed := self._failed_units()) is not None:
                return failed
            time.sleep(0.1)
        raise LabError(f"{self.name} did not boot in {_BOOT_SECONDS} s:\n{self._console()}")

    def restart(self) -> list[str]:
        self.stop(graceful=True)
        fabric.connect_node(self.topology, self.plan)
        self._boot()
        return self.wait()

    def stop(self, *, graceful: bool) -> None:
        supervisor = self.supervisor()
        if supervisor is not None:
            if graceful:
                host.kill(supervisor, signal.SIGTERM)
                graceful = host.gone(supervisor, _STOP_SECONDS)
            if not graceful:
                # The kernel ends all processes of a pid namespace with its init; the supervisor then tidies up.
                for child in host.children(supervisor):
                    host.kill(child)
                if not host.gone(supervisor, 5):
                    host.kill(supervisor)
                    host.gone(supervisor, 5)
        host.end_cgroups(self.plan.lab, self.name)
        host.forget_machine(self.plan.netns)

    def supervisor(self) -> int | None:
        directory = f"--directory={self.root}"
        for pid in host.pids():
            argv = host.arguments(pid)
            if directory in argv and Path(argv[0]).name == "systemd-nspawn":
                return pid
        return None

    def _init(self) -> int | None:
        """Process id of the node's init, on the machine."""
        supervisor = self.supervisor()
        for child in host.children(supervisor) if supervisor else ():
            if host.arguments(child)[:1] in (["/sbin/init"], ["/usr/lib/systemd/systemd"], ["/lib/systemd/systemd"]):
                return child
        return None

    # Commands

    def place(self, container: str | None = None) -> Place:
        init = self._init()
        if init is None:
            raise LabError(f"{self.name} of lab {self.plan.lab} is not running")
        # Be among the node's processes in its cgroups too: engines look at their own.
        join = f'for f in {_unified_procs(init)}; do echo $$ > "$f"; done; exec "$@"'
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root")
        enter = (
            "sh", "-c", join, "sh", "nsenter", f"--target={init}", *namespaces, "--", "env", "-i", "--chdir=/",
            *_ENVIRONMENT, f"TERM={os.environ.get('TERM', 'dumb')}",
        )  # fmt: skip
        if container is None:
            return Place(self.name, enter)
        return Place(f"{self.name}/{container}", (*enter, "nsenter", f"--net=/run/netns/{container}", "--"))

    # Parts

    def _mount(self, image: Path) -> None:
        for name in ("root", "upper", "work"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        if not host.mounts_below(self.root):
            options = f"lowerdir={image},upperdir={self.state}/upper,workdir={self.state}/work"
            host.run(["mount", "-t", "overlay", "-o", options, f"lab-{self.plan.netns}", str(self.root)])

    def _enable_units(self) -> None:
        for name, target in wanted_units(self.topology, self.plan).items():
            link = self.root / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(target)

    def _start_missing_containers(self) -> None:
        units = container_units(self.plan)
        if units and self.run(["systemctl", "is-active", *units], check=False).returncode:
            self.run(["systemctl", "daemon-reload"])
            self.run(["systemctl", "start", *units])

    def _boot(self) -> None:
        (self.state / "console.log").unlink(missing_ok=True)
        nspawn = [
            "systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--boot",
            f"--machine={self.plan.netns}", f"--hostname={self.name}", f"--directory={self.root}",
            f"--network-namespace-path=/run/netns/{self.plan.netns}", "--capability=all",
            "--resolv-conf=off", "--timezone=off", "--link-journal=no",
        ]  # fmt: skip
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "SYSTEMD_SECCOMP": "0",  # else bpf() is refused
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        with (self.state / "console.log").open("wb") as console:
            process = subprocess.Popen(
                [*self._own_cgroup(), *nspawn],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        # From now on the node is found by its command line, by later commands too.
        deadline = time.monotonic() + _BOOT_SECONDS
        while self.supervisor() is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"{self.name} did not start:\n{self._console()}")
            time.sleep(0.02)
        process.returncode = 0  # it outlives this process, which does not wait for it

    def _own_cgroup(self) -> list[str]:
        """A command line that puts what follows into a cgroup of its own: else all nodes share the machine's."""
        if host.under_systemd():
            unit = f"--unit={host.CGROUP}-{self.plan.netns}"
            return ["systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes", unit, "--"]
        groups = [root / host.CGROUP / self.plan.lab / self.name for root in host.cgroup_roots()]
        for group in groups:
            group.mkdir(parents=True, exist_ok=True)
        joins = " ".join(f"'{group}/cgroup.procs'" for group in groups)
        return ["sh", "-c", f'for f in {joins}; do echo $$ > "$f"; done; exec "$@"', "sh"]


def _write(path: Path, text: str) -> None:
    """Write unless it is there already; only what is secret is, the rest follows the usual mode."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if secret(path.parent) else 0o755)
    path.unlink(missing_ok=True)
    mode = 0o600 if secret(path) else 0o644
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def _unified_procs(pid: int) -> str:
    """The cgroup.procs file of a process in the cgroup2 hierarchy, quoted for a shell; empty if there is none."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return " ".join(f"'{roots[0]}{line[3:]}/cgroup.procs'" for line in groups if line.startswith("0::") and roots)
