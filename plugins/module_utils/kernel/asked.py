# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the running programs about a packet that nobody sends."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from ..errors import FastpathError
from . import bpf, datapath

_PROGRAM = "asked"
_MACS = b"\x0e\xfa\x57\0\0\1" + b"\2\0\0\0\0\t"
_TCP, _UDP, _ICMP, _SCTP, _ICMPV6 = 6, 17, 1, 132, 58
_CLIENT = 40000  # the port that a flow comes from; no rule asks for it
_TTL = 64
_SYN = 2


class Asked(NamedTuple):
    """The words of the tables on both sides; ALLOW alone also stands for a side that no policy selects."""

    egress: int
    ingress: int


def asked(source: str, destination: str, protocol: int, port: int) -> Asked:
    """The verdicts on the first packet of a flow; port: of the destination, or type * 256 + code of ICMP, or 0.

    Raises FastpathError.
    """
    path = datapath.PROGRAMS / datapath.owner() / _PROGRAM
    if not datapath.owner() or not path.exists():
        raise FastpathError("ask", "the dataplane", "no programs run that know policies", "fastpath apply")
    with bpf.get(path) as program:
        found = bpf.test_run(program, frame(source, destination, protocol, port)).ctx
    return Asked(found["cb0"], found["cb1"])


def frame(source: str, destination: str, protocol: int, port: int) -> bytes:
    """The packet, as a hook sees it."""
    own, to = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    content = _content(protocol, port)
    if len(own) == 16:
        head = struct.pack("!IHBB", 6 << 28, len(content), protocol, _TTL) + own + to
        return _MACS + struct.pack("!H", 0x86DD) + head + content
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0, _TTL, protocol, 0) + own + to
    return _MACS + struct.pack("!H", 0x0800) + head + content


def _content(protocol: int, port: int) -> bytes:
    if protocol == _TCP:
        return struct.pack("!HHIIBBHHH", _CLIENT, port, 0, 0, 5 << 4, _SYN, 0, 0, 0)
    if protocol == _UDP:
        return struct.pack("!HHHH", _CLIENT, port, 8, 0)
    if protocol == _SCTP:
        return struct.pack("!HHII", _CLIENT, port, 0, 0)
    if protocol in (_ICMP, _ICMPV6):
        return struct.pack("!HHHH", port, 0, 1, 1)
    return bytes(8)
