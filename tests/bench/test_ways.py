# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way that is compared restricts traffic by the same rules: one that forgot to would look fast."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel.netns import entered
from bench import policies
from bench.policies import BASE, OPEN, WAYS
from bench.rules import PORT
from bench.topology import LOCAL, Pair

CLOSED = PORT + 1
UNRESTRICTED = (BASE, OPEN)


@contextmanager
def listening(pair: Pair, port: int) -> Iterator[None]:
    with entered(str(pair.server)):
        server = socket.create_server((pair.address, port))
    with server:
        yield


def reaches(pair: Pair, port: int) -> bool:
    """Can the client open a connection?"""
    with listening(pair, port), entered(str(pair.client)):
        try:
            socket.create_connection((pair.address, port), timeout=0.5).close()
        except TimeoutError:
            return False
    return True


@pytest.mark.parametrize("way", WAYS)
def test_the_client_reaches_what_a_rule_opens_and_nothing_else(way: str) -> None:
    loads: dict[str, float] = {}
    make = dict(policies.ways(10, loads))[way]
    with make as routes:
        assert reaches(routes[LOCAL], PORT)
        assert reaches(routes[LOCAL], CLOSED) == (way in UNRESTRICTED)
    assert list(loads) == ([] if way in UNRESTRICTED else [way])
