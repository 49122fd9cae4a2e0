# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual machine for each kernel, with this repository in it, and the machine left as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab import Lab, down
from tests.vm.guest import Guest, copy_repository


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a lab of the test's own, which is taken down at the end."""
    chosen = f"tv{os.getpid()}"
    try:
        yield chosen
    finally:
        down(chosen)


@pytest.fixture(scope="session")
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A fresh virtual machine of the kernel that is the parameter; it can run the tests of this repository."""
    chosen = f"tg{os.getpid()}"
    try:
        lab = Lab.up(chosen, nodes=1, containers=0, kind="vm", kernels=(request.param,))
        yield copy_repository(lab.nodes[0])
    finally:
        down(chosen)
