# SPDX-License-Identifier: GPL-3.0-or-later
"""Bonds of interfaces: those that are ours, and who is in them. Numbers are from linux/if_link.h and if_bonding.h.

A device group marks ours from the request on that makes them. It is another one than that of links.GROUP, whose
interfaces belong to the dataplane: a bond may be its uplink.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from . import links
from .rtnl import Netlink, attr, u32

GROUP = 0xFA58

_KIND = "bond"
_MIIMON, _HASH_POLICY, _LACP_RATE = 3, 14, 21
_LAYER_3_4, _FAST = 1, 1
_MIIMON_MS = 100  # how often the link of a member is looked at


@dataclass(frozen=True)
class Bond:
    name: str
    mode: str
    mtu: int


def ours(netlink: Netlink) -> dict[str, Bond]:
    """Our bonds by name."""
    found = links.links(netlink, _KIND)  # a kernel without bonds lists all links
    mine = [link for link in found.values() if link.kind == _KIND and link.group == GROUP]
    return {link.name: Bond(link.name, link.mode, link.mtu) for link in mine}


def create(netlink: Netlink, bond: Bond) -> None:
    """Make it, up and without members. The mode is fixed for good, as all else is that the operator does not choose."""
    number, modes = links.MODES[_KIND]
    data = attr(number, bytes([modes.index(bond.mode)])) + u32(_MIIMON, _MIIMON_MS)
    data += attr(_HASH_POLICY, bytes([_LAYER_3_4]))
    data += attr(_LACP_RATE, bytes([_FAST])) if bond.mode == "802.3ad" else b""
    links.add(netlink, _KIND, bond.name, GROUP, bond.mtu, data)


def delete(netlink: Netlink, name: str) -> None:
    """One of ours; one of somebody else stays."""
    links.delete_link(netlink, name, GROUP)


def join(netlink: Netlink, index: int, bond: str) -> None:
    """Put an interface into a bond of ours: it takes one only while that is down, and brings it up."""
    master = links.need(netlink, bond)
    if master.group != GROUP:
        raise OSError(errno.EPERM, f"{bond} is not ours")
    with netlink.at_once():
        links.set_link(netlink, index, up=False)
        links.put_into(netlink, index, master.index)


def leave(netlink: Netlink, member: links.Link) -> None:
    """It stays as it is there. By itself it would go down, and have the MTU that it came with."""
    with netlink.at_once():
        links.put_into(netlink, member.index, 0)
        links.set_link(netlink, member.index, up=member.up, mtu=member.mtu)
