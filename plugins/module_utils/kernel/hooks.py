# SPDX-License-Identifier: GPL-3.0-or-later
"""Our attachments of programs to interfaces, each under a key: tcx links, or cls_bpf filters before kernel 6.6.

A tcx link is held by a pin named as the key; a filter carries the key in its name and goes with its interface.
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
    """An attached program. ifindex 0: its interface is gone."""

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

    direction: bpf.TCX_INGRESS or bpf.TCX_EGRESS. Raises BpfError.
    """
    if not _tcx():
        with Netlink() as netlink:
            clsact.attach(netlink, ifindex, direction, program, key)
        return
    path = PINS / bpf.pin_name(key)
    if path.exists():
        with bpf.get(path) as link:
            if bpf.link_info(link).ifindex == ifindex:
                bpf.link_update(link, program)
                return
        bpf.detach(path)  # of an interface that has gone
    # no draft and rename: a link that a killed run leaves without its name would keep the program attached
    with _attach_tcx(program, ifindex, direction) as link:
        bpf.pin(link, path)


def _attach_tcx(program: int, ifindex: int, direction: int) -> bpf.Fd:
    """The kernel lets go of an unpinned link of a killed process a moment later; until then it says EEXIST."""
    for _attempt in range(_ATTEMPTS):
        try:
            return bpf.attach_tcx(program, ifindex, direction)
        except bpf.BpfError as error:
            if error.errno != errno.EEXIST:
                raise
        time.sleep(_PAUSE)
    return bpf.attach_tcx(program, ifindex, direction)


def detach(key: str) -> None:
    """Take the program off; one that is gone already is fine."""
    path = PINS / bpf.pin_name(key)
    if path.exists():
        bpf.detach(path)
    elif not _tcx():
        with Netlink() as netlink:
            for ifindex, direction, found in list(_ours(netlink)):
                if found == key:
                    clsact.detach(netlink, ifindex, direction)
                    clsact.remove_qdisc(netlink, ifindex)


def strangers(ifindex: int, known: Iterable[int]) -> tuple[int, ...]:
    """Ids of BPF programs at the interface's ingress, of our way of attaching, that are not among `known`."""
    if _tcx():
        present = bpf.query_tcx(ifindex, bpf.TCX_INGRESS)
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


def _pinned() -> dict[str, Hook]:
    found: dict[str, Hook] = {}
    for name in sorted(os.listdir(PINS)):
        with bpf.get(PINS / name) as fd:
            info = bpf.link_info(fd)
        found[bpf.pin_key(name)] = Hook(info.ifindex, info.prog_id)
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
