# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back on a real node: systemd starts the watcher, a connection that is cut ends nothing, a boot leads back.

No node here has a NIC with VFs. In its place the document of NICs changes, and the node's uplink goes down; it comes up
again when the change is taken back by a line added to the unit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, Node, down
from tests.integration.conftest import REPOSITORY

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("confirm")]
OLD, NEW = ([{"device": {"pci": f"0000:3b:00.{number}"}, "vfs": 2}] for number in (0, 1))
PLAYBOOK = "- {hosts: nodes, gather_facts: false, become: true, roles: [fastpath.node.runtime]}\n"
DROP_IN = "/etc/systemd/system/fastpath-confirm.service.d/uplink.conf"
CHANGE = """
import subprocess, sys, time
sys.path.insert(0, "/usr/lib/fastpath/current")
from fastpath import apart, store
from fastpath.resources import confirm

def work():
    with store.locked(), confirm.counted():
        before = store.read("eswitch")
        confirm.arm(confirm.Undo("eswitch", int(sys.argv[1]), {"config": [], "document": before}))
        if sys.argv[2] == "cut":
            subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)
            time.sleep(2)
        store.write("eswitch", NEW)
    return {}

apart.carry_out(work)
"""


class Machine:
    """A node with the runtime. What runs by ssh comes in over its uplink, all else does not."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.node, self._folder = lab, lab.nodes[0], folder

    def prepare(self) -> None:
        (self._folder / "runtime.yml").write_text(PLAYBOOK)
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build"), "ANSIBLE_NOCOLOR": "1"}
        tool = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [tool, "-i", str(self.lab.inventory_file), str(self._folder / "runtime.yml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        self.write("/root/change.py", CHANGE.replace("NEW", repr(NEW)))
        self.write(DROP_IN, "[Service]\nExecStartPost=ip link set eth0 up\n")
        self.write("/etc/fastpath/eswitch.json", json.dumps(OLD))
        self.node.run(["systemctl", "daemon-reload"])

    def write(self, name: str, text: str) -> None:
        self.node.run(["sh", "-c", f"mkdir -p $(dirname {name}); cat > {name}"], stdin=text)

    def ssh(self, command: str) -> subprocess.Popen[bytes]:
        config = self.lab.inventory_file.with_name("ssh_config")
        words = ["ssh", "-F", str(config), "-o", "ControlPath=none", "-tt", self.node.name, command]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def document(self) -> Any:
        return json.loads(self.node.run(["cat", "/etc/fastpath/eswitch.json"]).stdout)

    def unconfirmed(self) -> Any:
        return json.loads(self.node.run(["fastpath", "status", "--json"]).stdout)["unconfirmed"]

    def confirm(self) -> subprocess.CompletedProcess[str]:
        return self.node.run(["fastpath", "confirm"], check=False)


def until(true: Callable[[], bool], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    name = f"ic{os.getpid()}"
    try:
        made = Machine(Lab.up(name, nodes=1, containers=0), tmp_path_factory.mktemp("confirm"))
        made.prepare()
        yield made
    finally:
        down(name)


def up(node: Node) -> bool:
    return "state UP" in node.run(["ip", "link", "show", "eth0"]).stdout


def test_a_change_that_cuts_the_connection_goes_on_and_is_taken_back(machine: Machine) -> None:
    """The terminal of the session hangs up in the middle of the run."""
    session = machine.ssh("exec python3 -IS /root/change.py 5 cut")
    until(lambda: not up(machine.node), "the connection is cut")
    session.kill()
    session.communicate()
    # sshd finds out late: the hang-up that it would send
    machine.node.run(["pkill", "-HUP", "--oldest", "-f", "^python3 -IS /root/change.py"])
    until(lambda: machine.document() == NEW, "the run goes on")
    held = machine.unconfirmed()
    assert held["resource"] == "eswitch"
    assert held["watched"]
    until(lambda: machine.document() == OLD, "the node goes back")
    until(lambda: up(machine.node), "the connection is there again")
    until(lambda: machine.unconfirmed() is None, "nothing is left of it")
    late = machine.confirm()
    assert late.returncode == 1
    assert "the node has taken it back by itself" in late.stderr
    assert machine.ssh("true").wait(60) == 0


@pytest.mark.parametrize("graceful", [True, False])
def test_a_boot_before_the_confirmation_leads_back(machine: Machine, graceful: bool) -> None:
    machine.node.run(["python3", "-IS", "/root/change.py", "3600", "go"])
    assert machine.document() == NEW
    machine.node.stop(graceful=graceful)
    Lab.up(machine.lab.name)
    until(lambda: machine.unconfirmed() is None, "the node goes back")
    assert machine.document() == OLD


def test_what_is_confirmed_stays_over_a_boot_and_another_change_can_come(machine: Machine) -> None:
    for _round in range(2):
        machine.node.run(["python3", "-IS", "/root/change.py", "3600", "go"])
        assert machine.confirm().returncode == 0
    machine.node.restart()
    assert (machine.document(), machine.unconfirmed()) == (NEW, None)
    until(lambda: machine.node.run(["systemctl", "is-active", "fastpath-confirm"], check=False).returncode != 0, "idle")
    assert machine.node.run(["systemctl", "is-active", "fastpath-confirm.path"]).returncode == 0


def test_a_way_back_that_fails_is_tried_again(machine: Machine) -> None:
    """Here a document that nobody can read; it is mended while the node tries."""
    machine.write("/etc/fastpath/eswitch.json", json.dumps(OLD))
    machine.node.run(["python3", "-IS", "/root/change.py", "1", "go"])
    machine.write("/etc/fastpath/eswitch.json", "{")
    until(lambda: "cannot read" in machine.node.run(["journalctl", "-u", "fastpath-confirm"]).stdout, "it fails")
    assert machine.node.run(["test", "-e", "/etc/fastpath/unconfirmed.json"]).returncode == 0
    machine.write("/etc/fastpath/eswitch.json", json.dumps(NEW))
    until(lambda: machine.unconfirmed() is None, "it is tried again")
    assert machine.document() == OLD
