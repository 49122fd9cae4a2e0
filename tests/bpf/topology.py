# SPDX-License-Identifier: GPL-3.0-or-later
"""One node with two containers and a wire, in network namespaces of their own.

    container 1 eth0 == c1 \\
                            node up0 == w0 wire, with 198.51.100.10 behind it
    container 2 eth0 == c2 /   fastpath0 (fastpath1)
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fastpath.node.plugins.module_utils.kernel import links, netns, rtnl

GATEWAY_MAC = "0e:fa:57:00:00:01"
GATEWAY4, GATEWAY6 = "10.128.3.1", "fd00:128:3::1"
UPLINK_MAC, WIRE_MAC = "0e:00:00:00:03:01", "0e:00:00:00:03:02"
NODE4, NODE6 = "192.0.2.11", "fd00:192::11"
WIRE4, WIRE6 = "192.0.2.1", "fd00:192::1"
FAR4, FAR6 = "198.51.100.10", "fd00:198::10"
LONELY4, LONELY6 = "10.128.3.99", "fd00:128:3::99"  # in the node's prefixes, but nobody has them
NO_MAC = "00:00:00:00:00:00"  # of a netkit in L3 mode
MTU = 1500
RTM_NEWLINK = 16
GSO_LIMITS = (41, 58, 63, 64)  # IFLA_GSO_MAX_SIZE, IFLA_GRO_MAX_SIZE and both for IPv4

_serial = itertools.count()


@dataclass(frozen=True)
class Container:
    """A container as it should be; slot: its row of statistics."""

    name: str
    mac: str
    v4: str
    v6: str
    slot: int


C1 = Container("c1", "0e:00:00:00:01:01", "10.128.3.11", "fd00:128:3::11", 1)
C2 = Container("c2", "0e:00:00:00:02:02", "10.128.3.12", "fd00:128:3::12", 2)
CONTAINERS = (C1, C2)


@dataclass(frozen=True)
class Topology:
    """prefix: of the namespaces' names; kinds: "veth", "netkit" or "netkit-l3", by the container's name."""

    prefix: str
    kinds: Mapping[str, str]

    def netns(self, role: str) -> str:
        return f"{self.prefix}-{role}"

    def path(self, role: str) -> str:
        return f"/run/netns/{self.netns(role)}"

    def ip(self, role: str, *lines: str) -> None:
        """Commands of `ip -batch` in the namespace."""
        command = ["ip", "-n", self.netns(role), "-batch", "-"]
        subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True)

    def exec(self, role: str, *command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        inside = ["ip", "netns", "exec", self.netns(role), *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=timeout, check=False)

    def sysctl(self, role: str, **values: str) -> None:
        """Values below net/, with __ for a slash."""
        with netns.entered(self.path(role)):
            for key, value in values.items():
                Path("/proc/sys/net", key.replace("__", "/")).write_text(value, encoding="ascii")

    def gso_limit(self, role: str, device: str, size: int) -> None:
        """The biggest packet that may go out of the device before it is cut to segments, and be put together there.

        Above 64 KiB that is BIG TCP, which Debian 12's iproute2 knows of IPv6 only.
        """
        with netns.entered(self.path(role)), rtnl.Netlink() as kernel:
            header = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(device), 0, 0)
            kernel.request(RTM_NEWLINK, 0, header + b"".join(rtnl.u32(kind, size) for kind in GSO_LIMITS))

    def ifindex(self, device: str) -> int:
        """Of the node's device."""
        with netns.entered(self.path("node")):
            return socket.if_nametoindex(device)


@contextmanager
def built(kinds: tuple[str, str] = ("veth", "veth")) -> Iterator[Topology]:
    """The namespaces, gone again at the end; kinds: how each container is attached."""
    by_name = {container.name: kind for container, kind in zip(CONTAINERS, kinds, strict=True)}
    net = Topology(f"fpt{os.getpid()}n{next(_serial)}", by_name)
    roles = ("node", "wire", *(container.name for container in CONTAINERS))
    try:
        for role in roles:
            subprocess.run(["ip", "netns", "add", net.netns(role)], check=True)
            # no router solicitations, no duplicate detection: only the tests' own packets
            net.sysctl(role, ipv6__conf__default__accept_dad="0", ipv6__conf__default__router_solicitations="0")
            # the dataplane needs no forwarding on any device but its own; a new namespace may inherit it
            net.sysctl(role, ipv4__conf__all__forwarding="0", ipv6__conf__all__forwarding="0")
            net.sysctl(role, ipv4__conf__all__rp_filter="0", ipv4__conf__default__rp_filter="0")
            net.ip(role, "link set lo up")
        _node(net)
        _wire(net)
        for container in CONTAINERS:
            _attach(net, container)
        yield net
    finally:
        for role in roles:
            subprocess.run(["ip", "netns", "del", net.netns(role)], check=False, stderr=subprocess.DEVNULL)


def _node(net: Topology) -> None:
    net.ip(
        "node",
        f"link add fastpath0 address {GATEWAY_MAC} type veth peer name fastpath1",
        f"link add up0 address {UPLINK_MAC} type veth peer name w0 address {WIRE_MAC} netns {net.netns('wire')}",
        "link set fastpath1 up",
        "link set fastpath0 up",
        "link set up0 up",
        f"address add {GATEWAY4}/32 dev fastpath0",
        f"address add {GATEWAY6}/128 dev fastpath0 nodad",
        "route add 10.128.3.0/24 dev fastpath0",
        "route add fd00:128:3::/64 dev fastpath0",
        f"address add {NODE4}/24 dev up0",
        f"address add {NODE6}/64 dev up0 nodad",
    )
    net.sysctl(
        "node",
        ipv4__conf__fastpath0__forwarding="1",
        ipv6__conf__fastpath0__forwarding="1",
        ipv4__conf__fastpath0__rp_filter="2",
    )


def _wire(net: Topology) -> None:
    net.ip(
        "wire",
        "link set w0 up",
        f"address add {WIRE4}/24 dev w0",
        f"address add {WIRE6}/64 dev w0 nodad",
        f"address add {FAR4}/32 dev lo",
        f"address add {FAR6}/128 dev lo",
        f"route add 10.128.3.0/24 via {NODE4}",
        f"route add fd00:128:3::/64 via {NODE6}",
    )
    net.ip("node", f"route add default via {WIRE4}", f"route add ::/0 via {WIRE6}")


def _attach(net: Topology, container: Container) -> None:
    near, far = links.End(container.name, GATEWAY_MAC), links.End("eth0", container.mac)
    inside = os.open(net.path(container.name), os.O_RDONLY)
    try:
        with netns.entered(net.path("node")), rtnl.Netlink() as kernel:
            kind, _dash, mode = net.kinds[container.name].partition("-")
            links.add_pair(kernel, kind, near, far, MTU, inside, mode or "l2")
    finally:
        os.close(inside)
    net.ip("node", f"link set {container.name} up")
    net.ip(
        container.name,
        "link set eth0 up",
        f"address add {container.v4}/32 dev eth0",
        f"address add {container.v6}/128 dev eth0 nodad",
        f"route add default via {GATEWAY4} dev eth0 onlink",
        f"route add ::/0 via {GATEWAY6} dev eth0 onlink",
    )
