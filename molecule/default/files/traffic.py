# SPDX-License-Identifier: GPL-3.0-or-later
"""Echo over TCP and UDP, IPv4 and IPv6: `traffic.py serve`, and `traffic.py send ADDRESS...` from elsewhere.

`send` exits with a line for each address and protocol that did not return what it was sent.
"""

from __future__ import annotations

import os
import socket
import socketserver
import sys
import threading
import time

_PORT = 7007
_SECONDS = 5.0
_TCP_BYTES = 1_000_000  # enough for segmentation offload to take part
_UDP_SIZES = (1, 1400, 4000)  # the last one in fragments


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


def serve() -> None:
    """Answer until killed."""
    datagrams = DatagramServer(("", _PORT), EchoDatagram)
    threading.Thread(target=datagrams.serve_forever, daemon=True).start()
    StreamServer(("", _PORT), EchoStream).serve_forever()


def send(addresses: list[str]) -> list[str]:
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
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_SECONDS)
        sock.connect((address, _PORT))
        for size in _UDP_SIZES:
            data = os.urandom(size)
            sock.send(data)
            if sock.recv(65536) != data:
                raise OSError(f"other bytes came back for {size}")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    sys.exit("\n".join(send(sys.argv[2:])) or 0)
