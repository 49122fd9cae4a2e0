# SPDX-License-Identifier: GPL-3.0-or-later
"""The loaded dataplane on the topology: run a packet through a hook and see all that it did."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, btf, clsact, netns, rtnl
from tests.bpf.packets import mac
from tests.bpf.topology import CONTAINERS, GATEWAY4, GATEWAY6, GATEWAY_MAC, MTU, NO_MAC, Container, Topology

OBJECT = Path(__file__).parents[2] / "roles/runtime/files/fastpath.bpf.o"
LAYOUT = btf.parse(OBJECT.read_bytes())
PASS, SHOT, REDIRECT = -1, 2, 7
DEVICES = {"from_container": "c1", "from_wire": "up0", "from_host": "fastpath0"}
CONTAINER_HOOKS = {
    "veth": ("from_container", bpf.TCX_INGRESS),
    "netkit": ("from_netkit", bpf.NETKIT_PEER),
    "netkit-l3": ("from_netkit", bpf.NETKIT_PEER),
}
_ARRAYS = {"drops": "drop", "hooks": "hook", "replies": "reply"}  # map -> enum


@dataclass(frozen=True)
class Counters:
    """Packets by reason, hook and kind; (rx packets, rx bytes, tx packets, tx bytes) by container. No zeros."""

    drops: Mapping[str, int]
    hooks: Mapping[str, int]
    replies: Mapping[str, int]
    endpoints: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Outcome:
    """What became of one packet; in `counted` is what it added to the counters."""

    verdict: int
    packet: bytes
    counted: Counters

    @property
    def dropped(self) -> str | None:
        """The reason."""
        return _only(self.counted.drops)

    @property
    def reply(self) -> str | None:
        return _only(self.counted.replies)

    @property
    def sender(self) -> str | None:
        """The container that is said to have sent it."""
        return _only({name: row[2] for name, row in self.counted.endpoints.items() if row[2]})

    @property
    def receiver(self) -> str | None:
        return _only({name: row[0] for name, row in self.counted.endpoints.items() if row[0]})


def _only(counts: Mapping[str, int]) -> str | None:
    assert sum(counts.values()) <= 1, counts
    return next(iter(counts), None)


def address_key(address: str) -> bytes:
    packed = ip_address(address).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def enum_names(enum: str) -> list[str]:
    """The names of an enum of abi.h in order, without prefix and end mark."""
    prefix = f"fp_{enum}_".upper()
    values = {name.removeprefix(prefix): value for name, value in LAYOUT.enums[f"fp_{enum}"].items()}
    assert list(values.values()) == list(range(len(values)))
    return [name for name in values if name != "MAX"]


def config(router_ifindex: int, gateway_mac: str = GATEWAY_MAC) -> bytes:
    values: dict[str, btf.Value] = {"router_ifindex": router_ifindex, "gateway_mac": mac(gateway_mac)}
    values |= {"gateway_v4": ip_address(GATEWAY4).packed, "gateway_v6": ip_address(GATEWAY6).packed}
    return LAYOUT.structs["fp_config"].pack(values)


class Dataplane:
    """Programs and maps, with both containers published.

    container_program: runs for the hook "from_container", which stands for both kinds of attachments.
    """

    def __init__(self, net: Topology, loaded: bpf.LoadedObject) -> None:
        self.net = net
        self.container_program = "from_container"
        self.loaded = loaded
        self.ifindex = {name: net.ifindex(name) for name in ("c1", "c2", "up0", "fastpath0")}
        self.endpoints = bpf.Map(loaded.maps["endpoints"])
        self.moves = bpf.Map(loaded.maps["moves"])
        self._statistics = bpf.PerCpuMap(loaded.maps["endpoint_stats"])
        self._bucket = bpf.PerCpuMap(loaded.maps["icmp_bucket"])
        self._arrays = {name: (bpf.PerCpuMap(loaded.maps[name]), enum_names(enum)) for name, enum in _ARRAYS.items()}
        for container in CONTAINERS:
            self.publish(container)

    def publish(self, container: Container, *addresses: str, mtu: int = MTU) -> None:
        """Make its addresses, or only those given, endpoints."""
        row: dict[str, btf.Value] = {"ifindex": self.ifindex[container.name], "slot": container.slot}
        address = NO_MAC if self.net.kinds[container.name] == "netkit-l3" else container.mac
        value = LAYOUT.structs["fp_endpoint"].pack(row | {"mac": mac(address), "mtu": mtu})
        for address in addresses or (container.v4, container.v6):
            self.endpoints.set(address_key(address), value)

    @contextmanager
    def published(self, container: Container, *addresses: str, mtu: int = MTU) -> Iterator[None]:
        """The same for a while."""
        before = {address: self.endpoints.get(address_key(address)) for address in addresses}
        self.publish(container, *addresses, mtu=mtu)
        try:
            yield
        finally:
            for address, value in before.items():
                if value is None:
                    self.endpoints.delete(address_key(address))
                else:
                    self.endpoints.set(address_key(address), value)

    @contextmanager
    def moving(self, device: str, published: str) -> Iterator[None]:
        """The container that is published with one device may send on another, too."""
        keys = [struct.pack("=I", self.ifindex[name]) for name in (device, published)]
        self.moves.set(*keys)
        try:
            yield
        finally:
            self.moves.delete(keys[0])

    def refill(self) -> None:
        """Let as many ICMP errors be sent as after a long pause."""
        self._bucket.set(bytes(4), [bytes(self._bucket.value_size)] * self._bucket.cpus)

    def counters(self) -> Counters:
        arrays = {}
        for name, (table, names) in self._arrays.items():
            values = [bpf.add_up(value)[0] for _key, value in sorted(table.items())]
            arrays[name] = dict(zip(names, values, strict=True))
        rows = {c.name: bpf.add_up(self._statistics.get(struct.pack("=I", c.slot)) or []) for c in CONTAINERS}
        return Counters(arrays["drops"], arrays["hooks"], arrays["replies"], rows)

    def run(self, hook: str, packet: bytes, *, device: str | None = None, gso_size: int = 0) -> Outcome:
        """One packet through the hook, which counts it once; device: where it comes from, if not its usual one."""
        context = {"ifindex": self.ifindex[device or DEVICES[hook]]}
        if gso_size:
            context |= {"gso_size": gso_size, "gso_segs": -(-len(packet) // gso_size)}
        before = self.counters()
        with netns.entered(self.net.path("node")):
            result = bpf.test_run(self.loaded.programs[self.program(hook)], packet, ctx=context)
        counted = difference(before, self.counters())
        assert counted.hooks == {self.program(hook).upper(): 1}
        return Outcome(result.retval, result.packet, counted)

    def program(self, hook: str) -> str:
        """The name of the program that runs there."""
        return self.container_program if hook == "from_container" else hook

    def burst(self, hook: str, packet: bytes, times: int) -> Counters:
        """The packet again and again, as fast as it goes; what that added to the counters."""
        before, program = self.counters(), self.loaded.programs[self.program(hook)]
        with netns.entered(self.net.path("node")):
            for _ in range(times):
                bpf.test_run(program, packet, ctx={"ifindex": self.ifindex[DEVICES[hook]]})
        return difference(before, self.counters())

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Real packets take the same way, for a while."""
        hooks = [(name, *CONTAINER_HOOKS[kind]) for name, kind in self.net.kinds.items()]
        hooks += [("up0", "from_wire", bpf.TCX_INGRESS), ("fastpath0", "from_host", bpf.TCX_EGRESS)]
        with ExitStack() as links:
            with netns.entered(self.net.path("node")):
                for device, program, direction in hooks:
                    links.enter_context(self.hooked(device, program, direction))
            yield

    @contextmanager
    def hooked(self, device: str, program: str, direction: int) -> Iterator[None]:
        """A program at a device, for a while."""
        fd, ifindex = self.loaded.programs[program], self.ifindex[device]
        with netns.entered(self.net.path("node")):
            if bpf.has_tcx():
                link: AbstractContextManager[object] = bpf.attach(fd, ifindex, direction)
            else:
                link = self._filter(ifindex, direction, fd)
        with link:
            yield

    @contextmanager
    def _filter(self, ifindex: int, direction: int, program: int) -> Iterator[None]:
        """As on kernels before 6.6."""
        with netns.entered(self.net.path("node")):
            netlink = rtnl.Netlink()
        with netlink:
            clsact.attach(netlink, ifindex, direction, program, "test")
            yield
            clsact.detach(netlink, ifindex, direction)


def difference(before: Counters, after: Counters) -> Counters:
    def grown(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
        return {name: other[name] - one[name] for name in other if other[name] != one[name]}

    rows = {
        name: tuple(new - old for new, old in zip(row, before.endpoints[name], strict=True))
        for name, row in after.endpoints.items()
        if row != before.endpoints[name]
    }
    return Counters(
        grown(before.drops, after.drops), grown(before.hooks, after.hooks), grown(before.replies, after.replies), rows
    )
