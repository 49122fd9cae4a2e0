# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs as attachments, on the emulated NIC. Each run has tests/integration/test_vfs.py, with a stand-in for it."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, Node, kmod
from lab.plan import FABRIC_GATEWAYS
from tests.nic.conftest import HOME, Guest, copy_collection

_OBJECT = Path(__file__).resolve().parents[2] / "roles/runtime/files/fastpath.bpf.o"
_NIC, _VFS = "0001:01:00.0", "0001:01:01."
_MODULES = "/etc/modules-load.d/lab-nic.conf"
_SECONDS = 600  # that a run in an emulated machine may take
# A NIC that is there at boot, and a node that is what three documents say, its containers too.
_PREPARE = f"""
echo "options fastpath_nic vfs=4 profile=mlx5" > /etc/modprobe.d/lab-nic.conf
printf 'fastpath_iommu\\nfastpath_nic\\n' > {_MODULES}
modprobe -a fastpath_iommu fastpath_nic
cd {HOME}
PYTHONPATH=. python3 -c '
import json, sys
from ansible_collections.fastpath.node.plugins.module_utils import cli, run
nics, dataplane, attachments = json.load(sys.stdin)
cli.install(True, False)
run.run_eswitch(nics, "overridden", allow_disruption=True)
run.run_dataplane(dataplane, "replaced", path="fastpath.bpf.o")
run.run_attachments(attachments, "overridden")'
systemctl enable --quiet fastpath.service fastpath-nics.service
sync
"""


def _bring(node: Node) -> None:
    """What checks need of the collection and of the repository."""
    copy_collection(node)
    write = node.place().command(["sh", "-c", f"cat > {HOME}/fastpath.bpf.o"])
    subprocess.run(write, input=_OBJECT.read_bytes(), capture_output=True, check=True)


@pytest.mark.full
@pytest.mark.parametrize("guest", [pytest.param("6.12", marks=pytest.mark.xdist_group("6.12"))], indirect=True)
def test_inside(guest: Guest) -> None:
    _bring(guest.node)
    done = guest.check("check_attachments.py")
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


@dataclass(frozen=True)
class _Machine:
    """A node with containers c1 on any VF, c2 on the third one, c3 on a veth."""

    node: Node

    def prepare(self) -> None:
        kinds: dict[str, Any] = {"c1": {"kind": "vf"}, "c2": {"kind": "vf", "vf": self.vf(2)}, "c3": {"kind": "veth"}}
        attachments = [
            {"name": one.name, "container": {"netns": one.netns}, "addresses": one.addresses, **kinds[one.name]}
            for one in self.node.plan.containers
        ]
        nics = [{"device": {"pci": _NIC}, "mode": "switchdev", "vfs": 4, "names": {"representors": "nic0r"}}]
        # by MAC: at boot the NIC may be the first one, and get the name that this one has now
        dataplane = {"uplinks": [{"mac": self.node.plan.mac}], "prefixes": self.node.plan.prefixes}
        _bring(self.node)
        self.node.run(["sh", "-euc", _PREPARE], stdin=json.dumps([nics, dataplane, attachments]), timeout=_SECONDS)

    @staticmethod
    def vf(number: int) -> str:
        return f"{_VFS}{number}"

    def marked(self) -> dict[str, str]:
        """Who has which VF, as the representors say it."""
        ours = json.loads(self.node.run(["ip", "-json", "link", "show", "group", "64087"]).stdout)
        words = [link["ifalias"].split() for link in ours if link.get("ifalias", "").startswith("vf ")]
        return {user: vf for _kind, user, vf, *_rest in words}

    def at_home(self) -> list[str]:
        """VFs whose interface is on the node."""
        look = f"cd /sys/bus/pci/devices && ls -d {_VFS}?/net/*"
        found = self.node.run(["sh", "-c", look], check=False).stdout.split()
        return sorted(path.partition("/")[0] for path in found)

    def reaches_out(self, *names: str) -> bool:
        return all(
            self.node.run(["ping", "-c1", "-w20", address], container=name, check=False).returncode == 0
            for name in names
            for address in FABRIC_GATEWAYS
        )

    def unit(self, verb: str, name: str) -> None:
        self.node.run(["systemctl", verb, f"lab-container@{name}"], timeout=_SECONDS)

    def fastpath(self, *words: str) -> int:
        return self.node.run(["fastpath", *words], check=False, timeout=_SECONDS).returncode

    def cut(self) -> None:
        """The power."""
        self.node.stop(graceful=False)
        Lab.up(self.node.topology.name)


@pytest.mark.full
@pytest.mark.xdist_group("6.12")
def test_a_boot_gives_vfs_again_when_containers_come(name: str) -> None:
    machine = _Machine(Lab.up(name, nodes=1, containers=3, kind="vm", kernels=("6.12",)).nodes[0])
    node, both = machine.node, {"c1": machine.vf(0), "c2": machine.vf(2)}
    kmod.install(node)
    machine.prepare()
    assert machine.marked() == both
    assert machine.at_home() == [machine.vf(1), machine.vf(3)]
    assert machine.reaches_out("c1", "c2", "c3")

    machine.unit("disable", "c2")
    node.run(["sync"])
    machine.cut()
    assert machine.marked() == {"c1": machine.vf(0)}, "only who has been started"
    assert machine.at_home() == [machine.vf(1), machine.vf(2), machine.vf(3)]
    assert machine.reaches_out("c1", "c3")
    machine.unit("start", "c2")
    assert machine.marked() == both
    assert machine.reaches_out("c1", "c2", "c3")
    assert machine.fastpath("plan") == 0

    machine.unit("stop", "c1")
    while machine.vf(0) not in machine.at_home():  # the kernel ends a namespace when it has time
        time.sleep(0.2)
    machine.unit("restart", "c3")  # any run gives back what has ended
    assert machine.marked() == {"c2": machine.vf(2)}
    machine.unit("start", "c1")
    assert machine.marked() == both

    machine.unit("enable", "c2")
    node.restart()
    assert machine.marked() == both
    assert machine.reaches_out("c1", "c2", "c3")
    assert machine.fastpath("plan") == 0

    node.run(["sh", "-c", f"mv {_MODULES} /root; sync"])
    machine.cut()
    assert machine.reaches_out("c3"), "a NIC that has gone keeps nobody else from coming back"
    assert machine.marked() == {}
    said = node.run(["journalctl", "--boot", "--no-pager", "--grep=fastpath: cannot"]).stdout
    for words in (f"cannot find the NIC with pci {_NIC}", "cannot attach c1: no VF", "cannot attach c2: no VF"):
        assert words in said
    node.run(["sh", "-c", f"mv /root/lab-nic.conf {_MODULES}; modprobe -a fastpath_iommu fastpath_nic"])
    assert machine.fastpath("apply", "--wait", "30", "--allow-disruption") == 0
    assert machine.marked() == both
    assert machine.reaches_out("c1", "c2", "c3")
    assert machine.fastpath("remove") == 0
    assert (machine.marked(), machine.at_home()) == ({}, [])
