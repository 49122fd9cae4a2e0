# SPDX-License-Identifier: GPL-3.0-or-later
"""Real nodes on one machine, for the demo, molecule, tests and benchmarks.

from lab import Lab

with Lab.up("t1", nodes=2) as lab:
    lab.node("node1").run(["ping", "-c1", "192.0.2.12"])
"""

from lab.host import LabError
from lab.lifecycle import Lab, down, names
from lab.node import Node
from lab.place import Place
from lab.plan import Topology

__all__ = ["Lab", "LabError", "Node", "Place", "Topology", "down", "names"]
