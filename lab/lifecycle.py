# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab as a whole: up, down, and all that is known about it.

A lab's files are in .lab/NAME/ below the repository; /run/fastpath-lab/NAME/ says that the name is in use
on this machine and by which repository, and holds ssh's control sockets.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from lab import fabric, host, image, inventory, machine, vmimage
from lab.host import LabError
from lab.node import Keys, Node
from lab.nspawn import ContainerNode
from lab.place import Place, netns_place
from lab.plan import NodePlan, Topology, netns_of_lab
from lab.vm import VirtualNode

REPOSITORY = Path(__file__).resolve().parent.parent
STATE = REPOSITORY / ".lab"
_AT_ONCE = 16


def say(text: str) -> None:
    """Progress goes to standard error: standard output is for what a command was asked for."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Lab:
    """A lab that has been made. As a context manager it is taken down at the end."""

    topology: Topology

    @classmethod
    def up(
        cls,
        name: str,
        nodes: int | None = None,
        containers: int | None = None,
        image: str | None = None,
        report: Callable[[str], None] = say,
        *,
        kind: str | None = None,
        kernels: Sequence[str] = (),
    ) -> Lab:
        """Bring a lab up to at least this size (a new one: 3 container nodes with 2 containers each).

        Nodes of kind "vm" take turns with the kernels, which are out of plan.KERNELS.
        What runs already is left alone. Raises LabError, ValueError for a wish that cannot be; what was made
        until then stays for a look at it, down() removes it.
        """
        host.check_machine()
        with host.locked(name):
            known = _known(name)
            lab = cls(
                (known.grown if known else partial(Topology.wanted, name))(nodes, containers, image, kind, kernels)
            )
            if lab.topology.kind == "vm":
                host.check_virtual()
            lab._claim()
            lab._bring_up(report)
            return lab

    @classmethod
    def load(cls, name: str) -> Lab:
        """A lab that is there already; LabError if there is none of this name."""
        topology = _known(name)
        if topology is None:
            raise LabError(f"there is no lab {name!r}; labs here: {', '.join(names()) or 'none'}")
        return cls(topology)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def down(self) -> None:
        """Take the lab down and forget it."""
        down(self.name)

    # What a lab has

    @property
    def name(self) -> str:
        return self.topology.name

    @property
    def state(self) -> Path:
        """Directory of the lab's files."""
        return STATE / self.name

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(_node(self.topology, node, self.state / node.name) for node in self.topology)

    def node(self, name: str) -> Node:
        """The node of this name ("node1"); LabError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"lab {self.name} has no node {name!r}; it has {', '.join(node.name for node in self.nodes)}")

    @property
    def fabric(self) -> Place:
        """The router between the nodes and the outside."""
        return netns_place("fabric", self.topology.fabric)

    @property
    def outside(self) -> Place:
        """The host behind the router."""
        return netns_place("outside", self.topology.outside)

    def place(self, name: str, container: str | None = None) -> Place:
        """A place by name: fabric, outside, or a node, then also one of its containers."""
        if container is None and name in ("fabric", "outside"):
            return self.fabric if name == "fabric" else self.outside
        return self.node(name).place(container)

    @property
    def inventory_file(self) -> Path:
        return self.state / "inventory.yml"

    @property
    def ssh_config_file(self) -> Path:
        return self.state / "ssh_config"

    def restart(self, name: str) -> list[str]:
        """Reboot a node and wait for it; names of units that failed."""
        with host.locked(self.name):
            return self.node(name).restart()

    # Parts of up

    def _claim(self) -> None:
        """Take the name on this machine; LabError if another repository's lab has it."""
        with host.locked("machine"):
            owner = _owner(self.name)
            if owner not in (None, self.state) and owner.is_dir():
                raise LabError(f"a lab named {self.name!r} runs already, from {owner.parent.parent}")
            (host.RUN / self.name).mkdir(parents=True, exist_ok=True, mode=0o700)
            (host.RUN / self.name / "owner").write_text(str(self.state))
            host.raise_limits()
        self.state.mkdir(parents=True, exist_ok=True)
        # Through a rename: a lab whose size cannot be read could not be taken up again.
        unfinished = self.state / "lab.json.new"
        unfinished.write_text(json.dumps(self.topology.as_dict(), indent=2) + "\n")
        unfinished.rename(self.state / "lab.json")

    def _bring_up(self, report: Callable[[str], None]) -> None:
        images = {kernel: self._image(kernel, report) for kernel in {node.plan.kernel: None for node in self.nodes}}
        keys = self._write_access(images)
        fabric.ensure_fabric(self.topology)

        def bring_up(node: Node) -> None:
            if node.ensure(images[node.plan.kernel], keys):
                report(f"{node.name} boots")
            failed = node.wait()
            report(
                f"{node.name} is up at {node.plan.addresses[0]}" + (f", failed: {' '.join(failed)}" if failed else "")
            )

        _in_parallel(bring_up, self.nodes, self._at_once(report))

    def _at_once(self, report: Callable[[str], None]) -> int:
        """How many nodes to start at once; LabError if the memory is not enough for those that do not run yet."""
        if self.topology.kind != "vm":
            return _AT_ONCE
        cores, free = len(os.sched_getaffinity(0)), host.available_memory()
        missing = sum(node.supervisor() is None for node in self.nodes)
        if missing * machine.COST > free:
            raise LabError(f"{missing} virtual nodes need {missing * machine.COST} MiB of memory, {free} are there")
        if missing > cores:
            report(f"starting {missing} virtual nodes, {cores} at a time: as many as there are cores")
        return cores

    def _image(self, kernel: str, report: Callable[[str], None]) -> Path:
        """The image that this lab's nodes with this kernel were made with: their disks fit no other."""
        chosen = self.state / f"image{kernel}"
        if chosen.exists() and (path := Path(chosen.read_text())).is_dir():
            return path
        flavour = self.topology.image
        path = vmimage.ensure(kernel, flavour, report) if kernel else image.ensure(flavour, report)
        chosen.write_text(str(path))
        return path

    def _write_access(self, images: dict[str, Path]) -> Keys:
        """Make keys unless there are some; write what ssh and Ansible read."""
        for name in ("id_ed25519", "host_ed25519"):
            if not (self.state / f"{name}.pub").exists():
                (self.state / name).unlink(missing_ok=True)
                comment = f"fastpath-lab-{self.name}"
                host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(self.state / name)])
        hosts = [path / "host.pub" if kernel else self.state / "host_ed25519.pub" for kernel, path in images.items()]
        keys = (path.read_text().split() for path in hosts)
        (self.state / "known_hosts").write_text("".join(f"{self.name} {kind} {key}\n" for kind, key, *_rest in keys))
        access = inventory.Access(
            config=self.ssh_config_file,
            key=self.state / "id_ed25519",
            known_hosts=self.state / "known_hosts",
            sockets=host.RUN / self.name,
            python=sys.executable,
            proxy=Path(__file__).resolve().parent / "proxy.py",
        )
        self.ssh_config_file.write_text(inventory.ssh_config(self.topology, access))
        self.inventory_file.write_text(inventory.inventory(self.topology, access))
        return Keys((self.state / "host_ed25519").read_text(), (self.state / "id_ed25519.pub").read_text())


