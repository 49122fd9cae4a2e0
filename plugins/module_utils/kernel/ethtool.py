# SPDX-License-Identifier: GPL-3.0-or-later
"""Features of an interface, like hw-tc-offload, flags of its driver, and that driver.

Numbers are from linux/ethtool_netlink.h and ethtool.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct

from . import rtnl
from .genl import Family
from .rtnl import attr, nest, text

HW_TC_OFFLOAD = "hw-tc-offload"
_GET, _SET, _PRIVATE_GET = 11, 12, 13
_PRIVATE = 2
_HEADER, _HW, _WANTED, _ACTIVE = 1, 2, 3, 4
_NAME = 2  # of the interface in the header
_SIOCETHTOOL, _GDRVINFO, _DRVINFO = 0x8946, 3, "=I32s160x"  # struct ethtool_drvinfo
_NOMASK, _BITS, _BIT, _BIT_NAME, _BIT_VALUE = 1, 3, 1, 2, 3


def feature(interface: str, name: str) -> bool | None:
    """Is it on? None where the driver cannot change it."""
    with Family("ethtool") as family:
        found = rtnl.attrs(family.get(_GET, nest(_HEADER, text(_NAME, interface))))
    return name in _set(found[_ACTIVE]) if name in _set(found[_HW]) else None


def set_feature(interface: str, name: str, on: bool) -> None:
    """Raises OSError where it does not come about, which the kernel does not call an error."""
    bit = nest(_BIT, text(_BIT_NAME, name), attr(_BIT_VALUE, b"") if on else b"")
    with Family("ethtool") as family:
        family.request(_SET, nest(_HEADER, text(_NAME, interface)) + nest(_WANTED, nest(_BITS, bit)))
    if feature(interface, name) is not on:
        raise OSError(errno.EOPNOTSUPP, f"{interface} does not turn {name} {'on' if on else 'off'}")


def flags(interface: str) -> frozenset[str]:
    """The flags that are on, of those that only its driver has."""
    try:
        with Family("ethtool") as family:
            found = rtnl.attrs(family.get(_PRIVATE_GET, nest(_HEADER, text(_NAME, interface))))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return frozenset()
    return _set(found[_PRIVATE])


def driver(interface: str) -> str:
    """The name that the driver gives itself, "" where it gives none. Netlink has no request for it."""
    answer = array.array("B", struct.pack(_DRVINFO, _GDRVINFO, b""))
    address, _length = answer.buffer_info()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            fcntl.ioctl(asking, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), address))
    except OSError:
        return ""
    name: bytes = struct.unpack(_DRVINFO, answer.tobytes())[1]
    return name.rstrip(b"\0").decode(errors="replace")


def _set(bitset: bytes) -> frozenset[str]:
    """The names of the bits that are set; a bitset with a mask lists others too."""
    found = rtnl.attrs(bitset)
    bits = [rtnl.attrs(bit) for _kind, bit in rtnl.each(found.get(_BITS, b""))]
    names = [bit[_BIT_NAME] for bit in bits if _NOMASK in found or _BIT_VALUE in bit]
    return frozenset(name.rstrip(b"\0").decode() for name in names)
