# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure in virtual machines: modules of this package run in there, from a copy, by the image's own Python.

counted() boots a machine whose clock advances by 1 ns with each instruction that it executes (QEMU's icount), and
jumps to the next event when there is nothing to execute. So times in there are counts of instructions, which neither
the machine's load nor its speed changes. With nothing else running than the measurement, they are the same again.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import build
from bench.netkit import KINDS
from lab import Lab, Node, down, initrd, vmimage
from lab.machine import MEMORY, QEMU

_ROOT = build.HERE.parent
_HOME = "/mnt/bench"
_RUN = f"cd {_HOME} && PYTHONPATH=build:. exec python3 -B -m"
_SECONDS = 1800

_COMMAND_LINE = (
    "console=ttyS0 net.ifnames=0 mitigations=off random.trust_cpu=on quiet panic=-1 "
    "clocksource=tsc tsc=reliable tsc_early_khz=1000000"
)

# Instead of the image's own: no services, which would be counted too.
_INIT = f"""#!/bin/busybox sh
busybox mount -t devtmpfs none /dev
for module in /modules/*; do busybox insmod "$module"; done
busybox mount -t ext4 -o rw,noatime /dev/vda /new
busybox mkdir -p /new{_HOME}
busybox tar -x -C /new{_HOME} -f /payload
busybox mount -o move /dev /new/dev
exec busybox switch_root /new /bin/sh {_HOME}/job
"""
_JOB = """
export PATH=/usr/sbin:/usr/bin PYTHON_COLORS=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
modprobe virtio_net
ip link set lo up
( {command} ) > /dev/ttyS1 2> /dev/ttyS0
echo o > /proc/sysrq-trigger
"""


def counted(kernel: str, module: Sequence[str], report: Callable[[str], None]) -> dict[str, Any]:
    """The JSON that a module of ours prints, like ("bench.netkit", "count"), where 1 ns is one instruction."""
    image = vmimage.ensure(kernel, "minimal", report)
    job = _JOB.format(command=f"{_RUN} {' '.join(module)}").encode()
    with tempfile.TemporaryDirectory(prefix="fpbench") as scratch:
        start = Path(scratch, "initrd")
        # Of two archives the second one wins.
        added = initrd.cpio([("init", _INIT.encode()), ("payload", archive({"job": job}))])
        start.write_bytes((image / "initrd").read_bytes() + added)
        report(f"counting instructions on {kernel}: some minutes")
        console = build.OUTPUT / "console.log"
        result = subprocess.run(_command(image, start, console), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                check=True, timeout=_SECONDS)  # fmt: skip
    try:
        return dict(json.loads(result.stdout))
    except ValueError:
        tail = "\n".join(console.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"nothing was measured on {kernel}:\n{tail}") from None


def _command(image: Path, start: Path, console: Path) -> list[str]:
    """The disk is left as it is. NICs, one for each kind, send by the guest's clock, and nobody answers behind them."""
    nics = ((f"user,id=n{n},restrict=on,ipv6=off", f"virtio-net-pci,netdev=n{n},tx=timer") for n in range(len(KINDS)))
    return [
        "setpriv", "--pdeathsig", "KILL", QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "qemu64,+rdrand", "-smp", "1",
        "-m", f"{MEMORY}M", "-serial", f"file:{console}", "-serial", "stdio",
        "-kernel", str(image / "kernel"), "-initrd", str(start), "-append", _COMMAND_LINE,
        "-drive", f"file={image}/disk.raw,format=raw,snapshot=on,if=virtio",
        *(word for network, nic in nics for word in ("-netdev", network, "-device", nic)),
    ]  # fmt: skip


@contextmanager
def machines(kernels: Sequence[str], report: Callable[[str], None]) -> Iterator[tuple[Node, ...]]:
    """Ordinary virtual nodes with a copy of what modules need; they are gone at the end."""
    down("bench")  # what a killed run has left would be in the way
    with Lab.up("bench", nodes=len(kernels), containers=0, report=report, kind="vm", kernels=kernels) as lab:
        for node in lab.nodes:
            unpack = node.place().command(["sh", "-c", f"mkdir -p {_HOME} && tar -x -C {_HOME}"])
            subprocess.run(unpack, input=archive({}), check=True)
        yield lab.nodes


def run(node: Node, module: Sequence[str]) -> dict[str, Any]:
    """The JSON that a module of ours prints there."""
    return dict(json.loads(node.run(["sh", "-c", f"{_RUN} {' '.join(module)}"], timeout=_SECONDS).stdout))


def archive(more: dict[str, bytes]) -> bytes:
    """The package, the collection's library and what was compiled, as tar; each where it is in the repository."""
    compiled = [build.load_generator(), build.DATAPLANE]
    sources = [*build.HERE.glob("*.py"), *build.HERE.glob("*.json"), build.HERE / "load.c"]
    library = sorted((_ROOT / "plugins" / "module_utils").rglob("*.py"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in (*compiled, *sources, *library):
            tar.add(path, str(path.relative_to(_ROOT)))
        link = tarfile.TarInfo("build/ansible_collections/fastpath/node")
        link.type, link.linkname = tarfile.SYMTYPE, "../../.."
        tar.addfile(link)
        for name, content in more.items():
            file = tarfile.TarInfo(name)
            file.size = len(content)
            tar.addfile(file, io.BytesIO(content))
    return buffer.getvalue()
