# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a VF to a container, and takes it back, wherever it is by then.

Its representor is the host end. The alias of that one says whose the VF is and how it was before; it is written first
and goes last, so that a run that was killed in between is found and finished. Each change may be repeated.
"""

from __future__ import annotations

import time

from ..errors import FastpathError
from ..kernel import links, netns, sriov
from ..kernel.links import Link
from ..kernel.rtnl import Netlink
from . import attachments_links as whose
from .attachments_links import Lent, Owner
from .attachments_state import CreateLink

_ATTEMPTS, _PAUSE = 100, 0.02  # two seconds in all


def give(op: CreateLink, path: str) -> None:
    """path: of the container's namespace."""
    with Netlink() as host, whose.opened(op.container, path) as there:
        representor = _representor(host, op.vf)
        netdev = links.link_of_device(host, op.vf)
        owner = whose.owner(representor)
        if representor.group != links.GROUP or owner.vf is None:
            if netdev is None:
                raise FastpathError("find", f"the interface of VF {op.vf}", "it has gone")
            owner = Owner(
                op.name, op.container, vf=Lent(op.vf, netdev.name, netdev.mtu, netdev.permanent or netdev.mac)
            )
            links.label(host, representor.index, links.GROUP, owner.alias)
        if owner.attachment != op.name:
            raise FastpathError("give", f"VF {op.vf}", f"{owner.attachment} has it")
        # no address of its own: what the host sends by it comes out in the container
        links.set_link(host, representor.index, up=False, link_local=False)
        if representor.mtu < op.mtu:
            links.set_link(host, representor.index, mtu=op.mtu)
        if netdev is not None:
            links.set_link(host, netdev.index, up=False, mtu=op.mtu, mac=op.mac if netdev.mac != op.mac else "")
            links.send(host, netdev.index, there, op.interface)


def take_back(host: Netlink, representor: Link, vf: Lent, path: str) -> None:
    """path: of the namespace of the container that has it, "" where it has none any more."""
    if links.link_of_device(host, vf.pci) is None:
        _fetch(host, vf, path)
    netdev = links.link_of_device(host, vf.pci)
    if netdev is not None:
        mac = netdev.permanent or vf.mac  # its driver may have been bound anew since, to another MAC
        links.set_link(host, netdev.index, up=False, mtu=vf.mtu, mac=mac if netdev.mac != mac else "")
        if netdev.name != vf.name and links.link(host, vf.name) is None:
            links.rename(host, netdev.index, vf.name)
    links.set_link(host, representor.index, up=False, link_local=True)
    links.label(host, representor.index, 0, "")


def _fetch(host: Netlink, vf: Lent, path: str) -> None:
    """Out of the container, if it is there; with a namespace that ends, the kernel brings it. Else its driver makes
    another interface: the old one ends wherever somebody has taken it."""
    if path and _send_home(host, vf, path):
        return
    if sriov.driver(vf.pci) in ("", *sriov.FOR_USER_SPACE):
        return
    if not _appears(host, vf.pci):
        sriov.unbind(vf.pci)
        sriov.bind(vf.pci)
        if not _appears(host, vf.pci):
            raise FastpathError("take back", f"VF {vf.pci}", "its driver makes no interface of it")


def _send_home(host: Netlink, vf: Lent, path: str) -> bool:
    with whose.inside(path) as there, whose.opened("the node", netns.OWN) as home:
        netdev = links.link_of_device(there, vf.pci)
        if netdev is None:
            return False
        name = vf.name if links.link(host, vf.name) is None else "eth%d"
        links.set_link(there, netdev.index, up=False)
        links.send(there, netdev.index, home, name)
    return True


def _appears(host: Netlink, pci: str) -> bool:
    for _attempt in range(_ATTEMPTS):
        if links.link_of_device(host, pci) is not None:
            return True
        time.sleep(_PAUSE)
    return False


def _representor(host: Netlink, pci: str) -> Link:
    name = sriov.representor(pci)
    if not name:
        raise FastpathError("find", f"the representor of VF {pci}", "its NIC is not in switchdev mode")
    return links.need(host, name)
