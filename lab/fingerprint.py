# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a node: print all that provisioning could leave behind, one sorted line each, fit for diff.

Only what is the node's own is told: BPF objects by its bpffs and its links, never by the kernel's list,
which all nodes share. Ids, indexes, counters and times are left out: they change without a reason.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NETNS = Path("/run/netns")
_BPFFS = Path("/sys/fs/bpf")
_TREES = ("/etc", "/usr", "/var/lib")
_IMAGE = Path("/var/lib/dpkg/status")  # written last when packages were installed
_VOLATILE_FILES = re.compile(
    r"__pycache__|\.pyc$"
    r"|^/etc/(machine-id|\.pwd\.lock|mtab|ld\.so\.cache|resolv\.conf)$"
    r"|^/var/lib/(apt|dpkg|systemd|dbus|private|containers|misc)/"
)
_VOLATILE_SYSCTLS = re.compile(
    r"nf_conntrack_count$|/flush$|stable_secret$|^netfilter/nf_log"
    r"|^ipv4/(tcp|udp)_[rw]?mem$"  # the kernel sizes them by what memory a boot leaves free
)

_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}[platform.machine()]
_OBJ_GET, _PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 7, 13, 15, 16
_NAME_OFFSETS = {"prog": 64, "map": 24}  # in struct bpf_prog_info and bpf_map_info
_TCX = {"ingress": 46, "egress": 47}
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Print the fingerprint of the node that this runs on."""
    lines = [*_units(), *_bpffs(), *_files(), *_network("-")]
    for netns in sorted(_NETNS.iterdir()) if _NETNS.is_dir() else ():
        lines.append(f"netns {netns.name}")
        lines += _in_netns(netns)
    print("\n".join(sorted(lines)))


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


# Network: every line carries the namespace's name, "-" for the node's own


def _in_netns(path: Path) -> list[str]:
    """The lines of another network namespace, read by a child that lives in it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with path.open() as namespace:
            if _libc.setns(namespace.fileno(), _CLONE_NEWNET):
                os._exit(1)
        with os.fdopen(writer, "w") as pipe:
            pipe.write("\n".join(_network(path.name)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    if os.waitpid(child, 0)[1]:
        sys.exit(f"cannot read network namespace {path.name}")
    return lines


def _network(netns: str) -> Iterator[str]:
    links = [link for link in _ip("-details", "link", "show") if "ifname" in link]
    for link in links:
        info = link.get("linkinfo", {})
        yield (
            f"link {netns} {link['ifname']} kind={info.get('info_kind', '')} flags={','.join(sorted(link['flags']))}"
            f" mtu={link['mtu']} mac={link.get('address', '')} master={link.get('master', '')}"
            f" alias={link.get('ifalias', '')} xdp={'xdp' in link}"
        )
        yield from _attached(netns, link["ifname"], link["ifindex"])
    for link in _ip("address", "show"):
        for address in link.get("addr_info", ()):
            flags = ",".join(name for name in ("noprefixroute", "nodad", "deprecated") if address.get(name))
            yield (
                f"address {netns} {link['ifname']} {address['local']}/{address['prefixlen']} "
                f"{address['scope']} {flags}".rstrip()
            )
    for family in ("-4", "-6"):
        for route in _ip(family, "route", "show", "table", "all"):
            yield f"route {netns} {family} {_stable(route)}"
        for rule in _ip(family, "rule", "show"):
            yield f"rule {netns} {family} {_stable(rule)}"
    for neighbour in [*_ip("neigh", "show", "nud", "permanent"), *_ip("neigh", "show", "proxy")]:
        yield f"neighbour {netns} {_stable(neighbour)}"
    yield from (f"qdisc {netns} {line}" for line in _output("tc", "qdisc", "show").splitlines())
    yield from _sysctls(netns)


def _ip(*arguments: str) -> list[dict[str, Any]]:
    text = _output("ip", "-json", *arguments)
    return json.loads(text) if text.strip() else []


def _stable(value: dict[str, Any]) -> str:
    kept = {key: item for key, item in value.items() if key not in ("expires", "used", "refcnt", "cacheinfo")}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def _attached(netns: str, name: str, index: int) -> Iterator[str]:
    """Filters and tcx programs of a link."""
    for direction, attach_type in _TCX.items():
        for line in _output("tc", "filter", "show", "dev", name, direction).splitlines():
            yield f"filter {netns} {name} {direction} {re.sub(r' id [0-9]+', '', line)}"
        for position, program in enumerate(_query(index, attach_type)):
            yield f"tcx {netns} {name} {direction} {position} {program}"


def _sysctls(netns: str) -> Iterator[str]:
    root = Path("/proc/sys/net")
    for path in (Path(top) / file for top, _, files in os.walk(root) for file in files):
        name = str(path.relative_to(root))
        if _VOLATILE_SYSCTLS.search(name):
            continue
        try:
            value = path.read_text().split()
        except OSError:  # write-only, or not set
            continue
        yield f"sysctl {netns} net/{name} = {' '.join(value)}"


# BPF


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The bpf() system call: its result (a negative errno if it failed) and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = int(_libc.syscall(_BPF_SYSCALL, command, buffer, 128))
    return (result if result >= 0 else -ctypes.get_errno()), buffer.raw


def _bpffs() -> Iterator[str]:
    if not os.path.ismount(_BPFFS):
        yield "bpffs is not mounted"
        return
    for top, directories, files in os.walk(_BPFFS):
        for name in directories:
            yield f"bpffs {Path(top) / name}/"
        for name in files:
            path = Path(top) / name
            address = ctypes.create_string_buffer(bytes(path))
            descriptor, _ = _bpf(_OBJ_GET, struct.pack("=QII", ctypes.addressof(address), 0, 0))
            # systemd's iterators and the like cannot be opened this way.
            yield f"bpffs {path} {_describe(descriptor) if descriptor >= 0 else 'other'}"


def _query(index: int, attach_type: int) -> list[str]:
    """Programs that tcx runs on a link, in order; none where the kernel has no tcx."""
    ids = (ctypes.c_uint32 * 64)()
    query = struct.pack("=IIIIQI", index, attach_type, 0, 0, ctypes.addressof(ids), len(ids))
    result, answer = _bpf(_PROG_QUERY, query)
    if result < 0:
        return []
    (count,) = struct.unpack_from("=I", answer, 24)
    programs = []
    for identifier in ids[:count]:
        descriptor, _ = _bpf(_PROG_GET_FD_BY_ID, struct.pack("=I", identifier))
        programs.append(_describe(descriptor) if descriptor >= 0 else "gone")
    return programs


def _describe(descriptor: int) -> str:
    """Kind, type, name and shape of a BPF object; closes the descriptor."""
    try:
        fields = dict(
            line.split(":", 1)
            for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
            if ":" in line
        )
        kind = next((kind for kind in ("prog", "map", "link") if f"{kind}_type" in fields), "other")
        shape = " ".join(
            f"{key}={fields[key].strip()}"
            for key in (f"{kind}_type", "prog_tag", "key_size", "value_size", "max_entries", "attach_type")
            if key in fields
        )
        return f"{kind} {_object_name(descriptor, kind)} {shape}"
    finally:
        os.close(descriptor)


def _object_name(descriptor: int, kind: str) -> str:
    if kind not in _NAME_OFFSETS:
        return "-"
    info = ctypes.create_string_buffer(256)
    result, _ = _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, 256, ctypes.addressof(info)))
    offset = _NAME_OFFSETS[kind]
    return info.raw[offset : offset + 16].split(b"\0")[0].decode() or "-" if result >= 0 else "-"


