# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a link of ours is: its host end tells by name and alias, also half-way through a move."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import FastpathError
from ..kernel import datapath, links, netns
from ..kernel.links import Link
from ..kernel.rtnl import Netlink
from .attachments_state import VF, Pair
from .dataplane_state import CONTAINER_HOOK, NETKIT_HOOK

_MOVING, _VF = "moving", "vf"


@dataclass(frozen=True)
class Lent:
    """A VF that an attachment has, and how its interface was before: the container can change what it says itself."""

    pci: str
    name: str
    mtu: int
    mac: str


@dataclass(frozen=True)
class Owner:
    """moving: the link comes in the place of another; `interface` is then what its container end will be called.

    vf: the link is the representor of this one.
    """

    attachment: str
    container: str
    interface: str = ""
    vf: Lent | None = None

    @property
    def moving(self) -> bool:
        return bool(self.interface)

    @property
    def alias(self) -> str:
        if self.vf is not None:
            lent = f"{self.vf.pci} {self.vf.name} {self.vf.mtu} {self.vf.mac}"
            return f"{_VF} {self.attachment} {lent} {self.container}"
        return f"{_MOVING} {self.attachment} {self.interface} {self.container}" if self.moving else self.container


def owner(link: Link) -> Owner:
    """By its alias; one without has been made half."""
    words = link.alias.split(" ", 3)
    if len(words) == 4 and words[0] == _MOVING:
        return Owner(words[1], words[3], words[2])
    words = link.alias.split(" ", 6)
    if len(words) == 7 and words[0] == _VF and words[4].isdigit():
        return Owner(words[1], words[6], vf=Lent(words[2], words[3], int(words[4]), words[5]))
    return Owner(link.name, link.alias)


def called(ifindex: int) -> str:
    """An interface as people know it: by its attachment, else by its name; one that has gone by its number."""
    with Netlink() as netlink:
        link = links.link_by_index(netlink, ifindex)
    if link is None:
        return f"if{ifindex}"
    return owner(link).attachment if link.group == links.GROUP else link.name


def temporary(name: str) -> str:
    """What both ends of an attachment's new pair are called while it moves."""
    return f"fp-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def ends(netlink: Netlink, name: str) -> list[Link]:
    """The host ends of an attachment; two while it moves, the new one last."""
    return list(_ends(netlink, name))


def end(netlink: Netlink, name: str) -> Link:
    """The one host end of an attachment that does not move."""
    found = next(_ends(netlink, name), None)
    if found is None:
        raise FastpathError("find", f"interface {name}", "it has gone")
    return found


def _ends(netlink: Netlink, name: str) -> Iterator[Link]:
    made = [link for link in (links.link(netlink, candidate) for candidate in (name, temporary(name))) if link]
    mine = [link for link in made if _is_of(link, name)]
    yield from mine
    if not mine:  # a representor keeps its name
        yield from (link for link in links.links(netlink).values() if _is_of(link, name) and owner(link).vf)


def _is_of(link: Link, name: str) -> bool:
    return link.group == links.GROUP and owner(link).attachment == name


def pair(link: Link) -> Pair:
    return VF if owner(link).vf else Pair(link.kind, link.mode)


def key(link: Link) -> str:
    """The key of the program on this host end."""
    return hook_key(link.kind, owner(link).attachment if owner(link).vf else link.name)


def hook_key(kind: str, name: str) -> str:
    """The key of the program on a host end of this kind and name."""
    return (NETKIT_HOOK if kind == "netkit" else CONTAINER_HOOK) + name


def hook_keys(name: str) -> frozenset[str]:
    """All that an attachment's programs can have, also while it moves."""
    return frozenset(prefix + link for prefix in (CONTAINER_HOOK, NETKIT_HOOK) for link in (name, temporary(name)))


def far_end(netlink: Netlink, host: Link) -> Link:
    """The container's end; `netlink` is in its namespace."""
    vf = owner(host).vf
    link = links.link_of_device(netlink, vf.pci) if vf else links.link_by_index(netlink, host.peer_index)
    if link is None:
        raise FastpathError("find", f"the container's end of {host.name}", "it has gone")
    return link


def end_moves(indexes: Iterable[int]) -> None:
    """Let the dataplane take these host ends, and those that moved with them, for moving no longer."""
    ours = frozenset(indexes)
    datapath.unmove({index for entry in datapath.moves().items() if ours & set(entry) for index in entry})


@contextmanager
def inside(path: str) -> Iterator[Netlink]:
    """A netlink socket in another namespace; this process stays where it is."""
    with netns.entered(path):
        netlink = Netlink()
    with netlink:
        yield netlink


@contextmanager
def opened(container: str, path: str) -> Iterator[int]:
    """A descriptor of the container's namespace."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FastpathError("open", f"the namespace of {container}", str(error)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
