# SPDX-License-Identifier: GPL-3.0-or-later
"""The probing script, on the loopback and without root."""

import selectors
import struct
import threading

import pytest

from demo import probe


@pytest.fixture(scope="module")
def server() -> None:
    servers = selectors.DefaultSelector()
    for listener in probe.listeners(["127.0.0.9"]):
        servers.register(listener, selectors.EVENT_READ, b"here")
    threading.Thread(target=probe.serve, args=(servers,), daemon=True).start()


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("ask", [probe.ask_tcp, probe.ask_udp])
def test_an_answer_counts_only_from_the_right_place(ask: object) -> None:
    assert callable(ask)
    assert probe.probe(ask, "127.0.0.9", "here") is None
    assert probe.probe(ask, "127.0.0.9", "there") == "answered by 'here'"


def test_nobody_there() -> None:
    assert "refused" in str(probe.probe(probe.ask_tcp, "127.0.0.8", "here"))


def test_the_echo_has_a_right_checksum() -> None:
    message = probe.echo(8, b"\xff\xfe\x12\x34")
    total = sum(struct.unpack("!4H", message))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
