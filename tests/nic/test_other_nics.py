# SPDX-License-Identifier: GPL-3.0-or-later
"""The resource eswitch on the kernel's netdevsim, and on the igb that QEMU has since version 8."""

from __future__ import annotations

import platform

import pytest

from lab import Lab, image, kmod
from lab.vm import VirtualNode
from tests.nic.conftest import HOME, Guest, copy, copy_collection

_IGB = (
    "-device", "pcie-root-port,id=root,chassis=1,addr=8",
    "-netdev", "user,id=igb,restrict=on", "-device", "igb,bus=root,netdev=igb,mac=02:1a:b0:00:07:01",
)  # fmt: skip


def _guest(name: str) -> Guest:
    lab = Lab.up(name, nodes=1, containers=0, kind="vm", kernels=("6.12",))
    copy(lab.nodes[0], "tests/nic/inside", HOME)
    copy_collection(lab.nodes[0])
    return Guest(lab.nodes[0], "")


def _newer_qemu() -> list[str]:
    """Of Debian 13, by its own loader: Debian 12's has no igb."""
    wanted = image.Recipe("trixie", platform.machine(), ("qemu-system-x86",), ())
    root = image.cached(wanted, lambda target: image.bootstrap(wanted, target, print), print)
    libraries = f"{root}/usr/lib/{platform.machine()}-linux-gnu"
    loader = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, "--argv0", "qemu-system-x86_64"]
    return [
        *loader,
        f"{root}/usr/bin/qemu-system-x86_64",
        "-L",
        f"{root}/usr/share/qemu",
        "-L",
        f"{root}/usr/share/seabios",
    ]


def _check(guest: Guest, kind: str) -> None:
    done = guest.check(f"check_others.py -k {kind}")
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


@pytest.mark.full
@pytest.mark.xdist_group("6.12")
def test_netdevsim(name: str) -> None:
    guest = _guest(name)
    kmod.install(guest.node, source=kmod.netdevsim("6.12"))
    _check(guest, "netdevsim")


@pytest.mark.full
@pytest.mark.xdist_group("6.12")
def test_igb(name: str) -> None:
    guest = _guest(name)
    node = guest.node
    assert isinstance(node, VirtualNode)
    node.run(["sync"])
    node.stop(graceful=True)
    node.boot(_IGB, _newer_qemu())
    node.wait()
    _check(guest, "igb")
