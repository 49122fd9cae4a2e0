# SPDX-License-Identifier: GPL-3.0-or-later
"""Generic netlink: families by name, on the codec of rtnl.

Formats: linux/genetlink.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from ..errors import Unsupported
from . import rtnl

_PROTOCOL = 16  # NETLINK_GENERIC
_HEADER = struct.Struct("=BBH")  # command, version, reserved
_SIZE = struct.calcsize(_HEADER.format)
_CTRL, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2


class Family:
    """A socket for one family. Bodies and replies are attributes, without the header."""

    def __init__(self, name: str, version: int = 1) -> None:
        """Raises Unsupported where the kernel does not have the family."""
        self._netlink, self._version = rtnl.Netlink(_PROTOCOL), version
        try:
            self._id = self._find(name)
        except OSError as error:
            self._netlink.__exit__()
            if error.errno != errno.ENOENT:
                raise
            raise Unsupported(
                "use", f"the kernel's {name} interface", "it has none (no driver that needs it?)"
            ) from None

    def _find(self, name: str) -> int:
        reply = self._netlink.get(_CTRL, _HEADER.pack(_GETFAMILY, 1, 0) + rtnl.text(_FAMILY_NAME, name))
        number: int = struct.unpack("=H", rtnl.attrs(reply[_SIZE:])[_FAMILY_ID])[0]
        return number

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._netlink.__exit__()

    def request(self, command: int, body: bytes) -> None:
        """Change something; raises OSError with the kernel's words."""
        self._netlink.request(self._id, 0, self._header(command) + body)

    def get(self, command: int, body: bytes) -> bytes:
        """Read one object; raises OSError where it is not there, or has no such thing."""
        return self._netlink.get(self._id, self._header(command) + body)[_SIZE:]

    def dump(self, command: int) -> Iterator[bytes]:
        """Read all objects."""
        for reply in self._netlink.dump(self._id, self._header(command)):
            yield reply[_SIZE:]

    def _header(self, command: int) -> bytes:
        return _HEADER.pack(command, self._version, 0)
