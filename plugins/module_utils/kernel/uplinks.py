# SPDX-License-Identifier: GPL-3.0-or-later
"""The interfaces of this node that can be uplinks, and how hardware names them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from . import links, sriov
from .rtnl import Netlink


@dataclass(frozen=True)
class Uplink:
    """pci is "" for an interface without a PCI device of its own."""

    name: str
    index: int
    mac: str
    pci: str
    mtu: int
    up: bool


def candidates(netlink: Netlink) -> tuple[Uplink, ...]:
    """All interfaces but the loopback and our own."""
    return tuple(
        Uplink(link.name, link.index, link.mac, _pci(link.name), link.mtu, link.up)
        for link in links.links(netlink).values()
        if link.group != links.GROUP and link.name != "lo"
    )


def _pci(name: str, sys: str = sriov.SYS) -> str:
    path = os.path.join(sys, "class", "net", name, "device")
    try:
        device, bus = os.readlink(path), os.path.basename(os.readlink(os.path.join(path, "subsystem")))
    except OSError:
        return ""
    return os.path.basename(device) if bus == "pci" and not sriov.is_representor(name, sys) else ""
