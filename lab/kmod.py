# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated NIC for virtual nodes: built in a cached tree that has the headers and the compiler of their Debian."""

from __future__ import annotations

import io
import platform
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from lab import image
from lab.host import LabError
from lab.node import Node
from lab.vmimage import SUITES

NIC = Path(__file__).with_name("nic")
_NETDEVSIM = "netdevsim"

# The sources come by stdin and the modules go by stdout: the tree is shared and stays as it is.
# W=1 would run kernel-doc too, which needs all of perl.
_BUILD = """
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
tar -x
make -s -C "/lib/modules/$0/build" M="$work" W=1 cmd_checkdoc= "$@" modules >&2
"$(uname -m)-linux-gnu-strip" --strip-debug ./*.ko
tar -c -- *.ko
"""
# Where modprobe looks, at boot too.
_INSTALL = 'tar -x -m -C "$(mkdir -p "$1" && cd "$1" && pwd)" && depmod'
_SECONDS = 600


class _BuildRecipe(image.Recipe):
    """A root file system with a compiler."""

    @property
    def options(self) -> tuple[str, ...]:
        # What a mirror has of a suite that moves may be older than the suite says is good.
        return ("--aptopt=Acquire::Check-Valid-Until false",)


def build_root(kernel: str, release: str, report: Callable[[str], None] = print) -> Path:
    """Path of a root file system that can build modules for a release (`uname -r`) of a kernel out of plan.KERNELS."""
    wanted = _BuildRecipe(
        suite=SUITES[kernel],
        architecture=platform.machine(),
        packages=(f"linux-headers-{release}", "make"),
        hooks=('rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/var/lib/apt/lists',),
    )
    return image.cached(wanted, lambda target: image.bootstrap(wanted, target, report), report)


def build(source: Path, root: Path, release: str) -> tuple[dict[str, bytes], str]:
    """Build a directory's modules; their files by name, and what the compiler said. LabError if it fails."""
    # In its own mount and pid namespace: some kernels' tools want /proc.
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--root={root}", "--mount-proc"]
    command = [*isolated, "sh", "-euc", _BUILD, release]
    done = subprocess.run(command, input=_packed(_sources(source)), capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    if done.returncode:
        raise LabError(f"cannot build {source} for {release}:\n{said[-6000:]}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}, said


def netdevsim(kernel: str, report: Callable[[str], None] = print) -> Path:
    """Path of the sources of the kernel's own simulated NIC, which Debian does not build: as they are, for build()."""
    package = f"linux-source-{kernel}"
    unpack = (
        f'tar -xJf "$1"/usr/src/{package}.tar.xz -C "$1" --strip-components=3 --wildcards "*/drivers/net/netdevsim/*"'
    )
    # the Makefile builds it only where the kernel's configuration says so
    ask = f'sed \'s/obj-$(CONFIG_NETDEVSIM)/obj-m/\' "$1"/{_NETDEVSIM}/Makefile > "$1"/{_NETDEVSIM}/Kbuild'
    wanted = _BuildRecipe(
        suite=SUITES[kernel],
        architecture=platform.machine(),
        packages=(package, "xz-utils"),
        hooks=(unpack, ask, 'rm -rf "$1"/usr'),
    )
    return image.cached(wanted, lambda target: image.bootstrap(wanted, target, report), report) / _NETDEVSIM


def install(node: Node, report: Callable[[str], None] = print, source: Path = NIC) -> str:
    """Build the emulated NIC, or another one, for a virtual node and put its modules where modprobe finds them.

    Returns what the compiler said: nothing, if all is well.
    """
    if not node.plan.kernel:
        raise LabError(f"{node.name} has the machine's kernel: a NIC's module needs a virtual node")
    release = node.run(["uname", "-r"]).stdout.strip()
    modules, said = build(source, build_root(node.plan.kernel, release, report), release)
    words = ["sh", "-euc", _INSTALL, "sh", f"/usr/lib/modules/{release}/updates"]
    done = subprocess.run(
        node.place().command(words), input=_packed(modules), capture_output=True, check=False, timeout=_SECONDS
    )
    if done.returncode:
        raise LabError(f"{node.name}: cannot install the modules: {done.stderr.decode(errors='replace')}")
    return said


def _sources(directory: Path) -> dict[str, bytes]:
    paths = (path for path in directory.iterdir() if path.suffix in {".c", ".h"} or path.name == "Kbuild")
    return {path.name: path.read_bytes() for path in paths}


def _packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
