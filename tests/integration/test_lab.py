# SPDX-License-Identifier: GPL-3.0-or-later
"""On real nodes with podman, through Ansible and the node's own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.lifecycle import Lab
from lab.node import Node
from tests.integration.conftest import REPOSITORY

pytestmark = pytest.mark.xdist_group("lab")  # they share nodes
NAME = f"it{os.getpid()}"
COMMAND = "/usr/bin/fastpath"


def _ansible(lab: Lab, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    sources = ["-i", str(lab.inventory_file), "-i", str(REPOSITORY / "inventories/lab")]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build"), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name(program)), *sources, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY)


def _attach(lab: Lab, node: str, config: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    arguments = json.dumps({"config": config})
    return _ansible(lab, "ansible", node, "-m", "fastpath.node.attachments", "-a", arguments)


def _addresses(number: int) -> tuple[str, str]:
    return f"10.128.{number}.50/32", f"fd00:128:{number}::50/128"


def _web(number: int) -> dict[str, Any]:
    return {"name": "web-1", "container": {"podman": "web"}, "addresses": list(_addresses(number))}


def _start_podman(node: Node) -> None:
    node.run(
        [
            "podman",
            "run",
            "--detach",
            "--name",
            "web",
            "--network",
            "none",
            "--cap-add",
            "NET_RAW",
            "busybox",
            "sleep",
            "9999",
        ]
    )


def _ping_from_podman(node: Node, target: str) -> None:
    node.run(["podman", "exec", "web", "ping", "-c1", "-W3", target.partition("/")[0]])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two converged nodes, each with the container c1 and a podman container `web` that is not attached yet."""
    try:
        made = Lab.up(NAME, nodes=2, containers=1, image="podman")
        for node in made.nodes:
            _start_podman(node)
        done = _ansible(made, "ansible-playbook", "playbooks/site.yml")
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        subprocess.run([sys.executable, "-m", "lab", "down", "--name", NAME], check=True, cwd=REPOSITORY)


def test_an_unknown_podman_container_is_named(lab: Lab) -> None:
    before = _settled(lab)
    done = _attach(lab, "node1", [{**_web(1), "container": {"podman": "nobody"}}])
    assert done.returncode != 0
    assert "container.podman = 'nobody'" in done.stdout + done.stderr
    assert _settled(lab) == before


def _settled(lab: Lab) -> list[str]:
    """The fingerprint without link-local addresses: the kernel adds those of a new interface a moment later."""
    return [line for line in lab.node("node1").fingerprint().splitlines() if "fe80::" not in line]


def test_podman_containers_talk_across_nodes(lab: Lab) -> None:
    for number, node in enumerate(lab.nodes, 1):
        done = _attach(lab, node.name, [_web(number)])
        assert done.returncode == 0, done.stdout + done.stderr
        assert "CHANGED" in done.stdout
    first, second = lab.nodes
    for target in (*_addresses(2), "10.128.2.11", "fd00:128:2::11", "10.128.1.11", "198.51.100.10", "fd00:198::10"):
        _ping_from_podman(first, target)
    for target in _addresses(1):
        _ping_from_podman(second, target)
    assert "SUCCESS" in _attach(lab, "node1", [_web(1)]).stdout


def test_the_command_of_the_node(lab: Lab) -> None:
    node = lab.node("node1")
    assert node.run([COMMAND, "plan"]).returncode == 0
    status = json.loads(node.run([COMMAND, "status", "--json"]).stdout)
    assert status["healthy"] is True
    assert {item["name"] for item in status["attachments"]} >= {"c1"}
    assert "healthy" in node.run([COMMAND, "status"]).stdout
    node.run(["ip", "link", "del", "c1"])
    assert node.run([COMMAND, "plan"], check=False).returncode == 2
    applied = json.loads(node.run([COMMAND, "apply", "--json"]).stdout)
    assert applied["attachments"]["changed"] is True
    assert node.run([COMMAND, "plan"]).returncode == 0
    lab.node("node2").run(["ping", "-c1", "-W3", "10.128.1.11"], container="c1")
    node.run(["mv", "/etc/fastpath/dataplane.json", "/root/"])
    node.run(["sh", "-c", "echo '{' > /etc/fastpath/dataplane.json"])
    broken = node.run([COMMAND, "apply"], check=False)
    node.run(["mv", "/root/dataplane.json", "/etc/fastpath/"])
    assert broken.returncode == 1
    assert "/etc/fastpath/dataplane.json" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert node.run([COMMAND, "fly"], check=False).returncode == 2


def test_an_apply_with_nothing_to_do_imports_neither_ansible_nor_pyroute2(lab: Lab) -> None:
    done = lab.node("node1").run(["python3", "-IS", "-X", "importtime", COMMAND, "apply"])
    assert "0 step(s)" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert any(name.endswith("attachments_plan") for name in imported)
    assert not {name for name in imported if name.partition(".")[0] in ("ansible", "pyroute2")}


def test_a_podman_container_that_starts_after_the_boot_is_attached_by_apply(lab: Lab) -> None:
    node = lab.node("node2")
    assert _attach(lab, "node2", [_web(2)]).returncode == 0
    assert lab.restart("node2") == []
    # the dataplane and c1 are back by themselves, the stopped podman container is left out, not an error
    lab.node("node1").run(["ping", "-c1", "-W3", "10.128.2.11"], container="c1")
    assert node.run([COMMAND, "apply"], check=False).returncode == 1
    assert node.run([COMMAND, "plan", "--skip-absent"]).returncode == 0
    node.run(["podman", "start", "web"])
    assert node.run([COMMAND, "plan", "--skip-absent"], check=False).returncode == 2
    node.run([COMMAND, "apply"])
    _ping_from_podman(node, "10.128.1.11")


def test_remove_takes_everything_down_once(lab: Lab) -> None:
    node = lab.node("node1")
    removed = json.loads(node.run([COMMAND, "remove", "--json"]).stdout)
    assert removed["attachments"]["after"] == []
    assert removed["dataplane"]["after"] == {}
    assert node.run(["sh", "-c", "ls /sys/fs/bpf/fastpath /etc/fastpath"], check=False).stdout == ""
    assert "fastpath" not in node.run(["ip", "link"]).stdout
    again = json.loads(node.run([COMMAND, "remove", "--json"]).stdout)
    assert removed.keys() == again.keys()
    assert not any(result["changed"] for result in again.values())
    assert "no dataplane" in node.run([COMMAND, "status"]).stdout
