# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests against the real kernel need: compiled programs, a BPF file system, a namespace with a veth pair."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, netns
from ansible_collections.fastpath.node.plugins.module_utils.kernel.rtnl import Netlink

HERE = Path(__file__).resolve().parent
OBJECTS = HERE.parents[1] / "build/test-objects"

Compiler = Callable[..., bytes]


class Wire(NamedTuple):
    """A veth pair, both ends up, in a namespace of its own."""

    netns: str
    near: int
    far: int


class Spaces(NamedTuple):
    """Two namespaces, and our socket in the near one."""

    near: str
    far: str
    netlink: Netlink


def run(*command: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def _content(source: Path) -> Iterator[bytes]:
    """Of the file, and of those of ours that it includes."""
    text = source.read_bytes()
    yield text
    for name in re.findall(rb'^#include "(.+)"$', text, re.MULTILINE):
        yield from _content(source.parent / os.fsdecode(name))


@pytest.fixture(scope="session")
def compiled() -> Compiler:
    """compiled("sample", ENTRIES=5) -> the object of sample.bpf.c with that defined.

    Objects are kept, so that these tests also run on a machine without a compiler that has got them.
    """

    def compile_program(name: str, **defines: object) -> bytes:
        flags = [f"-D{key}={value}" for key, value in defines.items()]
        source = HERE / f"{name}.bpf.c"
        content = b"".join(_content(source)) + " ".join(flags).encode()
        digest = hashlib.sha256(content).hexdigest()[:12]
        target = OBJECTS / f"{name}-{digest}.o"
        if not target.exists():
            OBJECTS.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(f".{os.getpid()}")
            include = f"/usr/include/{platform.machine()}-linux-gnu"
            options = ("-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-idirafter", include)
            run("clang", *options, *flags, "-c", source, "-o", unfinished)
            unfinished.rename(target)
        return target.read_bytes()

    return compile_program


@pytest.fixture
def sample(compiled: Compiler) -> bytes:
    return compiled("sample")


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """An empty directory on a BPF file system (its root holds files of the kernel's own)."""
    run("mount", "-t", "bpf", "bpf", tmp_path)
    try:
        pins = tmp_path / "pins"
        pins.mkdir()
        yield pins
    finally:
        run("umount", tmp_path)


@pytest.fixture
def wire() -> Iterator[Wire]:
    name = f"fpk-{uuid.uuid4().hex[:8]}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "add", "near", "type", "veth", "peer", "name", "far")
        for end in ("near", "far"):
            run("ip", "-n", name, "link", "set", end, "up")
        path = f"/run/netns/{name}"
        with netns.entered(path):
            ends = socket.if_nametoindex("near"), socket.if_nametoindex("far")
        yield Wire(path, *ends)
    finally:
        run("ip", "netns", "del", name)


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    near, far = (f"fpl-{uuid.uuid4().hex[:8]}" for _side in range(2))
    for name in (near, far):
        run("ip", "netns", "add", name)
    try:
        with netns.entered(f"/run/netns/{near}"):
            netlink = Netlink()
        with netlink:
            yield Spaces(near, far, netlink)
    finally:
        for name in (near, far):
            run("ip", "netns", "del", name)


@pytest.fixture(autouse=True)
def no_leaked_descriptors() -> Iterator[None]:
    bpf.version()  # the library itself is loaded before we count
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before