def names() -> list[str]:
    """Labs of this repository, running or not."""
    return sorted(path.parent.name for path in STATE.glob("*/lab.json"))


def down(name: str) -> None:
    """Remove all that a lab of this name has left on the machine, from whatever state; fine if there is nothing."""
    host.check_machine()
    Topology.wanted(name)  # refuses a name that is none: it is part of paths below
    with host.locked(name):
        owner = _owner(name)
        if owner not in (None, STATE / name) and owner.is_dir():
            raise LabError(f"lab {name!r} is not from here: take it down from {owner.parent.parent}")
        state = owner or STATE / name
        _close_ssh(name)
        _stop_nodes(name, state)
        namespaces = {netns for netns in host.netns_names() if netns_of_lab(name, netns)}
        for pid in host.inside_netns(namespaces):
            host.kill(pid)
        for netns in sorted(namespaces):
            host.delete_netns(netns)
        host.end_cgroups(name)
        host.unmount_below(state)
        shutil.rmtree(state, ignore_errors=True)
        with contextlib.suppress(OSError):  # other labs are there
            STATE.rmdir()
        shutil.rmtree(host.RUN / name, ignore_errors=True)
        with host.locked("machine"):
            (host.RUN / f"{name}.lock").unlink(missing_ok=True)
            # Another lab's lock counts too: it may be about to come up.
            if {path.name for path in host.RUN.iterdir()} <= {"machine.lock", "inotify"}:
                host.restore_limits()
                shutil.rmtree(host.RUN)


def _stop_nodes(name: str, state: Path) -> None:
    """Stop every node that may run below the state directory, whatever size the lab was believed to have."""
    topology = Topology.wanted(name)
    numbers = [int(path.name[4:]) for path in state.glob("node*") if path.name[4:].isdigit()]
    kinds = (ContainerNode, VirtualNode)
    nodes = [kind(topology, topology.node(number), state / f"node{number}") for number in numbers for kind in kinds]
    _in_parallel(lambda node: node.stop(graceful=False), nodes)


def _close_ssh(name: str) -> None:
    """End ssh's shared connections: their sockets would keep the fabric alive."""
    directory = host.RUN / name
    for control in directory.iterdir() if directory.is_dir() else ():
        if control.is_socket():
            command = ["ssh", "-F", "none", "-o", f"ControlPath={control}", "-O", "exit", "lab"]
            subprocess.run(command, capture_output=True, check=False)


def _node(topology: Topology, node: NodePlan, state: Path) -> Node:
    return (VirtualNode if topology.kind == "vm" else ContainerNode)(topology, node, state)


def _known(name: str) -> Topology | None:
    try:
        return Topology.from_dict(json.loads((STATE / name / "lab.json").read_text()))
    except FileNotFoundError:
        return None


def _owner(name: str) -> Path | None:
    """State directory of the lab that has this name on the machine."""
    try:
        return Path((host.RUN / name / "owner").read_text())
    except FileNotFoundError:
        return None


def _in_parallel(work: Callable[[Node], None], nodes: Sequence[Node], at_once: int = _AT_ONCE) -> None:
    """Do it for many nodes at once, let all end, then raise the first error."""
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        futures = [pool.submit(work, node) for node in nodes]
    for future in futures:
        future.result()
