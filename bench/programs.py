# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program costs per packet, by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median

from ansible_collections.fastpath.node.plugins.module_utils.kernel.datapath import SLOTS, Endpoint
from ansible_collections.fastpath.node.plugins.module_utils.kernel.netns import entered
from bench import fastpath, topology
from bench.driver import Peer, Plan, driver
from bench.topology import VETH

HOOKS = ("from_container", "from_netkit", "from_wire", "from_host")
SPREADS = (64, 8192, 65000)
ROUNDS = 9

_FIRST = int(ipaddress.IPv4Address("10.128.0.0"))
_SENDER = "10.129.0.1"


@dataclass(frozen=True)
class Timing:
    """Median ns that a packet takes in the program of a hook, destinations at random among `addresses`."""

    hook: str
    addresses: int
    nanoseconds: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(report: Callable[[str], None]) -> list[Timing]:
    """Time all hooks with all spreads, interleaved, on one core; the driver's own cost is taken off, round by round."""
    samples: dict[tuple[str, int], list[float]] = {(hook, spread): [] for hook in HOOKS for spread in SPREADS}
    with one_core(), _machine() as run:
        for index in range(ROUNDS):
            report(f"programs: round {index + 1} of {ROUNDS}")
            for spread in SPREADS:
                base = run(None, spread)
                for hook in HOOKS:
                    samples[hook, spread].append(run(hook, spread) - base)
    return [Timing(hook, spread, median(values)) for (hook, spread), values in samples.items()]


@contextmanager
def _machine() -> Iterator[Callable[[str | None, int], float]]:
    """A full endpoints map and the driver in front of the programs; yields (hook, spread) -> ns per packet."""
    addresses = [str(ipaddress.IPv4Address(_FIRST + index)) for index in range(max(SPREADS))]
    with topology.prepared(VETH) as net, entered(str(topology.path(net.node))):
        router = socket.if_nametoindex(topology.ROUTER)
        near, far = (socket.if_nametoindex(name) for name, _address, _mac in topology.CONTAINERS)
        near_mac, far_mac = (mac for _name, _address, mac in topology.CONTAINERS)
        with fastpath.load(router) as dataplane, driver([Peer(address) for address in addresses]) as drive:
            rows = {address: Endpoint(far, index % SLOTS, far_mac, topology.MTU)
                    for index, address in enumerate(addresses)}  # fmt: skip
            fastpath.publish(dataplane, {_SENDER: Endpoint(near, 0, near_mac, topology.MTU), **rows})
            plan = Plan(_SENDER, near_mac, near, max(SPREADS), outward=True)
            yield lambda hook, spread: drive(dataplane.programs[hook] if hook else None, replace(plan, peers=spread))


@contextmanager
def one_core() -> Iterator[None]:
    """Stay on the last core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
