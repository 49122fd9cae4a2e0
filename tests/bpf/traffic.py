# SPDX-License-Identifier: GPL-3.0-or-later
"""Real sockets in the topology's namespaces."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ansible_collections.fastpath.node.plugins.module_utils.kernel import netns
from tests.bpf.topology import Topology

# linux/in.h and linux/in6.h; Python does not name them all
IP_MTU_DISCOVER, IP_RECVERR, IP_MTU, PMTUDISC_DONT, PMTUDISC_DO = 10, 11, 14, 0, 2
IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_RECVERR = 23, 24, 25
SOL_PACKET, PACKET_VNET_HDR = 263, 15
PORT = 4001


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def opened(net: Topology, role: str, family: int, kind: int, proto: int = 0) -> socket.socket:
    """A socket in the namespace."""
    with netns.entered(net.path(role)):
        made = socket.socket(family, kind, proto)
    made.settimeout(5)
    return made


def udp_pair(net: Topology, src: tuple[str, str], dst: tuple[str, str]) -> tuple[socket.socket, socket.socket]:
    """Sender and receiver, each given as (namespace, address)."""
    sender = opened(net, src[0], family_of(src[1]), socket.SOCK_DGRAM)
    receiver = opened(net, dst[0], family_of(dst[1]), socket.SOCK_DGRAM)
    receiver.bind((dst[1], PORT))
    sender.bind((src[1], 0))
    sender.connect((dst[1], PORT))
    return sender, receiver


def datagram_arrives(net: Topology, src: tuple[str, str], dst: tuple[str, str], size: int, discover: int) -> bool:
    """Within a few tries: the first ones may be lost to learning the path's MTU."""
    data = os.urandom(size)
    sender, receiver = udp_pair(net, src, dst)
    with sender, receiver:
        receiver.settimeout(0.3)
        set_discovery(sender, dst[1], discover)
        for _ in range(5):
            with suppress(OSError):
                sender.send(data)
            with suppress(TimeoutError):
                return receiver.recv(65536) == data
    return False


def refused_as_too_long(sender: socket.socket, size: int) -> bool:
    """Send datagrams until the socket has learnt that they are too big for the path."""
    for _ in range(100):
        try:
            sender.send(bytes(size))
        except OSError as error:
            return error.errno == errno.EMSGSIZE
        time.sleep(0.02)
    return False


def set_discovery(sender: socket.socket, dst: str, discover: int) -> None:
    if ":" in dst:
        sender.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discover)
    else:
        sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)


def path_mtu(sender: socket.socket, dst: str) -> int:
    if ":" in dst:
        return sender.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
    return sender.getsockopt(socket.IPPROTO_IP, IP_MTU)


def icmp_error(sender: socket.socket, dst: str) -> tuple[int, int, int, str]:
    """(errno, type, code, offender) of the error that the socket was told; raises TimeoutError."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            _data, control, _flags, _from = sender.recvmsg(2048, 1024, socket.MSG_ERRQUEUE)
            for _level, _type, raw in control:
                number, origin, kind, code = struct.unpack_from("=IBBB", raw)
                if origin in (2, 3):  # from the network, ICMP or ICMPv6
                    where = raw[16 + 8 : 16 + 24] if ":" in dst else raw[16 + 4 : 16 + 8]
                    return number, kind, code, socket.inet_ntop(family_of(dst), where)
        time.sleep(0.01)
    raise TimeoutError


def provoke(net: Topology, src: tuple[str, str], dst: str, ttl: int = 64) -> tuple[int, int, int, str]:
    """Send a datagram; the ICMP error that comes back, as icmp_error() has it."""
    with opened(net, src[0], family_of(dst), socket.SOCK_DGRAM) as sender:
        if ":" in dst:
            sender.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
        else:
            sender.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sender.bind((src[1], 0))
        sender.connect((dst, PORT))
        sender.send(b"anybody there?")
        return icmp_error(sender, dst)


def tcp_transfer(net: Topology, src: tuple[str, str], dst: tuple[str, str], size: int = 8_000_000) -> bool:
    """Did all bytes arrive as they were sent, over one connection?"""
    data = os.urandom(1_000_000) * (size // 1_000_000)
    with opened(net, dst[0], family_of(dst[1]), socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((dst[1], PORT))
        server.listen()
        digests: list[bytes] = []
        reader = threading.Thread(target=_read_all, args=(server, digests.append))
        reader.start()
        try:
            with opened(net, src[0], family_of(dst[1]), socket.SOCK_STREAM) as client:
                client.bind((src[1], 0))
                client.connect((dst[1], PORT))
                client.sendall(data)
        finally:
            reader.join(10)
    return digests == [hashlib.sha256(data).digest()]


def _read_all(server: socket.socket, done: Callable[[bytes], None]) -> None:
    with suppress(TimeoutError):
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            digest = hashlib.sha256()
            while part := connection.recv(1 << 20):
                digest.update(part)
            done(digest.digest())


def send_frame(net: Topology, role: str, device: str, frame: bytes, protocol: int = 0) -> None:
    """protocol: what the sender says that the frame is; 0 lets the kernel look."""
    with opened(net, role, socket.AF_PACKET, socket.SOCK_RAW) as raw, _netkit_tells():
        raw.sendto(frame, (device, protocol))


def send_scattered(net: Topology, role: str, device: str, frame: bytes) -> None:
    """The frame with nothing but its Ethernet header in the buffer's linear part; it has to be longer than a page."""
    with opened(net, role, socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        raw.send(struct.pack("=BBHHHH", 0, 0, 14, 0, 0, 0) + frame)


@contextmanager
def _netkit_tells() -> Iterator[None]:
    """Its sender learns of a dropped frame, as of a full queue."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise


def sniffer(net: Topology, role: str, device: str) -> socket.socket:
    """Sees all that arrives at the device."""
    raw = opened(net, role, socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((device, 3))
    raw.settimeout(0.3)
    return raw


def heard(raw: socket.socket, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """The frames that match, until it is quiet."""
    found = []
    with suppress(TimeoutError):
        while True:
            frame = raw.recv(65536)
            if wanted(frame):
                found.append(frame)
    return found
