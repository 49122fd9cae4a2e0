# SPDX-License-Identifier: GPL-3.0-or-later
"""The power fails in the middle of a change of a NIC: the node boots with what was, or with what was wanted."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from lab import Lab, Node, kmod
from tests.nic.conftest import HOME, copy, copy_collection
from tests.nic.inside.eswitch import few

_NAMES = {"uplink": "nic0", "representors": "nic0r"}
_EVERY = 3  # changes from one cut to the next, the first of them before the first change
# A NIC that is there at boot, and what restores it; nothing of it may be lost by the power cuts.
_PREPARE = f"""
echo "options fastpath_nic vfs=4 profile=$1" > /etc/modprobe.d/lab-nic.conf
printf 'fastpath_iommu\\nfastpath_nic\\nvfio-pci\\n' > /etc/modules-load.d/lab-nic.conf
modprobe -a fastpath_iommu fastpath_nic vfio-pci
cd {HOME}
PYTHONPATH=. python3 -c '
from ansible_collections.fastpath.node.plugins.module_utils import cli
cli.install(True, False)'
systemctl enable --quiet fastpath-nics.service
sync
"""
_SECONDS = 600


@dataclass(frozen=True)
class _Machine:
    lab: str
    node: Node

    def standing(self, wished: dict[str, Any], at: int) -> subprocess.Popen[str]:
        """A run towards `wished` that will say that it stands at that change, or that it is through."""
        command = f"cd {HOME} && PYTHONPATH=. exec python3 -m tests.nic.inside.standing {at}"
        pipe = subprocess.PIPE
        argv = self.node.place().command(["sh", "-c", command])
        run = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        assert run.stdin is not None
        run.stdin.write(json.dumps(wished))
        run.stdin.close()
        return run

    def converged(self, wished: dict[str, Any]) -> str:
        """What the NIC is after a run that nobody disturbs."""
        with self.standing(wished, 10000) as run:
            assert run.stdout is not None
            said = run.stdout.read()
        assert run.returncode == 0, said
        return said

    def seen(self) -> str:
        command = f"cd {HOME} && PYTHONPATH=. exec python3 -m tests.nic.inside.standing"
        return self.node.run(["sh", "-c", command]).stdout

    def cut(self) -> None:
        self.node.stop(graceful=False)
        Lab.up(self.lab)

    def settled(self) -> bool:
        """Has the boot made the NIC what its document says?"""
        unit = self.node.run(["systemctl", "show", "--value", "-p", "Result", "fastpath-nics"]).stdout.strip()
        plan = self.node.run(["fastpath", "plan", "--only", "eswitch"], check=False)
        return (unit, plan.returncode) == ("success", 0)


@pytest.fixture(params=["mlx5", "ice", "bnxt"])
def machine(request: pytest.FixtureRequest, name: str) -> tuple[_Machine, str]:
    lab = Lab.up(name, nodes=1, containers=0, kind="vm", kernels=("6.12",))
    node = lab.nodes[0]
    kmod.install(node)
    copy(node, "tests/nic/inside", HOME)
    copy_collection(node)
    node.run(["sh", "-euc", _PREPARE, "sh", request.param], timeout=_SECONDS)
    return _Machine(name, node), request.param


@pytest.mark.full
@pytest.mark.xdist_group("6.12")
def test_power_cut(machine: tuple[_Machine, str]) -> None:
    there, profile = machine
    before, wished = ({**one, "names": _NAMES} for one in few(profile)[1:4:2])
    through = {there.converged(one) for one in (wished, before)}
    assert len(through) == 2
    said, at = "standing", 1
    while said == "standing":
        there.converged(before)
        with there.standing(wished, at) as run:
            assert run.stdout is not None
            said = run.stdout.readline().split()[0]
            there.cut()
            run.kill()
        assert there.settled(), (at, there.node.run(["fastpath", "plan", "--only", "eswitch"], check=False).stdout)
        assert there.seen() in through, at
        at += _EVERY
    assert there.seen() == there.converged(wished), "it was through before the power was cut"
