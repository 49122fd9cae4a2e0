# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways from one container to another on one node that are compared; each in network namespaces of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

GATEWAY = "10.128.9.1"
GATEWAY_MAC = "0e:fa:57:00:00:01"
CLIENT, SERVER = "10.128.9.11", "10.128.9.12"
CONTAINERS = (("client", CLIENT, "02:fa:57:00:00:11"), ("server", SERVER, "02:fa:57:00:00:12"))


@dataclass(frozen=True)
class Way:
    """Where to measure: paths of two network namespaces, and the server's address."""

    client: Path
    server: Path
    address: str


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
        yield Way(path(name), path(name), "127.0.0.1")


@contextmanager
def bridged() -> Iterator[Way]:
    """Two containers at a bridge, as container engines connect them."""
    with _pairs("bridged") as (node, client, server):
        ip(node, "link add br0 type bridge", "link set br0 up",
           *(f"link set {name} master br0" for name, _address, _mac in CONTAINERS))  # fmt: skip
        for netns, (_name, address, _mac) in zip((client, server), CONTAINERS, strict=True):
            ip(netns, f"address add {address}/24 dev eth0")
        yield Way(path(client), path(server), SERVER)


@contextmanager
def routed() -> Iterator[Way]:
    """Two containers behind a router without rules, by the kernel's own forwarding."""
    with _pairs("routed") as (node, client, server):
        _run("nsenter", f"--net={path(node)}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for name, address, _mac in CONTAINERS:
            ip(node, f"address add {GATEWAY}/32 dev {name}", f"route add {address} dev {name}")
        _point_to_gateway(client, server)
        yield Way(path(client), path(server), SERVER)


@contextmanager
def prepared() -> Iterator[tuple[Path, Way]]:
    """Two containers whose host ends wait for the dataplane; with the node's namespace and the router device."""
    with _pairs("fastpath") as (node, client, server):
        ip(node, f"link add fastpath0 address {GATEWAY_MAC} type veth peer name fastpath1",
           "link set fastpath0 up", "link set fastpath1 up",
           *(f"link set {name} address {GATEWAY_MAC}" for name, _address, _mac in CONTAINERS))  # fmt: skip
        _point_to_gateway(client, server)
        yield path(node), Way(path(client), path(server), SERVER)


@contextmanager
def _pairs(way: str) -> Iterator[tuple[str, str, str]]:
    """Names of node, client and server namespaces; the node has one veth to each, named after it."""
    with ExitStack() as stack:
        node, client, server = (
            stack.enter_context(namespace(f"{way}-{part}")) for part in ("node", "client", "server")
        )
        for netns, (name, _address, mac) in zip((client, server), CONTAINERS, strict=True):
            ip(node, f"link add {name} type veth peer name eth0 address {mac} netns {netns}", f"link set {name} up")
            ip(netns, "link set eth0 up")
        yield node, client, server


def _point_to_gateway(*namespaces: str) -> None:
    for netns, (_name, address, _mac) in zip(namespaces, CONTAINERS, strict=True):
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
