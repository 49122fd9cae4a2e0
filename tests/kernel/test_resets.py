# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the kernel cannot end sockets: resets and ICMP errors, to real sockets behind the real programs."""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import Unsupported
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath, netns, resets, sockets

from .talks import ADDRESSES, FAMILIES, PATIENCE, Node, Talks, running
from .test_revocation import CUT, KEPT, denying, publish

NETKIT = pytest.mark.skipif(not bpf.has_netkit(), reason="this kernel has no netkit (6.7)")
NFT = pytest.mark.skipif(not shutil.which("nft"), reason="there is no nft")
KINDS = [
    pytest.param(("veth", "veth"), id="veth"),
    pytest.param(("netkit", "netkit-l3"), id="netkit", marks=NETKIT),
]
PROHIBITED = {4: errno.EHOSTUNREACH, 6: errno.EACCES}


@pytest.fixture
def node(bpffs: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Node]:
    def refuse(*_arguments: Any) -> bool:
        raise Unsupported("end", "a socket", "it says no")

    monkeypatch.setattr(sockets, "end", refuse)
    with running(bpffs, getattr(request, "param", ("veth", "veth"))) as node:
        publish(node, denying())
        yield node


def error(end: socket.socket) -> int:
    """What its owner reads at once; 0: nothing."""
    end.setblocking(False)
    try:
        end.recv(1)
    except BlockingIOError:
        return 0
    except OSError as caught:
        return caught.errno or 0
    finally:
        end.settimeout(PATIENCE)
    return 0


@pytest.mark.parametrize("node", KINDS, indirect=True)
def test_denied_flows_are_told_and_no_other_is_disturbed(node: Node) -> None:
    with Talks(node) as talks:
        local = {port: [talks.tcp("c1", "c2", port, v) for v in (4, 6) for _n in range(40)] for port in (KEPT, CUT)}
        outside = {port: [talks.tcp("wire", "c2", port, v) for v in (4, 6)] for port in (KEPT, CUT)}
        datagrams = {port: {v: talks.udp("c1", "c2", port, v) for v in (4, 6)} for port in (KEPT, CUT)}
        kept = [*local[KEPT], *outside[KEPT], *datagrams[KEPT].values()]
        same_port = [talks.tcp("wire", "c1", CUT), talks.udp("wire", "c1", CUT)]
        done = publish(node, denying(CUT))
        assert (done.revoked, done.told, done.untold) == (84, 2 * 80 + 2 + 2 * 2, "")
        ends = [end for talk in local[CUT] for end in (talk.client, talk.server)]
        assert {error(end) for end in ends + [talk.server for talk in outside[CUT]]} == {errno.ECONNRESET}
        for version, talk in datagrams[CUT].items():
            assert error(talk.client) == error(talk.server) == PROHIBITED[version]
        assert all(talk.both_ways() for talk in kept + same_port)
        assert not any(error(end) for talk in kept + same_port for end in (talk.client, talk.server))
        publish(node, denying())
        assert talks.tcp("c1", "c2", CUT).both_ways()  # the listener is still there


@pytest.mark.parametrize("version", FAMILIES)
def test_who_waits_for_an_answer_is_told(node: Node, version: int) -> None:
    with Talks(node) as talks, node.socket("c1", version, socket.SOCK_STREAM) as asking:
        talks.tcp("wire", "c2", CUT, version)  # now somebody listens, but is not reached:
        node.net.ip("c2", "route replace blackhole 10.128.3.11/32", "route replace blackhole fd00:128:3::11/128")
        asking.setblocking(False)
        with suppress(BlockingIOError):
            asking.connect((ADDRESSES["c2", version], CUT))
        done = publish(node, denying(CUT))
        assert (done.revoked, done.untold) == (2, "")
        assert error(asking) in (errno.ECONNRESET, errno.ECONNREFUSED)


@pytest.mark.parametrize(("version", "peer"), [(4, "198.51.100.77"), (6, "fd00:198::77")])
def test_half_open_connections_go(node: Node, version: int, peer: str) -> None:
    """The peer asks, and never says a word again."""
    own = ADDRESSES["c2", version]
    half_open = sockets.FLOW.pack(datapath.key(own), datapath.key(peer), CUT.to_bytes(2, "big"), b"\1\1")
    with node.socket("c2", version, socket.SOCK_STREAM) as serving, ExitStack() as stack:
        serving.bind((own, CUT))
        serving.listen()
        with netns.entered(node.net.path("wire")):
            raw = stack.enter_context(socket.socket(FAMILIES[version], socket.SOCK_RAW, socket.IPPROTO_RAW))
        raw.sendto(resets._segment(half_open, resets._SYN, 1000), (own, 0))
        asking = stack.enter_context(sockets.namespace(node.net.path("c2")))
        assert len(sockets.find(asking, sockets.TCP, {half_open})) == 1
        done = publish(node, denying(CUT))
        assert (done.revoked, done.told, done.untold) == (1, 1, "")
        assert not sockets.find(asking, sockets.TCP, {half_open})


