# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell sockets of denied flows by packets that seem to come from their peers, where the kernel cannot end sockets.

They are sent in the container's namespace to its own address, so they come in over its loopback, whatever its link is.
TCP takes a reset only with the sequence number that it expects next (RFC 5961). A segment from outside of the window
makes it say that number; with data in it the answer is under no rate limit. A listener that has the port sends a reset
to whoever that seems to come from, and is as before. UDP takes an ICMP error that quotes the flow.
Formats: linux/filter.h, linux/if_packet.h, linux/if.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager, suppress

from . import headers, netns, sockets
from .rtnl import Netlink

_SYN, _RST, _PSH, _ACK = 2, 4, 8, 16
_SEGMENT = struct.Struct("!2s2sIIBBHHH")
# What makes a socket say what it expects: flags and data of segments, by the state that asks for others.
_ASKED = ((_ACK | _PSH, b"\0"),)
_QUESTIONS = {
    sockets.SYN_SENT: ((_SYN, b""),),  # it expects nothing yet, and takes ours for a question that has crossed its own
    sockets.SYN_RECV: (*_ASKED, (_PSH, b"\0")),  # one that a listener keeps compares an acknowledgement first
}
_ICMP = struct.Struct("!BBHI")
_PROHIBITED = {4: (socket.IPPROTO_ICMP, 3, 13), 16: (socket.IPPROTO_ICMPV6, 1, 1)}  # protocol, type, code
_FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}
_SO_ATTACH_FILTER = 26
_SIOCGIFFLAGS, _FLAGS, _IFF_UP = 0x8913, struct.Struct("16sH22x"), 1
_ALL = 3  # ETH_P_ALL
_LONGEST = 128  # bytes of a packet without data
_AT_ONCE = 64  # their answers find room in a socket's buffer
_MOST_HEARD = 1024
_TURNS, _PAUSE = 8, 0.005  # s, twice as long each time: a socket that its owner is using answers later

# What a socket says when it is asked: code, jumps if true and if not, operand. From the IP header on.
_ANSWERS = (
    (0x30, 0, 0, 0xFFFFF004),  # is it going out?
    (0x15, 0, 17, socket.PACKET_OUTGOING),
    (0x80, 0, 0, 0),  # without data?
    (0x25, 15, 0, _LONGEST),
    (0x30, 0, 0, 0),  # version
    (0x54, 0, 0, 0xF0),
    (0x15, 0, 4, 0x40),
    (0x30, 0, 0, 9),
    (0x15, 0, 10, socket.IPPROTO_TCP),
    (0xB1, 0, 0, 0),  # X: length of the IPv4 header
    (0x05, 0, 0, 4),
    (0x15, 0, 7, 0x60),
    (0x30, 0, 0, 6),
    (0x15, 0, 5, socket.IPPROTO_TCP),
    (0x01, 0, 0, 40),  # X: of IPv6's
    (0x50, 0, 0, 13),
    (0x54, 0, 0, _SYN | _RST | _PSH | _ACK),
    (0x15, 2, 0, _ACK),
    (0x15, 1, 0, _SYN | _ACK),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, _LONGEST),
)


def tell(path: str, asking: Netlink, protocol: int, flows: AbstractSet[bytes]) -> tuple[int, int]:
    """Tell the sockets of these flows, each seen from the container at `path`; returns how many were told, and how many
    would not be. asking: sockets.namespace() of it. Raises Unsupported, OSError."""
    found = sockets.find(asking, protocol, flows)
    with _opened(path, {len(_ends(item.flow)[0]) for item in found}) as wire:
        if not wire.up():
            return 0, len(found)
        if protocol == sockets.UDP:
            told = sum(not _deaf(item) and wire.send(item.flow, _prohibited(item.flow)) for item in found)
            return told, len(found) - told
        left = _reset(wire, asking, found)
    return len(found) - left, left


def _deaf(item: sockets.Socket) -> bool:
    """Is it a UDP socket that takes no error of IPv4 which comes over the loopback?"""
    return item.device and item.flow.startswith(sockets.MAPPED)


