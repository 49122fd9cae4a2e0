# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs at one end of the network: answers probes and sends its own. Standard library only.

Standard input, line by line: the task; a line once all ends answer; the end of input once all have probed.
Standard output: "ready" once the servers listen, then one line with the results. Shapes:
task: [{name, netns: path or null, addresses: [...], targets: [{name, addresses: [...]}]}]
results: [{source, target, protocol: icmp|tcp|udp, family: 4|6, error: null or text}]
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

PORT = 7007
ATTEMPTS, SECONDS = 3, 1.0
THREADS = 8  # per place
_CLONE_NEWNET = 0x40000000
_IP_FREEBIND = 15


def main() -> None:
    places = json.loads(sys.stdin.readline())
    pools = [ThreadPoolExecutor(THREADS, initializer=enter, initargs=(place["netns"],)) for place in places]
    servers = selectors.DefaultSelector()
    for place, pool in zip(places, pools):  # noqa: B905 - Python 3.9
        for listener in pool.submit(listeners, place["addresses"]).result():
            servers.register(listener, selectors.EVENT_READ, place["name"].encode())
    threading.Thread(target=serve, args=(servers,), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        return  # another end failed
    probes = [probe for place, pool in zip(places, pools) for probe in start(place, pool)]  # noqa: B905
    sys.stdout.write(json.dumps([{**what, "error": outcome.result()} for what, outcome in probes]) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


def enter(netns: str | None) -> None:
    """Move this thread into a network namespace."""
    if netns is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns exists since Python 3.12 only
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns", netns)
    os.close(descriptor)


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


# The answering side


def listeners(addresses: list[str]) -> list[socket.socket]:
    """A TCP and a UDP socket for each address, whether the place has it or not: that is what gets measured."""
    found = []
    for address in addresses:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            listener = socket.socket(family(address), kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)  # works for IPv6 sockets too
            listener.bind((address, PORT))
            if kind == socket.SOCK_STREAM:
                listener.listen(256)
            found.append(listener)
    return found


def serve(servers: selectors.BaseSelector) -> None:
    """Answer everyone with the name of the place that was reached."""
    while True:
        for key, _events in servers.select():
            listener: socket.socket = key.fileobj  # type: ignore[assignment]
            try:
                if listener.type == socket.SOCK_STREAM:
                    connection, _peer = listener.accept()
                    with connection:
                        connection.sendall(key.data)
                else:
                    _data, peer = listener.recvfrom(64)
                    listener.sendto(key.data, peer)
            except OSError:
                pass  # the prober reports what it missed


# The asking side


def start(place: Any, pool: ThreadPoolExecutor) -> Iterator[tuple[dict[str, Any], Future[str | None]]]:
    for target in place["targets"]:
        for address in target["addresses"]:
            for protocol, ask in PROTOCOLS.items():
                what = {
                    "source": place["name"],
                    "target": target["name"],
                    "protocol": protocol,
                    "family": 6 if ":" in address else 4,
                }
                yield what, pool.submit(probe, ask, address, target["name"])


def probe(ask: Callable[[str, str], None], address: str, name: str) -> str | None:
    """None if the right place answered; else the last attempt's error."""
    error = None
    for _attempt in range(ATTEMPTS):
        try:
            ask(address, name)
        except (OSError, ValueError) as caught:
            error = str(caught) or type(caught).__name__
        else:
            return None
    return error


def ask_tcp(address: str, name: str) -> None:
    with socket.create_connection((address, PORT), timeout=SECONDS) as connection:
        _compare(connection.recv(64), name)


def ask_udp(address: str, name: str) -> None:
    with socket.socket(family(address), socket.SOCK_DGRAM) as connection:
        connection.settimeout(SECONDS)
        connection.connect((address, PORT))  # then only this address can answer
        connection.send(b"who is there?")
        _compare(connection.recv(64), name)


def ask_icmp(address: str, _name: str) -> None:
    """An echo request; the kernel of the other end answers."""
    six = ":" in address
    protocol, request, reply, skipped = (
        (socket.IPPROTO_ICMPV6, 128, 129, 0) if six else (socket.IPPROTO_ICMP, 8, 0, 20)  # IPv4 keeps its header
    )
    identity = struct.pack("!I", random.getrandbits(32))
    with socket.socket(family(address), socket.SOCK_RAW, protocol) as connection:
        connection.connect((address, 0))
        connection.send(echo(request, identity))
        deadline = time.monotonic() + SECONDS
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            message = connection.recv(256)[skipped:]
            if message[:1] == bytes([reply]) and message[4:8] == identity:
                return
    raise TimeoutError("timed out")


def echo(kind: int, identity: bytes) -> bytes:
    """An ICMP echo request with the checksum of IPv4; for IPv6 the kernel writes its own."""
    message = bytes([kind, 0, 0, 0]) + identity
    total = sum(struct.unpack("!4H", message))
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + identity


def _compare(answer: bytes, name: str) -> None:
    if answer.decode() != name:
        raise ValueError(f"answered by {answer.decode()!r}")


PROTOCOLS: dict[str, Callable[[str, str], None]] = {"icmp": ask_icmp, "tcp": ask_tcp, "udp": ask_udp}

if __name__ == "__main__":
    main()
