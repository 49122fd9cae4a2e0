# SPDX-License-Identifier: GPL-3.0-or-later
"""More Debian packages for virtual nodes: fetched here, from their own release, for they have no network."""

from __future__ import annotations

import io
import platform
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from lab import image, vmimage
from lab.host import LabError
from lab.node import Node

# What the image has is in apt's archive too; in the end all of it is removed.
_FETCH = """
rm -f "$1"/var/cache/apt/archives/*.deb
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq --yes --no-install-recommends --download-only install {packages}
mkdir "$1/fetched"
cp "$1"/var/cache/apt/archives/*.deb "$1/fetched"
"""
_INSTALL = """
mkdir -p /run/fetched
tar -x -C /run/fetched
DEBIAN_FRONTEND=noninteractive dpkg --install /run/fetched/*.deb
rm -r /run/fetched
"""
_SECONDS = 1800


class _FetchRecipe(image.Recipe):
    """A root file system with the packages of the image, and beside it those that are missing there."""

    @property
    def options(self) -> tuple[str, ...]:
        # What a mirror has of a suite that moves may be older than the suite says is good.
        return ("--aptopt=Acquire::Check-Valid-Until false",)


def fetch(kernel: str, packages: tuple[str, ...], report: Callable[[str], None] = print) -> Path:
    """A directory with packages, and all that they need and the image with a kernel out of plan.KERNELS lacks."""
    wanted = _FetchRecipe(
        suite=vmimage.SUITES[kernel],
        architecture=platform.machine(),
        packages=(*image.recipe("minimal").packages, "udev", "kmod"),
        hooks=(
            _FETCH.format(packages=" ".join(packages)),
            'rm -rf "$1"/usr',
        ),
    )
    return image.cached(wanted, lambda target: image.bootstrap(wanted, target, report), report) / "fetched"


def install(node: Node, packages: tuple[str, ...], report: Callable[[str], None] = print) -> None:
    """Install packages in a virtual node."""
    if not node.plan.kernel:
        raise LabError(f"{node.name} shares its image: packages can be added to virtual nodes only")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(fetch(node.plan.kernel, packages, report).iterdir()):
            archive.add(path, path.name)
    done = subprocess.run(
        node.place().command(["sh", "-euc", _INSTALL]),
        input=buffer.getvalue(),
        capture_output=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise LabError(f"{node.name}: cannot install {' '.join(packages)}: {done.stderr.decode(errors='replace')}")
