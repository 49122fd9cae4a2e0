# SPDX-License-Identifier: GPL-3.0-or-later
"""The role preflight on nodes that are this machine, which it does not change."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.conftest import REPOSITORY

PLAY = """
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  roles: [fastpath.node.preflight]
"""
LOCAL: dict[str, Any] = {
    "ansible_connection": "local",
    "ansible_python_interpreter": sys.executable,
    "fastpath_dataplane": {"uplinks": [{"name": "eth0"}], "prefixes": ["10.128.1.0/24"]},
}


def document(cidr: str) -> dict[str, Any]:
    spec = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"}, "spec": spec}


def preflight(place: Path, **hosts: dict[str, Any]) -> dict[str, str]:
    """What was said of each task."""
    inventory, play = place / "inventory.json", place / "play.yml"
    inventory.write_text(json.dumps({"all": {"hosts": {name: {**LOCAL, **given} for name, given in hosts.items()}}}))
    play.write_text(PLAY)
    found = {"ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(play)],
        capture_output=True, text=True, check=False, env={**os.environ, **found}, cwd=place,
    )  # fmt: skip
    tasks = re.split(r"^(?:TASK \[(?:\S+ : )?|PLAY RECAP )", done.stdout, flags=re.MULTILINE)
    return {title.partition("]")[0]: said for title, _newline, said in (task.partition("\n") for task in tasks)}


def test_documents_are_read_once_for_all_that_have_the_same_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    one = {"fastpath_policies": [document("10.0.0.0/8")]}
    labelled = {**one, "fastpath_namespaces": {"x": {"k": "v"}}}
    wrong = {"fastpath_policies": [document("10.0.0.0/33")], "fastpath_dataplane": {"uplinks": [{"name": "eth0"}]}}
    said = preflight(tmp_path, a=one, b=one, c=wrong, d={}, e=labelled)
    read = sorted(said["Read the policies"].split("\n\n")[0].splitlines())
    assert read == ["ok: [a]", "ok: [c]", "ok: [e]", "skipping: [b]", "skipping: [d]"]
    told = re.findall(r"(\w) cannot be converged: (.*?)\"", said["Make sure that the node can be converged"])
    reasons = dict(told)
    assert "fastpath_dataplane has no prefixes; cannot accept policies[web].spec.ingress[0].from" in reasons["c"]
    assert "10.0.0.0/33" in reasons["c"]
    assert not [name for name, reason in told if name != "c" and "policies" in reason]
