# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane in this node's kernel: generations of programs, endpoints, counters.

Everything is found again through pins below /sys/fs/bpf/fastpath. Layouts are those of bpf/abi.h as the object in
question has them: they are read from its BTF.
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
from . import bpf, btf, hooks, links, migrate

PINS = Path("/sys/fs/bpf/fastpath")
MAPS = PINS / "maps"  # a link to the maps of the owner, the generation that user space works with
PROGRAMS = PINS / "progs"
_MAPS_OF = "maps_"  # what follows is a generation

GATEWAY_MAC = "0e:fa:57:00:00:01"
FROM_CONTAINER, FROM_NETKIT, FROM_WIRE, FROM_HOST = "from_container", "from_netkit", "from_wire", "from_host"
# those of hooks; there are more, which only user space runs
ALL = frozenset((FROM_CONTAINER, FROM_NETKIT, FROM_WIRE, FROM_HOST))
SLOTS = 4096  # FP_MAX_SLOTS

_VF = 1  # FP_ENDPOINT_VF
_NUMBER = struct.Struct("=I")
_MAPPED = b"\0" * 10 + b"\xff\xff"
_STATISTICS = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")  # of struct fp_endpoint_stats
_DIRECTIONS = {FROM_HOST: bpf.TCX_EGRESS, FROM_NETKIT: bpf.NETKIT_PEER}


@dataclass(frozen=True)
class Endpoint:
    """Where an address lives: the host end's ifindex, its row of statistics, the container end's MAC and MTU.

    vf: the host end is a VF's representor.
    """

    ifindex: int
    slot: int
    mac: str
    mtu: int
    vf: bool = False


@dataclass(frozen=True)
class Generation:
    """Programs of one object with one configuration: id by name, and the router device they were told."""

    programs: Mapping[str, int]
    router_ifindex: int

    @property
    def complete(self) -> bool:
        return self.programs.keys() >= ALL


def generations() -> dict[str, Generation]:
    """What is pinned, by name; of one that is half pinned or half removed this may be only the maps."""
    maps = {name[len(_MAPS_OF) :] for name in _listing(PINS) if name.startswith(_MAPS_OF)}
    return {name: _generation(PROGRAMS / name) for name in sorted(maps | set(_listing(PROGRAMS)))}


def _generation(directory: Path) -> Generation:
    programs: dict[str, int] = {}
    router = 0
    for name in _listing(directory):
        with bpf.get(directory / name) as fd:
            programs[name] = bpf.program_info(fd).id
            if name == FROM_HOST or not router:
                router = int(bpf.rodata_members(fd, "config", "fp_config").get("router_ifindex", 0))
    return Generation(programs, router)


def load(name: str, obj: bytes, config: bytes) -> None:
    """Load and pin the programs as generation `name`; a half-pinned or stale one is replaced.

    config: from configuration(). The owner's maps are shared as far as they have the object's form; what is in the
    others is copied into new ones, counters aside.
    """
    with bpf.load(obj, maps_of(name), {"config": config}, shared=MAPS) as loaded:
        migrate.fill(MAPS, maps_of(name), idle=True)
        for program, fd in loaded.programs.items():
            bpf.pin(fd, PROGRAMS / name / program, replace=True)


def configuration(obj: bytes, router_ifindex: int, gateways: Sequence[str]) -> bytes:
    """The read-only data `config` that the object's programs run with."""
    packed = {len(raw): raw for raw in (ipaddress.ip_address(gateway).packed for gateway in reversed(gateways))}
    values: dict[str, btf.Value] = {"router_ifindex": router_ifindex, "gateway_mac": links.packed(GATEWAY_MAC)}
    values |= {"gateway_v4": packed.get(4, bytes(4)), "gateway_v6": packed.get(16, bytes(16))}
    try:
        return btf.parse(obj).structs["fp_config"].pack(values)
    except (ValueError, KeyError) as error:
        raise FastpathError("load", "the object", f"it is no dataplane: {error}") from error


