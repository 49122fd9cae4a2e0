# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sample packets are made of which endpoints, and that they are well formed."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import headers, selftest
from ansible_collections.fastpath.node.plugins.module_utils.kernel.datapath import GATEWAY_MAC, Endpoint

GATEWAYS = ("10.128.3.1", "fd00:128:3::1")
ENDPOINTS = {
    "10.128.3.11": Endpoint(5, 0, "02:00:00:00:00:01", 1500),
    "10.128.3.12": Endpoint(6, 1, "02:00:00:00:00:02", 1500),
    "fd00:128:3::11": Endpoint(5, 0, "02:00:00:00:00:01", 1500),
    "fd00:128:3::12": Endpoint(6, 1, "02:00:00:00:00:02", 1500),
    "10.128.3.13": Endpoint(7, 2, "00:00:00:00:00:00", 1500),  # a netkit in mode l3
}
ENDS = {
    5: selftest.End("from_container", GATEWAY_MAC),
    6: selftest.End("from_container", GATEWAY_MAC),
    7: selftest.End("from_netkit", "00:00:00:00:00:00"),
}


def samples(endpoints: dict[str, Endpoint]) -> list[selftest.Sample]:
    node = selftest.Node(2, GATEWAYS, {3: "02:00:00:00:0a:00"}, ENDS, endpoints)
    return list(selftest.samples(node))


def test_each_kind_of_link_and_each_family_sends() -> None:
    sending = [sample for sample in samples(ENDPOINTS) if sample.ifindex in ENDS]
    assert {(sample.program, sample.ifindex) for sample in sending} == {("from_container", 5), ("from_netkit", 7)}
    kinds = Counter(struct.unpack_from("!H", sample.packet, 12)[0] for sample in sending if sample.ifindex == 5)
    assert kinds == {0x0800: 4, 0x0806: 2, 0x86DD: 6}
    assert not [sample for sample in sending if sample.ifindex == 7 and sample.packet[12:14] != b"\x08\x00"]


def test_every_verdict_is_expected_of_every_program() -> None:
    expected = {(sample.program, sample.verdict) for sample in samples(ENDPOINTS)}
    assert expected >= {
        ("from_wire", -1), ("from_wire", 7), ("from_container", 2), ("from_container", 7), ("from_netkit", 2),
        ("from_netkit", 7), ("from_host", 7),
    }  # fmt: skip


def test_node_without_containers_is_tested_too() -> None:
    assert {sample.program for sample in samples({})} == {"from_wire", "from_container", "from_netkit"}


def test_a_container_alone_has_its_gateway() -> None:
    titles = [sample.title for sample in samples({"10.128.3.11": ENDPOINTS["10.128.3.11"]})]
    assert "10.128.3.11 to its gateway" in titles
    assert not [title for title in titles if " to 10.128.3.12" in title]


def test_an_endpoint_without_its_interface_sends_nothing() -> None:
    gone = {"10.128.3.11": Endpoint(99, 0, "02:00:00:00:00:01", 1500)}
    assert not [sample for sample in samples(gone) if sample.ifindex == 99]


@pytest.mark.parametrize("sample", samples(ENDPOINTS), ids=lambda sample: sample.title)
def test_lengths_and_checksums_are_right(sample: selftest.Sample) -> None:
    """An IPv4 header sums up to zero, and so does ICMPv6 with its pseudo-header."""
    protocol, packet = struct.unpack_from("!H", sample.packet, 12)[0], sample.packet[14:]
    if protocol == 0x0800:
        assert struct.unpack_from("!H", packet, 2)[0] == len(packet)
        assert headers.checksum(packet[:20]) == 0
    elif protocol == 0x86DD:
        length, kind = struct.unpack_from("!HB", packet, 4)
        assert 40 + length == len(packet)
        if kind == 58:
            assert headers.checksum(packet[8:40] + struct.pack("!II", length, kind) + packet[40:]) == 0
