# SPDX-License-Identifier: GPL-3.0-or-later
"""The packet that the programs are asked about, read by what reads real ones."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import packet
from ansible_collections.fastpath.node.plugins.module_utils.kernel import asked


@pytest.mark.parametrize(
    ("protocol", "port", "shown"),
    [
        (6, 443, {"protocol": "tcp", "dst_port": 443}),
        (17, 53, {"protocol": "udp", "dst_port": 53}),
        (132, 9, {"protocol": "sctp", "dst_port": 9}),
        (1, 8 << 8, {"protocol": "icmp", "type": 8, "code": 0}),
        (58, (1 << 8) + 4, {"protocol": "icmpv6", "type": 1, "code": 4}),
    ],
)
@pytest.mark.parametrize(("source", "to"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_frame(source: str, to: str, protocol: int, port: int, shown: dict[str, Any]) -> None:
    fields = packet.describe(asked.frame(source, to, protocol, port))
    assert {"src": source, "dst": to, **shown}.items() <= fields.items()


def test_a_syn_begins_a_flow() -> None:
    assert asked.frame("10.0.0.1", "10.0.0.2", 6, 80)[14 + 20 + 13] == 2
