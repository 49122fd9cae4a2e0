# SPDX-License-Identifier: GPL-3.0-or-later
"""Real labs, as root: what they offer, and that nothing of them stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, LabError, down, host
from lab.lifecycle import REPOSITORY
from tests.lab.traces import remains

# Others may have labs of their own on this machine.
NAME = f"t{os.getpid()}"
CRASHING = f"x{os.getpid()}"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """Whatever the test did to the lab: after `down` the machine is as before."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    before, limit_before = remains(CRASHING), limit.read_text()
    try:
        yield
    finally:
        down(CRASHING)
    assert remains(CRASHING) == before
    if not host.RUN.exists():  # else another lab needs it
        assert int(limit.read_text()) <= int(limit_before)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    before = remains(NAME)
    try:
        with Lab.up(NAME, nodes=2, containers=2) as lab:
            yield lab
    finally:
        down(NAME)
    assert remains(NAME) == before


def ping(address: str) -> list[str]:
    return ["ping", "-c1", "-W2", address]


def test_nodes_reach_each_other_and_the_outside(lab: Lab) -> None:
    for address in ("192.0.2.12", "fd00:192::12", "198.51.100.10", "fd00:198::10"):
        lab.node("node1").run(ping(address))
    lab.outside.run(ping("192.0.2.11"))


def test_node_is_a_machine(lab: Lab) -> None:
    node = lab.node("node1")
    assert node.run(["systemctl", "is-system-running"]).stdout == "running\n"
    assert node.run(["hostname"]).stdout == "node1\n"
    assert node.run(["stat", "-fc", "%T", "/sys/fs/bpf"]).stdout == "bpf_fs\n"
    node.run(["test", "-r", "/sys/kernel/btf/vmlinux"])
    # What one node pins, the other does not see.
    node.run(["mkdir", "/sys/fs/bpf/mine"])
    assert "mine" not in lab.node("node2").run(["ls", "/sys/fs/bpf"]).stdout
    node.run(["rmdir", "/sys/fs/bpf/mine"])


def test_run_tells_of_failures(lab: Lab) -> None:
    node = lab.node("node1")
    with pytest.raises(LabError, match="node1: false: exit code 1"):
        node.run(["false"])
    assert node.run(["false"], check=False).returncode == 1
    with pytest.raises(LabError, match="not done after"):
        node.run(["sleep", "5"], timeout=0.2)
    with pytest.raises(LabError, match="no node 'node9'"):
        lab.node("node9")
    assert node.run(["cat"], stdin="text").stdout == "text"


def test_containers_have_their_own_network(lab: Lab) -> None:
    node = lab.node("node2")
    assert [line.split()[0] for line in node.run(["ip", "-br", "link"], container="c1").stdout.splitlines()] == ["lo"]
    node.run(["systemctl", "restart", "lab-container@c1"])
    node.run(["ip", "link", "show", "lo"], container="c1")


def test_ssh(lab: Lab) -> None:
    command = ["ssh", "-F", str(lab.ssh_config_file), "node2", "hostname"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout == "node2\n"


def test_ansible(lab: Lab) -> None:
    ansible = shutil.which("ansible", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if ansible is None or subprocess.run([ansible, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("no ansible")
    command = [ansible, "-i", str(lab.inventory_file), "nodes", "-o", "-m", "ansible.builtin.ping"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("SUCCESS") == 2


def test_up_again_changes_nothing(lab: Lab) -> None:
    inits = [node.supervisor() for node in lab.nodes]
    assert Lab.up(NAME, nodes=1, report=lambda text: None) == lab
    assert [node.supervisor() for node in lab.nodes] == inits


def test_fingerprint_is_stable_and_sees_changes(lab: Lab) -> None:
    node = lab.node("node1")
    before = node.fingerprint()
    assert node.fingerprint() == before
    node.run(["ip", "link", "add", "left1", "type", "veth", "peer", "name", "left2"])
    node.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/forwarding; echo > /etc/left; mkdir /sys/fs/bpf/left"])
    node.run(["ip", "address", "add", "203.0.113.1/32", "dev", "lo"], container="c1")
    added = set(node.fingerprint().splitlines()) - set(before.splitlines())
    for start in (
        "link - left1 kind=veth",
        "sysctl - net/ipv4/conf/eth0/forwarding = 1",
        "file /etc/left -rw-r--r-- 0:0 1 ",
        "bpffs /sys/fs/bpf/left/",
        "address c1 lo 203.0.113.1/32",
    ):
        assert any(line.startswith(start) for line in added), start
    node.run(["ip", "link", "del", "left1"])
    node.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding; rm /etc/left; rmdir /sys/fs/bpf/left"])
    node.run(["ip", "address", "del", "203.0.113.1/32", "dev", "lo"], container="c1")
    assert node.fingerprint() == before


def test_restart_is_a_reboot(lab: Lab) -> None:
    node = lab.node("node1")
    before = node.fingerprint()
    node.run(["sh", "-c", "ip link add gone type veth peer name gone2; mkdir /sys/fs/bpf/gone; echo > /root/stays"])
    assert lab.restart("node1") == []
    assert node.run(["cat", "/root/stays"]).stdout == "\n"
    assert node.fingerprint() == before
    node.run(ping("192.0.2.12"))


@pytest.mark.usefixtures("nothing_stays")
def test_up_revives_what_was_killed() -> None:
    quiet = Lab.up(CRASHING, nodes=2, containers=0, report=lambda text: None)
    victim, bystander = quiet.nodes[0].supervisor(), quiet.nodes[1].supervisor()
    assert victim is not None
    # Only the supervisor: the node's init lives on without it.
    host.kill(victim, signal.SIGKILL)
    assert host.gone(victim, 5)
    grown = Lab.up(CRASHING, containers=1, report=lambda text: None)
    grown.node("node1").run(ping("192.0.2.12"))
    assert quiet.nodes[1].supervisor() == bystander
    for node in grown.nodes:
        assert node.run(["systemctl", "is-active", "lab-container@c1"]).stdout == "active\n"


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("seconds", [0.2, 0.35, 0.5, 0.8])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_up_leaves_nothing_after_down(number: signal.Signals, seconds: float) -> None:
    command = [sys.executable, "-m", "lab", "up", "--name", CRASHING, "--nodes", "3"]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        time.sleep(seconds)
        process.send_signal(number)
        process.wait(timeout=60)


@pytest.mark.usefixtures("nothing_stays")
def test_interrupted_up_goes_on() -> None:
    command = [sys.executable, "-m", "lab", "up", "--name", CRASHING, "--nodes", "2"]
    for seconds in (0.3, 0.5):
        with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True) as process:
            time.sleep(seconds)
            process.kill()
    lab = Lab.up(CRASHING, nodes=2, report=lambda text: None)
    lab.node("node1").run(ping("fd00:192::12"))


def test_a_name_is_used_once_per_machine(lab: Lab, tmp_path: Path) -> None:
    copy = tmp_path / "other"
    shutil.copytree(REPOSITORY / "lab", copy / "lab", ignore=shutil.ignore_patterns("__pycache__"))
    for command in ("up", "down"):
        argv = [sys.executable, "-m", "lab", command, "--name", NAME]
        result = subprocess.run(argv, cwd=copy, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 1
        assert str(REPOSITORY) in result.stderr
    lab.node("node1").run(["true"])
