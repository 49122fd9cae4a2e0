# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs site.yml over a lab's nodes, shows how far it is, and reads its recap."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lab import Lab

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build"
OUTPUT = BUILD / "demo"

Recap = Mapping[str, Mapping[str, int]]  # node -> counter ("changed") -> number

_TASK = re.compile(r"TASK \[(?:[\w.]+ : )?(.*?)\] \**$")
_RECAP = re.compile(r"(\S+) +: ((?:\w+=\d+ *)+)$")


def command(lab: Lab) -> list[str]:
    """What a person would type."""
    playbook = Path(sys.executable).parent / "ansible-playbook"
    inventories = ("-i", str(lab.inventory_file), "-i", str(REPOSITORY / "inventories/lab"))
    return [str(playbook), *inventories, str(REPOSITORY / "playbooks/site.yml")]


def run(lab: Lab, name: str, report: Callable[[str], None]) -> Recap:
    """Run it with one progress line per task; its whole output is kept in build/demo/NAME.log."""
    log = OUTPUT / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(BUILD),
        "ANSIBLE_HOME": str(BUILD / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
        "PYTHONUNBUFFERED": "1",
    }
    lines = []
    with (
        log.open("w") as copy,
        subprocess.Popen(
            command(lab), cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as process,
    ):  # fmt: skip
        assert process.stdout
        for line in process.stdout:
            copy.write(line)
            lines.append(line.rstrip())
            if text := progress(line.rstrip()):
                report(text)
    return recap(lines)


def progress(line: str) -> str:
    """A line of Ansible's output as progress: the name of a task, or an error; "" for the rest."""
    if match := _TASK.match(line):
        return "" if match[1].startswith("Validating arguments") else match[1]
    return line if line.startswith(("fatal:", "ERROR", "[ERROR]", "[WARNING]", "[DEPRECATION")) else ""


def recap(lines: Iterable[str]) -> Recap:
    """The counters of Ansible's PLAY RECAP; empty when it did not come so far."""
    found = {}
    begun = False
    for line in lines:
        begun = begun or line.startswith("PLAY RECAP")
        if begun and (match := _RECAP.match(line)):
            found[match[1]] = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", match[2])}
    return found


def problems(found: Recap, nodes: Iterable[str], *, second: bool) -> list[str]:
    """What does not hold: a node that failed or was not reached; in a second run also one that was changed."""
    wrong = []
    for node in nodes:
        if node not in found:
            wrong.append(f"{node} does not appear in the recap")
            continue
        counters = ("unreachable", "failed", "changed") if second else ("unreachable", "failed")
        wrong += [f"{node}: {name}={found[node][name]}" for name in counters if found[node].get(name)]
    return wrong
