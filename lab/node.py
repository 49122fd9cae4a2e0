# SPDX-License-Identifier: GPL-3.0-or-later
"""One node of a lab: what container nodes and virtual nodes have in common."""

from __future__ import annotations

import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.place import Place
from lab.plan import NodePlan, Topology

_FILES = Path(__file__).resolve().parent / "files"


@dataclass(frozen=True)
class Keys:
    """What a lab's nodes share to be reachable: file contents."""

    host_key: str
    authorized: str


@dataclass(frozen=True)
class Node(ABC):
    """A node of a lab; state is the directory of its files."""

    topology: Topology
    plan: NodePlan
    state: Path

    @property
    def name(self) -> str:
        return self.plan.name

    # Life

    @abstractmethod
    def ensure(self, image: Path, keys: Keys) -> bool:
        """Bring the node up from whatever state it is in, without waiting for a boot that it starts; True if it did."""

    @abstractmethod
    def wait(self) -> list[str]:
        """Wait for the end of the boot: sshd listens then. Names of units that failed; LabError if it does not come."""

    @abstractmethod
    def restart(self) -> list[str]:
        """Reboot: stop in order, lose every link and pin, boot again from the same file system; see wait."""

    @abstractmethod
    def stop(self, *, graceful: bool) -> None:
        """Shut the node down; without grace, or where it takes too long, as a power cut would."""

    @abstractmethod
    def supervisor(self) -> int | None:
        """Process id, on the machine, of what runs the node; None if it does not run."""

    # Commands

    @abstractmethod
    def place(self, container: str | None = None) -> Place:
        """The node as a place for commands, or with a name the network namespace of one of its containers."""

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
        return self.run(["python3", "-I", "-B", "-"], stdin=program, timeout=600).stdout

    # What the kinds share

    def _console(self) -> str:
        """The end of what the node has printed."""
        log = self.state / "console.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""

    def _failed_units(self) -> list[str] | None:
        """Names of units that failed; None while the node boots or cannot be reached."""
        state = self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=600).stdout.strip()
        if state not in ("running", "degraded"):
            return None
        failed = self.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).stdout
        return [line.split()[0] for line in failed.splitlines()]


def identity(topology: Topology, node: NodePlan, keys: Keys) -> dict[str, str]:
    """The files that make a node out of the image: path below the root -> text."""
    hosts = "".join(f"{address}\t{other.name}\n" for other in topology for address in other.addresses)
    return {
        "etc/hostname": f"{node.name}\n",
        "etc/machine-id": f"{node.machine_id}\n",
        "etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{hosts}",
        "root/.ssh/authorized_keys": keys.authorized,
    }


def added(flavour: str) -> dict[str, str]:
    """The files that the lab adds to Debian in every node: path below the root -> text."""
    trees = [_FILES / name for name in dict.fromkeys(("minimal", flavour))]
    paths = [(tree, path) for tree in trees for path in sorted(tree.rglob("*")) if path.is_file()]
    return {str(path.relative_to(tree)): path.read_text() for tree, path in paths}


def secret(path: Path) -> bool:
    """True for files and directories that only root may read: ssh insists on it."""
    return path.name.endswith("_key") or ".ssh" in (path.name, path.parent.name)


def container_units(node: NodePlan) -> list[str]:
    """The units of a node's containers."""
    return [f"lab-container@{container.name}.service" for container in node.containers]


def wanted_units(topology: Topology, node: NodePlan) -> dict[str, str]:
    """The links that enable units: path below the root -> target."""
    wanted = dict.fromkeys(container_units(node), "multi-user.target")
    if node.kernel == "":
        wanted["lab-bpffs.service"] = "sysinit.target"
    if topology.image == "podman":
        wanted["lab-podman-image.service"] = "multi-user.target"
    return {
        f"etc/systemd/system/{target}.wants/{unit}": f"/etc/systemd/system/{re.sub(r'@.*[.]', '@.', unit)}"
        for unit, target in wanted.items()
    }
