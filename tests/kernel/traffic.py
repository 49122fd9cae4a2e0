# SPDX-License-Identifier: GPL-3.0-or-later
"""Send frames that sample.bpf.c counts, and tell how many it has seen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf

FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + bytes(50)

_SENDER = f"""
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as outlet:
    outlet.bind((sys.argv[1], 0))
    for _ in range(int(sys.argv[2])):
        outlet.send({FRAME!r})
"""


@contextmanager
def flowing(netns: str, interface: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process sends `count` frames out of the interface while the block runs; then all are sent."""
    command = ["nsenter", f"--net={netns}", sys.executable, "-S", "-c", _SENDER, interface, str(count)]
    with subprocess.Popen(command) as process:
        yield process
    assert process.returncode == 0


def send(netns: str, interface: str, count: int) -> None:
    with flowing(netns, interface, count):
        pass


def seen(loaded: bpf.LoadedObject) -> list[int]:
    """Frames counted by `first` and by `second`, once no more come."""
    counters = bpf.PerCpuMap(loaded.maps["seen"])
    counts, before = [-1], [-2]
    while counts != before:
        time.sleep(0.02)
        before, counts = counts, [bpf.add_up(values)[0] for _key, values in counters.items()]
    return counts[:2]
