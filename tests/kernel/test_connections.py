# SPDX-License-Identifier: GPL-3.0-or-later
"""Open TCP connections as flows: which are taken, who asked, and what is known of the other end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import (
    bpf,
    connections,
    datapath,
    flows,
    netns,
    sides,
)
from ansible_collections.fastpath.node.plugins.module_utils.kernel.encoding import encode
from ansible_collections.fastpath.node.plugins.module_utils.kernel.policy import Place
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import parse_address
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import NODE, Identity, Tables

from .conftest import Spaces, run
from .policies import placed

# all of them on the loopback of one namespace, so that either may be smaller, and be ours
LOW, HIGH, LOW6, HIGH6 = "127.0.0.1", "127.0.0.2", "fd00::1", "fd00::2"
SIDE = 1


@pytest.fixture
def place(bpffs: Path) -> Place:
    return placed(bpffs)


def _reaches(source: str, target: str) -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind((source, 0))
        probe.connect((target, 9))
        return True
    return False


@pytest.fixture
def space(spaces: Spaces) -> str:
    run("ip", "-n", spaces.near, "link", "set", "lo", "up")
    for address in (LOW6, HIGH6):
        run("ip", "-n", spaces.near, "address", "add", f"{address}/128", "dev", "lo", "nodad")
    path = f"/run/netns/{spaces.near}"
    with netns.entered(path):
        for source, target in ((LOW6, HIGH6), (HIGH6, LOW6)):
            while not _reaches(source, target):  # the kernel puts an address into its routes a moment later
                pass
    return path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


Ends = tuple[socket.socket, socket.socket, socket.socket]  # client, server, listener


def connected(stack: ExitStack, space: str, client: str, server: str, bound: str = "") -> Ends:
    with netns.entered(space):
        family = socket.AF_INET6 if ":" in (bound or server) else socket.AF_INET
        listener = stack.enter_context(socket.create_server((bound or server, 0), family=family))
        if bound:
            listener.close()
            listener = stack.enter_context(socket.create_server((bound, 0), family=family, dualstack_ipv6=True))
        asking = stack.enter_context(
            socket.create_connection((server, listener.getsockname()[1]), source_address=(client, 0))
        )
    return asking, stack.enter_context(listener.accept()[0]), listener


def found(place: Place) -> dict[bytes, tuple[int, int]]:
    """Epoch and flags of each flow, by its key."""
    with bpf.Map.open(place.maps / "flows") as table:
        return {key: flows.VALUE.unpack(value)[0:3:2] for key, value in table.items()}


def key(ends: Ends) -> bytes:
    (address, port), (peer, peer_port) = ends[0].getsockname()[:2], ends[0].getpeername()[:2]
    here, there = datapath.key(address), datapath.key(peer)
    return flows.key(here, there, port.to_bytes(2, "big"), peer_port.to_bytes(2, "big"), socket.IPPROTO_TCP)


@pytest.mark.parametrize(("low", "high"), [(LOW, HIGH), (LOW6, HIGH6)])
@pytest.mark.parametrize("ours", ["low", "high"])
def test_who_asked(place: Place, space: str, stack: ExitStack, low: str, high: str, ours: str) -> None:
    by_low, by_high = connected(stack, space, low, high), connected(stack, space, high, low)
    assert connections.adopt(place.maps, SIDE, {low if ours == "low" else high: space}) == 2
    answered = flows.ANSWERED
    assert found(place) == {key(by_low): (0, answered), key(by_high): (0, answered | flows.ASKED_BY_B)}


def test_where_both_ends_are_ours_the_one_that_listens_knows(place: Place, space: str, stack: ExitStack) -> None:
    flow = connected(stack, space, HIGH, LOW)
    connections.adopt(place.maps, SIDE, {LOW: space, HIGH: space})
    assert found(place) == {key(flow): (0, flows.ANSWERED | flows.ASKED_BY_B | flows.LOCAL)}


def test_who_no_longer_listens_is_taken_for_the_one_that_asked(place: Place, space: str, stack: ExitStack) -> None:
    flow = connected(stack, space, HIGH, LOW)
    flow[2].close()
    connections.adopt(place.maps, SIDE, {LOW: space})
    assert found(place) == {key(flow): (0, flows.ANSWERED)}


def test_a_flow_with_the_node_itself_is_local(place: Place, space: str, stack: ExitStack) -> None:
    flow = connected(stack, space, LOW, HIGH)
    node = Tables(exact={parse_address(HIGH): Identity(NODE, NODE)})
    sides.write(place.maps, 1 - SIDE, encode(node))
    connections.adopt(place.maps, SIDE, {LOW: space})
    assert found(place) == {key(flow): (0, flows.ANSWERED)}
    flows.forget(place.maps)
    sides.write(place.maps, SIDE, encode(node))
    connections.adopt(place.maps, SIDE, {LOW: space})
    assert found(place) == {key(flow): (0, flows.ANSWERED | flows.LOCAL)}


def test_a_server_for_both_families_has_ipv4_flows(place: Place, space: str, stack: ExitStack) -> None:
    flow = connected(stack, space, LOW, HIGH, bound="::")
    connections.adopt(place.maps, SIDE, {HIGH: space})
    assert found(place) == {key(flow): (0, flows.ANSWERED)}


def test_only_connections_over_which_data_may_go(place: Place, space: str, stack: ExitStack) -> None:
    half, over, aside = (connected(stack, space, LOW, HIGH) for _number in range(3))
    half[0].shutdown(socket.SHUT_WR)
    for end in over[:2]:
        end.close()
    assert connections.adopt(place.maps, SIDE, {LOW: space}) == 2
    assert set(found(place)) == {key(half), key(aside)}
    assert connections.adopt(place.maps, SIDE, {"10.0.0.1": space, "10.0.0.2": "/nowhere"}) == 0


def test_what_is_known_already_stays_as_it_is(place: Place, space: str, stack: ExitStack) -> None:
    old, new = (connected(stack, space, LOW, HIGH) for _number in range(2))
    with bpf.Map.open(place.maps / "flows") as table:
        table.set(key(old), flows.VALUE.pack(7, 1, flows.ASKED_BY_B, 3))
    assert connections.adopt(place.maps, SIDE, {LOW: space}) == 1
    assert found(place) == {key(old): (7, flows.ASKED_BY_B), key(new): (0, flows.ANSWERED)}
    counts = flows.read(place.maps).counts
    assert (counts["created"], counts["promoted"]) == (1, 1)
