# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic that tells what it has lost: numbered datagrams and one TCP connection to each target, both echoed.

usage: flows.py serve ADDRESS...     echo until standard input ends
       flows.py send ADDRESS...      send until standard input ends, then wait for the last echoes and print a report
       flows.py knock ADDRESS...     ask for connections until standard input ends, then print how many came about
"""

from __future__ import annotations

import ipaddress
import json
import os
import selectors
import socket
import struct
import sys
import time
from typing import Any

PORT = 7007
TICK = float(os.environ.get("FLOWS_TICK", "0.01"))  # seconds between two datagrams, and two pieces of the stream
PIECE = 1024
PATIENCE = 10  # seconds for the last echoes
_NUMBER = struct.Struct("!Q")


def _socket(address: str, kind: int) -> socket.socket:
    family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
    return socket.socket(family, kind)


class Flow:
    """To one target. Of the stream every byte must come back in its order, of the datagrams each number once."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.datagrams, self.stream = _socket(address, socket.SOCK_DGRAM), _socket(address, socket.SOCK_STREAM)
        for end in (self.datagrams, self.stream):
            end.connect((address, PORT))
            end.setblocking(False)
        self.sent = self.written = self.read = 0
        self.received: set[int] = set()
        self.refused: list[str] = []
        self._unsent, self._due = b"", time.monotonic()

    def send(self) -> None:
        now = time.monotonic()
        if now < self._due:
            return
        self._due = max(self._due + TICK, now)
        try:
            self.datagrams.send(_NUMBER.pack(self.sent))
        except OSError as error:
            self.refused.append(f"datagram {self.sent}: {error}")
        self.sent += 1
        if len(self._unsent) < PIECE:
            self._unsent += _pattern(self.written + len(self._unsent), PIECE)
        self.push()

    def push(self) -> None:
        try:
            count = self.stream.send(self._unsent)
        except BlockingIOError:
            return
        self.written, self._unsent = self.written + count, self._unsent[count:]

    def receive_datagram(self) -> None:
        try:
            self.received.add(_NUMBER.unpack(self.datagrams.recv(100))[0])
        except OSError as error:
            self.refused.append(str(error))

    def receive_stream(self) -> None:
        data = self.stream.recv(65536)
        if not data or data != _pattern(self.read, len(data)):
            raise AssertionError(f"{self.address}: the stream broke after {self.read} bytes")
        self.read += len(data)

    @property
    def is_complete(self) -> bool:
        return self.read == self.written and not self._unsent and len(self.received) == self.sent

    def report(self) -> dict[str, Any]:
        missing = sorted(set(range(self.sent)) - self.received)
        return {
            "target": self.address,
            "datagrams": self.sent,
            "lost": missing,
            "refused": self.refused,
            "bytes": self.written,
            "missing": self.written - self.read,
        }


def _pattern(offset: int, length: int) -> bytes:
    """The bytes of the stream from `offset` on."""
    start = offset % 251
    return (bytes(range(251)) * (length // 251 + 2))[start : start + length]


def send(addresses: list[str]) -> None:
    flows = [Flow(address) for address in addresses]
    with selectors.DefaultSelector() as selector:
        for flow in flows:
            selector.register(flow.datagrams, selectors.EVENT_READ, flow.receive_datagram)
            selector.register(flow.stream, selectors.EVENT_READ, flow.receive_stream)
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        deadline = 0.0
        while not deadline or (not all(flow.is_complete for flow in flows) and time.monotonic() < deadline):
            for flow in flows:
                if deadline:
                    flow.push()
                else:
                    flow.send()
            for key, _events in selector.select(TICK / 2):
                if key.data is None:
                    deadline = time.monotonic() + PATIENCE
                    selector.unregister(key.fileobj)
                else:
                    key.data()
    sys.stdout.write(json.dumps([flow.report() for flow in flows]) + "\n")


def serve(addresses: list[str]) -> None:
    with selectors.DefaultSelector() as selector:
        for address in addresses:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                server = _socket(address, kind)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((address, PORT))
                if kind == socket.SOCK_STREAM:
                    server.listen()
                selector.register(server, selectors.EVENT_READ, "datagrams" if kind == socket.SOCK_DGRAM else "listen")
        selector.register(sys.stdin, selectors.EVENT_READ, "end")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for key, _events in selector.select():
                if key.data == "end":
                    return
                _echo(selector, key)


def _echo(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    end = key.fileobj
    assert isinstance(end, socket.socket)
    if key.data == "listen":
        selector.register(end.accept()[0], selectors.EVENT_READ, "stream")
    elif key.data == "datagrams":
        data, peer = end.recvfrom(100)
        end.sendto(data, peer)
    else:
        data = end.recv(65536)
        if data:
            end.sendall(data)
        else:
            selector.unregister(end)
            end.close()


def knock(addresses: list[str]) -> None:
    tried = opened = 0
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            ends = [_socket(address, socket.SOCK_STREAM) for address in addresses]
            for end, address in zip(ends, addresses, strict=True):
                end.setblocking(False)
                end.connect_ex((address, PORT))
            stop = selector.select(TICK)
            tried, opened = tried + len(ends), opened + sum(map(_is_open, ends))
            for end in ends:
                end.close()
            if stop:
                break
    sys.stdout.write(json.dumps({"tried": tried, "opened": opened}) + "\n")


def _is_open(end: socket.socket) -> bool:
    try:
        end.getpeername()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    {"send": send, "serve": serve, "knock": knock}[sys.argv[1]](sys.argv[2:])
