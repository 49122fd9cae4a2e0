# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample packets through programs that do not serve yet: built from the endpoints that are there, each with the
verdict that the programs must come to.

They run on maps of their own, which hold nothing but the endpoints: no counter that anybody looks at moves.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FastpathError
from . import bpf, headers
from .datapath import FROM_CONTAINER, FROM_HOST, FROM_NETKIT, FROM_WIRE, GATEWAY_MAC, Endpoint, write_endpoints
from .links import packed

_VERDICTS = {-1: "pass", 2: "drop", 7: "redirect"}  # TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT
_PASS, _DROP, _REDIRECT = _VERDICTS
_IPV4, _ARP, _IPV6, _FOREIGN = 0x0800, 0x0806, 0x86DD, 0x88B5
_UDP, _ICMPV6, _SOLICITATION, _ADVERTISEMENT = 17, 58, 135, 136
_TTL = 64
_GATEWAY = packed(GATEWAY_MAC)
_FRAME = 14  # bytes of an Ethernet header
_NO_MAC = bytes(6)


@dataclass(frozen=True)
class End:
    """A host end: the program that runs for it, and the MAC that the container sends to."""

    program: str
    mac: str


@dataclass(frozen=True)
class Node:
    """What samples are made of. uplinks: MAC by ifindex; ends: by ifindex; gateways: at most one of each family."""

    router_ifindex: int
    gateways: Sequence[str]
    uplinks: Mapping[int, str]
    ends: Mapping[int, End]
    endpoints: Mapping[str, Endpoint]


@dataclass(frozen=True)
class Sample:
    """shows: what must be in the packet afterwards, by offset."""

    title: str
    program: str
    ifindex: int
    packet: bytes
    verdict: int
    shows: tuple[tuple[int, bytes], ...] = ()


def run(obj: bytes, config: bytes, node: Node) -> None:
    """Raises FastpathError about the first sample that goes wrong, and BpfError when the object does not load."""
    with bpf.load(obj, None, {"config": config}, "selftest") as loaded:
        write_endpoints(bpf.Map(loaded.maps["endpoints"]), node.endpoints)
        for sample in samples(node):
            result = bpf.test_run(loaded.programs[sample.program], sample.packet, ctx={"ifindex": sample.ifindex})
            _judge(sample, result)


def _judge(sample: Sample, result: bpf.TestRun) -> None:
    wrong = [f"{part.hex()} at byte {at}" for at, part in sample.shows if result.packet[at : at + len(part)] != part]
    if result.retval != sample.verdict:
        verdict = _VERDICTS.get(result.retval, str(result.retval))
        cause = f"{sample.title}: the verdict is {verdict}, not {_VERDICTS[sample.verdict]}"
    elif wrong:
        cause = f"{sample.title}: the packet lacks {', '.join(wrong)}"
    else:
        return
    raise FastpathError("trust", f"the new {sample.program}", cause)


def samples(node: Node) -> Iterator[Sample]:
    """For each uplink, and for one container of each family and kind of link."""
    for ifindex, mac in node.uplinks.items():
        yield from _of_wire(node, ifindex, _bytes(mac))
    yield from _strange(node)
    done = set()
    for address, point in sorted(node.endpoints.items()):
        end = node.ends.get(point.ifindex)
        if end and (end, ":" in address, point.mac == _NO_MAC.hex(":")) not in done:
            done.add((end, ":" in address, point.mac == _NO_MAC.hex(":")))
            yield from _of_container(node, address, point, end)


def _of_wire(node: Node, uplink: int, mac: bytes) -> Iterator[Sample]:
    yield Sample("a frame that is not ours", FROM_WIRE, uplink, _frame(mac, _OTHER, _FOREIGN, bytes(46)), _PASS)
    for gateway in node.gateways:
        packet = _frame(mac, _OTHER, *_datagram(_outside(gateway), gateway))
        yield Sample(f"from the wire to {gateway}, the host's", FROM_WIRE, uplink, packet, _PASS)
    for address, point in _first_of_each_family(node.endpoints):
        packet = _frame(mac, _OTHER, *_datagram(_outside(address), address))
        yield Sample(f"from the wire to {address}", FROM_WIRE, uplink, packet, _REDIRECT, _delivered(point, address, 1))


def _strange(node: Node) -> Iterator[Sample]:
    """On an interface that is no container's."""
    for gateway in node.gateways:
        packet = _frame(_GATEWAY, _OTHER, *_datagram(_outside(gateway), gateway))
        for program in (FROM_CONTAINER, FROM_NETKIT):
            yield Sample(f"from nobody to {gateway}", program, node.router_ifindex, packet, _DROP)


