# SPDX-License-Identifier: GPL-3.0-or-later
"""Our attachments of programs to interfaces, each under a key: tcx and netkit links, or cls_bpf filters before 6.6.

A tcx link is held by a pin named as the key; that of a netkit link also has the number of the host end, which the
kernel does not tell: it names the container's end. A filter carries the key in its name and goes with its interface.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import Unsupported
from . import bpf, clsact, links
from .rtnl import Netlink

PINS = Path("/sys/fs/bpf/fastpath/links")
_ATTEMPTS, _PAUSE = 100, 0.01  # a second in all


@dataclass(frozen=True)
class Hook:
    """An attached program. ifindex: of the host end, also where the program runs at a netkit's other one; 0: gone."""

    ifindex: int
    program_id: int


@cache
def _tcx() -> bool:
    return bpf.has_tcx()


def read() -> dict[str, Hook]:
    """All of ours by key."""
    return _pinned() if PINS.is_dir() else _filters() if _has_libbpf() and not _tcx() else {}


def attach(key: str, ifindex: int, program: int, direction: int) -> None:
    """Run the program of descriptor `program`; one of ours that runs there is replaced without a gap.

    direction: bpf.TCX_INGRESS, bpf.TCX_EGRESS or bpf.NETKIT_PEER. Raises BpfError.
    """
    if not _tcx():
        with Netlink() as netlink:
            clsact.attach(netlink, ifindex, direction, program, key)
        return
    netkit = direction == bpf.NETKIT_PEER
    wanted = PINS / _name(key, ifindex if netkit else 0)
    for path in _pins(key, netkit):
        with bpf.get(path) as link:
            if path == wanted and _hook(path.name, link).ifindex == ifindex:
                bpf.link_update(link, program)
                return
        bpf.detach(path)  # of an interface that has gone
    # no draft and rename: a link that a killed run leaves without its name would keep the program attached
    with _attach(program, ifindex, direction) as link:
        bpf.pin(link, wanted)


def _attach(program: int, ifindex: int, direction: int) -> bpf.Fd:
    """The kernel lets go of an unpinned link of a killed process a moment later; until then it says EEXIST."""
    for _attempt in range(_ATTEMPTS):
        try:
            return bpf.attach(program, ifindex, direction)
        except bpf.BpfError as error:
            if error.errno != errno.EEXIST:
                raise
        time.sleep(_PAUSE)
    return bpf.attach(program, ifindex, direction)


def detach(key: str) -> None:
    """Take the program off; one that is gone already is fine."""
    pins = _pins(key)
    for path in pins:
        bpf.detach(path)
    if not pins and not _tcx():
        with Netlink() as netlink:
            for ifindex, direction, found in list(_ours(netlink)):
                if found == key:
                    clsact.detach(netlink, ifindex, direction)
                    clsact.remove_qdisc(netlink, ifindex)


def rename(key: str, new: str) -> None:
    """Know a pinned link by another key, in one step each; what was pinned under that key is taken off first.

    Nothing changes when there is none: it may have been renamed already.
    """
    found = _pins(key)
    for path in _pins(new) if found else ():
        bpf.detach(path)
    for path in found:
        path.rename(PINS / _name(new, _host_end(path.name)))


def strangers(ifindex: int, known: Iterable[int]) -> tuple[int, ...]:
    """Ids of BPF programs at the interface's ingress, of our way of attaching, that are not among `known`."""
    if _tcx():
        present = bpf.query(ifindex, bpf.TCX_INGRESS)
    else:
        with Netlink() as netlink:
            filters = clsact.filters(netlink, ifindex, bpf.TCX_INGRESS)
        present = [one.prog_id for one in filters if one.prog_id and not one.is_ours]
    return tuple(sorted(set(present) - set(known)))


def _has_libbpf() -> bool:
    try:
        return bool(bpf.version())
    except Unsupported:
        return False


def _name(key: str, host_end: int) -> str:
    """No interface has a colon in its name, and so no key."""
    return bpf.pin_name(f"{key}:{host_end}" if host_end else key)


def _key(name: str) -> str:
    return bpf.pin_key(name).partition(":")[0]


def _host_end(name: str) -> int:
    """0: of a tcx link, whose interface the kernel tells."""
    return int(bpf.pin_key(name).partition(":")[2] or 0)


def _pins(key: str, netkit: bool = True) -> list[Path]:
    """What is pinned under the key; netkit=False spares the search for names with a number."""
    plain = PINS / _name(key, 0)
    if plain.exists():
        return [plain]
    found = os.listdir(PINS) if netkit and PINS.is_dir() else []
    return [PINS / name for name in found if name.startswith(f"{plain.name}:")]


def _hook(name: str, link: int) -> Hook:
    info = bpf.link_info(link)
    return Hook(info.ifindex and (_host_end(name) or info.ifindex), info.prog_id)


def _pinned() -> dict[str, Hook]:
    found: dict[str, Hook] = {}
    for name in sorted(os.listdir(PINS)):
        with bpf.get(PINS / name) as fd:
            hook = _hook(name, fd)
        if hook.ifindex or _key(name) not in found:
            found[_key(name)] = hook
    return found


def _filters() -> dict[str, Hook]:
    with Netlink() as netlink:
        found = list(_ours(netlink))
        programs = {(i, d): clsact.query(netlink, i, d) for i, d, _key in found}
    return {key: Hook(i, one.prog_id) for i, d, key in found for one in [programs[i, d]] if one}


def _ours(netlink: Netlink) -> Iterator[tuple[int, int, str]]:
    """(ifindex, direction, key) of each of our filters."""
    for link in links.links(netlink).values():
        for direction in (bpf.TCX_INGRESS, bpf.TCX_EGRESS):
            one = clsact.query(netlink, link.index, direction)
            if one:
                yield link.index, direction, one.key
