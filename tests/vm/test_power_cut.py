# SPDX-License-Identifier: GPL-3.0-or-later
"""The power fails in the middle of site.yml: the node boots as it was before or converged, and the next run finishes.

Each resource counts for itself: a run that has converged the dataplane only may be all that the node has got.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import Lab, Node
from lab.plan import KERNELS
from tests.vm.guest import REPOSITORY

# What the run is at (a line of its output begins so after "TASK "), and how many seconds later the power fails.
END = "PLAY RECAP"
TASKS = ("Copy the BPF object", "Install library", "Enable the boot unit", "Converge the dataplane", "Converge the a")
SMOKE = [("6.12", END, 0.0)]
FULL = [(kernel, task, delay) for kernel in KERNELS for task in TASKS for delay in (0.8, 2.0)]


def _params() -> list[object]:
    return [*SMOKE, *(pytest.param(*case, marks=pytest.mark.full) for case in FULL)]


def site(lab: Lab) -> subprocess.Popen[str]:
    """The playbook on its way, in a session of its own."""
    playbook = Path(sys.executable).with_name("ansible-playbook")
    sources = ["-i", str(lab.inventory_file), "-i", str(REPOSITORY / "inventories/lab")]
    return subprocess.Popen(
        [str(playbook), *sources, "fastpath.node.site"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY, start_new_session=True,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build"), "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip


def until(run: subprocess.Popen[str], moment: str) -> bool:
    """Wait until the run is there; False if it ends before."""
    assert run.stdout is not None
    return any(moment in line for line in run.stdout)


def assert_consistent(node: Node) -> None:
    """The node has come up by itself and is what its own documents say, which may be nothing."""
    if node.run(["systemctl", "is-enabled", "fastpath"], check=False).returncode == 0:
        status = node.run(["systemctl", "status", "--no-pager", "fastpath"], check=False)
        assert status.returncode == 0, status.stdout
    if node.run(["test", "-x", "/usr/bin/fastpath"], check=False).returncode == 0:
        plan = node.run(["fastpath", "plan"], check=False)
        assert plan.returncode == 0, plan.stdout + plan.stderr


def assert_serving(lab: Lab, node: Node) -> None:
    """The outside reaches all containers."""
    for container in node.plan.containers:
        for address in container.addresses:
            lab.outside.run(["ping", "-c1", "-W5", address.partition("/")[0]])


@pytest.mark.parametrize(("kernel", "moment", "delay"), _params())
def test_power_cut(name: str, kernel: str, moment: str, delay: float) -> None:
    lab = Lab.up(name, nodes=1, containers=2, kind="vm", kernels=(kernel,))
    node = lab.nodes[0]
    run = site(lab)
    try:
        assert until(run, moment), "the run has ended before"
        time.sleep(delay)
        node.stop(graceful=False)
    finally:
        os.killpg(run.pid, signal.SIGKILL)  # a dead machine would keep it waiting
        run.communicate()
    Lab.up(name)
    assert_consistent(node)
    if moment == END:
        assert_serving(lab, node)
        return
    output = site(lab).communicate()[0]
    assert "failed=0" in output, output
    assert_consistent(node)
    assert_serving(lab, node)
