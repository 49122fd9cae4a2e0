# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach programs without tcx (kernels before 6.6): cls_bpf filters on a clsact qdisc, over rtnetlink.

The filter is what holds the program: it needs no pin, outlives the process and goes with its interface.
Ours is known by its priority, its handle and the prefix of its name; no other filter is ever touched.
"""

from __future__ import annotations

import errno as codes
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .bpf import TCX_EGRESS, TCX_INGRESS
from .libbpf import BpfError
from .rtnl import NLM_CREATE, Netlink, attrs, nest, text, u32

PRIORITY = HANDLE = 0xFA57
_PREFIX = "fastpath:"
_NEWQDISC, _DELQDISC = 36, 37
_NEWFILTER, _DELFILTER, _GETFILTER = 44, 45, 46
_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_KIND, _OPTIONS = 1, 2
_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11  # TCA_BPF_*
_DIRECT_ACTION = 1
_QDISC, _QDISC_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_PARENTS = {TCX_INGRESS: 0xFFFFFFF2, TCX_EGRESS: 0xFFFFFFF3}


class Filter(NamedTuple):
    """A filter at a hook; name and prog_id are those of a cls_bpf filter, else "" and 0."""

    priority: int
    handle: int
    kind: str
    name: str
    prog_id: int

    @property
    def is_ours(self) -> bool:
        return (self.priority, self.handle) == (PRIORITY, HANDLE) and self.name.startswith(_PREFIX)

    @property
    def key(self) -> str:
        """The name that attach() was given."""
        return self.name[len(_PREFIX) :]


def attach(netlink: Netlink, ifindex: int, attach_type: int, prog_fd: int, name: str) -> None:
    """Attach the program, or put it in the place of ours that is there: no packet passes between them.

    attach_type: as for tcx. name: of the program, shown by `tc filter show`. The qdisc is made when it is missing.
    Raises BpfError; EEXIST when somebody else's filter has our priority.
    """
    _ensure_qdisc(netlink, ifindex)
    foreign = [one for one in filters(netlink, ifindex, attach_type) if one.priority == PRIORITY and not one.is_ours]
    if foreign:
        cause = f"priority {PRIORITY} is taken by the {foreign[0].kind} filter {foreign[0].name}".rstrip()
        raise BpfError("attach a program to", f"interface {ifindex}", codes.EEXIST, cause)
    options = nest(_OPTIONS, u32(_FD, prog_fd), text(_NAME, _PREFIX + name), u32(_FLAGS, _DIRECT_ACTION))
    with _told("attach a program to", ifindex):
        netlink.request(_NEWFILTER, NLM_CREATE, _address(ifindex, attach_type) + text(_KIND, "bpf") + options)


def query(netlink: Netlink, ifindex: int, attach_type: int) -> Filter | None:
    """Our filter at the hook, if there is one."""
    return next((one for one in filters(netlink, ifindex, attach_type) if one.is_ours), None)


def filters(netlink: Netlink, ifindex: int, attach_type: int) -> list[Filter]:
    """Everybody's filters at the hook, in the order in which they run; none when there is no such interface."""
    with _told("list the filters of", ifindex):
        body = _TCMSG.pack(0, ifindex, 0, _PARENTS[attach_type], 0)
        found = [_filter(reply) for reply in netlink.dump(_GETFILTER, body)]
    return [one for one in found if one.handle]  # each priority also has a head without a handle


def detach(netlink: Netlink, ifindex: int, attach_type: int) -> bool:
    """Remove our filter; False: there was none."""
    if not query(netlink, ifindex, attach_type):
        return False
    with _told("detach the program of", ifindex):
        netlink.request(_DELFILTER, 0, _address(ifindex, attach_type) + text(_KIND, "bpf"))
    return True


def remove_qdisc(netlink: Netlink, ifindex: int) -> bool:
    """Remove the clsact qdisc when no filter at all is on it; False: it stays, or is not there."""
    if any(filters(netlink, ifindex, attach_type) for attach_type in _PARENTS):
        return False
    try:
        netlink.request(_DELQDISC, 0, _qdisc(ifindex))
    except OSError as error:
        if error.errno in (codes.ENOENT, codes.EINVAL):  # nothing there, or of another kind
            return False
        raise _error("remove the clsact qdisc of", ifindex, error) from error
    return True


def _address(ifindex: int, attach_type: int) -> bytes:
    info = PRIORITY << 16 | socket.htons(0x0003)  # of all protocols
    return _TCMSG.pack(0, ifindex, HANDLE, _PARENTS[attach_type], info)


def _filter(reply: bytes) -> Filter:
    _family, _ifindex, handle, _parent, info = _TCMSG.unpack_from(reply)
    top = attrs(reply[_TCMSG.size :])
    kind = _string(top.get(_KIND, b""))
    options = attrs(top.get(_OPTIONS, b"")) if kind == "bpf" else {}
    prog_id = struct.unpack("=I", options.get(_ID, bytes(4)))[0]
    return Filter(info >> 16, handle, kind, _string(options.get(_NAME, b"")), prog_id)


def _ensure_qdisc(netlink: Netlink, ifindex: int) -> None:
    """Add it, or leave it as it is. The kernel refuses when an "ingress" qdisc is there, which has no egress."""
    with _told("add a clsact qdisc to", ifindex):
        netlink.request(_NEWQDISC, NLM_CREATE, _qdisc(ifindex))


def _qdisc(ifindex: int) -> bytes:
    return _TCMSG.pack(0, ifindex, _QDISC_HANDLE, _QDISC, 0) + text(_KIND, "clsact")


def _string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


@contextmanager
def _told(operation: str, ifindex: int) -> Iterator[None]:
    """The kernel's refusal as an error about this interface."""
    try:
        yield
    except OSError as error:
        raise _error(operation, ifindex, error) from error


def _error(operation: str, ifindex: int, error: OSError) -> BpfError:
    return BpfError(operation, f"interface {ifindex}", error.errno or 0, error.strerror or "")
