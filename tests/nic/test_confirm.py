# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine whose emulated NIC carries Ansible's connection: a good change is confirmed, one that cuts is taken back.

The uplink has the node's addresses; the other end of its wire is in a bridge with the fabric. The test itself looks at
the node by the management link.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, kmod
from lab.plan import FABRIC_GATEWAYS, FABRIC_LENGTHS

PCI = "0001:01:00.0"
REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOK = """
- hosts: nodes
  gather_facts: false
  become: true
  roles: [fastpath.node.runtime, fastpath.node.switchdev]
"""
FILES = {
    "/etc/modprobe.d/lab-nic.conf": "options fastpath_nic vfs=8 profile=mlx5",
    "/etc/modules-load.d/lab-nic.conf": "fastpath_iommu\nfastpath_nic",
    "/etc/udev/rules.d/60-lab-nic.rules": 'SUBSYSTEM=="net", ACTION=="add", KERNELS=="0001:01:00.0", '
    'ATTR{phys_port_name}=="p0", NAME="lab0"',
    "/etc/systemd/network/05-br0.netdev": "[NetDev]\nName=br0\nKind=bridge",
    "/etc/systemd/network/05-br0.network": "[Match]\nName=br0\n[Network]\nLinkLocalAddressing=no",
    "/etc/systemd/network/05-ports.network": "[Match]\nName=eth0 wire0\n[Network]\nBridge=br0",
}
# What lies behind the wire and does not like three VFs.
CUTTER = """
while sleep 0.1; do
  if [ "$(cat /sys/bus/pci/devices/0001:01:00.0/sriov_numvfs)" = 3 ]; then
    ip link set wire0 nomaster
  elif ! ip link show wire0 | grep -q 'master br0'; then
    ip link set wire0 master br0
  fi
done
"""


class Machine:
    """The node, and ansible-playbook that reaches it over the emulated NIC."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.node, self._playbook = lab, lab.nodes[0], folder / "playbook.yml"
        self._playbook.write_text(PLAYBOOK)

    def plug(self) -> None:
        kmod.install(self.node)
        addresses = zip(self.node.plan.addresses, FABRIC_LENGTHS, strict=True)
        lines = [*(f"Address={address}/{length}" for address, length in addresses)]
        lines += [f"Gateway={gateway}" for gateway in FABRIC_GATEWAYS]
        carrier = "[Match]\nName=lab0 nic0\n[Network]\nIPv6AcceptRA=no\n" + "\n".join(lines)
        for name, text in {**FILES, "/etc/systemd/network/05-lab0.network": carrier}.items():
            self.node.run(["sh", "-c", f"cat > {name}"], stdin=text + "\n")
        self.node.run(
            ["sh", "-c", "udevadm control --reload; modprobe -a fastpath_iommu fastpath_nic; networkctl reload"]
        )
        until(lambda: "master br0" in self.said("ip link show wire0"), "the wire is in the bridge")
        self.node.run(["sh", "-c", "ip address flush dev eth0; networkctl reconfigure eth0 lab0"])
        until(lambda: "lab0" in self.said(f"ip route get {FABRIC_GATEWAYS[0]}"), "the NIC carries the node's traffic")

    def said(self, command: str) -> str:
        return self.node.run(["sh", "-c", command], check=False).stdout

    def vfs(self) -> int:
        return int(self.said(f"cat /sys/bus/pci/devices/{PCI}/sriov_numvfs") or -1)

    def unconfirmed(self) -> Any:
        return json.loads(self.said("fastpath status --json"))["unconfirmed"]

    def start(self, vfs: int, timeout: int) -> subprocess.Popen[str]:
        item = {"device": {"pci": PCI}, "mode": "switchdev", "vfs": vfs, "names": {"uplink": "nic0"}}
        given = {
            "fastpath_eswitch": [item],
            "fastpath_confirm_timeout": timeout,
            "fastpath_allow_disruption": True,
            "ansible_ssh_extra_args": f"-o HostName={self.node.plan.addresses[0]}",
        }
        tool = str(Path(sys.executable).with_name("ansible-playbook"))
        sources = ["-i", str(self.lab.inventory_file), "-e", json.dumps(given), str(self._playbook)]
        return subprocess.Popen(
            [tool, *sources], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build"), "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip

    def change(self, vfs: int, timeout: int = 60) -> tuple[bool, str]:
        run = self.start(vfs, timeout)
        output = run.communicate(timeout=900)[0]
        return run.returncode == 0, output

    def boot(self) -> None:
        self.node.stop(graceful=False)
        Lab.up(self.lab.name)

    def cut_by_three_vfs(self) -> None:
        self.node.run(["systemd-run", "--unit=cutter", "sh", "-c", CUTTER])


def until(true: Callable[[], bool], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(0.5)


@pytest.mark.full
@pytest.mark.xdist_group("6.12")
def test_commit_confirm(name: str, tmp_path: Path) -> None:
    machine = Machine(Lab.up(name, nodes=1, containers=0, kind="vm", kernels=("6.12",)), tmp_path)
    machine.plug()

    done, output = machine.change(vfs=2)
    assert done, output
    assert "Keep the change" in output
    assert (machine.vfs(), machine.unconfirmed()) == (2, None)
    done, output = machine.change(vfs=2)
    assert done, output
    assert "changed=0" in output

    machine.cut_by_three_vfs()
    done, output = machine.change(vfs=3, timeout=20)
    assert not done, output
    until(lambda: machine.vfs() == 2, "the node has gone back")
    until(lambda: machine.unconfirmed() is None, "nothing is left of the change")
    done, output = machine.change(vfs=2)
    assert done, output
    assert "changed=0" in output

    machine.boot()
    until(lambda: machine.vfs() == 2, "what was confirmed is there again")
    machine.cut_by_three_vfs()
    run = machine.start(vfs=3, timeout=600)
    try:
        until(lambda: machine.vfs() == 3 and machine.unconfirmed() is not None, "the change is made")
        machine.boot()
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    assert (machine.vfs(), machine.unconfirmed()) == (2, None)
    done, output = machine.change(vfs=2)
    assert done, output
    assert "changed=0" in output
