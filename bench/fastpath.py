# SPDX-License-Identifier: GPL-3.0-or-later
"""Our dataplane between two containers, loaded and attached by the collection's own library; nothing is pinned."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from ansible_collections.fastpath.node.plugins.module_utils.kernel.netns import entered
from bench import build, topology
from bench.topology import Way

MTU = 1500


def address_key(address: str) -> bytes:
    """An IPv4 address as key of the endpoints map."""
    return bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(address).packed


def endpoint(ifindex: int, slot: int, mac: str) -> bytes:
    """A value of the endpoints map: struct fp_endpoint."""
    return struct.pack("=II6sH", ifindex, slot, mac_bytes(mac), MTU)


def load(router_ifindex: int) -> bpf.LoadedObject:
    """The programs, with struct fp_config for an IPv4 node."""
    gateway = ipaddress.IPv4Address(topology.GATEWAY).packed
    config = struct.pack("=I6s2x4s16s", router_ifindex, mac_bytes(topology.GATEWAY_MAC), gateway, bytes(16))
    return bpf.load(build.DATAPLANE.read_bytes(), None, {"config": config})


@contextmanager
def attached() -> Iterator[Way]:
    """Two containers on one node, `from_container` on both host ends, `from_host` on the router device."""
    with topology.prepared() as (node, way), ExitStack() as stack:
        with entered(str(node)):
            router = socket.if_nametoindex("fastpath0")
            programs = stack.enter_context(load(router))
            hooks = [(router, "from_host", bpf.TCX_EGRESS)]
            with bpf.Map(os.dup(programs.maps["endpoints"])) as endpoints:
                for slot, (name, address, mac) in enumerate(topology.CONTAINERS):
                    ifindex = socket.if_nametoindex(name)
                    endpoints.set(address_key(address), endpoint(ifindex, slot, mac))
                    hooks.append((ifindex, "from_container", bpf.TCX_INGRESS))
            for ifindex, program, direction in hooks:
                stack.enter_context(bpf.attach(programs.programs[program], ifindex, direction))
        yield way


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
