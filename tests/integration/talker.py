# SPDX-License-Identifier: GPL-3.0-or-later
"""One end of the network: answers whatever comes, and sends what it is told to.

usage: talker.py TCP-PORT,... UDP-PORT,... [forever]     the ports that answer, may be empty

Commands on standard input, until its end, one JSON list a line:
  ["send", [[number, kind, address, port], ...]]    kind: tcp, udp, big (a datagram in fragments), closed (one to a
                                                    port of nobody: an error is the answer), ping, or raw protocol
  ["state"]       prints [numbers that were answered, numbers that were seen coming, as raw packets]
  ["forget"]      closes what was opened by `send`

A raw packet is answered by nobody: who has it on his list of those that were seen is asked instead.
"""

from __future__ import annotations

import ipaddress
import json
import os
import selectors
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

MARK = b"fastpath"
BIG = 4000  # bytes
RAW = {"icmp": 1, "gre": 47, "icmpv6": 58, "sctp": 132}
_ECHO, _ANSWERS = {4: 8, 6: 128}, (0, 129)
_CLIENT = 40000  # the port that SCTP comes from


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6


class Talker:
    def __init__(self, tcp: list[int], udp: list[int]) -> None:
        self.selector = selectors.DefaultSelector()
        self.answered: set[int] = set()
        self.seen: set[int] = set()
        self.opened: list[socket.socket] = []
        self.raw: dict[tuple[int, int], socket.socket] = {}
        for ports, kind in ((tcp, socket.SOCK_STREAM), (udp, socket.SOCK_DGRAM)):
            for port in ports:
                self._serve(port, kind)
        for version, protocols in ((4, (1, 47, 132)), (6, (58, 47, 132))):
            for protocol in protocols:
                raw = socket.socket(_family(version), socket.SOCK_RAW, protocol)
                self.raw[version, protocol] = raw
                self._on(raw, lambda raw=raw, version=version: self._raw_came(raw, version))

    def _on(self, sock: socket.socket, work: Any, events: int = selectors.EVENT_READ) -> None:
        sock.setblocking(False)
        self.selector.register(sock, events, work)

    def _serve(self, port: int, kind: socket.SocketKind) -> None:
        server = socket.socket(socket.AF_INET6, kind)  # takes IPv4 as well
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            server.listen(100)
        self._on(server, lambda: self._accept(server) if kind == socket.SOCK_STREAM else self._echo(server))

    def _accept(self, server: socket.socket) -> None:
        end = server.accept()[0]
        self._on(end, lambda: self._echo_stream(end))

    def _echo_stream(self, end: socket.socket) -> None:
        data = b""
        with suppress(OSError):
            data = end.recv(100)
        if data:
            end.send(data)
        else:
            self._close(end)

    def _echo(self, server: socket.socket) -> None:
        with suppress(OSError):  # also an error about an answer from before
            data, peer = server.recvfrom(2 * BIG)
            server.sendto(data, peer)

    def _raw_came(self, raw: socket.socket, version: int) -> None:
        data = raw.recv(2048)
        content = data[(data[0] & 15) * 4 :] if version == 4 else data
        before, mark, after = content.partition(MARK)
        if mark:
            is_answer = raw.proto in (RAW["icmp"], RAW["icmpv6"]) and before[0] in _ANSWERS
            (self.answered if is_answer else self.seen).add(int.from_bytes(after[:8], "big"))

    # Sending

    def send(self, number: int, kind: str, address: str, port: int) -> None:
        content = MARK + number.to_bytes(8, "big")
        version = ipaddress.ip_address(address).version
        with suppress(OSError):  # an answer is missed, that is all
            if kind in ("tcp", "udp", "big", "closed"):
                self._connect(number, kind, address, port, content.ljust(BIG) if kind == "big" else content)
            elif kind == "ping":
                self._send_icmp(version, address, _ECHO[version] << 8, content)
            elif kind in ("icmp", "icmpv6"):
                self._send_icmp(version, address, port, content)
            else:
                head = struct.pack("!HHII", _CLIENT, port, 0, 0) if kind == "sctp" else bytes(4)
                self.raw[version, RAW[kind]].sendto(head + content, (address, 0))

    def _connect(self, number: int, kind: str, address: str, port: int, content: bytes) -> None:
        family = _family(ipaddress.ip_address(address).version)
        end = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        self.opened.append(end)
        end.setblocking(False)
        end.connect_ex((address, port))
        if kind != "tcp":
            end.send(content)
        state = {"sent": kind != "tcp"}

        def moved() -> None:
            try:
                if not state["sent"]:
                    end.send(content)
                    state["sent"] = True
                    self.selector.modify(end, selectors.EVENT_READ, moved)
                elif end.recv(2 * BIG) == content:
                    self.answered.add(number)
            except OSError as error:
                if kind == "closed" and isinstance(error, ConnectionRefusedError):
                    self.answered.add(number)
                self._close(end)

        self._on(end, moved, selectors.EVENT_READ if state["sent"] else selectors.EVENT_WRITE)

    def _send_icmp(self, version: int, address: str, port: int, content: bytes) -> None:
        """The kernel fills in the checksum of ICMPv6."""
        kind, code = divmod(port, 256)
        message = struct.pack("!BBHHH", kind, code, 0, 1, 1) + content
        if version == 4:
            words = sum(struct.unpack(f"!{len(message) // 2}H", message))
            total = (words & 0xFFFF) + (words >> 16)
            message = struct.pack("!BBHHH", kind, code, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF, 1, 1) + content
        self.raw[version, RAW["icmp" if version == 4 else "icmpv6"]].sendto(message, (address, 0))

    def _close(self, end: socket.socket) -> None:
        with suppress(KeyError, ValueError):
            self.selector.unregister(end)
        end.close()

    # Commands

    def command(self, line: bytes) -> None:
        name, *arguments = json.loads(line)
        if name == "send":
            for probe in arguments[0]:
                self.send(*probe)
        elif name == "state":
            print(json.dumps([sorted(self.answered), sorted(self.seen)]), flush=True)
        else:
            for end in self.opened:
                self._close(end)
            self.opened.clear()
            self.answered.clear()
            self.seen.clear()

    def run(self, forever: bool) -> None:
        if not forever:
            self.selector.register(sys.stdin, selectors.EVENT_READ, None)
        print("ready", flush=True)
        unread = b""
        while True:
            for key, _events in self.selector.select():
                if key.data is not None:
                    key.data()
                    continue
                data = os.read(sys.stdin.fileno(), 65536)
                if not data:
                    return
                *lines, unread = (unread + data).split(b"\n")
                for line in lines:
                    self.command(line)


if __name__ == "__main__":
    tcp, udp = ([int(port) for port in ports.split(",") if port] for ports in sys.argv[1:3])
    Talker(tcp, udp).run(forever=len(sys.argv) > 3)
