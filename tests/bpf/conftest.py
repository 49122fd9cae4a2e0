# SPDX-License-Identifier: GPL-3.0-or-later
"""One topology and one loaded object for all tests; each test finds the ICMP rate limit untouched.

What is true of containers is tested twice: of those behind a veth, and of those behind a netkit.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from tests.bpf.dataplane import OBJECT, Dataplane, config
from tests.bpf.policies import Policed, policed
from tests.bpf.topology import Topology, built


@pytest.fixture(scope="session")
def net() -> Iterator[Topology]:
    with built() as net:
        yield net


@pytest.fixture(scope="session")
def session_plane(net: Topology) -> Iterator[Dataplane]:
    rodata = {"config": config(net.ifindex("fastpath0"))}
    with bpf.load(OBJECT.read_bytes(), rodata=rodata) as loaded:
        yield Dataplane(net, loaded)


@pytest.fixture(params=["from_container", "from_netkit"])
def plane(session_plane: Dataplane, request: pytest.FixtureRequest) -> Dataplane:
    session_plane.refill()
    session_plane.container_program = request.param
    return session_plane


@pytest.fixture
def node(session_plane: Dataplane) -> Iterator[Policed]:
    """The node with policies, before there are any."""
    session_plane.refill()
    with policed(session_plane) as made:
        yield made
