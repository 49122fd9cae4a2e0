# SPDX-License-Identifier: GPL-3.0-or-later
"""Links, addresses and routes: read in one dump, change one by one.

Every function works in the network namespace of the Netlink socket that it is given. Changes raise
OSError with the kernel's words. Numbers are from linux/if_link.h, if_addr.h and rtnetlink.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import FastpathError
from . import rtnl
from .rtnl import Netlink, attr, attrs, nest, text, u32

GROUP = 0xFA57  # the device group that marks a link as ours from the moment it exists
PROTOCOL = 157  # the routing protocol number that marks a route as ours (unassigned in rt_protos)

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_GETNSID = 90

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags

_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO, _ALIAS, _AF_SPEC, _GROUP = 1, 3, 4, 5, 10, 18, 20, 26, 27
_NET_NS_FD, _EXT_MASK, _LINK_NETNSID, _PERM_ADDRESS, _PARENT = 28, 29, 37, 54, 56
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_NETKIT_PEER, _NETKIT_PEER_POLICY, _NETKIT_SCRUB, _NETKIT_PEER_SCRUB, _NETKIT_HEADROOM = 1, 4, 6, 7, 8
_NETKIT_DROP, _SCRUB_DEFAULT = 2, 1
MODES = {  # kind -> the attribute of its mode, and the modes by their numbers
    "netkit": (5, ("l2", "l3")),
    "bond": (1, ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")),
}
_HEADROOM = 32  # bytes in front of a packet: enough for an uplink with a header of its own, as virtio has one
_ADDR_GEN_MODE, _GEN_EUI64, _GEN_NONE = 8, 0, 1
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_LOOPBACK = 1  # its index in every network namespace
_SKIP_STATS = 8
_IFA_LOCAL, _IFA_ADDRESS, _IFA_FLAGS, _NODAD, _PERMANENT = 2, 1, 8, 0x2, 0x80
_DST, _OIF, _GATEWAY, _PREFSRC, _CACHEINFO, _NEXTHOP = 1, 4, 5, 7, 12, 30
_MADE_BY_KERNEL = (1, 2, 9)  # protocols: redirect, kernel, router advertisement
_MAIN, _UNICAST, _SCOPE_GLOBAL, _SCOPE_LINK, _ONLINK = 254, 1, 0, 253, 4


@dataclass(frozen=True)
class Link:
    """mode: of a kind in MODES, else "". running: it is up and its queue takes packets.

    parent: the device behind it, as its bus names it, or "". permanent: the MAC that the device came with, or "".
    """

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    running: bool
    group: int
    alias: str
    peer_index: int
    peer_nsid: int | None  # None: the peer is in the same namespace
    mode: str = ""
    parent: str = ""
    permanent: str = ""


@dataclass(frozen=True)
class End:
    """One end of a pair to be made; mac "" leaves the choice to the kernel."""

    name: str
    mac: str = ""


@dataclass(frozen=True)
class Route:
    """`to` is a network, `via` a gateway that is taken as on-link, or "" for one without a gateway."""

    to: str
    via: str = ""


def links(netlink: Netlink, kind: str = "") -> dict[str, Link]:
    """All links by name; with `kind` ("veth", "netkit") the kernel filters."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + u32(_EXT_MASK, _SKIP_STATS)
    if kind:
        body += nest(_LINKINFO, text(_INFO_KIND, kind))
    return {link.name: link for link in map(_link, netlink.dump(_GETLINK, body))}


def has_kind(netlink: Netlink, kind: str) -> bool:
    """Does the kernel know this kind of links? Where not, it lists all links for it, the loopback too.

    It knows no kind whose module is not loaded yet; netkit is never a module.
    """
    return all(link.index != _LOOPBACK for link in links(netlink, kind).values())


def link(netlink: Netlink, name: str) -> Link | None:
    return _find(netlink, 0, text(_IFNAME, name))


def link_by_index(netlink: Netlink, index: int) -> Link | None:
    return _find(netlink, index, b"")


def link_of_device(netlink: Netlink, parent: str) -> Link | None:
    return next((one for one in links(netlink).values() if one.parent == parent), None)


def need(netlink: Netlink, name: str) -> Link:
    """link(), for one that must be there."""
    found = link(netlink, name)
    if found is None:
        raise FastpathError("find", f"interface {name}", "it has gone")
    return found


