# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways of a container's packets that are compared, each in network namespaces of its own.

    client eth0 == client \\
                             node up0 == w0 far
    server eth0 == server /
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fastpath.node.plugins.module_utils.kernel import links
from ansible_collections.fastpath.node.plugins.module_utils.kernel.netns import entered
from ansible_collections.fastpath.node.plugins.module_utils.kernel.rtnl import Netlink

GATEWAY, GATEWAY6 = "10.128.9.1", "fd00:128:9::1"
SUBNET = "10.128.9.0/24"
GATEWAY_MAC = "0e:fa:57:00:00:01"
CLIENT, SERVER = "10.128.9.11", "10.128.9.12"
CONTAINERS = (("client", CLIENT, "02:fa:57:00:00:11"), ("server", SERVER, "02:fa:57:00:00:12"))
NODE, FAR = "192.0.2.11", "192.0.2.1"
NIC_NODE, NIC_FAR = "198.51.100.11", "198.51.100.1"
FAR_MAC = "02:fa:57:00:00:01"
UPLINK, ROUTER = "up0", "fastpath0"
MTU = 1500

LOCAL, OUT, IN, NIC = "local", "out", "in", "nic"


@dataclass(frozen=True)
class Pair:
    """Where to measure: paths of two network namespaces, and the server's address."""

    client: Path
    server: Path
    address: str


# By route: LOCAL on the node, OUT of a container over the uplink, IN from there, NIC: out of a real device.
Way = Mapping[str, Pair]


@dataclass(frozen=True)
class Kind:
    """How containers are attached: "veth", or "netkit" with its mode. bare: as `ip` makes one, without headroom."""

    name: str = "veth"
    mode: str = "l2"
    bare: bool = False

    def __str__(self) -> str:
        return f"{self.name}-{self.mode}{'-bare' if self.bare else ''}"


VETH = Kind()


@dataclass(frozen=True)
class Net:
    """Names of the network namespaces of a node, its two containers and whoever is behind the uplink."""

    node: str
    client: str
    server: str
    far: str

    @property
    def way(self) -> Way:
        client, server, far = path(self.client), path(self.server), path(self.far)
        return {LOCAL: Pair(client, server, SERVER), OUT: Pair(client, far, FAR), IN: Pair(far, client, CLIENT)}


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace with its loopback up; the yielded name is unique to this process."""
    unique = f"fpbench{os.getpid()}-{name}"
    _run("ip", "netns", "add", unique)
    try:
        ip(unique, "link set lo up")
        yield unique
    finally:
        _run("ip", "netns", "del", unique)


@contextmanager
def loopback() -> Iterator[Way]:
    """Client and server in one namespace: what the kernel can do at best."""
    with namespace("loopback") as name:
        yield {LOCAL: Pair(path(name), path(name), "127.0.0.1")}


@contextmanager
def bridged() -> Iterator[Way]:
    """Two containers at a bridge, as container engines connect them."""
    with _net("bridged", VETH) as net:
        ip(net.node, "link add br0 type bridge", "link set br0 up", f"address add {GATEWAY}/24 dev br0",
           *(f"link set {name} master br0" for name, _address, _mac in CONTAINERS))  # fmt: skip
        _forward(net, "all")
        for netns, (_name, address, _mac) in zip((net.client, net.server), CONTAINERS, strict=True):
            ip(netns, f"address add {address}/24 dev eth0", f"route add default via {GATEWAY}")
        yield net.way


@contextmanager
def routed(name: str = "routed", firewall: Callable[[str], None] | None = None) -> Iterator[Way]:
    """Two containers behind a router, by the kernel's own forwarding; firewall: is given its namespace."""
    with _net(name, VETH) as net:
        _forward(net, "all")
        for container, address, _mac in CONTAINERS:
            ip(net.node, f"address add {GATEWAY}/32 dev {container}", f"route add {address} dev {container}")
        _point_to_gateway(net)
        if firewall:
            firewall(net.node)
        yield net.way


@contextmanager
def prepared(kind: Kind, name: str = "fastpath") -> Iterator[Net]:
    """Two containers whose host ends wait for the dataplane, and the router device."""
    with _net(f"{name}-{kind}", kind, GATEWAY_MAC) as net:
        ip(net.node, f"link add {ROUTER} address {GATEWAY_MAC} type veth peer name fastpath1",
           f"link set {ROUTER} up", "link set fastpath1 up", f"address add {GATEWAY}/32 dev {ROUTER}")  # fmt: skip
        _forward(net, ROUTER)
        _point_to_gateway(net)
        yield net


def plug(net: Net, nic: str) -> Pair:
    """Give the node a device of the first network namespace as well; nobody answers behind it."""
    _run("ip", "link", "set", nic, "netns", net.node)
    _uplink(net, nic, NIC_NODE, NIC_FAR)
    ip(net.far, f"address add {NIC_FAR}/32 dev lo")
    return Pair(path(net.client), path(net.far), NIC_FAR)


@contextmanager
def _net(way: str, kind: Kind, mac: str = "") -> Iterator[Net]:
    """All that the ways have in common; mac: of the containers' host ends."""
    with ExitStack() as stack:
        roles = ("node", "client", "server", "far")
        net = Net(*(stack.enter_context(namespace(f"{way}-{role}")) for role in roles))
        for netns, (name, _address, container_mac) in zip((net.client, net.server), CONTAINERS, strict=True):
            if kind.bare:
                peer = f"peer blackhole name eth0 address {container_mac} netns {netns}"
                ip(net.node, f"link add {name} address {mac} type netkit mode {kind.mode} {peer}")
            else:
                _add_pair(net, kind, links.End(name, mac), links.End("eth0", container_mac), netns)
            ip(net.node, f"link set {name} up")
            ip(netns, "link set eth0 up")
        _connect(net)
        yield net


def _add_pair(net: Net, kind: Kind, near: links.End, far: links.End, netns: str) -> None:
    """As the collection makes them."""
    inside = os.open(path(netns), os.O_RDONLY)
    try:
        with entered(str(path(net.node))), Netlink() as netlink:
            links.add_pair(netlink, kind.name, near, far, MTU, inside, kind.mode)
    finally:
        os.close(inside)


def _connect(net: Net) -> None:
    ip(net.node, f"link add {UPLINK} type veth peer name w0 address {FAR_MAC} netns {net.far}")
    ip(net.far, f"address add {FAR}/24 dev w0", "link set w0 up", f"route add {SUBNET} via {NODE}")
    _uplink(net, UPLINK, NODE, FAR)


def _uplink(net: Net, device: str, address: str, far: str) -> None:
    ip(net.node, f"address add {address}/24 dev {device}", f"link set {device} up",
       f"neighbour add {far} lladdr {FAR_MAC} dev {device} nud permanent")  # fmt: skip


def _forward(net: Net, device: str) -> None:
    """Forward what comes in by a device."""
    _run("nsenter", f"--net={path(net.node)}", "sysctl", "-qw", f"net.ipv4.conf.{device}.forwarding=1")


def _point_to_gateway(net: Net) -> None:
    for netns, (_name, address, _mac) in zip((net.client, net.server), CONTAINERS, strict=True):
        ip(netns, f"address add {address}/32 dev eth0", f"route add default via {GATEWAY} dev eth0 onlink")


def path(netns: str) -> Path:
    return Path("/run/netns") / netns


def ip(netns: str, *commands: str) -> None:
    """Run ip's commands in a namespace, in one process."""
    _run("ip", "-n", netns, "-batch", "-", stdin="\n".join(commands))


def _run(*argv: str, stdin: str = "") -> None:
    result = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {result.stderr.strip()}")
