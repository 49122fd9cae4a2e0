# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of open flows when policies change: real sockets over the real programs."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import Unsupported
from ansible_collections.fastpath.node.plugins.module_utils.kernel import flows, grace, policy, sockets
from ansible_collections.fastpath.node.plugins.module_utils.kernel.policy import Installed
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import EGRESS, INGRESS
from ansible_collections.fastpath.node.plugins.module_utils.policy.ports import ALLOW, NUMBER, Entry
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Subject, Tables
from tests.bpf.topology import C2

from .policies import killed
from .talks import ADDRESSES, Ear, Node, Talk, Talks, aborted, passes, ports, running

KEPT, CUT = 5001, 5002  # ports of servers
ALLOWED, DENIED = 8 << NUMBER | ALLOW, 9 << NUMBER
MOST = 100  # changes of one run


@pytest.fixture(scope="module", autouse=True)
def _many_descriptors() -> None:
    """Two for each connection."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.fixture
def node(bpffs: Path) -> Iterator[Node]:
    with running(bpffs) as node:
        yield node


def denying(*denied: int, egress: bool = False) -> Tables:
    """What c2 is asked for, or asks for, at these ports is denied; all else is allowed."""
    row = (*(Entry(0, port, port, DENIED) for port in denied), Entry(0, 0, 65535, ALLOWED))
    mine = Subject(8, False, False, (Entry(0, 0, 65535, DENIED),))
    return Tables(
        subject={(C2.slot, INGRESS): Subject(7, False, False, row), **({(C2.slot, EGRESS): mine} if egress else {})}
    )


def publish(node: Node, tables: Tables, input: int = 1) -> policy.Published:
    return policy.publish(tables, input, node.namespaces, node.place)


def test_denied_flows_are_cut_and_told_and_no_other_is_disturbed(node: Node) -> None:
    publish(node, denying())
    with Talks(node) as talks, Ear(node, "c2") as ear:
        local = {port: [talks.tcp("c1", "c2", port, v) for v in (4, 6) for _n in range(175)] for port in (KEPT, CUT)}
        outside = {port: [talks.tcp("wire", "c2", port, v) for v in (4, 6) for _n in range(50)] for port in (KEPT, CUT)}
        datagrams = {port: [talks.udp("c1", "c2", port, v) for v in (4, 6) for _n in range(25)] for port in (KEPT, CUT)}
        kept, cut = ([*local[port], *outside[port], *datagrams[port]] for port in (KEPT, CUT))
        assert len(kept) == len(cut) == 500
        done = publish(node, denying(CUT))
        ear.heard()
        assert (done.revoked, done.told, done.untold) == (500, 2 * 350 + 100 + 2 * 50, "")
        told = [end for talk in (*local[CUT], *datagrams[CUT]) for end in (talk.client, talk.server)]
        told += [talk.server for talk in outside[CUT]]
        assert all(aborted(end) for end in told)
        for talk in cut:
            for end in (talk.client, talk.server):
                with suppress(OSError):
                    end.send(b"!")
        assert all(talk.both_ways() for talk in kept)
        heard = ear.heard()
        assert not heard & ports(cut)
        assert heard >= ports(kept)
        found = flows.read(node.place.maps)
        assert (found.entries + found.young, found.evicted, found.young_evicted) == (1000, 0, 0)
        with pytest.raises(TimeoutError):
            refused(talks, node)


def refused(talks: Talks, node: Node) -> None:
    """Connect to a denied port; nobody answers."""
    with node.socket("c1", 4, socket.SOCK_STREAM) as asking:
        asking.settimeout(0.3)
        asking.connect((ADDRESSES["c2", 4], CUT))


def test_connections_from_before_the_first_policies_are_decided_by_who_asked(node: Node) -> None:
    with Talks(node) as talks:
        kept = [talks.tcp(who, "c2", KEPT, v) for who in ("c1", "wire") for v in (4, 6)]
        cut = [talks.tcp("c1", "c2", CUT), talks.tcp("c2", "wire", KEPT), talks.tcp("c2", "c1", KEPT)]
        done = publish(node, denying(CUT, egress=True))
        assert (done.epoch, done.revoked, done.told) == (1, 3, 5)
        assert all(talk.both_ways() for talk in kept)
        assert all(aborted(talk.client) for talk in cut)
        assert all(aborted(talk.server) for talk in (cut[0], cut[2]))
        flow = flows.read(node.place.maps)
        assert (flow.entries + flow.young, flow.evicted, flow.young_evicted) == (7, 0, 0)


def test_a_connection_that_is_made_at_the_last_moment_is_taken_over_too(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Talk] = []
    wait = grace.wait

    def and_connect() -> None:
        wait()
        if not made:
            made.append(talks.tcp("c1", "c2", KEPT))

    monkeypatch.setattr(grace, "wait", and_connect)
    with Talks(node) as talks:
        publish(node, denying(egress=True))
        assert passes(made[0].server, made[0].client)


def test_a_flow_that_is_allowed_again_is_a_new_one(node: Node) -> None:
    publish(node, denying())
    with Talks(node) as talks:
        old = talks.tcp("c1", "c2", CUT)
        assert publish(node, denying(CUT)).revoked == 1
        assert publish(node, denying(CUT)) == policy.Published(3, 1, 0, 0)
        publish(node, denying())
        assert aborted(old.client)
        new = talks.tcp("c1", "c2", CUT)
        assert new.both_ways()
        done = publish(node, denying(CUT))
        assert (done.revoked, done.told) == (1, 2)
        assert aborted(new.client)


def test_a_socket_that_serves_others_too_is_left_alone(node: Node) -> None:
    publish(node, denying())
    with Talks(node) as talks, node.socket("c2", 4, socket.SOCK_DGRAM) as server:
        server.bind((ADDRESSES["c2", 4], CUT))
        client = talks.enter_context(node.socket("c1", 4, socket.SOCK_DGRAM))
        client.connect(server.getsockname())
        assert passes(client, server)
        server.sendto(b"!", client.getsockname())
        assert client.recv(1) == b"!"
        done = publish(node, denying(CUT))
        assert (done.revoked, done.told) == (1, 1)
        assert aborted(client)
        assert not aborted(server)
        publish(node, denying())
        with node.socket("c1", 4, socket.SOCK_DGRAM) as other:
            other.connect(server.getsockname())
            assert passes(other, server)


def test_without_the_kernels_help_flows_are_cut_all_the_same(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> int:
        raise Unsupported("find", "sockets", "it says no")

    publish(node, denying())
    with Talks(node) as talks, Ear(node, "c2") as ear:
        cut = [talks.tcp("c1", "c2", CUT), talks.tcp("wire", "c2", CUT)]
        kept = [talks.tcp("c1", "c2", KEPT)]
        monkeypatch.setattr(sockets, "find", refuse)
        done = publish(node, denying(CUT))
        assert (done.revoked, done.told, done.untold) == (2, 0, "cannot find sockets: it says no")
        ear.heard()
        for talk in cut:
            talk.client.send(b"?")
            talk.server.send(b"?")
        assert all(talk.both_ways() for talk in kept)
        assert not ear.heard() & ports(cut)
        assert not any(aborted(talk.client) for talk in cut)
        assert policy.read(node.place) == Installed(2, True, 1, True)


def test_a_container_that_is_gone_stops_nobody(node: Node, tmp_path: Path) -> None:
    publish(node, denying())
    with Talks(node) as talks:
        cut = talks.tcp("c1", "c2", CUT)
        known = {**node.namespaces, C2.v4: str(tmp_path / "gone")}
        done = policy.publish(denying(CUT), 2, known, node.place)
        assert (done.revoked, done.told, done.untold) == (1, 1, "")
        assert aborted(cut.client)


@pytest.mark.parametrize("first", [True, False], ids=["first", "next"])
def test_a_revocation_killed_before_any_change_is_finished_by_the_next_run(node: Node, first: bool) -> None:
    for limit in range(1, MOST):
        policy.clear(node.place)
        if not first:
            publish(node, denying())
        with Talks(node) as talks:
            kept = [talks.tcp(who, "c2", KEPT) for who in ("c1", "wire")]
            cut = [talks.tcp(who, "c2", CUT) for who in ("c1", "wire")]
            if not killed(limit, lambda: publish(node, denying(CUT, egress=True), 2)):
                break
            assert all(talk.both_ways() for talk in kept)
            found = policy.read(node.place)
            if found and found.epoch and found.input == 2 and limit % 2:
                policy.settle(node.namespaces, node.place)
            else:
                publish(node, denying(CUT, egress=True), 2)
            assert all(talk.both_ways() for talk in kept)
            assert_cut(node, cut)
    assert 10 < limit < MOST


def assert_cut(node: Node, cut: list[Talk]) -> None:
    with Ear(node, "c2") as ear:
        assert all(aborted(talk.server) for talk in cut)
        assert aborted(cut[0].client)
        with suppress(OSError):
            cut[1].client.send(b"!")
        assert not ear.heard() & ports(cut)


def test_policies_that_are_taken_away_leave_every_flow(node: Node) -> None:
    publish(node, denying(CUT))
    with Talks(node) as talks:
        kept = talks.tcp("c1", "c2", KEPT)
        policy.clear(node.place)
        assert kept.both_ways()
        assert talks.tcp("c1", "c2", CUT).both_ways()
        assert flows.read(node.place.maps)[0:4:3] == (0, 0)
