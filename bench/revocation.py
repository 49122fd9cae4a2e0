# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes until open connections that new policies deny are cut and their sockets told."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from time import monotonic

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, policy
from ansible_collections.fastpath.node.plugins.module_utils.kernel.netns import entered
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Tables
from bench import fastpath
from bench.rules import Rule
from bench.topology import CLIENT, LOCAL, SERVER, Pair

CONNECTIONS = 1_000
ROUNDS = 9
_KEPT, _CUT = 7007, 7008  # the server's ports, half of the connections each


@dataclass(frozen=True)
class Change:
    """Of policies, with so many connections open; seconds until the call returns, by round."""

    revoked: int
    told: int
    seconds: Sequence[float]

    @property
    def milliseconds(self) -> float:
        return median(self.seconds) * 1e3

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(report: Callable[[str], None]) -> list[Change]:
    """The same policies once more, and others that deny half of the connections; both in turn."""
    allowing, denying = (fastpath.compiled([Rule(CLIENT, "tcp", port) for port in ports], SERVER)
                         for ports in ((_KEPT, _CUT), (_KEPT,)))  # fmt: skip
    same, half = [], []
    with _node() as (pair, place):
        for index in range(ROUNDS):
            report(f"revocation: round {index + 1} of {ROUNDS}")
            _publish(pair, place, allowing)
            with _connected(pair):
                same.append(_publish(pair, place, allowing))
                half.append(_publish(pair, place, denying))
    return [_change(same, 0), _change(half, CONNECTIONS // 2)]


@contextmanager
def _node() -> Iterator[tuple[Pair, policy.Place]]:
    with ExitStack() as stack:
        places: list[policy.Place] = []

        def prepare(programs: bpf.LoadedObject) -> None:
            places.append(stack.enter_context(fastpath.place(programs)))

        way = stack.enter_context(fastpath.attached(title="revocation", prepare=prepare))
        yield way[LOCAL], places[0]


def _publish(pair: Pair, place: policy.Place, tables: Tables) -> tuple[float, policy.Published]:
    namespaces = {CLIENT: str(pair.client), SERVER: str(pair.server)}
    start = monotonic()
    done = policy.publish(tables, 1, namespaces, place)
    return monotonic() - start, done


def _change(rounds: Sequence[tuple[float, policy.Published]], revoked: int) -> Change:
    """Raises RuntimeError where other connections were cut than those that are denied."""
    found = {(done.revoked, done.told, done.untold) for _seconds, done in rounds}
    if found != {(revoked, 2 * revoked, "")}:
        raise RuntimeError(f"revoked, told: {found}, not {revoked} and both their ends")
    return Change(revoked, 2 * revoked, [seconds for seconds, _done in rounds])


@contextmanager
def _connected(pair: Pair) -> Iterator[None]:
    """Connections from the client to both ports of the server, and each of them still open."""
    with ExitStack() as stack:
        for port in (_KEPT, _CUT):
            with entered(str(pair.server)):
                server = stack.enter_context(socket.create_server((SERVER, port), backlog=CONNECTIONS))
            for _number in range(CONNECTIONS // 2):
                with entered(str(pair.client)):
                    stack.enter_context(socket.create_connection((SERVER, port)))
                stack.enter_context(server.accept()[0])
        yield
