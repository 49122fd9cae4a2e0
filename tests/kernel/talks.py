# SPDX-License-Identifier: GPL-3.0-or-later
"""Many open connections between containers of a node and to the outside, over the real dataplane."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, netns
from ansible_collections.fastpath.node.plugins.module_utils.kernel.policy import Place
from tests.bpf.dataplane import OBJECT, Dataplane, config
from tests.bpf.topology import C1, C2, FAR4, FAR6, Topology, built

PATIENCE = 5  # seconds
_SO_RCVBUFFORCE = 33  # of linux/socket.h; Python does not name it
ADDRESSES = {
    ("c1", 4): C1.v4,
    ("c1", 6): C1.v6,
    ("c2", 4): C2.v4,
    ("c2", 6): C2.v6,
    ("wire", 4): FAR4,
    ("wire", 6): FAR6,
}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True)
class Node:
    """Attached programs, pinned where `place` says, and the namespaces of the containers by their addresses."""

    net: Topology
    plane: Dataplane
    place: Place

    @property
    def namespaces(self) -> dict[str, str]:
        return {getattr(one, family): self.net.path(one.name) for one in (C1, C2) for family in ("v4", "v6")}

    def socket(self, role: str, version: int, kind: int) -> socket.socket:
        with netns.entered(self.net.path(role)):
            made = socket.socket(FAMILIES[version], kind)
        made.settimeout(PATIENCE)
        return made


@contextmanager
def running(pins: Path, kinds: tuple[str, str] = ("veth", "veth")) -> Iterator[Node]:
    """A node with two containers, attached by links of these kinds, and a wire."""
    place = Place(pins / "maps", pins / "redecide")
    with (
        built(kinds) as net,
        bpf.load(OBJECT.read_bytes(), place.maps, {"config": config(net.ifindex("fastpath0"))}) as loaded,
    ):
        bpf.pin(loaded.programs["redecide"], place.redecide)
        plane = Dataplane(net, loaded)
        with plane.attached():
            yield Node(net, plane, place)


@dataclass(frozen=True)
class Talk:
    """A connected pair of sockets; each end can send to the other."""

    client: socket.socket
    server: socket.socket

    def both_ways(self) -> bool:
        """Does a word arrive each way? The first one from the end that was asked, which may not ask itself."""
        return passes(self.server, self.client) and passes(self.client, self.server)


def passes(sender: socket.socket, receiver: socket.socket) -> bool:
    sender.send(b"?")
    return receiver.recv(1) == b"?"


class Talks(ExitStack):
    """Connections, all closed at the end of the block."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node
        self._listening: dict[tuple[str, int, int], socket.socket] = {}

    def tcp(self, client: str, server: str, port: int, version: int = 4) -> Talk:
        """Between two roles. The server's port listens until the end."""
        place = (server, version, port)
        if place not in self._listening:
            listener = self._listening[place] = self.enter_context(
                self._node.socket(server, version, socket.SOCK_STREAM)
            )
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((ADDRESSES[server, version], port))
            listener.listen(100)
        asking = self.enter_context(self._node.socket(client, version, socket.SOCK_STREAM))
        asking.bind((ADDRESSES[client, version], 0))
        asking.connect((ADDRESSES[server, version], port))
        answering = self.enter_context(self._listening[place].accept()[0])
        answering.settimeout(PATIENCE)
        return Talk(asking, answering)

    def udp(self, client: str, server: str, port: int, version: int = 4) -> Talk:
        """Both ends connected, and a word each way already sent."""
        ends = [self.enter_context(self._node.socket(role, version, socket.SOCK_DGRAM)) for role in (client, server)]
        ends[0].bind((ADDRESSES[client, version], 0))
        ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ends[1].bind((ADDRESSES[server, version], port))
        ends[0].connect(ends[1].getsockname()[:2])
        ends[1].connect(ends[0].getsockname()[:2])
        talk = Talk(*ends)
        assert passes(talk.client, talk.server)
        assert talk.both_ways()
        return talk


def aborted(end: socket.socket) -> bool:
    """Has its owner been told?"""
    with suppress(TimeoutError):
        end.settimeout(0.2)
        try:
            end.recv(1)
        except ConnectionAbortedError:
            return True
    return False


class Ear:
    """Hears every TCP and UDP packet that a container receives, by the ports it goes between."""

    def __init__(self, node: Node, role: str) -> None:
        with netns.entered(node.net.path(role)):
            self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        self._raw.bind(("eth0", 3))
        self._raw.setblocking(False)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._raw.close()

    def heard(self) -> set[tuple[int, int]]:
        """(source, destination) ports of what came in since the last call."""
        found = set()
        with suppress(BlockingIOError):
            while True:
                frame, where = self._raw.recvfrom(200)
                if where[2] != socket.PACKET_OUTGOING:
                    start = 14 + (40 if frame[12:14] == b"\x86\xdd" else 20)
                    found.add(
                        (
                            int.from_bytes(frame[start : start + 2], "big"),
                            int.from_bytes(frame[start + 2 : start + 4], "big"),
                        )
                    )
        return found


def ports(talks: Sequence[Talk]) -> set[tuple[int, int]]:
    """As Ear has them at the server's side."""
    return {(talk.client.getsockname()[1], talk.server.getsockname()[1]) for talk in talks}
