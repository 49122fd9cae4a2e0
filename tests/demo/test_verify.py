# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook verify knows all that the roles may change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
VERIFY = (ROOT / "playbooks/verify.yml").read_text()
LOOKS = {
    "assert", "include_tasks", "include_vars", "meta", "node_info", "set_fact", "setup", "stat", "wait_for_connection",
}  # fmt: skip
# Without packages other tasks fail; a change of NICs goes on only where there was one.
KNOWN = {"Install the packages", "See what has become of it", "Keep the change"}


def test_verify_knows_all_that_roles_change() -> None:
    roles = [line.rpartition(".")[2] for line in VERIFY.splitlines() if "name: fastpath.node." in line]
    tasks = [task for role in roles for task in _tasks(ROOT / f"roles/{role}/tasks", "main.yml")]
    changing = [task for task in tasks if _changes(task)]
    assert len(roles) == 5
    assert len(changing) > 10
    words = set(re.findall(r"\w+", VERIFY))
    assert [task["name"] for task in changing if task.get("register") not in words] == []


def _tasks(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    for task in yaml.safe_load((folder / name).read_text()):
        yield task
        included = task.get("ansible.builtin.include_tasks")
        yield from _tasks(folder, included) if included else ()


def _changes(task: dict[str, Any]) -> bool:
    modules = {key.rpartition(".")[2] for key in task if "." in key}
    return not modules & LOOKS and task.get("changed_when") is not False and task["name"] not in KNOWN
