# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab could leave behind on the machine."""

from __future__ import annotations

import os
from pathlib import Path

from lab import host
from lab.lifecycle import STATE


def remains(lab: str) -> set[str]:
    """All that this machine shows of a lab, and the links of its own network namespace."""
    found = {f"link {path.name}" for path in Path("/sys/class/net").iterdir()}
    found |= {f"netns {name}" for name in host.netns_names() if lab in name}
    found |= {f"mount {point}" for point in host.mounts_below(STATE / lab)}
    found |= {f"cgroup {path}" for root in host.cgroup_roots() for path in root.glob(f"**/*{lab}*")}
    found |= {f"file {path}" for path in (*host.RUN.glob(f"{lab}*"), *STATE.glob(lab))}
    for pid in host.pids():
        command = " ".join(host.arguments(pid))  # empty for a zombie
        if pid != os.getpid() and (f"{lab}-" in command or f"/{lab}/" in command):
            found.add(f"process {command}")
    return found
