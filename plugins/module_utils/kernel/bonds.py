# SPDX-License-Identifier: GPL-3.0-or-later
"""Bonds of interfaces: those that are ours, and who is in them. Numbers are from linux/if_link.h and if_bonding.h.

A device group marks ours from the request on that makes them. It is another one than that of links.GROUP, whose
interfaces belong to the dataplane: a bond may be its uplink.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from . import links, rtnl
from .rtnl import Netlink, attr, attrs, nest, text, u32

GROUP = 0xFA58
MODES = {0: "balance-rr", 1: "active-backup", 2: "balance-xor", 3: "broadcast", 4: "802.3ad", 5: "balance-tlb"}

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFNAME, _MTU, _MASTER, _LINKINFO, _GROUP = 3, 4, 10, 18, 27
_KIND, _DATA = 1, 2
_MODE, _MIIMON, _HASH_POLICY, _LACP_RATE = 1, 3, 14, 21
_UP = 0x1
_LAYER_3_4, _FAST = 1, 1
_MIIMON_MS = 100  # how often the link of a member is looked at


@dataclass(frozen=True)
class Bond:
    name: str
    mode: str
    mtu: int


def ours(netlink: Netlink) -> dict[str, Bond]:
    """Our bonds by name."""
    found = {}
    body = _IFINFO.pack(0, 0, 0, 0, 0) + nest(_LINKINFO, text(_KIND, "bond"))
    for payload in netlink.dump(_GETLINK, body):
        values = attrs(payload[_IFINFO.size :])
        info = attrs(values.get(_LINKINFO, b""))
        if info.get(_KIND, b"").rstrip(b"\0") != b"bond" or _number(values[_GROUP]) != GROUP:
            continue  # a kernel without bonds lists all links
        name = values[_IFNAME].rstrip(b"\0").decode(errors="replace")
        mode = attrs(info[_DATA])[_MODE][0]
        found[name] = Bond(name, MODES.get(mode, str(mode)), _number(values[_MTU]))
    return found


def create(netlink: Netlink, bond: Bond) -> None:
    """Make it, up and without members. The mode is fixed for good, as all else is that the operator does not choose."""
    mode = next(number for number, name in MODES.items() if name == bond.mode)
    data = [attr(_MODE, bytes([mode])), u32(_MIIMON, _MIIMON_MS), attr(_HASH_POLICY, bytes([_LAYER_3_4]))]
    data += [attr(_LACP_RATE, bytes([_FAST]))] if bond.mode == "802.3ad" else []
    body = _IFINFO.pack(0, 0, 0, _UP, _UP) + text(_IFNAME, bond.name) + u32(_GROUP, GROUP) + u32(_MTU, bond.mtu)
    body += nest(_LINKINFO, text(_KIND, "bond"), nest(_DATA, *data))
    netlink.request(_NEWLINK, rtnl.NLM_CREATE | rtnl.NLM_EXCL, body)


def delete(netlink: Netlink, name: str) -> None:
    """One of ours; one of somebody else stays."""
    link = links.link(netlink, name)
    if link is not None and link.kind == "bond" and link.group == GROUP:
        netlink.request(_DELLINK, 0, _IFINFO.pack(0, 0, link.index, 0, 0))


def join(netlink: Netlink, index: int, bond: str) -> None:
    """Put an interface that is down into a bond of ours."""
    master = links.need(netlink, bond)
    if master.group != GROUP:
        raise OSError(errno.EPERM, f"{bond} is not ours")
    netlink.request(_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + u32(_MASTER, master.index))


def leave(netlink: Netlink, index: int) -> None:
    netlink.request(_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + u32(_MASTER, 0))


def _number(value: bytes) -> int:
    number: int = struct.unpack("=I", value[:4])[0]
    return number