def _find(netlink: Netlink, index: int, selector: bytes) -> Link | None:
    try:
        return _link(netlink.get(_GETLINK, _IFINFO.pack(0, 0, index, 0, 0) + selector + u32(_EXT_MASK, _SKIP_STATS)))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _link(payload: bytes) -> Link:
    _family, _type, index, flags, _change = _IFINFO.unpack_from(payload)
    found = attrs(payload[_IFINFO.size :])
    info = attrs(found.get(_LINKINFO, b""))
    kind = _string(info.get(_INFO_KIND, b""))
    return Link(
        index=index,
        name=_string(found[_IFNAME]),
        kind=kind,
        mac=found.get(_ADDRESS, b"").hex(":"),
        mtu=_int(found[_MTU]),
        up=bool(flags & _IFF_UP),
        running=bool(flags & _IFF_RUNNING),
        group=_int(found.get(_GROUP, b"\0\0\0\0")),
        alias=_string(found.get(_ALIAS, b"")),
        peer_index=_int(found.get(_LINK, b"\0\0\0\0")),
        peer_nsid=_int(found[_LINK_NETNSID]) if _LINK_NETNSID in found else None,
        mode=_mode(kind, attrs(info[_INFO_DATA])) if kind in MODES else "",
        parent=_string(found.get(_PARENT, b"")),
        permanent=found.get(_PERM_ADDRESS, b"").hex(":"),
    )


def _mode(kind: str, data: dict[int, bytes]) -> str:
    number, modes = MODES[kind]
    return modes[int.from_bytes(data[number], sys.byteorder)]


def add(netlink: Netlink, kind: str, name: str, group: int, mtu: int, data: bytes) -> None:
    """Create a link that is no pair, up. data: attributes of its kind."""
    body = _IFINFO.pack(0, 0, 0, _IFF_UP, _IFF_UP) + text(_IFNAME, name) + u32(_GROUP, group) + u32(_MTU, mtu)
    body += nest(_LINKINFO, text(_INFO_KIND, kind), nest(_INFO_DATA, data))
    netlink.request(_NEWLINK, rtnl.NLM_CREATE | rtnl.NLM_EXCL, body)


def add_pair(
    netlink: Netlink, kind: str, near: End, far: End, mtu: int, netns: int | None = None, mode: str = "l2"
) -> None:
    """Create a pair, both ends down and marked as ours; `far` is made inside the namespace of descriptor `netns`.

    kind: "veth" or "netkit"; mode: of a netkit, "l3" has no MACs and ignores those given. A netkit lets
    nothing out of the far end as long as no program is attached there.
    """
    bare = kind == "netkit" and mode == "l3"
    peer = _end(far, mtu, bare) + (b"" if netns is None else u32(_NET_NS_FD, netns))
    data = _netkit(mode, peer) if kind == "netkit" else nest(_VETH_PEER, peer)
    info = nest(_LINKINFO, text(_INFO_KIND, kind), nest(_INFO_DATA, data))
    netlink.request(_NEWLINK, rtnl.NLM_CREATE | rtnl.NLM_EXCL, _end(near, mtu, bare) + info)


def _netkit(mode: str, peer: bytes) -> bytes:
    """A kernel skips what it does not know: scrub (6.13), which clears a container's marks, and headroom (6.14)."""
    number, modes = MODES["netkit"]
    data = nest(_NETKIT_PEER, peer) + u32(number, modes.index(mode)) + u32(_NETKIT_PEER_POLICY, _NETKIT_DROP)
    scrub = u32(_NETKIT_SCRUB, _SCRUB_DEFAULT) + u32(_NETKIT_PEER_SCRUB, _SCRUB_DEFAULT)
    return data + scrub + attr(_NETKIT_HEADROOM, struct.pack("=H", _HEADROOM))


def _end(end: End, mtu: int, bare: bool) -> bytes:
    mac = attr(_ADDRESS, packed(end.mac)) if end.mac and not bare else b""
    return _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFNAME, end.name) + mac + u32(_MTU, mtu) + u32(_GROUP, GROUP)


def set_link(
    netlink: Netlink,
    index: int,
    *,
    up: bool | None = None,
    mtu: int = 0,
    mac: str = "",
    alias: str = "",
    link_local: bool | None = None,
) -> None:
    """Change what is given in one request; link_local: shall it have an automatic fe80:: address?"""
    body = _IFINFO.pack(0, 0, index, _IFF_UP if up else 0, 0 if up is None else _IFF_UP)
    body += u32(_MTU, mtu) if mtu else b""
    body += attr(_ADDRESS, packed(mac)) if mac else b""
    body += attr(_ALIAS, alias.encode()) if alias else b""
    if link_local is not None:
        mode = attr(_ADDR_GEN_MODE, bytes([_GEN_EUI64 if link_local else _GEN_NONE]))
        body += nest(_AF_SPEC, nest(socket.AF_INET6, mode))
    netlink.request(_NEWLINK, 0, body)


