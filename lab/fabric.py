# SPDX-License-Identifier: GPL-3.0-or-later
"""The wires of a lab: a router with a bridge for the nodes, and a host outside behind it.

Every link is born in its own namespace, the machine's own never sees one. The last thing that is made
is the IPv6 default route, so its presence proves that all the rest is there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from lab import plan
from lab.host import delete_netns, netns_names, run, succeeds
from lab.plan import NodePlan, Topology

# No redirects: the router forwards between nodes out of the port that a packet came in by.
_ROUTER_SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
    "net.ipv6.conf.default.accept_dad=0",  # MACs are fixed, and without a link-local address no neighbour is found
)


def ensure_fabric(topology: Topology) -> bool:
    """Make the router and the outside unless they are there; True if they were made anew."""
    if _complete(topology.outside) and _link_exists(topology.fabric, plan.BRIDGE):
        return False
    delete_netns(topology.outside)
    delete_netns(topology.fabric)
    run(["ip", "netns", "add", topology.fabric])
    run(["ip", "netns", "add", topology.outside])
    run(["nsenter", f"--net=/run/netns/{topology.fabric}", "sysctl", "-qw", *_ROUTER_SYSCTLS])
    _ip(
        topology.fabric,
        "link set lo up",
        f"link add {plan.BRIDGE} address {plan.BRIDGE_MAC} type bridge mcast_snooping 0",
        *(
            f"address add {address}/{length} dev {plan.BRIDGE} nodad"
            for address, length in zip(plan.FABRIC_GATEWAYS, plan.FABRIC_LENGTHS, strict=True)
        ),
        f"link set {plan.BRIDGE} up",
        f"link add outside type veth peer name {plan.UPLINK} address {plan.OUTSIDE_MAC} netns {topology.outside}",
        *(
            f"address add {address}/{length} dev outside nodad"
            for address, length in zip(plan.OUTSIDE_GATEWAYS, plan.FABRIC_LENGTHS, strict=True)
        ),
        "link set outside up",
    )
    _configure_host(topology.outside, plan.OUTSIDE_ADDRESSES, plan.OUTSIDE_GATEWAYS)
    return True


def node_connected(topology: Topology, node: NodePlan) -> bool:
    """True if the node's namespace and its uplink are whole."""
    return _complete(node.netns) and _link_exists(topology.fabric, node.name)


def connect_node(topology: Topology, node: NodePlan) -> None:
    """Make the node's namespace and uplink anew, as a reboot would; nothing may run in it."""
    if _link_exists(topology.fabric, node.name):
        # At once: the end of a namespace takes its links along only some time later.
        _ip(topology.fabric, f"link del {node.name}")
    delete_netns(node.netns)
    run(["ip", "netns", "add", node.netns])
    _ip(
        topology.fabric,
        f"link add {node.name} type veth peer name {plan.UPLINK} address {node.mac} netns {node.netns}",
        f"link set {node.name} master {plan.BRIDGE} up",
        *_routes(node),
    )
    _configure_host(node.netns, node.addresses, plan.FABRIC_GATEWAYS)


def tap_connected(topology: Topology, node: NodePlan) -> bool:
    """True if a virtual node's tap is there, in the fabric that is there."""
    return _link_exists(topology.fabric, node.name)


def connect_tap(topology: Topology, node: NodePlan) -> None:
    """Plug the tap of a virtual node in: QEMU makes it, and it vanishes with QEMU."""
    _ip(topology.fabric, f"link set {node.name} master {plan.BRIDGE} up", *_routes(node))


def _routes(node: NodePlan) -> Iterator[str]:
    return (
        f"route replace {prefix} via {address}" for prefix, address in zip(node.prefixes, node.addresses, strict=True)
    )


def _configure_host(netns: str, addresses: tuple[str, str], gateways: tuple[str, str]) -> None:
    # MACs are fixed: no second of waiting until the link-local address proves unique.
    run(["nsenter", f"--net=/run/netns/{netns}", "sysctl", "-qw", f"net.ipv6.conf.{plan.UPLINK}.accept_dad=0"])
    _ip(
        netns,
        "link set lo up",
        *(
            f"address add {address}/{length} dev {plan.UPLINK} nodad"
            for address, length in zip(addresses, plan.FABRIC_LENGTHS, strict=True)
        ),
        f"link set {plan.UPLINK} up",
        *(f"route add default via {gateway}" for gateway in gateways),
    )


def _complete(netns: str) -> bool:
    return netns in netns_names() and succeeds(["ip", "-n", netns, "-6", "route", "show", "default"])


def _link_exists(netns: str, name: str) -> bool:
    command = ["ip", "-n", netns, "link", "show", name]
    return netns in netns_names() and subprocess.run(command, capture_output=True, check=False).returncode == 0


def _ip(netns: str, *commands: str) -> None:
    run(["ip", "-n", netns, "-batch", "-"], stdin="\n".join(commands))
