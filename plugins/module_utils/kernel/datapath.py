# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane in this node's kernel: generations of programs, endpoints, counters.

Everything is found again through pins below /sys/fs/bpf/fastpath; layouts are those of bpf/abi.h
(a test holds them to the object's BTF).
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import FastpathError
from . import bpf, hooks

PINS = Path("/sys/fs/bpf/fastpath")
MAPS = PINS / "maps_1"  # 1 is the schema of bpf/abi.h
PROGRAMS = PINS / "progs"

GATEWAY_MAC = "0e:fa:57:00:00:01"
FROM_CONTAINER, FROM_NETKIT, FROM_WIRE, FROM_HOST = "from_container", "from_netkit", "from_wire", "from_host"
ALL = frozenset((FROM_CONTAINER, FROM_NETKIT, FROM_WIRE, FROM_HOST))
SLOTS = 4096  # FP_MAX_SLOTS

_ENDPOINT = struct.Struct("=II6sH")  # struct fp_endpoint
_CONFIG = struct.Struct("=I6sH4s16s")  # struct fp_config
_NUMBER = struct.Struct("=I")
_MAPPED = b"\0" * 10 + b"\xff\xff"
_COUNTERS = ("hooks", "drops", "replies")  # a new version has more of them
_DIRECTIONS = {FROM_HOST: bpf.TCX_EGRESS, FROM_NETKIT: bpf.NETKIT_PEER}
_PASS = -1  # TCX_NEXT and TC_ACT_UNSPEC: the next program, or the stack


@dataclass(frozen=True)
class Endpoint:
    """Where an address lives: the host end's ifindex, its row of statistics, the container end's MAC and MTU."""

    ifindex: int
    slot: int
    mac: str
    mtu: int


@dataclass(frozen=True)
class Generation:
    """Programs of one object with one configuration: id by name, and the router device they were told."""

    programs: Mapping[str, int]
    router_ifindex: int

    @property
    def complete(self) -> bool:
        return self.programs.keys() == ALL


def generations() -> dict[str, Generation]:
    """What is pinned, by name."""
    return {name: _generation(PROGRAMS / name) for name in _listing(PROGRAMS)}


def _generation(directory: Path) -> Generation:
    programs: dict[str, int] = {}
    router = 0
    for name in _listing(directory):
        with bpf.get(directory / name) as fd:
            programs[name] = bpf.program_info(fd).id
            if name == FROM_HOST or not router:
                config = bpf.rodata_variables(fd).get("config", b"")
                router = _CONFIG.unpack(config)[0] if len(config) == _CONFIG.size else 0
    return Generation(programs, router)


def load(name: str, obj: bytes, router_ifindex: int, gateways: Sequence[str]) -> None:
    """Load, test and pin the programs as generation `name`; a half-pinned or stale one is replaced.

    Where it has more counters than the pinned ones, all of that kind start at zero.
    """
    config = {"config": _config(router_ifindex, gateways)}
    with bpf.load(obj, MAPS, config, may_grow=_COUNTERS) as loaded:
        verdict = bpf.test_run(loaded.programs[FROM_WIRE], bytes(12) + b"\x88\xb5" + bytes(50)).retval
        if verdict != _PASS:
            raise FastpathError("trust", "the new program", f"it returned {verdict} for a frame that is not ours")
        for program, fd in loaded.programs.items():
            bpf.pin(fd, PROGRAMS / name / program, replace=True)


def _config(router_ifindex: int, gateways: Sequence[str]) -> bytes:
    packed = {len(raw): raw for raw in (ipaddress.ip_address(gateway).packed for gateway in reversed(gateways))}
    return _CONFIG.pack(router_ifindex, _mac(GATEWAY_MAC), 0, packed.get(4, bytes(4)), packed.get(16, bytes(16)))


def unload(name: str) -> None:
    """Unpin a generation; its programs go when no hook runs them."""
    _remove_directory(PROGRAMS / name)
    with suppress(OSError):
        PROGRAMS.rmdir()


def remove_maps() -> None:
    """Unpin all maps, and the directories that have become empty."""
    _remove_directory(MAPS)
    for directory in (hooks.PINS, PROGRAMS, PINS):
        with suppress(OSError):
            directory.rmdir()


def is_there() -> bool:
    """Is anything of ours pinned, be it an empty directory that a killed removal left?"""
    return PINS.is_dir()


def hook(key: str, ifindex: int, generation: str, program: str) -> None:
    """Run a pinned program on the interface: from_host at its egress, from_netkit where the other end of this
    netkit sends, the others at its ingress."""
    with bpf.get(PROGRAMS / generation / program) as fd:
        hooks.attach(key, ifindex, fd, _DIRECTIONS.get(program, bpf.TCX_INGRESS))


def endpoints() -> dict[str, Endpoint]:
    """The published addresses."""
    if not (MAPS / "endpoints").exists():
        return {}
    with bpf.Map.open(MAPS / "endpoints") as table:
        return {_address(key): _unpack(value) for key, value in table.items()}


def publish(rows: Mapping[str, Endpoint]) -> None:
    with bpf.Map.open(MAPS / "endpoints") as table:
        table.set_many((key(address), _pack(endpoint)) for address, endpoint in rows.items())


def withdraw(addresses: Iterable[str]) -> None:
    with bpf.Map.open(MAPS / "endpoints") as table:
        table.delete_many([key(address) for address in addresses])


def moves() -> dict[int, int]:
    """Second ends of containers that are moving, each with the end that is published."""
    if not (MAPS / "moves").exists():
        return {}
    with bpf.Map.open(MAPS / "moves") as table:
        return {_NUMBER.unpack(key)[0]: _NUMBER.unpack(value)[0] for key, value in table.items()}


def move(ifindex: int, published: int) -> None:
    """Let a container send on the host end `ifindex` as well, while its addresses are published with the other."""
    with bpf.Map.open(MAPS / "moves") as table:
        table.set(_NUMBER.pack(ifindex), _NUMBER.pack(published))


def unmove(ifindexes: Iterable[int]) -> None:
    """End it; one that is not moving is fine."""
    with bpf.Map.open(MAPS / "moves") as table:
        table.delete_many([_NUMBER.pack(ifindex) for ifindex in ifindexes])


def clear_statistics(slot: int) -> None:
    with bpf.PerCpuMap.open(MAPS / "endpoint_stats") as table:
        table.set(_NUMBER.pack(slot), [bytes(table.value_size)] * table.cpus)


def statistics(slots: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """(rx packets, rx bytes, tx packets, tx bytes) of each slot; rx is towards the container."""
    with bpf.PerCpuMap.open(MAPS / "endpoint_stats") as table:
        return {slot: bpf.add_up(table.get(_NUMBER.pack(slot)) or []) for slot in slots}


def counters(name: str) -> tuple[int, ...]:
    """The sums over all CPUs of an array of counters: "hooks", "drops", "replies"."""
    with bpf.PerCpuMap.open(MAPS / name) as table:
        return tuple(bpf.add_up(value)[0] for _key, value in sorted(table.items()))


def key(address: str) -> bytes:
    """The address as the maps hold it."""
    packed = ipaddress.ip_address(address).packed
    return packed if len(packed) == 16 else _MAPPED + packed


def _address(key: bytes) -> str:
    return str(ipaddress.ip_address(key[12:] if key.startswith(_MAPPED) else key))


def _pack(endpoint: Endpoint) -> bytes:
    return _ENDPOINT.pack(endpoint.ifindex, endpoint.slot, _mac(endpoint.mac), endpoint.mtu)


def _unpack(value: bytes) -> Endpoint:
    ifindex, slot, mac, mtu = _ENDPOINT.unpack(value)
    return Endpoint(ifindex, slot, mac.hex(":"), mtu)


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _listing(directory: Path) -> Sequence[str]:
    """Names in a directory without the drafts of a killed run; () when it is not there."""
    with suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(directory) if not name.endswith("~"))
    return ()


def _remove_directory(directory: Path) -> None:
    with suppress(FileNotFoundError):
        for entry in directory.iterdir():
            entry.unlink()
        directory.rmdir()
