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
from .attachments_state import Pair
from .dataplane_state import CONTAINER_HOOK, NETKIT_HOOK

_MOVING = "moving"


@dataclass(frozen=True)
class Owner:
    """moving: the link comes in the place of another; `interface` is then what its container end will be called."""

    attachment: str
    container: str
    interface: str = ""

    @property
    def moving(self) -> bool:
        return bool(self.interface)

    @property
    def alias(self) -> str:
        return f"{_MOVING} {self.attachment} {self.interface} {self.container}" if self.moving else self.container


def owner(link: Link) -> Owner:
    """By its alias; one without has been made half."""
    words = link.alias.split(" ", 3)
    if len(words) == 4 and words[0] == _MOVING:
        return Owner(words[1], words[3], words[2])
    return Owner(link.name, link.alias)


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
    for candidate in (name, temporary(name)):
        link = links.link(netlink, candidate)
        if link and link.group == links.GROUP and owner(link).attachment == name:
            yield link


def pair(link: Link) -> Pair:
    return Pair(link.kind, link.mode)


def hook_key(kind: str, name: str) -> str:
    """The key of the program on a host end of this kind and name."""
    return (NETKIT_HOOK if kind == "netkit" else CONTAINER_HOOK) + name


def hook_keys(name: str) -> frozenset[str]:
    """All that an attachment's programs can have, also while it moves."""
    return frozenset(prefix + link for prefix in (CONTAINER_HOOK, NETKIT_HOOK) for link in (name, temporary(name)))


def far_end(netlink: Netlink, host: Link) -> Link:
    """The container's end; `netlink` is in its namespace."""
    link = links.link_by_index(netlink, host.peer_index)
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
