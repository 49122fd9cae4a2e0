# SPDX-License-Identifier: GPL-3.0-or-later
"""Many flows that are kept in use: numbers go out, and come back from whoever echoes them.

usage: many.py COUNT PORT,... ADDRESS...     COUNT connections and as many flows of datagrams for each port and address

Says ready when each has had an answer. Goes on until standard input ends, then waits for the last answers and prints a
list of {"kind", "port", "sent", "answered", "error"}. After an error a flow sends no more.
"""

from __future__ import annotations

import ipaddress
import json
import selectors
import socket
import struct
import sys
import time
from typing import Any

TICK = 0.3  # seconds between two numbers of a flow
PATIENCE = 3  # seconds for the last answers
_NUMBER = struct.Struct("!Q")


class Flow:
    """Datagrams go out of a socket that is not connected: no kernel tells it that the other end is denied."""

    def __init__(self, kind: str, address: str, port: int) -> None:
        family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
        self.kind, self.target = kind, (address, port)
        self.socket = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        if kind == "tcp":
            self.socket.connect(self.target)
        self.socket.setblocking(False)
        self.sent = 0
        self.answered: set[int] = set()
        self.error = ""
        self._rest = b""

    def send(self) -> None:
        if not self.error:
            try:
                data = _NUMBER.pack(self.sent)
                if self.kind == "tcp":
                    self.socket.send(data)
                else:
                    self.socket.sendto(data, self.target)
                self.sent += 1
            except OSError as error:
                self.error = type(error).__name__

    def receive(self) -> bool:
        """Whether there may be more to come."""
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            self.error = type(error).__name__
            return False
        whole = len(self._rest + data) // _NUMBER.size * _NUMBER.size
        numbers, self._rest = (self._rest + data)[:whole], (self._rest + data)[whole:]
        self.answered.update(number for (number,) in _NUMBER.iter_unpack(numbers))
        return bool(data)

    def report(self) -> dict[str, Any]:
        own = {"kind": self.kind, "port": self.target[1], "error": self.error}
        return {**own, "sent": self.sent, "answered": len(self.answered)}


def main() -> None:
    count, ports = int(sys.argv[1]), [int(port) for port in sys.argv[2].split(",")]
    places = [(kind, address, port) for kind in ("tcp", "udp") for address in sys.argv[3:] for port in ports]
    flows = [Flow(*place) for place in places for _number in range(count)]
    with selectors.DefaultSelector() as selector:
        for flow in flows:
            selector.register(flow.socket, selectors.EVENT_READ, flow)
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        waiting, due, end = set(flows), 0.0, 0.0
        while not end or (time.monotonic() < end and any(len(flow.answered) < flow.sent for flow in flows)):
            if not end and time.monotonic() >= due:
                due = time.monotonic() + TICK
                for flow in flows:
                    flow.send()
            for key, _events in selector.select(TICK / 10):
                if key.data is None:
                    end = time.monotonic() + PATIENCE
                    selector.unregister(sys.stdin)
                elif not key.data.receive():
                    selector.unregister(key.data.socket)
            if waiting:
                waiting = {flow for flow in waiting if not flow.answered}
                if not waiting:
                    print("ready", flush=True)
    print(json.dumps([flow.report() for flow in flows]))


if __name__ == "__main__":
    main()