def _of_container(node: Node, address: str, point: Endpoint, end: End) -> Iterator[Sample]:
    there, mine = _bytes(end.mac), _bytes(point.mac)
    others = [(other, at) for other, at in node.endpoints.items() if _near(other, address) and at.slot != point.slot]

    def sample(title: str, frame: bytes, verdict: int, *shows: tuple[int, bytes]) -> Sample:
        return Sample(title, end.program, point.ifindex, frame, verdict, shows)

    for other, at in others[:1]:
        sent = _frame(there, mine, *_datagram(address, other))
        yield sample(f"{address} to {other}", sent, _REDIRECT, *_delivered(at, other, 1))
        forged = _frame(there, mine, *_datagram(other, address))
        yield sample(f"{address} in the name of {other}", forged, _DROP)
    for gateway in (gateway for gateway in node.gateways if _near(gateway, address)):
        yield sample(f"{address} to its gateway", _frame(there, mine, *_datagram(address, gateway)), _REDIRECT)
        forged = _frame(there, mine, *_datagram(_outside(address), gateway))
        yield sample(f"{address} in a foreign name", forged, _DROP)
        if point.mac != _NO_MAC.hex(":"):
            yield sample(f"{address} asks for {gateway}", *_asking(mine, address, gateway))
            forged, _verdict, *_shows = _asking(mine, _outside(address), gateway)
            yield sample(f"{address} asks in a foreign name", forged, _DROP)
    sent = _frame(_GATEWAY, _OTHER, *_datagram(_outside(address), address))
    shows = _delivered(point, address, 0)
    yield Sample(f"from the host to {address}", FROM_HOST, node.router_ifindex, sent, _REDIRECT, shows)


def _asking(mac: bytes, source: str, target: str) -> tuple[bytes, int, tuple[int, bytes], tuple[int, bytes]]:
    """ARP or neighbour discovery: the frame, its verdict, and what the answer shows."""
    own, wanted = _packed(source), _packed(target)
    if len(own) == 4:
        head = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1)
        frame = _frame(b"\xff" * 6, mac, _ARP, head + mac + own + bytes(6) + wanted)
        return frame, _REDIRECT, (0, mac + _GATEWAY), (20, b"\0\x02" + _GATEWAY + wanted + mac + own)
    group = bytes.fromhex("ff0200000000000000000001ff") + wanted[13:]
    message = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + wanted + b"\x01\x01" + mac
    total = headers.checksum(headers.pseudo(own, group, _ICMPV6, message) + message)
    message = message[:2] + struct.pack("!H", total) + message[4:]
    packet = headers.packet(own, group, _ICMPV6, message, 255)
    frame = _frame(b"\x33\x33" + group[12:], mac, _IPV6, packet)
    return frame, _REDIRECT, (0, mac + _GATEWAY), (_FRAME + 40, bytes([_ADVERTISEMENT]))


def _datagram(source: str, target: str) -> tuple[int, bytes]:
    """An empty UDP packet: its protocol and bytes."""
    own, to, udp = _packed(source), _packed(target), struct.pack("!HHHH", 9, 9, 8, 0)
    return _IPV6 if len(own) == 16 else _IPV4, headers.packet(own, to, _UDP, udp, _TTL)


def _delivered(point: Endpoint, address: str, hops: int) -> tuple[tuple[int, bytes], ...]:
    ttl = _FRAME + (7 if ":" in address else 8)
    return (0, _bytes(point.mac) + _GATEWAY), (ttl, bytes([_TTL - hops]))


def _frame(to: bytes, source: bytes, protocol: int, payload: bytes) -> bytes:
    return to + source + struct.pack("!H", protocol) + payload


def _first_of_each_family(endpoints: Mapping[str, Endpoint]) -> Iterator[tuple[str, Endpoint]]:
    for v6 in (False, True):
        yield from [item for item in sorted(endpoints.items()) if (":" in item[0]) == v6][:1]


def _near(one: str, other: str) -> bool:
    return (":" in one) == (":" in other)


def _outside(address: str) -> str:
    """An address of the same family that belongs to nobody: it is reserved for documentation."""
    return "2001:db8::9" if ":" in address else "198.51.100.9"


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _bytes(mac: str) -> bytes:
    """Zeros of an interface that has none."""
    return packed(mac) or _NO_MAC


_OTHER = _bytes("02:00:00:00:00:09")
