# SPDX-License-Identifier: GPL-3.0-or-later
"""Ping addresses, all at once: python3 ping.py ADDRESS... Exits with the list of those that do not answer.

Needs root and no ping command: a node is not sure to have one.
"""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import struct
import sys
import time

_SECONDS = 3.0
_RESEND = 0.5
# address family -> protocol, type of the request, type of the reply
_KINDS = {
    socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0),
    socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129),
}
_IDENTIFIER = os.getpid() & 0xFFFF


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def checksum(data: bytes) -> int:
    """The internet checksum of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def request(kind: int) -> bytes:
    """An echo request; the kernel writes the checksum for IPv6 anyway."""
    rest = struct.pack("!HH", _IDENTIFIER, 1)
    return struct.pack("!BBH", kind, 0, checksum(struct.pack("!BBH", kind, 0, 0) + rest)) + rest


def is_reply(family: int, packet: bytes) -> bool:
    """True for an answer to our request; an IPv4 raw socket gives the IP header too."""
    if family == socket.AF_INET:
        packet = packet[(packet[0] & 0xF) * 4 :]
    return len(packet) >= 8 and packet[0] == _KINDS[family][2] and packet[4:6] == struct.pack("!H", _IDENTIFIER)


def unanswered(addresses: list[str]) -> list[str]:
    """The addresses that sent no reply within _SECONDS, asked again every _RESEND seconds."""
    sockets = {family: socket.socket(family, socket.SOCK_RAW, kind[0]) for family, kind in _KINDS.items()}
    waiting = set(addresses)
    deadline = time.monotonic() + _SECONDS
    resend = 0.0
    try:
        while waiting and time.monotonic() < deadline:
            if time.monotonic() >= resend:
                resend = time.monotonic() + _RESEND
                _ask(sockets, waiting)
            for ready in select.select(list(sockets.values()), [], [], _RESEND / 10)[0]:
                packet, source = ready.recvfrom(2048)
                if is_reply(ready.family, packet):
                    waiting.discard(source[0])
    finally:
        for opened in sockets.values():
            opened.close()
    return [address for address in addresses if address in waiting]


def _ask(sockets: dict[socket.AddressFamily, socket.socket], addresses: set[str]) -> None:
    for address in addresses:
        family = family_of(address)
        try:
            sockets[family].sendto(request(_KINDS[family][1]), (address, 0))
        except OSError:
            continue  # no route: the same to the caller as no answer


if __name__ == "__main__":
    # as the kernel writes them
    silent = unanswered([str(ipaddress.ip_address(address)) for address in sys.argv[1:]])
    sys.exit(f"no answer from {' '.join(silent)}" if silent else 0)
