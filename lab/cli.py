# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: python3 -m lab COMMAND."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lab import kmod
from lab.host import LabError
from lab.lifecycle import Lab, down, names
from lab.plan import FLAVOURS, KERNELS, KINDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit codes: 0 done, 1 failed, 130 interrupted, else the executed command's own."""
    options = _parser().parse_args(argv)
    try:
        return _COMMANDS[options.command](options)
    except (LabError, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; `down` cleans up, `up` goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="Real nodes on one machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.add_argument("--name", default="demo", help="the lab's name (default: demo)")
        return sub

    up = command("up", "make a lab, or what is missing of it")
    up.add_argument("--nodes", type=int, help="at least so many nodes (a new lab: 3)")
    up.add_argument("--containers", type=int, help="at least so many containers per node (a new lab: 2)")
    up.add_argument("--image", choices=FLAVOURS, help="what the nodes have installed (a new lab: minimal)")
    up.add_argument("--kind", choices=KINDS, help="system containers or virtual machines (a new lab: container)")
    up.add_argument(
        "--kernel", action="append", choices=KERNELS, help="of virtual nodes, which take turns with several (6.12)"
    )
    command("down", "remove a lab without a trace")
    command("status", "show what there is")
    command("inventory", "print the Ansible inventory")
    command("ssh-config", "print the configuration for ssh -F")
    for name, help in (
        ("shell", "open a shell in a node"),
        ("exec", "run a command in a node: exec node1 -- uname -a"),
    ):
        sub = command(name, help)
        sub.add_argument("place", metavar="NODE", help="node1, node2, ...; also fabric or outside")
        sub.add_argument("--container", help="in this container's network namespace")
        if name == "exec":
            sub.add_argument("argv", nargs="+", metavar="CMD")
    command("restart", "reboot a node").add_argument("node", metavar="NODE")
    command("nic", "build the emulated NIC for a virtual node and install it").add_argument("node", metavar="NODE")
    command("fingerprint", "print all that provisioning could leave behind").add_argument("node", metavar="NODE")
    return parser


def _up(options: argparse.Namespace) -> int:
    lab = Lab.up(
        options.name, options.nodes, options.containers, options.image, kind=options.kind, kernels=options.kernel or ()
    )
    print(f"lab {lab.name} is up: ssh -F {os.path.relpath(lab.ssh_config_file)} node1", file=sys.stderr)
    return 0


def _down(options: argparse.Namespace) -> int:
    down(options.name)
    return 0


def _status(options: argparse.Namespace) -> int:
    if options.name not in names():
        print(f"lab {options.name} is not there; labs: {', '.join(names()) or 'none'}")
        return 0
    lab = Lab.load(options.name)
    print(f"lab {lab.name}, kind {lab.topology.kind}, image {lab.topology.image}")
    for node in lab.nodes:
        state = "up" if node.supervisor() else "down"
        containers = " ".join(container.name for container in node.plan.containers)
        print(f"{node.name:8} {state:5} {node.plan.kernel:4} {' '.join(node.plan.addresses)} {containers}")
    return 0


def _inventory(options: argparse.Namespace) -> int:
    print(Lab.load(options.name).inventory_file.read_text(), end="")
    return 0


def _ssh_config(options: argparse.Namespace) -> int:
    print(Lab.load(options.name).ssh_config_file.read_text(), end="")
    return 0


def _exec(options: argparse.Namespace) -> int:
    place = Lab.load(options.name).place(options.place, options.container)
    command = place.command(options.argv if options.command == "exec" else ["bash"], terminal=os.isatty(0))
    os.execvp(command[0], command)  # noqa: S606 - the command takes over this terminal


def _restart(options: argparse.Namespace) -> int:
    failed = Lab.load(options.name).restart(options.node)
    print(f"{options.node} is up" + (f", failed: {' '.join(failed)}" if failed else ""), file=sys.stderr)
    return 0


def _nic(options: argparse.Namespace) -> int:
    kmod.install(Lab.load(options.name).node(options.node), lambda text: print(text, file=sys.stderr))
    print(f"{options.node} has it: modprobe fastpath_iommu, modprobe fastpath_nic vfs=16", file=sys.stderr)
    return 0


def _fingerprint(options: argparse.Namespace) -> int:
    print(Lab.load(options.name).node(options.node).fingerprint(), end="")
    return 0


_COMMANDS = {
    "up": _up,
    "down": _down,
    "status": _status,
    "inventory": _inventory,
    "ssh-config": _ssh_config,
    "shell": _exec,
    "exec": _exec,
    "restart": _restart,
    "nic": _nic,
    "fingerprint": _fingerprint,
}
