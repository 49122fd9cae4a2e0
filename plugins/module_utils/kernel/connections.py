# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP connections that were open before there were any policies: they become flows, so that policies decide them too.

Without this a packet in the middle of one would be the first that the programs see of it, and it would be taken for
one of whoever happens to send it.
"""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..policy.tables import NODE
from . import adder, bpf, datapath, encoding, flows, sockets

_SIDE = struct.Struct("=I")
_IDENTITY = struct.Struct("=II")


def adopt(maps: Path, side: int, namespaces: Mapping[str, str]) -> int:
    """Make flows of them, to be decided by the tables of this side; returns how many were new.

    namespaces: address of a container -> path of its network namespace. Raises BpfError, OSError.
    """
    local = {datapath.key(address): path for address, path in namespaces.items()}
    with bpf.Map.open(maps / encoding.IDENTITIES) as identities:

        def here(peer: bytes) -> bool:
            known = identities.get(peer + _SIDE.pack(side))
            return peer in local or (known is not None and _IDENTITY.unpack(known)[0] == NODE)

        seen = time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> 30
        with bpf.Map.open(maps / flows.FLOWS) as table:
            new = [
                table.add(key, flows.VALUE.pack(0, seen, flags | (flows.LOCAL if here(peer) else 0), 0))
                for key, (peer, flags) in _open(local).items()
            ]
    with bpf.PerCpuMap.open(maps / "flow_counts") as counts, adder.Adder(counts.fd, 1) as add:
        for name in ("created", "promoted"):
            add.add(flows.COUNTS.index(name), [sum(new)])
    return sum(new)


def _open(local: Mapping[bytes, str]) -> dict[bytes, tuple[bytes, int]]:
    """Key of a flow -> the peer of a local end of it, and flags."""
    of: dict[str, set[bytes]] = defaultdict(set)
    for address, path in local.items():
        of[path].add(address)
    found: dict[bytes, tuple[bytes, int]] = {}
    for path, addresses in of.items():
        with suppress(FileNotFoundError), sockets.namespace(path) as asking:
            listening = sockets.listening(asking)
            for item in sockets.established(asking):
                address, peer, port, peer_port = sockets.FLOW.unpack(item.flow)
                if address in addresses:
                    key = flows.key(address, peer, port, peer_port, sockets.TCP)
                    answers = port in listening  # whoever listens was asked; else it cannot be told, and this end asked
                    if answers or key not in found:
                        asking_end = peer if answers else address
                        found[key] = peer, flows.ANSWERED | (flows.ASKED_BY_B if key[16:32] == asking_end else 0)
    return found
