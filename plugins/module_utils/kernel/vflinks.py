# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PF's interface tells of its hardware and its VFs, and what its driver enforces on them.

Numbers are from linux/if_link.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ..eswitch.attributes import Attributes
from . import rtnl
from .links import packed
from .rtnl import Netlink, attr, attrs, nest, u32

_GETLINK, _SETLINK = 18, 19
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS, _VFINFO_LIST, _EXT_MASK, _SWITCH_ID, _PORT_NAME, _PERM_ADDRESS = 1, 22, 29, 36, 38, 54
_VF_INFO, _MAC, _VLAN, _SPOOFCHECK, _RATE, _TRUST = 1, 1, 2, 4, 6, 9
_WITH_VFS, _SKIP_STATS = 1, 8
_VF_MAC, _VF_VLAN, _VF_RATE, _VF_FLAG = (struct.Struct(form) for form in ("=I32s", "=III", "=III", "=II"))
_UNKNOWN = 0xFFFFFFFF  # of a flag that the driver does not have
_NO_MAC = "00:00:00:00:00:00"


@dataclass(frozen=True)
class Uplink:
    """mac: the permanent one where there is one. switch_id, port: "" outside switchdev mode, or of no switch."""

    mac: str
    switch_id: str
    port: str
    vfs: Mapping[int, Attributes]


def read(netlink: Netlink, index: int) -> Uplink:
    body = _IFINFO.pack(0, 0, index, 0, 0) + u32(_EXT_MASK, _WITH_VFS | _SKIP_STATS)
    found = attrs(netlink.get(_GETLINK, body)[_IFINFO.size :])
    vfs = dict(_vf(attrs(payload)) for _kind, payload in rtnl.each(found.get(_VFINFO_LIST, b"")))
    return Uplink(
        mac=(found.get(_PERM_ADDRESS) or found.get(_ADDRESS, b"")).hex(":"),
        switch_id=found.get(_SWITCH_ID, b"").hex(),
        port=found.get(_PORT_NAME, b"").rstrip(b"\0").decode(errors="replace"),
        vfs=vfs,
    )


def _vf(found: Mapping[int, bytes]) -> tuple[int, Attributes]:
    number, address = _VF_MAC.unpack_from(found[_MAC])
    mac = address[:6].hex(":")
    vlan = _VF_VLAN.unpack_from(found[_VLAN])[1] if _VLAN in found else None
    lowest, highest = _VF_RATE.unpack_from(found[_RATE])[1:] if _RATE in found else (None, None)
    return number, Attributes(
        None if mac == _NO_MAC else mac, vlan, _flag(found, _TRUST), _flag(found, _SPOOFCHECK), lowest, highest
    )


def _flag(found: Mapping[int, bytes], kind: int) -> bool | None:
    value = _VF_FLAG.unpack_from(found[kind])[1] if kind in found else _UNKNOWN
    return None if value == _UNKNOWN else bool(value)


def write(netlink: Netlink, index: int, vfs: Mapping[int, Attributes]) -> None:
    """Change what is given, in one request; the driver may have done a part of it when OSError is raised."""
    now = read(netlink, index).vfs
    infos = [nest(_VF_INFO, *_infos(vf, given, now.get(vf, Attributes()))) for vf, given in sorted(vfs.items())]
    netlink.request(_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + nest(_VFINFO_LIST, *infos))


def _infos(vf: int, given: Attributes, now: Attributes) -> list[bytes]:
    infos = []
    if given.mac is not None:
        infos.append(attr(_MAC, _VF_MAC.pack(vf, packed(given.mac))))
    if given.vlan is not None:
        infos.append(attr(_VLAN, _VF_VLAN.pack(vf, given.vlan, 0)))
    if given.min_rate is not None or given.max_rate is not None:  # one request has both
        lowest = given.min_rate if given.min_rate is not None else now.min_rate or 0
        highest = given.max_rate if given.max_rate is not None else now.max_rate or 0
        infos.append(attr(_RATE, _VF_RATE.pack(vf, lowest, highest)))
    for kind, flag in ((_SPOOFCHECK, given.spoofcheck), (_TRUST, given.trust)):
        if flag is not None:
            infos.append(attr(kind, _VF_FLAG.pack(vf, flag)))
    return infos
