# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to converge many attachments on one node, beside a role that does the same by command tasks."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from bench import build
from lab import Lab, Node, down

OURS, COMMANDS = "fastpath.node.attachments", "role of ip and tc commands"
BY_COMMANDS = 5  # attachments: a loop of commands costs the same for each, and takes long
STATES = {"create": "merged", "no-op": "merged", "remove": "deleted"}  # steps in their order

_PLAYBOOK = {OURS: "attachments.yml", COMMANDS: "commands.yml"}
_PLAYBOOKS = build.HERE / "playbooks"
_SITE = build.HERE.parent / "playbooks" / "site.yml"
_FIRST = (IPv4Address("10.128.0.10"), IPv6Address("fd00:128::a"))
_DATAPLANE = {"uplinks": [{"name": "eth0"}], "prefixes": ["10.128.0.0/16", "fd00:128::/64"], "routing": "fabric"}


@dataclass(frozen=True)
class Cost:
    """Seconds that one play took, and CPU seconds: of everything on the node, and of the controller."""

    how: str
    step: str
    count: int
    wall: float
    node_cpu: float
    controller_cpu: float

    def minus(self, base: Cost) -> Cost:
        """What is left without the cost of a play that does nothing."""
        return Cost(self.how, self.step, self.count, self.wall - base.wall,
                    self.node_cpu - base.node_cpu, self.controller_cpu - base.controller_cpu)  # fmt: skip

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def attachments(prefix: str, count: int) -> list[dict[str, Any]]:
    """A config list of containers with one address of each family."""
    return [
        {
            "name": f"{prefix}{index}",
            "container": {"netns": f"/run/netns/{prefix}{index}"},
            "addresses": [f"{_FIRST[0] + index}/32", f"{_FIRST[1] + index}/128"],
        }
        for index in range(count)
    ]


def measure(count: int, report: Callable[[str], None]) -> list[Cost]:
    """Create, run again and remove: `count` attachments by the module, a few by commands, on one lab node."""
    down("bench")  # what a killed run has left would be in the way
    with Lab.up("bench", nodes=1, containers=0, report=report) as lab:
        node = lab.node("node1")
        report("converging the node")
        _play(lab, _SITE, {"fastpath_dataplane": _DATAPLANE, "fastpath_attachments": []})
        variables = {"bench_program": _program(node)}

        def run(how: str, step: str, config: Sequence[Mapping[str, Any]]) -> Cost:
            report(f"{step} of {len(config)} attachments: {how}")
            given = {**variables, "bench_state": STATES[step], "bench_attachments": config}
            return _timed(lab, node, how, step, given)

        _make_containers(node, "m", count)
        costs = [run(OURS, step, attachments("m", count)) for step in STATES]
        _make_containers(node, "c", BY_COMMANDS)
        empty = run(COMMANDS, "no-op", [])
        return [*costs, *(run(COMMANDS, step, attachments("c", BY_COMMANDS)).minus(empty) for step in STATES)]


def _make_containers(node: Node, prefix: str, count: int) -> None:
    names = "".join(f"netns add {prefix}{index}\n" for index in range(count))
    node.run(["ip", "-batch", "-"], stdin=names, timeout=300)


def _program(node: Node) -> str:
    """Where `from_container` is pinned."""
    return node.run(["sh", "-c", "echo /sys/fs/bpf/fastpath/progs/*/from_container"]).stdout.split()[0]


def _timed(lab: Lab, node: Node, how: str, step: str, variables: Mapping[str, Any]) -> Cost:
    wall, node_before, controller_before = time.monotonic(), _node_cpu(node), _children_cpu()
    output = _play(lab, _PLAYBOOKS / _PLAYBOOK[how], variables)
    wall, controller = time.monotonic() - wall, _children_cpu() - controller_before
    if ("changed=0 " in output) != (step == "no-op"):
        raise RuntimeError(f"{step} by {how}: not what it should have changed\n{output[-3000:]}")
    return Cost(how, step, len(variables["bench_attachments"]), wall, _node_cpu(node) - node_before, controller)


def _play(lab: Lab, playbook: Path, variables: Mapping[str, Any]) -> str:
    """Run a playbook with these extra variables; returns its output, RuntimeError if it fails."""
    build.OUTPUT.mkdir(parents=True, exist_ok=True)
    file = build.OUTPUT / "variables.json"
    file.write_text(json.dumps(variables))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(lab.inventory_file), "-e", f"@{file}"]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(build.OUTPUT.parent),
        "ANSIBLE_HOME": str(build.OUTPUT.parent / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
    }
    result = subprocess.run(
        [*command, str(playbook)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode:
        raise RuntimeError(f"{playbook.name} failed:\n{result.stdout[-3000:]}{result.stderr[-3000:]}")
    return result.stdout


def _node_cpu(node: Node) -> float:
    """CPU seconds of all processes of the node so far, from its cgroup."""
    first = node.run(["cat", "/sys/fs/cgroup/cpu.stat"]).stdout.split()
    return int(first[first.index("usage_usec") + 1]) / 1e6


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