def _reset(wire: _Wire, asking: Netlink, found: Sequence[sockets.Socket]) -> int:
    """How many connections are left: a firewall in the container has stopped the packets, or they would be signed."""
    flows = frozenset(item.flow for item in found)
    for turn in range(_TURNS):
        for start in range(0, len(found), _AT_ONCE):
            for item in found[start : start + _AT_ONCE]:
                for flags, data in _QUESTIONS.get(item.state, _ASKED):
                    wire.send(item.flow, _segment(item.flow, flags, int.from_bytes(os.urandom(4), "big"), data))
            for flow, expected in wire.answers():
                if flow in flows:
                    wire.send(flow, _segment(flow, _RST, expected))
        found = sockets.find(asking, sockets.TCP, flows)
        if not found:
            break
        time.sleep(_PAUSE * 2**turn)
    return len(found)


def _segment(flow: bytes, flags: int, number: int, data: bytes = b"") -> bytes:
    """To the flow's own end."""
    own, peer = _ends(flow)
    fields = flow[34:36], flow[32:34], number, 0, _SEGMENT.size // 4 << 4, flags, 0
    plain = _SEGMENT.pack(*fields, 0, 0) + data
    total = headers.checksum(headers.pseudo(peer, own, sockets.TCP, plain) + plain)
    return headers.packet(peer, own, sockets.TCP, _SEGMENT.pack(*fields, total, 0) + data)


def _prohibited(flow: bytes) -> bytes:
    """The ICMP error about a datagram of the flow's own end."""
    own, peer = _ends(flow)
    protocol, kind, code = _PROHIBITED[len(own)]
    quoted = headers.packet(own, peer, sockets.UDP, flow[32:36] + struct.pack("!HH", 8, 0))
    plain = _ICMP.pack(kind, code, 0, 0) + quoted
    about = headers.pseudo(peer, own, protocol, plain) if protocol == socket.IPPROTO_ICMPV6 else b""
    total = headers.checksum(about + plain)
    return headers.packet(peer, own, protocol, _ICMP.pack(kind, code, total, 0) + quoted)


def _ends(flow: bytes) -> tuple[bytes, bytes]:
    own, peer = flow[:16], flow[16:32]
    return (own[12:], peer[12:]) if own.startswith(sockets.MAPPED) else (own, peer)


class _Wire:
    """Sends packets into a container, and hears what its sockets answer. raw: by the size of addresses."""

    def __init__(self, raw: Mapping[int, socket.socket], tap: socket.socket) -> None:
        self._raw, self._tap = raw, tap

    def up(self) -> bool:
        """Is the loopback? Packets would get lost without a word."""
        _name, flags = _FLAGS.unpack(fcntl.ioctl(self._tap, _SIOCGIFFLAGS, _FLAGS.pack(b"lo", 0)))
        return bool(flags & _IFF_UP)

    def send(self, flow: bytes, packet: bytes) -> bool:
        """False: the container's firewall forbids it."""
        own, _peer = _ends(flow)
        with suppress(OSError):
            self._raw[len(own)].sendto(packet, (socket.inet_ntop(_FAMILIES[len(own)], own), 0))
            return True
        return False

    def answers(self) -> Iterator[tuple[bytes, int]]:
        """Flow, and the number that its end expects next. Others' are among them, and there may be no end of those."""
        with suppress(BlockingIOError):
            for _one in range(_MOST_HEARD):
                packet = self._tap.recv(_LONGEST)
                if packet[0] >> 4 == 4:
                    start = (packet[0] & 15) * 4
                    ends = sockets.MAPPED + packet[12:16] + sockets.MAPPED + packet[16:20]
                else:
                    start, ends = 40, packet[8:40]
                yield ends + packet[start : start + 4], int.from_bytes(packet[start + 8 : start + 12], "big")


@contextmanager
def _opened(path: str, sizes: AbstractSet[int]) -> Iterator[_Wire]:
    with ExitStack() as stack:
        with netns.entered(path):
            tap = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL)))
            raw = {
                size: stack.enter_context(socket.socket(_FAMILIES[size], socket.SOCK_RAW, socket.IPPROTO_RAW))
                for size in sizes
            }
        code = b"".join(struct.pack("=HBBI", *line) for line in _ANSWERS)
        kept = ctypes.create_string_buffer(code, len(code))
        tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_ANSWERS), ctypes.addressof(kept)))
        tap.setblocking(False)
        with suppress(BlockingIOError):  # what came before there was a filter
            while True:  # it ends: the buffer was full at most
                tap.recv(_LONGEST)
        yield _Wire(raw, tap)