@pytest.mark.parametrize("version", FAMILIES)
@pytest.mark.parametrize("closed", ["client", "server", "both"])
def test_who_has_closed_his_half_is_told(node: Node, closed: str, version: int) -> None:
    with Talks(node) as talks:
        talk = talks.tcp("c1", "c2", CUT, version)
        for name, end, other in (("client", talk.client, talk.server), ("server", talk.server, talk.client)):
            if closed in (name, "both"):
                end.send(b"!")
                end.shutdown(socket.SHUT_WR)
                assert other.recv(2) == b"!"
        done = publish(node, denying(CUT))
        if closed == "both":
            assert (done.told, done.untold) == (0, "")
        else:
            waits, asked = (talk.client, talk.server) if closed == "client" else (talk.server, talk.client)
            assert (done.told, done.untold) == (2, "")
            assert error(waits) == errno.ECONNRESET
            with pytest.raises(BrokenPipeError):  # it has read the end, now it cannot answer either
                asked.send(b"?")


def test_who_is_reading_wakes_up(node: Node) -> None:
    with Talks(node) as talks, ThreadPoolExecutor() as pool:
        talk = talks.tcp("c1", "c2", CUT)
        talk.server.settimeout(None)
        reading = pool.submit(talk.server.recv, 1)
        publish(node, denying(CUT))
        assert isinstance(reading.exception(PATIENCE), ConnectionResetError)


@pytest.mark.parametrize("version", FAMILIES)
def test_neither_a_device_nor_a_filter_of_return_paths_is_in_the_way(node: Node, version: int) -> None:
    node.net.sysctl("c2", ipv4__conf__all__rp_filter="1")
    with Talks(node) as talks:
        stream, datagrams = talks.tcp("c1", "c2", CUT, version), talks.udp("c1", "c2", CUT, version)
        for end in (stream.server, datagrams.server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        done = publish(node, denying(CUT))
        assert error(stream.server) == errno.ECONNRESET
        if version == 4:  # an ICMP error that comes over the loopback is none of a device
            assert (done.told, done.untold[:21]) == (3, "cannot tell 1 sockets")
        else:
            assert (done.told, done.untold) == (4, "")
            assert error(datagrams.server) == errno.EACCES


def test_only_the_denied_flow_is_meant_by_what_is_heard(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container acknowledges what comes on another flow just then."""
    with Talks(node) as talks:
        kept, cut = (talks.tcp("c1", "c2", port) for port in (KEPT, CUT))
        send, asked = resets._Wire.send, list[resets._Wire]()

        def and_receive(wire: resets._Wire, flow: bytes, packet: bytes) -> bool:
            if wire not in asked:
                asked.append(wire)
                for sender, receiver in ((kept.client, kept.server), (kept.server, kept.client)):
                    sender.send(bytes(4096))
                    assert len(receiver.recv(4096, socket.MSG_WAITALL)) == 4096
            return send(wire, flow, packet)

        monkeypatch.setattr(resets._Wire, "send", and_receive)
        publish(node, denying(CUT))
        assert kept.both_ways()
        assert error(cut.server) == errno.ECONNRESET


@pytest.mark.parametrize("way", ["loopback", pytest.param("firewall", marks=NFT)])
def test_what_cannot_be_told_is_said(node: Node, way: str) -> None:
    with Talks(node) as talks:
        cut, datagrams = talks.tcp("c1", "c2", CUT), talks.udp("c1", "c2", CUT)
        if way == "loopback":
            node.net.ip("c2", "link set lo down")
        else:
            rules = "add table ip t; add chain ip t out { type filter hook output priority 0; policy drop; }"
            assert node.net.exec("c2", "nft", rules).returncode == 0
        done = publish(node, denying(CUT))
        assert (done.revoked, done.told) == (2, 2)
        assert "cannot tell 2 sockets" in done.untold
        assert "CONFIG_INET_DIAG_DESTROY" in done.untold
        assert (error(cut.client), error(datagrams.client)) == (errno.ECONNRESET, errno.EHOSTUNREACH)
        assert error(cut.server) == error(datagrams.server) == 0


@pytest.mark.parametrize("version", FAMILIES)
@pytest.mark.parametrize("protocol", [sockets.TCP, sockets.UDP])
def test_who_serves_others_too_is_left_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch, protocol: int, version: int
) -> None:
    """A connection that has just gone: what it was to be told meets the socket that has its port."""
    kind = socket.SOCK_STREAM if protocol == sockets.TCP else socket.SOCK_DGRAM
    with node.socket("c2", version, kind) as serving, node.socket("c1", version, kind) as client:
        serving.bind((ADDRESSES["c2", version], KEPT))
        if protocol == sockets.TCP:
            serving.listen()
        ends = (datapath.key(ADDRESSES[role, version]) for role in ("c2", "c1"))
        gone = sockets.Socket(FAMILIES[version], 1, b"".join((*ends, KEPT.to_bytes(2, "big"), b"\1\1")), False, b"")
        found = iter([[gone], []])
        monkeypatch.setattr(sockets, "find", lambda *_arguments: next(found))
        before = resets_sent(node, "c2")
        with sockets.namespace(node.net.path("c2")) as asking:
            assert resets.tell(node.net.path("c2"), asking, protocol, {gone.flow}) == (1, 0)
        assert resets_sent(node, "c2") - before == (protocol == sockets.TCP)
        serving.setblocking(False)
        with pytest.raises(BlockingIOError):
            serving.accept() if protocol == sockets.TCP else serving.recv(1)
        client.connect(serving.getsockname()[:2])
        client.send(b"?")
        serving.settimeout(PATIENCE)
        with serving.accept()[0] if protocol == sockets.TCP else serving.dup() as end:
            assert end.recv(1) == b"?"


def resets_sent(node: Node, role: str) -> int:
    with netns.entered(node.net.path(role)):
        names, values = (
            line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if line[:4] == "Tcp:"
        )
    return int(values[names.index("OutRsts")])
