# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine under a lab: commands, processes, namespaces, mounts, cgroups, and what it lends to all labs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

RUN = Path("/run/fastpath-lab")
NETNS = Path("/run/netns")
CGROUP = "fastpath-lab"

_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_WANTED = 1024  # systemd takes a few per node: the usual 128 end at about 30 nodes
_TOOLS = {
    "ip": "iproute2", "mmdebstrap": "mmdebstrap", "nsenter": "util-linux", "setpriv": "util-linux",
    "ssh": "openssh-client", "ssh-keygen": "openssh-client", "systemd-nspawn": "systemd-container",
    "sysctl": "procps",
}  # fmt: skip
_VIRTUAL_TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs"}


class LabError(Exception):
    """A lab cannot do what was asked; the text is for a person."""


def check_machine() -> None:
    """Raise LabError unless this process is root and has the tools."""
    if os.geteuid():
        raise LabError("a lab makes namespaces, mounts and cgroups: run it as root")
    _check_tools(_TOOLS)


def check_virtual() -> None:
    """Raise LabError unless this machine has what virtual nodes need more."""
    if platform.machine() != "x86_64":
        raise LabError(f"virtual nodes are x86_64 machines, this one is {platform.machine()}")
    _check_tools(_VIRTUAL_TOOLS)


def available_memory() -> int:
    """What new processes can have, in MiB."""
    values = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(values["MemAvailable"].split()[0]) // 1024


def _check_tools(tools: dict[str, str]) -> None:
    missing = sorted({package for tool, package in tools.items() if not shutil.which(tool)})
    if missing:
        raise LabError(f"missing tools, install them with: apt-get install {' '.join(missing)}")


def run(argv: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end; raise LabError with its own words if it fails."""
    result = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        raise LabError(f"{' '.join(argv)}: {result.stderr.strip() or f'exit code {result.returncode}'}")
    return result


def succeeds(argv: Sequence[str]) -> bool:
    """True if the command ends with 0 and prints something."""
    result = subprocess.run(argv, capture_output=True, check=False)
    return result.returncode == 0 and bool(result.stdout.strip())


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold one of the labs' locks; the kernel frees it when the holder dies."""
    descriptor = _lock(RUN / f"{name}.lock")
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Descriptor that holds the lock. A lab's end removes its file: what was waited for may be nobody's by then."""
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


# Processes


def pids() -> list[int]:
    """All processes that this one sees."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def arguments(pid: int) -> list[str]:
    """A process's command line; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def children(pid: int) -> list[int]:
    """A process's children, over all its threads."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def inside_netns(names: set[str]) -> list[int]:
    """Processes whose network namespace is one of the named ones."""
    wanted = {_inode(NETNS / name) for name in names} - {None}
    return [pid for pid in pids() if _inode(Path(f"/proc/{pid}/ns/net")) in wanted]


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def gone(pid: int, seconds: float) -> bool:
    """Wait until a process has ended, with all its threads (a zombie has); False if it still runs after that time."""
    deadline = time.monotonic() + seconds
    while _running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _running(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    # A thread that ends later than the first one still has the files open.
    return fields[0] not in "ZX" or int(fields[17]) > 1


# Network namespaces and mounts


def netns_names() -> set[str]:
    """Names under /run/netns, complete or not."""
    return {path.name for path in NETNS.iterdir()} if NETNS.is_dir() else set()


def delete_netns(name: str) -> None:
    """Remove a network namespace's name; also the empty file that a killed `ip netns add` leaves."""
    if name in netns_names():
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        (NETNS / name).unlink(missing_ok=True)


def mounts_below(path: Path) -> list[str]:
    """Mount points at or below a path, deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in reversed(points) if Path(point).is_relative_to(path)]


def unmount_below(path: Path) -> None:
    """Unmount everything at and below a path, lazily where something still holds it."""
    for point in mounts_below(path):
        if subprocess.run(["umount", point], capture_output=True, check=False).returncode:
            run(["umount", "--lazy", point])


def forget_machine(name: str) -> None:
    """Remove what a killed systemd-nspawn leaves: from version 256 on it would refuse to start again."""
    for kind in ("unix-export", "propagate"):
        directory = Path("/run/systemd/nspawn") / kind / name
        unmount_below(directory)
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()


# Cgroups


def under_systemd() -> bool:
    """True if systemd is this machine's init and thus owns the cgroup tree."""
    return Path("/run/systemd/system").is_dir()


def cgroup_roots() -> list[Path]:
    """Hierarchies that systemd uses: cgroup2, and on older set-ups the named v1 one."""
    roots = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            roots.append(Path(point))
    return roots


def end_cgroups(lab: str, node: str = "node[0-9]*") -> None:
    """Kill what still runs in the cgroups of a lab's nodes, or of one, and remove them.

    They are the only thing that is sure to hold all of a node: its supervisor may have been killed before it.
    """
    pattern = f"system.slice/{CGROUP}-{lab}-{node}.scope" if under_systemd() else f"{CGROUP}/{lab}/{node}"
    for group in [group for root in cgroup_roots() for group in root.glob(pattern)]:
        deadline = time.monotonic() + 10
        while not _removed(group) and time.monotonic() < deadline:
            for pid in _members(group):
                kill(pid)
            time.sleep(0.02)
    for root in cgroup_roots():
        for parent in (root / CGROUP / lab, root / CGROUP):
            with contextlib.suppress(OSError):  # not there, or in use by others
                parent.rmdir()


def _members(group: Path) -> list[int]:
    found = []
    for file in group.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in file.read_text().split()]
    return found


def _removed(group: Path) -> bool:
    """Remove a tree of cgroups as far as it is empty; True if all of it is gone."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()
    return not group.exists()


# What all labs share


def raise_limits() -> None:
    """Raise what many systemds need; remember what it was. Call with the machine's lock held."""
    original = RUN / "inotify"
    if not original.exists() and int(_INOTIFY.read_text()) < _INOTIFY_WANTED:
        original.write_text(_INOTIFY.read_text())
        _INOTIFY.write_text(str(_INOTIFY_WANTED))


def restore_limits() -> None:
    """Undo raise_limits. Call with the machine's lock held, after the last lab."""
    original = RUN / "inotify"
    if original.exists():
        _INOTIFY.write_text(original.read_text())
        original.unlink()
