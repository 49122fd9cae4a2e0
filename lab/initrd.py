# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU boots a virtual node with, out of its root file system: the kernel and a small initrd of our own."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

# What leads to the root file system; crc32c is what ext4 asks the crypto layer for. Some kernels have some built in.
_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")

_XZ = b"\xfd7zXZ"

_INIT = """#!/bin/busybox sh
busybox mount -t devtmpfs none /dev
for module in /modules/*; do busybox insmod "$module"; done
busybox mount -t ext4 -o rw,noatime /dev/vda /new
busybox mount -o move /dev /new/dev
exec busybox switch_root /new /sbin/init
"""


def kernel(tree: Path) -> bytes:
    """The kernel of a root file system that has one in /boot; unpacked if it is packed by xz.

    To unpack xz takes a quarter of a boot where every instruction is emulated. zstd, in newer kernels, takes nothing.
    """
    (path,) = (tree / "boot").glob("vmlinuz-*")
    image = path.read_bytes()
    # Documentation/arch/x86/boot.rst: sectors of the set-up code, then where in the rest the payload is.
    start, length = struct.unpack_from("<II", image, 0x248)
    start += (image[0x1F1] + 1) * 512
    payload = image[start : start + length]
    return _unpacked(payload) if payload.startswith(_XZ) else image


def initrd(tree: Path) -> bytes:
    """A cpio archive with busybox and the modules that lead to the root file system."""
    entries = [("bin", b""), ("dev", b""), ("modules", b""), ("new", b"")]
    entries += [("bin/busybox", (tree / "bin/busybox").read_bytes()), ("init", _INIT.encode())]
    for number, path in enumerate(_modules(tree)):
        name = path.name.partition(".")[0]
        entries.append((f"modules/{number:02}-{name}", _unpacked(path.read_bytes())))
    return cpio(entries)


def _modules(tree: Path) -> Iterator[Path]:
    """The modules' files in the order in which they must be loaded."""
    (root,) = (tree / "usr/lib/modules").iterdir()
    needs: dict[str, tuple[Path, list[str]]] = {}
    for line in (root / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[_module(path)] = (root / path, [_module(other) for other in others.split()])
    # A module's own list ends with what has to be loaded first.
    wanted = [name for top in _MODULES if top in needs for name in (*reversed(needs[top][1]), top)]
    return (needs[name][0] for name in dict.fromkeys(wanted))


def _module(path: str) -> str:
    return Path(path).name.partition(".")[0].replace("-", "_")


def _unpacked(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data) if data.startswith(_XZ) else data


def cpio(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """An archive as the kernel takes it (newc); what has no content is a directory, and all may be executed."""
    archive = bytearray()
    for number, (name, content) in enumerate([*entries, ("TRAILER!!!", b"")]):
        mode = 0o100755 if content else 0o040755
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
