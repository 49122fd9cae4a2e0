# SPDX-License-Identifier: GPL-3.0-or-later
"""eBPF for the rest of the collection: load, pin, attach, replace, read, test.

A descriptor that a function returns is an `Fd`: an int that a `with` block closes. Failures raise BpfError.
"""

from __future__ import annotations

import ctypes
import errno as codes
from ctypes import c_uint32
from pathlib import Path

from ..errors import Unsupported
from . import btf, links
from .libbpf import BpfError, Fd, attempt, call, library, strerror, version
from .loader import LoadedObject, load
from .maps import Map, PerCpuMap, add_up
from .objects import (
    LinkInfo,
    MapInfo,
    ProgramInfo,
    btf_data,
    get,
    link_info,
    map_by_id,
    map_info,
    pin,
    pin_key,
    pin_name,
    program_by_id,
    program_info,
    unpin,
)
from .ringbuf import RingBuffer
from .rtnl import Netlink
from .testrun import TestRun, test_run

__all__ = [
    "NETKIT_PEER",
    "NETKIT_PRIMARY",
    "TCX_EGRESS",
    "TCX_INGRESS",
    "BpfError",
    "Fd",
    "LinkInfo",
    "LoadedObject",
    "Map",
    "MapInfo",
    "PerCpuMap",
    "ProgramInfo",
    "RingBuffer",
    "TestRun",
    "add_up",
    "attach",
    "btf_data",
    "check",
    "detach",
    "get",
    "has_netkit",
    "has_tcx",
    "link_detach",
    "link_info",
    "link_update",
    "load",
    "map_by_id",
    "map_info",
    "pin",
    "pin_key",
    "pin_name",
    "program_by_id",
    "program_info",
    "query",
    "rodata",
    "rodata_members",
    "rodata_variables",
    "test_run",
    "unpin",
    "version",
]

TCX_INGRESS, TCX_EGRESS = 46, 47  # attach types
NETKIT_PRIMARY, NETKIT_PEER = 54, 55  # both name the interface of the primary; PEER is where its other end sends
_VMLINUX = Path("/sys/kernel/btf/vmlinux")
_ARRAY = 2  # BPF_MAP_TYPE_ARRAY
_LOOPBACK = 1  # its ifindex in every network namespace
_RODATA = ".rodata"


def check() -> None:
    """Raise Unsupported when this node cannot load programs: no libbpf, no BTF, or bpf() refused."""
    library()
    if not _VMLINUX.exists():
        cause = "the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)"
        raise Unsupported("load", "BPF programs", cause, "Use a kernel of the distribution.")
    result = attempt("bpf_map_create", _ARRAY, b"fastpath_probe", 4, 4, 1, None)
    if result < 0:
        hint = "It needs root with CAP_BPF and CAP_NET_ADMIN, and no seccomp filter that refuses bpf()."
        raise Unsupported("load", "BPF programs", f"bpf(): {strerror(-result)}", hint)
    Fd(result).close()


# Attachments


def has_tcx() -> bool:
    """Does the kernel attach programs with tcx links (6.6)? Else clsact.py does it."""
    count = c_uint32(0)
    return attempt("bpf_prog_query", _LOOPBACK, TCX_INGRESS, 0, None, None, ctypes.byref(count)) >= 0


def has_netkit() -> bool:
    """Has the kernel netkit devices (6.7)? This needs no libbpf, so that a node can be asked before it has one."""
    with Netlink() as netlink:
        return links.has_kind(netlink, "netkit")


def attach(prog_fd: int, ifindex: int, attach_type: int) -> Fd:
    """Attach behind what is there already. The link lives as long as its descriptor or a pin of it does."""
    operation, target = "attach a program to", f"interface {ifindex}"
    return Fd(call(operation, target, "bpf_link_create", prog_fd, ifindex, attach_type, None))


def link_update(link_fd: int, prog_fd: int) -> None:
    """Put another program in the place of the attached one; no packet passes between them."""
    call("replace the program of", f"a link (fd {int(link_fd)})", "bpf_link_update", link_fd, prog_fd, None)


def link_detach(link_fd: int) -> None:
    """Take the program off its interface, though pins and descriptors of the link may remain."""
    call("detach", f"a link (fd {int(link_fd)})", "bpf_link_detach", link_fd)


def detach(path: Path) -> None:
    """Take the pinned link off its interface, on return, and remove the pin; nothing there is fine.

    unpin() alone leaves a moment in which the program still runs.
    """
    try:
        with get(path) as link:
            link_detach(link)
    except BpfError as error:
        if error.errno != codes.ENOENT:
            raise
    unpin(path)


def query(ifindex: int, attach_type: int) -> list[int]:
    """The ids of the programs that are attached with tcx or to netkit, in the order in which they run."""
    room = 64
    while True:
        ids, count = (c_uint32 * room)(), c_uint32(room)
        arguments = (ifindex, attach_type, 0, None, ids, ctypes.byref(count))
        result = attempt("bpf_prog_query", *arguments)
        if result == -codes.ENOSPC:
            room *= 2
        elif result < 0:
            raise BpfError("list the programs of", f"interface {ifindex}", -result)
        else:
            return list(ids[: count.value])


# Read-only data


def rodata(prog_fd: int) -> bytes:
    """The read-only data that the program runs with; empty when it uses none."""
    found = _rodata_map(prog_fd)
    return found[1] if found else b""


def rodata_variables(prog_fd: int) -> dict[str, bytes]:
    """The program's read-only variables by name, as load() takes them."""
    found = _rodata_map(prog_fd)
    if not found or not found[0].btf_id:
        return {}
    variables = btf.parse(btf_data(found[0].btf_id)).sections.get(_RODATA, {})
    return {name: found[1][offset : offset + size] for name, (offset, size) in variables.items()}


def rodata_members(prog_fd: int, variable: str, struct: str) -> dict[str, btf.Value]:
    """The members of a read-only variable of this structure; {} when the program has none of that name."""
    found = _rodata_map(prog_fd)
    if not found or not found[0].btf_id:
        return {}
    types = btf.parse(btf_data(found[0].btf_id))
    offset, size = types.sections.get(_RODATA, {}).get(variable, (0, 0))
    return types.structs[struct].unpack(found[1][offset : offset + size]) if size else {}


def _rodata_map(prog_fd: int) -> tuple[MapInfo, bytes] | None:
    for map_id in program_info(prog_fd).map_ids:
        with map_by_id(map_id) as fd:
            info = map_info(fd)
            if info.name.endswith(_RODATA):
                return info, Map(fd).get(bytes(info.key_size)) or b""
    return None
