# SPDX-License-Identifier: GPL-3.0-or-later
"""Real virtual nodes, as root: what they offer, and that nothing of them stays."""

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

NAME = f"v{os.getpid()}"
CRASHING = f"w{os.getpid()}"
KERNELS = ("6.12", "6.1")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    before = remains(NAME)
    try:
        with Lab.up(NAME, nodes=2, containers=2, kind="vm", kernels=KERNELS) as lab:
            yield lab
    finally:
        down(NAME)
    assert remains(NAME) == before


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    before = remains(CRASHING)
    try:
        yield
    finally:
        down(CRASHING)
    assert remains(CRASHING) == before


def ping(address: str) -> list[str]:
    return ["ping", "-c1", "-W10", address]


def test_nodes_have_their_own_kernels(lab: Lab) -> None:
    for node, kernel in zip(lab.nodes, KERNELS, strict=True):
        assert node.plan.kernel == kernel
        assert node.run(["uname", "-r"]).stdout.startswith(f"{kernel}.")
        assert node.run(["hostname"]).stdout == f"{node.name}\n"
        assert node.run(["stat", "-fc", "%T", "/sys/fs/bpf"]).stdout == "bpf_fs\n"
        node.run(["test", "-r", "/sys/kernel/btf/vmlinux"])
        assert node.run(["cat", "/proc/sys/net/ipv6/conf/eth0/accept_dad"]).stdout == "0\n"
        assert abs(int(node.run(["date", "+%s"]).stdout) - time.time()) < 60


def test_copies_differ(lab: Lab) -> None:
    """They have woken up with the same memory; still no two have the same identity."""
    script = "cat /etc/machine-id /sys/class/net/eth0/address /proc/sys/kernel/random/uuid"
    first, second = (node.run(["sh", "-c", script]).stdout.split() for node in lab.nodes)
    assert first[1] == lab.nodes[0].plan.mac
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_nodes_reach_each_other_and_the_outside(lab: Lab) -> None:
    for address in ("192.0.2.12", "fd00:192::12", "198.51.100.10", "fd00:198::10"):
        lab.node("node1").run(ping(address))
    lab.outside.run(ping("192.0.2.11"))


def test_commands_arrive_as_they_are(lab: Lab) -> None:
    node = lab.node("node1")
    assert node.run(["printf", "%s|", "a b", "$HOME", "'", "*"]).stdout == "a b|$HOME|'|*|"
    assert node.run(["cat"], stdin="text").stdout == "text"
    assert node.run(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(LabError, match="node1: false: exit code 1"):
        node.run(["false"])
    with pytest.raises(LabError, match="not done after"):
        node.run(["sleep", "9"], timeout=0.5)


def test_containers_have_their_own_network(lab: Lab) -> None:
    for container in ("c1", "c2"):
        links = lab.node("node2").run(["ip", "-br", "link"], container=container).stdout
        assert [line.split()[0] for line in links.splitlines()] == ["lo"]


def test_a_broken_uplink_locks_nobody_out(lab: Lab) -> None:
    node = lab.node("node2")
    node.run(["ip", "link", "set", "eth0", "down"])
    assert node.run(["true"]).returncode == 0
    node.run(["ip", "link", "set", "eth0", "up"])
    node.run(["networkctl", "reconfigure", "eth0"])


def test_ansible(lab: Lab) -> None:
    ansible = shutil.which("ansible", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if ansible is None or subprocess.run([ansible, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("no ansible")
    command = [ansible, "-i", str(lab.inventory_file), "nodes", "-o", "-m", "ansible.builtin.ping"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("SUCCESS") == 2


def test_up_again_changes_nothing_and_grows(lab: Lab) -> None:
    before = [node.supervisor() for node in lab.nodes]
    assert Lab.up(NAME, report=lambda text: None) == lab
    grown = Lab.up(NAME, containers=3, report=lambda text: None)
    assert [node.supervisor() for node in lab.nodes] == before
    for node in grown.nodes:
        assert node.run(["systemctl", "is-active", "lab-container@c3"]).stdout == "active\n"
    with pytest.raises(ValueError, match="take it down first"):
        Lab.up(NAME, kernels=("7.2",))


@pytest.mark.full
def test_restart_is_a_reboot(lab: Lab) -> None:
    node = lab.node("node1")
    qemu, before = node.supervisor(), node.fingerprint()
    boot = node.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    node.run(["sh", "-c", "ip link add gone type veth peer name gone2; mkdir /sys/fs/bpf/gone; echo > /root/stays"])
    assert lab.restart("node1") == []
    assert node.supervisor() == qemu
    assert node.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != boot
    assert node.run(["cat", "/root/stays"]).stdout == "\n"
    assert node.fingerprint() == before
    node.run(ping("192.0.2.12"))


def test_a_power_cut_loses_nothing_that_was_synced(lab: Lab) -> None:
    """And all that the saved memory gave a node is there after a boot from its own disk too."""
    node = lab.node("node2")
    before = node.fingerprint()
    node.run(["sh", "-c", "echo kept > /root/kept; sync"])
    node.stop(graceful=False)
    assert node.supervisor() is None
    Lab.up(NAME, report=lambda text: None)
    assert node.run(["cat", "/root/kept"]).stdout == "kept\n"
    assert node.run(["hostname"]).stdout == "node2\n"
    assert node.fingerprint() == before
    node.run(ping("fd00:192::11"))


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_up_goes_on_and_leaves_nothing_after_down(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "lab", "up", "--name", CRASHING, "--nodes", "1", "--kind", "vm"]
    for seconds in (0.4, 1.5):
        with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True) as process:
            time.sleep(seconds)
            process.send_signal(number)
            process.wait(timeout=300)
    if number == signal.SIGINT:
        Lab.up(CRASHING, report=lambda text: None).node("node1").run(ping("198.51.100.10"))


@pytest.mark.usefixtures("nothing_stays")
def test_down_after_qemu_has_crashed() -> None:
    (node,) = Lab.up(CRASHING, nodes=1, containers=0, kind="vm", report=lambda text: None).nodes
    qemu = node.supervisor()
    assert qemu is not None
    host.kill(qemu)
    assert host.gone(qemu, 5)
