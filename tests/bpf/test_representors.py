# SPDX-License-Identifier: GPL-3.0-or-later
"""A container behind a VF: its host end is a representor, which has no peer, and a MAC of its own. So has a tap."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, btf, netns
from tests.bpf import packets
from tests.bpf.dataplane import LAYOUT, Dataplane, address_key
from tests.bpf.frames import FAMILIES, Family, Flow
from tests.bpf.packets import mac
from tests.bpf.topology import GATEWAY_MAC, MTU
from tests.bpf.traffic import PORT, family_of, opened

TUNSETIFF, TAP_WITHOUT_HEADER = 0x400454CA, 0x1002
VF = 1
MAC = "0e:00:00:00:04:01"  # of the container's end
ADDRESSES = {"v4": "10.128.3.21", "v6": "fd00:128:3::21"}
both = pytest.mark.parametrize("family", FAMILIES, ids=str)
others = pytest.mark.parametrize("role", ["c1", "wire", "node"])


@dataclass(frozen=True)
class Behind:
    """The container's side of the tap: frames that it gets and sends."""

    plane: Dataplane
    tap: int

    def received(self, wanted: bytes) -> bytes | None:
        """The first frame with these bytes in it."""
        deadline = time.monotonic() + 5
        while select.select([self.tap], [], [], max(0, deadline - time.monotonic()))[0]:
            frame = os.read(self.tap, 65536)
            if wanted in frame:
                return frame
        return None

    def send(self, frame: bytes) -> None:
        os.write(self.tap, frame)


@pytest.fixture
def behind(session_plane: Dataplane) -> Iterator[Behind]:
    plane = session_plane
    plane.container_program = "from_container"
    with plane.attached(), _tap(plane) as tap:
        row: dict[str, btf.Value] = {"ifindex": plane.net.ifindex("rep0"), "slot": 3, "mtu": MTU, "flags": VF}
        for address in ADDRESSES.values():
            plane.endpoints.set(address_key(address), LAYOUT.structs["fp_endpoint"].pack(row | {"mac": mac(MAC)}))
        plane.ifindex["rep0"] = plane.net.ifindex("rep0")
        try:
            with plane.hooked("rep0", "from_container", bpf.TCX_INGRESS):
                yield Behind(plane, tap)
        finally:
            del plane.ifindex["rep0"]
            for address in ADDRESSES.values():
                plane.endpoints.delete(address_key(address))


@contextmanager
def _tap(plane: Dataplane) -> Iterator[int]:
    with netns.entered(plane.net.path("node")):  # where it is opened the interface will be
        tap = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"rep0", TAP_WITHOUT_HEADER))
        plane.net.ip("node", "link set rep0 addrgenmode none", "link set rep0 up")
        yield tap
    finally:
        os.close(tap)


def address_of(role: str, family: Family) -> str:
    return {"c1": family.c1, "wire": family.far, "node": family.gateway}[role]


@both
@others
def test_it_receives(behind: Behind, family: Family, role: str) -> None:
    there = ADDRESSES[str(family)]
    with opened(behind.plane.net, role, family_of(there), socket.SOCK_DGRAM) as sender:
        sender.bind((address_of(role, family), 0))
        sender.sendto(b"to the container", (there, PORT))
        frame = behind.received(b"to the container")
    assert frame, behind.plane.counters()
    assert frame[:12] == mac(MAC) + mac(GATEWAY_MAC)


@both
@others
def test_it_sends(behind: Behind, family: Family, role: str) -> None:
    there = ADDRESSES[str(family)]
    with opened(behind.plane.net, role, family_of(there), socket.SOCK_DGRAM) as receiver:
        receiver.bind((address_of(role, family), PORT))
        payload = packets.udp(there, address_of(role, family), b"from the container", dport=PORT)
        flow = Flow(there, address_of(role, family), MAC)
        behind.send(flow.carrying(payload, packets.UDP))
        assert receiver.recv(100) == b"from the container"


@both
def test_another_mac_is_no_way_in(behind: Behind, family: Family) -> None:
    flow = Flow(ADDRESSES[str(family)], family.c1, MAC)
    for change, reason in (("dst_mac", "WRONG_MAC"), ("src_mac", "SPOOFED")):
        before = behind.plane.counters().drops
        behind.send(flow.with_(**{change: "0e:00:00:00:09:09"}).frame())
        assert behind.plane.counters().drops[reason] == before.get(reason, 0) + 1
