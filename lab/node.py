# SPDX-License-Identifier: GPL-3.0-or-later
"""One node: an overlay on the image, booted by systemd-nspawn in its own network namespace."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import fabric, host
from lab.host import LabError
from lab.place import Place
from lab.plan import NodePlan, Topology

_FILES = Path(__file__).resolve().parent / "files"
_BOOT_SECONDS = 90
_STOP_SECONDS = 30
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", "LANG=C.UTF-8")


@dataclass(frozen=True)
class Keys:
    """What a lab's nodes share to be reachable: file contents."""

    host_key: str
    authorized: str


@dataclass(frozen=True)
class Node:
    """A node of a lab; state is the directory that holds its overlay."""

    topology: Topology
    plan: NodePlan
    state: Path

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def root(self) -> Path:
        """The node's file system as the machine sees it: mounted as long as the lab is up."""
        return self.state / "root"

    # Life

    def ensure(self, image: Path, keys: Keys) -> bool:
        """Bring the node up from whatever state it is in, without waiting for a boot that it starts; True if it did."""
        running = self.supervisor() is not None and fabric.node_connected(self.topology, self.plan)
        if not running:
            self.stop(graceful=False)  # what a crash may have left of it
        self._mount(image)
        for name, text in node_files(self.topology, self.plan, keys).items():
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
        """Wait for the end of the boot: sshd listens then. Names of units that failed; LabError if it does not come."""
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            if self.supervisor() is None:
                raise LabError(f"{self.name} ended while it booted:\n{self._console()}")
            if self._init() is not None:
                state = self.run(["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()
                if state in ("running", "degraded"):
                    failed = self.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).stdout
                    return [line.split()[0] for line in failed.splitlines()]
            time.sleep(0.1)
        raise LabError(f"{self.name} did not boot in {_BOOT_SECONDS} s:\n{self._console()}")

    def restart(self) -> list[str]:
        """Reboot: stop in order, lose every link and pin, boot again from the same file system; see wait."""
        self.stop(graceful=True)
        fabric.connect_node(self.topology, self.plan)
        self._boot()
        return self.wait()

    def stop(self, *, graceful: bool) -> None:
        """Shut the node down; without grace, or where it takes too long, kill it as a power cut would."""
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
        """Process id of the node's systemd-nspawn, on the machine."""
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
        """The node as a place for commands, or with a name the network namespace of one of its containers."""
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

    def run(
        self,
        argv: Sequence[str],
        *,
        container: str | None = None,
        stdin: str = "",
        check: bool = True,
        timeout: float | None = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the node, or in a container of it; see Place.run."""
        return self.place(container).run(argv, stdin=stdin, check=check, timeout=timeout)

    def fingerprint(self) -> str:
        """A stable text of all that provisioning could leave behind; see lab/fingerprint.py."""
        program = (Path(__file__).resolve().parent / "fingerprint.py").read_text()
        return self.run(["python3", "-I", "-B", "-"], stdin=program, timeout=120).stdout

    # Parts

    def _mount(self, image: Path) -> None:
        for name in ("root", "upper", "work"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        if not host.mounts_below(self.root):
            options = f"lowerdir={image},upperdir={self.state}/upper,workdir={self.state}/work"
            host.run(["mount", "-t", "overlay", "-o", options, f"lab-{self.plan.netns}", str(self.root)])

    def _enable_units(self) -> None:
        wanted = {"lab-bpffs.service": "sysinit.target"}
        wanted |= {f"lab-container@{container.name}.service": "multi-user.target" for container in self.plan.containers}
        if self.topology.image == "podman":
            wanted["lab-podman-image.service"] = "multi-user.target"
        for unit, target in wanted.items():
            file = re.sub(r"@.*\.", "@.", unit)
            _link(self.root / f"etc/systemd/system/{target}.wants/{unit}", f"/etc/systemd/system/{file}")

    def _start_missing_containers(self) -> None:
        units = [f"lab-container@{container.name}.service" for container in self.plan.containers]
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

    def _console(self) -> str:
        log = self.state / "console.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""


def node_files(topology: Topology, node: NodePlan, keys: Keys) -> dict[str, str]:
    """All files that the lab adds to the image for one node: path below the root -> text."""
    hosts = "".join(f"{address}\t{other.name}\n" for other in topology for address in other.addresses)
    return {
        "etc/hostname": f"{node.name}\n",
        "etc/machine-id": f"{node.machine_id}\n",
        "etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{hosts}",
        "etc/ssh/ssh_host_ed25519_key": keys.host_key,
        "root/.ssh/authorized_keys": keys.authorized,
        **_added("minimal"),
        **(_added(topology.image) if topology.image != "minimal" else {}),
    }


def _added(flavour: str) -> dict[str, str]:
    tree = _FILES / flavour
    return {str(path.relative_to(tree)): path.read_text() for path in sorted(tree.rglob("*")) if path.is_file()}


def _write(path: Path, text: str) -> None:
    """Write unless it is there already; only the host key must be secret, the rest follows the usual mode."""
    if path.exists() and path.read_text() == text:
        return
    secret = path.name.endswith("_key") or path.parent.name == ".ssh"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if path.parent.name == ".ssh" else 0o755)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644), "w") as file:
        file.write(text)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target)


def _unified_procs(pid: int) -> str:
    """The cgroup.procs file of a process in the cgroup2 hierarchy, quoted for a shell; empty if there is none."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return " ".join(f"'{roots[0]}{line[3:]}/cgroup.procs'" for line in groups if line.startswith("0::") and roots)