def maps_of(generation: str) -> Path:
    return PINS / f"{_MAPS_OF}{generation}"


def owner() -> str:
    """The generation whose maps user space works with; "" when there is none."""
    try:
        name = os.readlink(MAPS)
    except OSError:
        return ""
    return name[len(_MAPS_OF) :] if (PINS / name).is_dir() else ""


def fill(generation: str, idle: bool) -> None:
    """Copy what is in the owner's maps into those of a loaded generation. idle: no hook runs it."""
    migrate.fill(MAPS, maps_of(generation), idle)


def hand_over(generation: str, sources: Iterable[str]) -> None:
    """Make the generation the owner, after what `sources`, which no hook runs any more, have written and counted."""
    for source in sources:
        migrate.settle(maps_of(source), maps_of(generation))
    draft = MAPS.with_name(MAPS.name + "~")
    draft.unlink(missing_ok=True)
    draft.symlink_to(maps_of(generation).name)
    draft.rename(MAPS)


def unload(name: str) -> None:
    """Unpin a generation and its maps; they go when no hook runs them."""
    for directory in (PROGRAMS / name, maps_of(name)):
        _remove_directory(directory)
    with suppress(OSError):
        PROGRAMS.rmdir()


def remove_maps() -> None:
    """Remove what is left of ours when no generation is, and the directories that have become empty."""
    for link in (MAPS, MAPS.with_name(MAPS.name + "~")):
        link.unlink(missing_ok=True)
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
        layout = _layout(table.fd, "fp_endpoint")
        return {_address(key): _unpack(layout, value) for key, value in table.items()}


def publish(rows: Mapping[str, Endpoint]) -> None:
    with bpf.Map.open(MAPS / "endpoints") as table:
        write_endpoints(table, rows)


def write_endpoints(table: bpf.Map, rows: Mapping[str, Endpoint]) -> None:
    """publish() into a map that is not the owner's."""
    layout = _layout(table.fd, "fp_endpoint")
    table.set_many((key(address), _pack(layout, endpoint)) for address, endpoint in rows.items())


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
        places = {field.name: field.offset // 8 for field in _layout(table.fd, "fp_endpoint_stats").fields}
        rows = {slot: bpf.add_up(table.get(_NUMBER.pack(slot)) or []) for slot in slots}
    return {slot: tuple(row[places[name]] for name in _STATISTICS) for slot, row in rows.items()}


def counters(name: str, maps: Path = MAPS) -> tuple[int, ...]:
    """The sums over all CPUs of an array of counters: "hooks", "drops", "replies"."""
    with bpf.PerCpuMap.open(maps / name) as table:
        return tuple(bpf.add_up(value)[0] for _key, value in sorted(table.items()))


def key(address: str) -> bytes:
    """The address as the maps hold it."""
    packed = ipaddress.ip_address(address).packed
    return packed if len(packed) == 16 else _MAPPED + packed


def _address(key: bytes) -> str:
    return str(ipaddress.ip_address(key[12:] if key.startswith(_MAPPED) else key))


def _layout(map_fd: int, struct: str) -> btf.Struct:
    return btf.parse(bpf.btf_data(bpf.map_info(map_fd).btf_id)).structs[struct]


def _pack(layout: btf.Struct, endpoint: Endpoint) -> bytes:
    numbers = {"ifindex": endpoint.ifindex, "slot": endpoint.slot, "mtu": endpoint.mtu}
    flags = {"flags": _VF} if endpoint.vf else {}
    try:
        return layout.pack({**numbers, **flags, "mac": links.packed(endpoint.mac)})
    except KeyError:
        raise FastpathError("publish", "a container behind a VF", "the programs are of a time before these") from None


def _unpack(layout: btf.Struct, value: bytes) -> Endpoint:
    found = layout.unpack(value)
    ifindex, slot, mtu = (int(found[name]) for name in ("ifindex", "slot", "mtu"))
    return Endpoint(ifindex, slot, bytes(found["mac"]).hex(":"), mtu, bool(int(found.get("flags", 0)) & _VF))


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
