# SPDX-License-Identifier: GPL-3.0-or-later
"""A netkit that is a veth inside, for kernels without netkit: all of a move but the kernel's own part of it.

Its host end is known by the length of its queue, which a veth does not use. Only in mode l2: a veth has a MAC.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, hooks, links, rtnl

_TXQLEN = 13  # IFLA_TXQLEN
_LENGTH = 777


def pretend() -> None:
    """Until this process ends, the library finds a kernel with netkit."""
    read, end, attach = links._link, links._end, hooks.attach

    def _link(payload: bytes) -> links.Link:
        found = read(payload)
        length = rtnl.attrs(payload[links._IFINFO.size :]).get(_TXQLEN, b"")
        return replace(found, kind="netkit", mode="l2") if length == _LENGTH.to_bytes(4, "little") else found

    def add_pair(
        netlink: Any, kind: str, near: links.End, far: links.End, mtu: int, netns: int | None = None, mode: str = "l2"
    ) -> None:
        peer = end(far, mtu, False) + (b"" if netns is None else rtnl.u32(links._NET_NS_FD, netns))
        data = rtnl.nest(links._INFO_DATA, rtnl.nest(links._VETH_PEER, peer))
        info = rtnl.nest(links._LINKINFO, rtnl.text(links._INFO_KIND, "veth"), data)
        mark = rtnl.u32(_TXQLEN, _LENGTH) if kind == "netkit" else b""
        netlink.request(links._NEWLINK, rtnl.NLM_CREATE | rtnl.NLM_EXCL, end(near, mtu, False) + mark + info)

    def _attach(key: str, ifindex: int, program: int, direction: int) -> None:
        attach(key, ifindex, program, bpf.TCX_INGRESS if direction == bpf.NETKIT_PEER else direction)

    links._link, links.add_pair, hooks.attach = _link, add_pair, _attach
    bpf.has_netkit = lambda: True