def put_into(netlink: Netlink, index: int, master: int) -> None:
    """Into the bond or bridge with the index `master`, or with 0 out of the one that it is in."""
    netlink.request(_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + u32(_MASTER, master))


def rename(netlink: Netlink, index: int, name: str) -> None:
    """Another name for a link, which may be up (kernel 6.2): its addresses, routes and traffic stay."""
    netlink.request(_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + text(_IFNAME, name))


def label(netlink: Netlink, index: int, group: int, alias: str) -> None:
    """Group and alias of a link in one request; an empty alias takes it away."""
    netlink.request(_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + u32(_GROUP, group) + attr(_ALIAS, alias.encode()))


def send(netlink: Netlink, index: int, netns: int, name: str) -> None:
    """Move a link into the namespace of descriptor `netns`, by this name there. It arrives down and without addresses
    and routes. `name` may be a pattern like eth%d."""
    body = _IFINFO.pack(0, 0, index, 0, 0) + u32(_NET_NS_FD, netns) + text(_IFNAME, name)
    netlink.request(_NEWLINK, 0, body)


def delete_link(netlink: Netlink, name: str, group: int = GROUP) -> None:
    """Delete a link of ours and its peer; one that is gone already is fine, and one of somebody else stays."""
    found = link(netlink, name)
    if found is not None and found.group == group:
        with _tolerating(errno.ENODEV):
            netlink.request(_DELLINK, 0, _IFINFO.pack(0, 0, found.index, 0, 0))


def addresses(netlink: Netlink, index: int, link_local: bool = False) -> frozenset[str]:
    """The permanent addresses ("10.0.0.1/32") of a link; IPv6 link-local ones, often the kernel's own, on wish."""
    found = set()
    for payload in netlink.dump(_GETADDR, _IFADDR.pack(0, 0, 0, 0, index)):
        _family, length, flags, _scope, _index = _IFADDR.unpack_from(payload)
        values = attrs(payload[_IFADDR.size :])
        flags = _int(values[_IFA_FLAGS]) if _IFA_FLAGS in values else flags
        address = ipaddress.ip_address(values.get(_IFA_LOCAL) or values[_IFA_ADDRESS])
        if flags & _PERMANENT and (link_local or address.version == 4 or not address.is_link_local):
            found.add(f"{address}/{length}")
    return frozenset(found)


