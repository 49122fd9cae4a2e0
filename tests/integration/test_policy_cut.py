# SPDX-License-Identifier: GPL-3.0-or-later
"""1,000 open flows, half of which are denied: nothing of them passes once the run has ended, the others go on."""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils.kernel import netns
from tests.integration.pair import ADDRESSES, HOMES, Pair, pair
from tests.integration.policy_cases import WEB, ingress, own, ports

KEPT, CUT = 80, 81
EACH = 63  # flows of a kind, from a place, to an address and a port: 16 of them
SECONDS = 2.0  # in which somebody who is denied has tried often, see many.py
SOURCES = ("db", "client")  # of the same node and of the other one
BOTH = [{"protocol": protocol, "port": port} for protocol in ("TCP", "UDP") for port in (KEPT, CUT)]
DENIAL = own({**WEB, "priority": 0, "ingress": [{"action": "deny", **ports(*BOTH[1::2])}]})
_EVERYTHING = 3  # ETH_P_ALL


@contextmanager
def many(network: Pair, place: str) -> Iterator[subprocess.Popen[str]]:
    home = HOMES[place]
    script = [sys.executable, str(Path(__file__).with_name("many.py")), str(EACH), f"{KEPT},{CUT}", *ADDRESSES["web"]]
    command = network.nodes[home.node].command(script, f"c{home.number}")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def sniffer(network: Pair, place: str) -> socket.socket:
    """Sees from now on what comes to the place."""
    home = HOMES[place]
    with netns.entered(f"/proc/{network.nodes[home.node].holder}/root/run/netns/c{home.number}"):
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERYTHING))


def seen(sockets: list[socket.socket]) -> Counter[int]:
    """Packets that came in by the port of web, in the time of the test."""
    counts: Counter[int] = Counter()
    end = time.monotonic() + SECONDS
    while (left := end - time.monotonic()) > 0:
        for sock in select.select(sockets, [], [], left)[0]:
            data, (_interface, protocol, kind, *_more) = sock.recvfrom(100)
            start = {0x0800: 20, 0x86DD: 40}.get(protocol)
            if start and kind != socket.PACKET_OUTGOING and len(data) >= start + 4:
                counts.update({KEPT, CUT} & set(struct.unpack_from("!HH", data, start)))
    return counts


def test_half_of_a_thousand_flows_are_cut_and_the_others_go_on() -> None:
    with pair() as network, ExitStack() as stack:
        allowed = ingress(ports(*BOTH))
        network.policies([allowed])
        senders = [stack.enter_context(many(network, place)) for place in SOURCES]
        for sender in senders:
            assert sender.stdout is not None
            assert sender.stdout.readline() == "ready\n"
        result, other = network.policies([allowed, DENIAL])
        sniffers = [stack.enter_context(sniffer(network, place)) for place in ("web", *SOURCES)]
        counts = seen(sniffers)
        flows: list[dict[str, Any]] = []
        for sender in senders:
            flows += json.loads(sender.communicate(timeout=60)[0])
    cut = [flow for flow in flows if flow["port"] == CUT]
    kept = [flow for flow in flows if flow["port"] == KEPT]
    assert len(cut) == len(kept) == 8 * EACH
    assert counts[CUT] == 0
    assert counts[KEPT] > len(kept)
    assert [flow for flow in kept if flow["error"] or flow["answered"] != flow["sent"]] == []
    assert all(flow["answered"] < flow["sent"] or flow["error"] for flow in cut)
    assert min(flow["sent"] for flow in cut if flow["kind"] == "udp") >= SECONDS, "they gave up before anybody looked"
    assert result["flows"]["revoked"] == len(cut)
    assert other["flows"]["revoked"] == 0
    if "warnings" not in result:  # the kernel can tell sockets: both ends of local connections, one of the others
        assert result["flows"]["told"] == 6 * EACH
        assert {flow["error"] for flow in flows if flow["error"]} == {"ConnectionAbortedError"}
