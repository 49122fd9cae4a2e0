# SPDX-License-Identifier: GPL-3.0-or-later
"""By which interface the controller's connection goes: what must not be cut."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

from . import links, rtnl

_GETROUTE, _DST, _OIF = 26, 1, 4
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
_SIZE = struct.calcsize(_RTMSG.format)


def connection(proc: str = "/proc") -> str:
    """SSH_CONNECTION of this process, or of one that has started it, since sudo takes it away; "" for none."""
    pid = os.getpid()
    while pid > 0:
        for entry in _bytes(proc, pid, "environ").split(b"\0"):
            name, _equals, value = entry.partition(b"=")
            if name == b"SSH_CONNECTION":
                return value.decode(errors="replace")
        after_name = _bytes(proc, pid, "stat").rpartition(b")")[2].split()
        pid = int(after_name[1]) if after_name else 0
    return ""


def _bytes(proc: str, pid: int, name: str) -> bytes:
    try:
        with open(os.path.join(proc, str(pid), name), "rb") as file:
            return file.read()
    except OSError:
        return b""


def interfaces(connection: str) -> frozenset[str]:
    """Those by which answers to the controller leave. connection: SSH_CONNECTION, "" for none.

    The kernel is asked for its route, not who has the address: that may be the loopback.
    """
    words = connection.split()
    if not words:
        return frozenset()
    client, _percent, scope = words[0].partition("%")
    if scope:
        return frozenset([scope])
    address = ipaddress.ip_address(client)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + rtnl.attr(_DST, address.packed)
    with rtnl.Netlink() as netlink:
        found = rtnl.attrs(netlink.get(_GETROUTE, body)[_SIZE:])
        link = links.link_by_index(netlink, struct.unpack("=I", found[_OIF])[0]) if _OIF in found else None
    return frozenset([link.name]) if link else frozenset()
