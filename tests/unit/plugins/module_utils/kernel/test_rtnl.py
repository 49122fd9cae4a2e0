# SPDX-License-Identifier: GPL-3.0-or-later
"""The rtnetlink codec: attributes there and back, and replies as the kernel sends them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.kernel import rtnl

# replies of a 6.18 kernel, without their headers: an MTU of 20 for a veth, a link dump filtered by index
BAD_MTU = bytes.fromhex(
    "eaffffff28000000100005000300000000000000210001006d7475206c657373207468616e20646576696365206d696e696d756d00000000"
)
BAD_DUMP = bytes.fromhex(
    "eaffffff3800010046696c7465722062792064657669636520696e646578206e"
    "6f7420737570706f7274656420666f72206c696e6b2064756d707300"
)
KINDS = st.integers(0, 0x3FFF)


@given(st.dictionaries(KINDS, st.binary(max_size=70)))
def test_attributes_there_and_back(table: dict[int, bytes]) -> None:
    data = b"".join(rtnl.attr(kind, payload) for kind, payload in table.items())
    assert rtnl.attrs(data) == table
    assert len(data) % 4 == 0


@given(KINDS, st.dictionaries(KINDS, st.binary(max_size=20), max_size=4))
def test_nested_attributes_there_and_back(kind: int, table: dict[int, bytes]) -> None:
    data = rtnl.nest(kind, *(rtnl.attr(child, payload) for child, payload in table.items()))
    assert struct.unpack_from("=HH", data)[1] == kind | 0x8000
    assert rtnl.attrs(rtnl.attrs(data)[kind]) == table


@given(st.integers(0, 2**32 - 1), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=15))
def test_numbers_and_strings(number: int, word: str) -> None:
    found = rtnl.attrs(rtnl.u32(1, number) + rtnl.text(2, word))
    assert struct.unpack("=I", found[1]) == (number,)
    assert found[2] == word.encode() + b"\0"


def test_known_bytes() -> None:
    assert rtnl.text(3, "eth0") == struct.pack("=HH5s3x", 9, 3, b"eth0\0")
    assert rtnl.nest(18, rtnl.text(1, "veth")) == struct.pack("=HHHH5s3x", 16, 18 | 0x8000, 9, 1, b"veth\0")


@given(st.binary(max_size=200))
def test_any_bytes_end_without_an_error(data: bytes) -> None:
    assert all(len(payload) <= len(data) for payload in rtnl.attrs(data).values())


def test_last_of_a_kind_wins() -> None:
    assert rtnl.attrs(rtnl.u32(1, 5) + rtnl.u32(1, 6)) == {1: struct.pack("=I", 6)}


class Wire:
    """A socket that answers each request with prepared packets; b"SEQ!" stands for the request's sequence number."""

    def __init__(self, *replies: Iterable[bytes]) -> None:
        self.replies = iter(replies)
        self.packets: list[bytes] = []
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.packets = [packet.replace(b"SEQ!", data[8:12]) for packet in next(self.replies)]

    def recv(self, _size: int) -> bytes:
        return self.packets.pop(0)


def netlink(*replies: Iterable[bytes]) -> tuple[rtnl.Netlink, Wire]:
    wire = Wire(*replies)
    made = rtnl.Netlink.__new__(rtnl.Netlink)
    vars(made).update(_socket=wire, _sequence=0, _held=None)
    return made, wire


def message(kind: int, payload: bytes, flags: int = 0, sequence: bytes = b"SEQ!") -> bytes:
    size = 16 + len(payload)
    return struct.pack("=IHH4sI", size, kind, flags, sequence, 77) + payload + bytes(-size % 4)


def error(code: int, flags: int = 0, tail: bytes = b"") -> bytes:
    return message(2, struct.pack("=i", -code) + bytes(16) + tail, flags)


DONE = message(3, bytes(4), 2)


def test_request_carries_type_flags_and_length() -> None:
    socket, wire = netlink([error(0)], [error(0)])
    socket.request(16, rtnl.NLM_CREATE | rtnl.NLM_EXCL, b"body")
    socket.request(17, 0, b"")
    assert [struct.unpack_from("=IHHII", sent) for sent in wire.sent] == [
        (20, 16, 0x605, 1, 0),
        (16, 17, 0x005, 2, 0),
    ]
    assert wire.sent[0][16:] == b"body"


def test_error_speaks_the_kernels_words() -> None:
    socket, _wire = netlink([message(2, BAD_MTU, 0x300)])
    with pytest.raises(OSError, match="mtu less than") as caught:
        socket.request(16, 0, b"")
    assert caught.value.errno == errno.EINVAL
    assert caught.value.strerror == "Invalid argument (mtu less than device minimum)"


def test_error_without_words() -> None:
    socket, _wire = netlink([error(errno.EEXIST)])
    with pytest.raises(FileExistsError) as caught:
        socket.request(16, 0, b"")
    assert caught.value.strerror == "File exists"


def test_refused_dump_speaks_too() -> None:
    socket, _wire = netlink([message(3, BAD_DUMP, 0x202)])
    with pytest.raises(OSError, match="Filter by device index not supported for link dumps"):
        list(socket.dump(18, b""))


def test_get_returns_the_object_and_reads_the_acknowledgement() -> None:
    socket, wire = netlink([message(16, b"object.."), error(0)])
    assert socket.get(18, b"") == b"object.."
    assert wire.packets == []


def test_get_of_what_is_not_there() -> None:
    socket, _wire = netlink([error(errno.ENODEV)])
    with pytest.raises(OSError, match="No such device"):
        socket.get(18, b"")


def test_dump_over_packets_with_odd_lengths() -> None:
    socket, wire = netlink([message(16, b"a", 2) + message(16, b"bcdef", 2), message(16, b"gh", 2), DONE])
    assert list(socket.dump(18, b"")) == [b"a", b"bcdef", b"gh"]
    assert struct.unpack_from("=IHH", wire.sent[0])[2] == 0x301


def test_late_replies_of_an_abandoned_dump_are_skipped() -> None:
    late = message(16, b"late", 2, struct.pack("=I", 1))
    socket, _wire = netlink([message(16, b"one.", 2)], [late + message(3, bytes(4), 2, struct.pack("=I", 1)), DONE])
    assert next(iter(socket.dump(18, b""))) == b"one."
    assert list(socket.dump(18, b"")) == []


def test_interrupted_dump_is_no_answer() -> None:
    socket, _wire = netlink([message(16, b"half", 0x12), DONE])
    with pytest.raises(InterruptedError):
        list(socket.dump(18, b""))
