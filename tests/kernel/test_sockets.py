# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets that are found by their flow and ended, and those beside them that are not."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import Unsupported
from ansible_collections.fastpath.node.plugins.module_utils.kernel import datapath, netns, sockets
from ansible_collections.fastpath.node.plugins.module_utils.kernel.rtnl import Netlink

from .conftest import Spaces, run

V4, V6 = "127.0.0.1", "::1"
KINDS = {sockets.TCP: socket.SOCK_STREAM, sockets.UDP: socket.SOCK_DGRAM}


@pytest.fixture
def space(spaces: Spaces) -> str:
    run("ip", "-n", spaces.near, "link", "set", "lo", "up")
    return f"/run/netns/{spaces.near}"


@pytest.fixture
def asking(space: str) -> Iterator[Netlink]:
    with sockets.namespace(space) as netlink:
        yield netlink


class Talk(ExitStack):
    """A client's and a server's socket, connected; and the listener, or None."""

    def __init__(self, space: str, protocol: int, address: str, server: str = "") -> None:
        super().__init__()
        with netns.entered(space):
            self.client, asked = (
                self.enter_context(socket.socket(_family(name), KINDS[protocol]))
                for name in (address, server or address)
            )
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        asked.bind((server or address, 0))
        if protocol == sockets.TCP:
            asked.listen()
        self.client.bind((address, 0))
        self.client.connect((address, asked.getsockname()[1]))
        self.listener = asked if protocol == sockets.TCP else None
        if self.listener:
            self.server = self.enter_context(self.listener.accept()[0])
        else:
            self.server = asked
            self.server.connect(self.client.getsockname())
        for end in (self.client, self.server):
            end.settimeout(5)

    @property
    def flow(self) -> bytes:
        """From the client's side."""
        (address, port), (peer, peer_port) = self.client.getsockname()[:2], self.client.getpeername()[:2]
        parts = datapath.key(address), datapath.key(peer), port.to_bytes(2, "big"), peer_port.to_bytes(2, "big")
        return b"".join(parts)

    @property
    def works(self) -> bool:
        self.client.send(b"?")
        return self.server.recv(1) == b"?"


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def end(asking: Netlink, protocol: int, flow: bytes) -> int:
    """How many sockets of this flow were ended."""
    return sum(sockets.end(asking, protocol, item) for item in sockets.find(asking, protocol, {flow}))


def turned(flow: bytes) -> bytes:
    return flow[16:32] + flow[:16] + flow[34:] + flow[32:34]


def failed(end: socket.socket) -> bool:
    """Does its owner read the error that the kernel says?"""
    with pytest.raises(ConnectionAbortedError):
        end.recv(1)
    return True


@pytest.mark.parametrize("address", [V4, V6])
@pytest.mark.parametrize("protocol", KINDS)
def test_one_side_of_one_flow_ends(space: str, asking: Netlink, protocol: int, address: str) -> None:
    with Talk(space, protocol, address) as doomed, Talk(space, protocol, address) as other:
        flow = doomed.flow
        assert end(asking, protocol, flow) == 1
        assert failed(doomed.client)
        assert other.works
        if doomed.listener:
            with netns.entered(space), socket.create_connection(doomed.listener.getsockname()[:2]):
                pass
        assert end(asking, protocol, flow) == 0


def test_a_server_for_both_families_is_found_by_its_ipv4_flow(space: str, asking: Netlink) -> None:
    with Talk(space, sockets.TCP, V4, "::") as talk:
        assert end(asking, sockets.TCP, turned(talk.flow)) == 1
        assert failed(talk.server)


@pytest.mark.parametrize("protocol", KINDS)
def test_whoever_serves_others_too_is_left_alone(space: str, asking: Netlink, protocol: int) -> None:
    """The kernel's own search would take the listener, or the socket without a peer, for a flow that has ended."""
    with Talk(space, protocol, V4) as talk:
        flow = turned(talk.flow)
    with ExitStack() as stack, netns.entered(space):
        serving, client = (stack.enter_context(socket.socket(socket.AF_INET, KINDS[protocol])) for _side in range(2))
        serving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        serving.bind((V4, int.from_bytes(flow[32:34], "big")))
        serving.settimeout(5)
        if protocol == sockets.TCP:
            serving.listen()
        assert end(asking, protocol, flow) == 0
        client.connect(serving.getsockname())
        client.send(b"?")
        if protocol == sockets.TCP:
            serving = stack.enter_context(serving.accept()[0])
        assert serving.recv(1) == b"?"


def test_who_listens_and_who_is_connected(space: str, asking: Netlink) -> None:
    with Talk(space, sockets.TCP, V4, "::") as talk:
        assert sockets.listening(asking) == {talk.flow[34:36]}
        assert {item.flow for item in sockets.established(asking)} == {talk.flow, turned(talk.flow)}
        talk.client.shutdown(socket.SHUT_WR)
        assert {item.flow for item in sockets.established(asking)} == {talk.flow, turned(talk.flow)}
    assert sockets.listening(asking) == frozenset()
    assert sockets.established(asking) == []


def test_a_socket_that_is_gone_is_not_ended(space: str, asking: Netlink) -> None:
    with Talk(space, sockets.TCP, V4) as talk:
        found = sockets.find(asking, sockets.TCP, {talk.flow})
        assert [sockets.end(asking, sockets.TCP, item) for item in found * 2] == [True, False]


@pytest.mark.parametrize(("code", "says"), [(errno.EOPNOTSUPP, "CONFIG_INET_DIAG_DESTROY"), (errno.ENOENT, "tcp_diag")])
def test_a_kernel_that_cannot_end_sockets_says_so(
    space: str, asking: Netlink, monkeypatch: pytest.MonkeyPatch, code: int, says: str
) -> None:
    def refuse(*_arguments: Any) -> Any:
        raise OSError(code, "no")

    monkeypatch.setattr(Netlink, "request" if code == errno.EOPNOTSUPP else "dump", refuse)
    with Talk(space, sockets.TCP, V4) as talk:
        with pytest.raises(Unsupported, match=says):
            end(asking, sockets.TCP, talk.flow)
        assert talk.works


def test_a_namespace_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sockets.namespace(str(tmp_path / "gone"))
