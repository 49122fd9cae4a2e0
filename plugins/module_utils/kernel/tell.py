# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets in containers read an error when their flow is denied: the kernel ends them, or they get a reset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ..errors import Unsupported
from . import datapath, flows, resets, sockets
from .rtnl import Netlink

_UNTOLD = (
    "cannot tell {} sockets that their flow is denied: the kernel cannot end sockets (CONFIG_INET_DIAG_DESTROY), and "
    "resets do not reach them: their container's loopback is down, or its firewall or their being bound to a device is "
    "in the way"
)


def tell(denied: Iterable[bytes], namespaces: Mapping[str, str]) -> tuple[int, str]:
    """How many sockets were told, and why others could not be. denied: keys of flows; namespaces: see policy.publish().

    Raises OSError.
    """
    told, left, why = 0, 0, ""
    for (path, protocol), ours in _sides(denied, namespaces).items():
        try:
            with sockets.namespace(path) as asking:
                more, missed = _end(path, asking, protocol, ours)
        except FileNotFoundError:
            continue  # the container has gone, and its sockets with it
        except Unsupported as error:
            why = str(error)
        else:
            told, left = told + more, left + missed
    return told, why or (_UNTOLD.format(left) if left else "")


def _sides(denied: Iterable[bytes], namespaces: Mapping[str, str]) -> dict[tuple[str, int], set[bytes]]:
    """(namespace, protocol) -> flows as they are seen from there."""
    paths = {datapath.key(address): path for address, path in namespaces.items()}
    wanted: dict[tuple[str, int], set[bytes]] = defaultdict(set)
    for key in denied:
        one, other, protocol = flows.ends(key)
        for address, flow in (one, other):
            if address in paths and protocol in (sockets.TCP, sockets.UDP):
                wanted[paths[address], protocol].add(flow)
    return wanted


def _end(path: str, asking: Netlink, protocol: int, ours: set[bytes]) -> tuple[int, int]:
    """How many were told, and how many could not be."""
    ended, found = 0, sockets.find(asking, protocol, ours)
    try:
        for item in found:
            ended += sockets.end(asking, protocol, item)
    except Unsupported:
        told, left = resets.tell(path, asking, protocol, ours)
        return ended + told, left
    return ended, 0