# Units and files


def _units() -> Iterator[str]:
    # What is enabled is not asked for: that is links below /etc, and systemd would think for half a minute where the
    # processor is emulated.
    for state in ("running", "failed"):
        units = _output("systemctl", "list-units", "--type=service", f"--state={state}", "--no-legend", "--plain")
        yield from (f"service {line.split()[0]} {state}" for line in units.splitlines())


def _files() -> Iterator[str]:
    image = _IMAGE.stat().st_mtime
    for tree in _TREES:
        for top, directories, files in os.walk(tree):
            for path in (f"{top}/{name}" for name in (*directories, *files)):
                if not _VOLATILE_FILES.search(path):
                    yield f"file {path} {_file(path, image)}"


def _file(path: str, image: float) -> str:
    """Mode, owner and content: size and SHA-256, a symlink's target, a directory's nothing.

    A file that is older than the image has not been written since: its time is as good, and much faster where the
    processor is emulated.
    """
    status = os.lstat(path)
    about = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{about} -> {Path(path).readlink()}"
    if not stat.S_ISREG(status.st_mode):
        return about
    if status.st_mtime < image:
        return f"{about} {status.st_size} {status.st_mtime_ns}"
    with Path(path).open("rb") as file:
        return f"{about} {status.st_size} {hashlib.file_digest(file, 'sha256').hexdigest()}"


if __name__ == "__main__":
    main()
