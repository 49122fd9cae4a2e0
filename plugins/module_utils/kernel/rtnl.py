# SPDX-License-Identifier: GPL-3.0-or-later
"""A small rtnetlink codec: requests with the kernel's own error text, strict dumps, attributes.

Formats: linux/netlink.h and linux/rtnetlink.h. All integers are in host order unless named otherwise.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

NLM_REQUEST, NLM_ACK, NLM_DUMP = 0x1, 0x4, 0x300
NLM_REPLACE, NLM_EXCL, NLM_CREATE = 0x100, 0x200, 0x400

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTR = struct.Struct("=HH")  # length, type
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_F_CAPPED, _F_ACK_TLVS, _F_DUMP_INTR = 0x100, 0x200, 0x10
_NESTED = 0x8000
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT_CHK = 270, 10, 11, 12
_ATTR_EXTACK_MSG = 1
_RECEIVE = 1 << 18  # the kernel fills dump messages up to 32 KiB; room for a few


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = _ATTR.size + len(payload)
    return _ATTR.pack(size, kind) + payload + b"\0" * (-size % 4)


def nest(kind: int, *children: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attr(kind | _NESTED, b"".join(children))


def u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attr(kind, value.encode() + b"\0")


def attrs(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by type (the flags of the type are dropped; the last of a kind wins)."""
    return dict(each(data))


def each(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of the attributes in `data`, as they come: lists repeat one type."""
    offset, end = 0, len(data) - _ATTR.size
    while offset <= end:
        size, kind = _ATTR.unpack_from(data, offset)
        if size < _ATTR.size:
            break
        yield kind & 0x3FFF, data[offset + _ATTR.size : offset + size]
        offset += (size + 3) & ~3


class Netlink:
    """One socket of rtnetlink or of another protocol. It stays in the network namespace that its opener was in."""

    def __init__(self, protocol: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0
        self._held: list[tuple[int, int, bytes]] | None = None

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def request(self, kind: int, flags: int, body: bytes) -> None:
        """Change something; raises OSError with the kernel's extended acknowledgement as its text."""
        if self._held is not None:
            self._held.append((kind, flags, body))
            return
        for _reply in self._ask((kind, flags | NLM_ACK, body)):
            pass

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Send the requests made within together: the kernel carries all out before a signal can end this process.

        Raises OSError for the first that fails; those behind it are tried all the same.
        """
        self._held = []
        try:
            yield
            held = [(kind, flags | NLM_ACK, body) for kind, flags, body in self._held]
        finally:
            self._held = None
        for _reply in self._ask(*held):
            pass

    def get(self, kind: int, body: bytes) -> bytes:
        """Read one object; raises OSError(ENODEV, ENOENT ...) when it is not there."""
        replies = list(self._ask((kind, NLM_ACK, body)))
        return replies[0] if replies else b""

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """Read all objects that match `body`; raises OSError(EINTR) when they changed while being read."""
        return self._ask((kind, NLM_DUMP, body))

    def _ask(self, *asked: tuple[int, int, bytes]) -> Iterator[bytes]:
        first, self._sequence = self._sequence + 1, self._sequence + len(asked)
        self._socket.send(
            b"".join(
                _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_REQUEST, number, 0) + body
                for number, (kind, flags, body) in enumerate(asked, first)
            )
        )
        left = len(asked)
        while left:
            packet = self._socket.recv(_RECEIVE)
            for reply_kind, reply_flags, payload in self._messages(packet, first):
                if reply_flags & _F_DUMP_INTR:
                    raise InterruptedError("the kernel changed the objects while they were being read")
                if reply_kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    _raise_on_error(reply_kind, reply_flags, payload)
                    left -= 1
                else:
                    yield payload

    def _messages(self, packet: bytes, first: int) -> Iterator[tuple[int, int, bytes]]:
        """(type, flags, payload) of each message for what was asked last, numbered from `first` on; late ones of an
        abandoned dump are skipped."""
        offset = 0
        while offset + _HEADER.size <= len(packet):
            size, kind, flags, sequence, _port = _HEADER.unpack_from(packet, offset)
            if sequence >= first:
                yield kind, flags, packet[offset + _HEADER.size : offset + size]
            offset += (size + 3) & ~3


def _raise_on_error(kind: int, flags: int, payload: bytes) -> None:
    code = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if code == 0:
        return
    # an error repeats the request's header (capped: no body), then come the attributes
    skip = 4 if kind == _NLMSG_DONE else 4 + _HEADER.size
    said = attrs(payload[skip:]).get(_ATTR_EXTACK_MSG, b"") if flags & _F_ACK_TLVS else b""
    message = os.strerror(-code)
    words = said.rstrip(b"\0").decode(errors="replace")
    raise OSError(-code, f"{message} ({words})" if words else message)
