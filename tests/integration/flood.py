# SPDX-License-Identifier: GPL-3.0-or-later
"""Many numbered datagrams one way, and how many were lost, came twice, or found a full receiver.

usage: flood.py receive ADDRESS       until nothing has come for some seconds after the first, then a report
       flood.py send ADDRESS RATE     packets a second, until standard input ends, then print how many
"""

from __future__ import annotations

import ipaddress
import json
import selectors
import socket
import struct
import sys
import time
from pathlib import Path

PORT = 7008
TICK = 0.002  # seconds between two bursts
SILENCE = struct.pack("@ll", 3, 0)  # struct timeval
ROOM = 256 << 20  # of the receiver's queue: a receiver that waits for the CPU is no loss of the node
_FORCE = 33  # SO_RCVBUFFORCE


def _socket(address: str) -> socket.socket:
    family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
    return socket.socket(family, socket.SOCK_DGRAM)


def send(address: str, rate: int) -> None:
    with _socket(address) as end, selectors.DefaultSelector() as selector:
        end.connect((address, PORT))
        selector.register(sys.stdin, selectors.EVENT_READ)
        sent, begin = 0, time.monotonic()
        start = begin
        while not selector.select(TICK):
            # what the CPU was too busy for is not made up for
            for number in range(sent, sent + min(int((time.monotonic() - start) * rate) - sent, int(rate * 10 * TICK))):
                end.send(number.to_bytes(8, "little"))
                sent = number + 1
            start = max(start, time.monotonic() - sent / rate)
    sys.stdout.write(json.dumps({"sent": sent, "seconds": round(time.monotonic() - begin, 1)}) + "\n")


def receive(address: str) -> None:
    with _socket(address) as end:
        end.setsockopt(socket.SOL_SOCKET, _FORCE, ROOM)
        end.bind((address, PORT))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        seen, total = bytearray(1 << 20), 0
        number = int.from_bytes(end.recv(8), "little")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, SILENCE)
        while True:
            if number >= len(seen):
                seen += bytes(len(seen))
            seen[number] = min(seen[number] + 1, 255)
            total += 1
            try:
                number = int.from_bytes(end.recv(8), "little")
            except BlockingIOError:
                break
        report = {"received": total, "numbers": len(seen) - seen.count(0), "overflown": _overflown()}
    sys.stdout.write(json.dumps(report) + "\n")


def _overflown() -> int:
    """What sockets of this namespace had no room for."""
    lines = [line for name in ("udp", "udp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return sum(int(line.split()[-1]) for line in lines)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]))
    else:
        receive(sys.argv[2])
