# SPDX-License-Identifier: GPL-3.0-or-later
"""What this node can do: kernel features, each with the reason when it is missing."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from typing import Any, Callable

from .errors import FastpathError
from .kernel import bpf, datapath, uplinks
from .kernel.rtnl import Netlink

_BPFFS = 0xCAFE4A11  # BPF_FS_MAGIC
_OLDEST = (5, 13)  # bpf_for_each_map_elem; atomics and the coarse clock are older
_NETKIT = (6, 7)


def _kernel() -> str:
    if _numbers() >= _OLDEST:
        return ""
    return f"kernel {platform.release()} is older than 5.13, which has bpf_for_each_map_elem"


def _numbers() -> tuple[int, ...]:
    """The kernel's version, like (6, 1)."""
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit())


def _btf() -> str:
    return "" if os.path.exists("/sys/kernel/btf/vmlinux") else "the kernel has no BTF (/sys/kernel/btf/vmlinux)"


def _bpffs() -> str:
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        mounted = any(line.split()[1:3] == ["/sys/fs/bpf", "bpf"] for line in mounts)
    return "" if mounted else "no BPF file system on /sys/fs/bpf; systemd mounts it: systemctl start sys-fs-bpf.mount"


def _libbpf() -> str:
    try:
        bpf.version()
    except FastpathError as error:
        return f"{error.cause}; the role runtime installs it"
    return ""


def _bpf() -> str:
    try:
        bpf.check()
    except FastpathError as error:
        return str(error)
    return ""


def _tcx() -> str:
    try:
        return "" if bpf.has_tcx() else "kernel below 6.6 has no tcx links"
    except FastpathError as error:
        return str(error)


def _netkit() -> str:
    if bpf.has_netkit():
        return ""
    if _numbers() < _NETKIT:
        return "kernel below 6.7 has no netkit"
    return f"kernel {platform.release()} is built without netkit (CONFIG_NETKIT)"


def _python() -> str:
    return "" if sys.version_info >= (3, 9) else f"Python {platform.python_version()} is older than 3.9"


_PROBES: tuple[tuple[str, Callable[[], str]], ...] = (
    ("python", _python),
    ("kernel", _kernel),
    ("btf", _btf),
    ("bpffs", _bpffs),
    ("libbpf", _libbpf),
    ("bpf", _bpf),
    ("tcx", _tcx),
    ("netkit", _netkit),
)
_OPTIONAL = ("tcx", "netkit")  # cls_bpf filters and veth do the same
_NEED_LIBBPF = ("libbpf", "bpf")  # cannot be asked before the role runtime has installed it


def probe() -> dict[str, dict[str, Any]]:
    """Feature -> {available, reason}; the reason is "" for an available one."""
    reasons = {name: ask() for name, ask in _PROBES}
    return {name: {"available": not reason, "reason": reason} for name, reason in reasons.items()}


def unsupported(features: dict[str, dict[str, Any]]) -> list[str]:
    """Why this node cannot run the dataplane, in the operator's words; [] when it can."""
    ignored = _OPTIONAL if features["libbpf"]["available"] else (*_OPTIONAL, *_NEED_LIBBPF)
    return [feature["reason"] for name, feature in features.items() if feature["reason"] and name not in ignored]


def describe() -> dict[str, Any]:
    """The node as node_info reports it."""
    found = probe()
    with Netlink() as netlink:
        candidates = [asdict(uplink) for uplink in uplinks.candidates(netlink)]
    usable = found["libbpf"]["available"] and found["bpffs"]["available"]
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libbpf": bpf.version() if found["libbpf"]["available"] else "",
        "features": found,
        "unsupported": unsupported(found),
        "uplinks": candidates,
        "programs": sorted(datapath.generations()) if usable else [],
    }
