# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to converge many attachments on one node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Cost:
    """Seconds that one run took; CPU time of everything on the node, and of the controller's processes."""

    how: str
    step: str
    count: int
    wall: float
    node_cpu: float
    controller_cpu: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(count: int, report: Callable[[str], None]) -> list[Cost]:
    report(f"convergence of {count} attachments")
    return []