def own_addresses(netlink: Netlink) -> frozenset[str]:
    """The addresses ("10.0.0.1") of all links, however long they live, but for loopback and IPv6 link-local ones."""
    found = set()
    for payload in netlink.dump(_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
        values = attrs(payload[_IFADDR.size :])
        address = ipaddress.ip_address(values.get(_IFA_LOCAL) or values[_IFA_ADDRESS])
        if not address.is_loopback and (address.version == 4 or not address.is_link_local):
            found.add(str(address))
    return frozenset(found)


def add_address(netlink: Netlink, index: int, address: str) -> None:
    _address(netlink, _NEWADDR, rtnl.NLM_CREATE | rtnl.NLM_REPLACE, index, address)


def delete_address(netlink: Netlink, index: int, address: str) -> None:
    with _tolerating(errno.EADDRNOTAVAIL, errno.ENODEV):
        _address(netlink, _DELADDR, 0, index, address)


def _address(netlink: Netlink, kind: int, flags: int, index: int, address: str) -> None:
    interface = ipaddress.ip_interface(address)
    packed, length = interface.ip.packed, interface.network.prefixlen
    body = _IFADDR.pack(_family(interface.version), length, 0, _SCOPE_GLOBAL, index)
    # no duplicate address detection: the plan guarantees uniqueness, and waiting would cost a second each
    body += attr(_IFA_LOCAL, packed) + attr(_IFA_ADDRESS, packed) + u32(_IFA_FLAGS, _NODAD | _PERMANENT)
    netlink.request(kind, flags, body)


def routes(netlink: Netlink, index: int = 0) -> frozenset[Route]:
    """Our routes in the main table, of one link or of all."""
    return frozenset(route for family in (socket.AF_INET, socket.AF_INET6) for route in _routes(netlink, family, index))


def _routes(netlink: Netlink, family: int, index: int) -> Iterator[Route]:
    body = _RTMSG.pack(family, 0, 0, 0, _MAIN, PROTOCOL, 0, 0, 0)
    body += u32(_OIF, index) if index else b""
    with _tolerating(errno.ENOENT):  # a namespace that never had a route has no table
        for payload in netlink.dump(_GETROUTE, body):
            fields = _RTMSG.unpack_from(payload)
            if fields[5] != PROTOCOL:
                continue
            values = attrs(payload[_RTMSG.size :])
            network = values.get(_DST, bytes(4 if family == socket.AF_INET else 16))
            to = ipaddress.ip_network((network, fields[1]))
            yield Route(str(to), str(ipaddress.ip_address(values[_GATEWAY])) if _GATEWAY in values else "")


def add_route(netlink: Netlink, route: Route, index: int = 0, source: str = "") -> None:
    """Add; `index` is the output link, 0 lets the kernel find it by the gateway. One of ours may be there already."""
    try:
        _route(netlink, _NEWROUTE, rtnl.NLM_CREATE | rtnl.NLM_EXCL, route, index, source)
    except OSError as error:
        if error.errno != errno.EEXIST or route not in routes(netlink, index):
            hint = "A route of somebody else may be in the way" if error.errno == errno.EEXIST else ""
            raise FastpathError("add", f"route {route.to} {route.via}".rstrip(), str(error), hint) from error


def replace_route(netlink: Netlink, route: Route) -> None:
    """Give one of our routes another gateway, in one step."""
    _route(netlink, _NEWROUTE, rtnl.NLM_CREATE | rtnl.NLM_REPLACE, route, 0, "")


def delete_route(netlink: Netlink, route: Route, index: int = 0) -> None:
    with _tolerating(errno.ESRCH, errno.ENODEV):
        _route(netlink, _DELROUTE, 0, route, index, "")


def move_routes(netlink: Netlink, old: int, new: int) -> None:
    """Let the routes over the link `old` lead over `new`, each in one step; also those of others, in every table."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for header, values in sorted(_of_link(netlink, family, old), key=lambda found: _GATEWAY in found[1]):
            kept = b"".join(attr(key, value) for key, value in values.items() if key not in (_OIF, _CACHEINFO))
            netlink.request(_NEWROUTE, rtnl.NLM_CREATE | rtnl.NLM_REPLACE, header + kept + u32(_OIF, new))


def _of_link(netlink: Netlink, family: int, index: int) -> list[tuple[bytes, dict[int, bytes]]]:
    """Header and attributes of each route over the link, but for those that the kernel makes by itself."""
    found = []
    with _tolerating(errno.ENOENT):
        for payload in netlink.dump(_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + u32(_OIF, index)):
            *fields, flags = _RTMSG.unpack_from(payload)
            values = attrs(payload[_RTMSG.size :])
            if _OIF in values and _NEXTHOP not in values and fields[5] not in _MADE_BY_KERNEL:
                found.append((_RTMSG.pack(*fields, flags & _ONLINK), values))
    return found


def _route(netlink: Netlink, kind: int, flags: int, route: Route, index: int, source: str) -> None:
    to = ipaddress.ip_network(route.to)
    scope = _SCOPE_GLOBAL if route.via or to.version == 6 else _SCOPE_LINK
    onlink = _ONLINK if route.via and index else 0
    body = _RTMSG.pack(_family(to.version), to.prefixlen, 0, 0, _MAIN, PROTOCOL, scope, _UNICAST, onlink)
    body += attr(_DST, to.network_address.packed) if to.prefixlen else b""
    body += attr(_GATEWAY, ipaddress.ip_address(route.via).packed) if route.via else b""
    body += u32(_OIF, index) if index else b""
    body += attr(_PREFSRC, ipaddress.ip_address(source).packed) if source else b""
    netlink.request(kind, flags, body)


def nsid(netlink: Netlink, netns: int) -> int | None:
    """The number by which this namespace's links name the namespace of descriptor `netns`; None: it has none."""
    reply = netlink.get(_GETNSID, struct.pack("=Bxxx", 0) + u32(3, netns))
    number: int = struct.unpack("=i", attrs(reply[4:])[1])[0]
    return None if number < 0 else number


@contextmanager
def _tolerating(*gone: int) -> Iterator[None]:
    """What is to be removed may be gone already."""
    try:
        yield
    except OSError as error:
        if error.errno not in gone:
            raise


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def packed(mac: str) -> bytes:
    """A MAC as the kernel has it; b"" for ""."""
    return bytes.fromhex(mac.replace(":", ""))


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _int(value: bytes) -> int:
    number: int = struct.unpack("=I", value[:4])[0]
    return number
