# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program costs per packet, by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from ansible_collections.fastpath.node.plugins.module_utils.kernel.datapath import SLOTS, Endpoint
from ansible_collections.fastpath.node.plugins.module_utils.kernel.netns import entered
from bench import build, fastpath, topology
from bench.topology import VETH

HOOKS = ("from_container", "from_netkit", "from_wire", "from_host")
SPREADS = (64, 8192, 65000)
ROUNDS, REPEAT = 9, 50_000

_NONE = "accept"  # the driver's own target: its price alone
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
    with _one_core(), _machine() as run:
        for index in range(ROUNDS):
            report(f"programs: round {index + 1} of {ROUNDS}")
            for spread in SPREADS:
                base = run(_NONE, spread)
                for hook in HOOKS:
                    samples[hook, spread].append(run(hook, spread) - base)
    return [Timing(hook, spread, median(values)) for (hook, spread), values in samples.items()]


@contextmanager
def _machine() -> Iterator[Callable[[str, int], float]]:
    """A full endpoints map and the driver in front of the programs; yields (target, spread) -> ns per packet."""
    with topology.prepared(VETH) as net, entered(str(topology.path(net.node))):
        router = socket.if_nametoindex(topology.ROUTER)
        near, far = (socket.if_nametoindex(name) for name, _address, _mac in topology.CONTAINERS)
        near_mac, far_mac = (mac for _name, _address, mac in topology.CONTAINERS)
        with fastpath.load(router) as dataplane, bpf.load(build.driver().read_bytes(), name="bench") as driver:
            rows = {str(ipaddress.IPv4Address(_FIRST + i)): Endpoint(far, i % SLOTS, far_mac, topology.MTU)
                    for i in range(max(SPREADS))}  # fmt: skip
            fastpath.publish(dataplane, {_SENDER: Endpoint(near, 0, near_mac, topology.MTU), **rows})
            with bpf.Map(os.dup(driver.maps["targets"])) as targets, bpf.Map(os.dup(driver.maps["spread"])) as spreads:
                programs = {**dataplane.programs, _NONE: driver.programs[_NONE]}

                def run(target: str, spread: int) -> float:
                    targets.set(bytes(4), struct.pack("=I", programs[target]))
                    spreads.set(bytes(4), struct.pack("=I", spread))
                    result = bpf.test_run(driver.programs["drive"], packet(near_mac), ctx={"ifindex": near},
                                          repeat=REPEAT)  # fmt: skip
                    _check(target, result)
                    return float(result.duration_ns)

                yield run


def _check(target: str, result: bpf.TestRun) -> None:
    """A packet that was dropped would be a cheap one."""
    wanted = 0 if target == _NONE else 7  # TC_ACT_OK, TC_ACT_REDIRECT
    if result.retval != wanted:
        raise RuntimeError(f"{target} returned {result.retval}, not {wanted}")


def packet(source_mac: str) -> bytes:
    """A UDP packet to the gateway; the driver writes the rest of its addresses."""
    ethernet = _mac(topology.GATEWAY_MAC) + _mac(source_mac) + b"\x08\x00"
    payload = bytes(64)
    source, destination = ipaddress.IPv4Address(_SENDER).packed, ipaddress.IPv4Address(_FIRST).packed
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0x4000, 64, 17, 0, source, destination)
    udp = struct.pack("!HHHH", 7007, 7007, 8 + len(payload), 0)
    return ethernet + header + udp + payload


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@contextmanager
def _one_core() -> Iterator[None]:
    """Stay on the last core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
