# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic out of a node's containers, all of it checked.

traffic.py serve [-n NETNS ...]              answer over TCP and UDP, IPv4 and IPv6, until killed
traffic.py send [-n NETNS ...] ADDRESS...    a stream and some datagrams to each; a line for each that failed
traffic.py ping [-n NETNS ...] ADDRESS...    an ICMP echo to each; a line for each that did not answer
traffic.py hold [-n NETNS ...] [-i SECONDS] ADDRESS...
    one connection and one UDP socket to each until SIGTERM, a message in every interval on each; a line for each

NETNS is the path of a network namespace, each one gets a process of its own; without it this one is used.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

_PORT = 7007
_SECONDS = 5.0
_TCP_BYTES = 1_000_000  # enough for segmentation offload to take part
_UDP_SIZES = (1, 1400, 4000)  # the last one in fragments
_PAUSE = 0.25
_CLONE_NEWNET = 0x40000000


class EchoStream(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


class StreamServer(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6  # takes IPv4 as well
    allow_reuse_address = True
    daemon_threads = True


class DatagramServer(socketserver.UDPServer):
    address_family = socket.AF_INET6
    max_packet_size = 65536


def serve(_addresses: Sequence[str]) -> list[str]:
    """Answer until killed."""
    datagrams = DatagramServer(("", _PORT), EchoDatagram)
    threading.Thread(target=datagrams.serve_forever, daemon=True).start()
    StreamServer(("", _PORT), EchoStream).serve_forever()
    return []


def send(addresses: Sequence[str]) -> list[str]:
    """What went wrong, one line each."""
    problems = []
    for address in addresses:
        for echo in (_tcp, _udp):
            try:
                echo(address)
            except OSError as error:
                problems.append(f"{address} {echo.__name__[1:]}: {error}")
    return problems


def _tcp(address: str) -> None:
    with _connect(address) as connection:
        data = os.urandom(_TCP_BYTES)
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        received = bytearray()
        while len(received) < len(data):
            chunk = connection.recv(65536)
            if not chunk:
                raise OSError(f"closed after {len(received)} bytes")
            received += chunk
        if received != data:
            raise OSError("other bytes came back")


def _connect(address: str) -> socket.socket:
    """A connection, also to a server that is only starting."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            return socket.create_connection((address, _PORT), timeout=_SECONDS)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _udp(address: str) -> None:
    with _datagrams(address) as sock:
        for size in _UDP_SIZES:
            data = os.urandom(size)
            sock.send(data)
            if sock.recv(65536) != data:
                raise OSError(f"other bytes came back for {size}")


def _datagrams(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(_SECONDS)
    sock.connect((address, _PORT))
    return sock


def ping(addresses: Sequence[str]) -> list[str]:
    """The addresses that are silent, one line each."""
    commands = {address: ["ping", "-q", "-c1", f"-W{_SECONDS:.0f}", address] for address in addresses}
    running = {address: subprocess.Popen(command, stdout=subprocess.DEVNULL) for address, command in commands.items()}
    return [f"{address} icmp: no answer" for address, process in running.items() if process.wait()]


class Flow:
    """Numbered messages of 8 bytes on one socket that is never replaced; the numbers that came back are taken off.

    After an error it sends no more.
    """

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name, self.sock = name, sock
        self.sent = 0
        self.missing: set[int] = set()
        self.error = ""
        self._rest = b""

    def send(self) -> None:
        self.missing.add(self.sent)
        self.sock.sendall(struct.pack("!Q", self.sent))
        self.sent += 1

    def attempt(self, work: Callable[[], None]) -> None:
        """One of the two, unless there was an error."""
        if not self.error:
            try:
                work()
            except OSError as error:
                self.error = f", failed: {error}"

    def receive(self) -> None:
        data = self._rest + self.sock.recv(65536)
        if not data:
            raise OSError("closed by the other end")
        whole = len(data) // 8 * 8
        self.missing -= {number for (number,) in struct.iter_unpack("!Q", data[:whole])}
        self._rest = data[whole:]

    def report(self) -> str:
        return f"{self.name}: {self.sent} sent, {len(self.missing)} lost{self.error}"


def hold(addresses: Sequence[str], pause: float) -> list[str]:
    """One line for each flow, once SIGTERM has come and what was on its way has arrived or had time to."""
    ended: list[int] = []  # no lock: a second signal may interrupt the handler
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    flows = [
        *(Flow(f"{address} tcp", _connect(address)) for address in addresses),
        *(Flow(f"{address} udp", _datagrams(address)) for address in addresses),
    ]
    while not ended:
        for flow in flows:
            flow.attempt(flow.send)
        _receive(flows, pause)
    deadline = time.monotonic() + _SECONDS
    while any(flow.missing and not flow.error for flow in flows) and time.monotonic() < deadline:
        _receive(flows, _PAUSE)
    return [flow.report() for flow in flows]


def _receive(flows: Sequence[Flow], seconds: float) -> None:
    """All that comes in that time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        by_socket = {flow.sock: flow for flow in flows if not flow.error}
        for ready in select.select(list(by_socket), [], [], left)[0]:
            by_socket[ready].attempt(by_socket[ready].receive)


_WORK: dict[str, Callable[[Sequence[str]], list[str]]] = {"serve": serve, "send": send, "ping": ping}


def inside(netns: str, work: Callable[[], list[str]]) -> int:
    """Pid of a child that does the work in that namespace, prints the lines that come of it, exits with 1 for any."""
    child = os.fork()
    if child == 0:
        with Path(netns).open() as namespace:
            if ctypes.CDLL(None).setns(namespace.fileno(), _CLONE_NEWNET):
                sys.exit(f"cannot enter {netns}")
        lines = work()
        sys.stdout.writelines(f"{netns} {line}\n" for line in lines)
        sys.exit(bool(lines))
    return child


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=(*_WORK, "hold"))
    parser.add_argument("-n", dest="netns", action="append", default=[])
    parser.add_argument("-i", dest="pause", type=float, default=_PAUSE)
    parser.add_argument("addresses", nargs="*")
    options = parser.parse_intermixed_args()
    work = partial(hold, pause=options.pause) if options.work == "hold" else _WORK[options.work]
    spaces = options.netns or ["/proc/self/ns/net"]
    children = [inside(netns, lambda: work(options.addresses)) for netns in spaces]
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGTERM) for child in children])
    return int(max(os.waitpid(child, 0)[1] for child in children) > 0)


if __name__ == "__main__":
    sys.exit(main())
