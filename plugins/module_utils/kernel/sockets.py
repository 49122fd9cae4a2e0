# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets of a network namespace: which are open, and end one, whose owner then reads an error (sock_diag).

The kernel finds a socket by its addresses and ports, and takes the listener or the unconnected socket where the one
that was meant is gone. So each is first looked up, and ended by its cookie: then it is that one or none.
Formats: linux/sock_diag.h, linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from ..errors import Unsupported
from . import netns
from .rtnl import Netlink

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2: family, protocol, extensions, states, socket
_MESSAGE = struct.Struct("=BBBB48s")  # struct inet_diag_msg, up to its socket
_ID = struct.Struct("=2s2s16s16sI8x")  # struct inet_diag_sockid: ports, addresses, interface
FLOW = struct.Struct("=16s16s2s2s")  # of Socket
MAPPED = b"\0" * 10 + b"\xff\xff"

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
SYN_SENT, SYN_RECV = 2, 3  # states
# sets of states
_LISTENING = 1 << 10
_CONNECTED = 1 << 1  # of UDP too
_ESTABLISHED = _CONNECTED | 1 << 4 | 1 << 5 | 1 << 8  # and those that one end has closed
_OPEN = {
    TCP: _ESTABLISHED | 1 << SYN_SENT | 1 << SYN_RECV | 1 << 9 | 1 << 11 | 1 << 12,
    UDP: _CONNECTED,
}  # all but TIME_WAIT


class Socket(NamedTuple):
    """flow: address, the peer's address, port, the peer's port, in network order; IPv4 as ::ffff:a.b.c.d.
    device: is it bound to one? id: how the kernel names it."""

    family: int
    state: int
    flow: bytes
    device: bool
    id: bytes


def namespace(path: str) -> Netlink:
    """Asks for sockets of the namespace at `path`. Raises OSError, FileNotFoundError when there is none any more."""
    with netns.entered(path):
        return Netlink(_NETLINK_SOCK_DIAG)


def established(asking: Netlink) -> list[Socket]:
    """TCP connections over which data may still go. Raises OSError."""
    return _sockets(asking, TCP, _ESTABLISHED)


def listening(asking: Netlink) -> frozenset[bytes]:
    """TCP ports, in network order. Raises OSError."""
    return frozenset(item.flow[32:34] for item in _sockets(asking, TCP, _LISTENING))


def find(asking: Netlink, protocol: int, flows: AbstractSet[bytes]) -> list[Socket]:
    """The open sockets of these flows, each seen from this namespace.

    Raises Unsupported where the kernel cannot tell, OSError.
    """
    try:
        return [item for item in _sockets(asking, protocol, _OPEN[protocol]) if item.flow in flows]
    except FileNotFoundError as error:
        hint = "It needs the modules tcp_diag and udp_diag, where they are modules."
        raise Unsupported("find", "sockets", str(error), hint) from error


def end(asking: Netlink, protocol: int, item: Socket) -> bool:
    """False: it is gone already. Raises Unsupported where the kernel cannot, OSError."""
    try:
        asking.request(_DESTROY, 0, _REQUEST.pack(item.family, protocol, 0, 0, item.id))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise Unsupported("end", "a socket", str(error), "It needs CONFIG_INET_DIAG_DESTROY.") from error
    return True


def _sockets(asking: Netlink, protocol: int, states: int) -> list[Socket]:
    return [item for family in (socket.AF_INET, socket.AF_INET6) for item in _dump(asking, family, protocol, states)]


def _dump(asking: Netlink, family: int, protocol: int, states: int) -> Iterator[Socket]:
    for message in asking.dump(_BY_FAMILY, _REQUEST.pack(family, protocol, 0, states, b"")):
        _family, state, _timer, _retries, name = _MESSAGE.unpack_from(message)
        port, peer_port, address, peer, device = _ID.unpack(name)
        if family == socket.AF_INET:
            address, peer = MAPPED + address[:4], MAPPED + peer[:4]
        yield Socket(family, state, address + peer + port + peer_port, bool(device), name)
