# SPDX-License-Identifier: GPL-3.0-or-later
"""Our dataplane between two containers, loaded and attached by the collection's own library; nothing is pinned."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath, patch, policy
from ansible_collections.fastpath.node.plugins.module_utils.kernel.datapath import Endpoint
from ansible_collections.fastpath.node.plugins.module_utils.kernel.netns import entered
from ansible_collections.fastpath.node.plugins.module_utils.kernel.sides import Side
from ansible_collections.fastpath.node.plugins.module_utils.policy import documents, part
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import DEFAULT, Scene, compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Endpoint as Protected
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Tables
from bench import build, topology
from bench.rules import Rule, document
from bench.topology import NIC, VETH, Kind, Way

_REDECIDE = "redecide"
_NO_MAC = "00:00:00:00:00:00"  # of a netkit in L3 mode


def load(router_ifindex: int) -> bpf.LoadedObject:
    """The programs, configured for a node with both families."""
    obj = build.DATAPLANE.read_bytes()
    config = datapath.configuration(obj, router_ifindex, [topology.GATEWAY, topology.GATEWAY6])
    return bpf.load(obj, rodata={"config": config})


def publish(programs: bpf.LoadedObject, rows: Mapping[str, Endpoint]) -> None:
    """Tell the programs where addresses live."""
    with bpf.Map(os.dup(programs.maps["endpoints"])) as table:
        datapath.write_endpoints(table, rows)


def compiled(rules: Iterable[Rule], address: str) -> Tables:
    """The tables of a node on which the second container, with this address, is the server."""
    return whole(document(rules), address)


def whole(policy: Mapping[str, Any], address: str) -> Tables:
    """The same of a document."""
    return compile_tables(documents.policies([policy]), _endpoints(address))


def changed(known: policy.Installed | None, before: Mapping[str, Any], after: Mapping[str, Any], address: str) -> Side:
    """The tables after a change of rules of which no more is compiled than it can touch."""
    scene = Scene.of(_endpoints(address), {}, (), DEFAULT)
    found = part.parts([before], [after], scene)
    side = patch.patch(known.active, *found) if found and known and known.active else None
    if side is None:
        raise RuntimeError("everything must be compiled for this change")
    return side


def _endpoints(address: str) -> list[Protected]:
    names = [name for name, _address, _mac in topology.CONTAINERS]
    addresses = (topology.CLIENT, address)
    return [
        Protected(name, (address,), labels={"role": name}, slot=slot)
        for slot, (name, address) in enumerate(zip(names, addresses, strict=True))
    ]


def memory(map_fd: int) -> int:
    """Bytes that a map takes, as the kernel says it."""
    lines = Path(f"/proc/self/fdinfo/{int(map_fd)}").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("memlock:"))


@contextmanager
def pinned(objects: Mapping[str, int]) -> Iterator[Path]:
    """A directory in which these are pinned by name, for a while."""
    with tempfile.TemporaryDirectory(prefix="fpbench") as directory:
        subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
        try:
            pins = Path(directory, "pins")
            for name, fd in objects.items():
                if not name.startswith("."):  # of the compiler, and no name there
                    bpf.pin(fd, pins / name)
            yield pins
        finally:
            subprocess.run(["umount", directory], check=True)


@contextmanager
def place(programs: bpf.LoadedObject) -> Iterator[policy.Place]:
    """Where policies are published: pinned as on a node, for a while."""
    with pinned({**programs.maps, _REDECIDE: programs.programs[_REDECIDE]}) as pins:
        yield policy.Place(pins, pins / _REDECIDE)


@contextmanager
def attached(
    kind: Kind = VETH,
    nic: str = "",
    title: str = "fastpath",
    prepare: Callable[[bpf.LoadedObject], None] | None = None,
) -> Iterator[Way]:
    """A node whose containers, uplink and router device have their programs.

    nic: see topology.plug(). title: of the way, which can be there several times. prepare: is given the
    programs before they are attached.
    """
    with topology.prepared(kind, title) as net, ExitStack() as stack:
        with entered(str(topology.path(net.node))):
            router = socket.if_nametoindex(topology.ROUTER)
            programs = stack.enter_context(load(router))
            rows = {}
            for slot, (name, address, mac) in enumerate(topology.CONTAINERS):
                known = _NO_MAC if kind.mode == "l3" else mac
                rows[address] = Endpoint(socket.if_nametoindex(name), slot, known, topology.MTU)
            publish(programs, rows)
            if prepare:
                prepare(programs)
            for ifindex, program, direction in _hooks(kind, router, [row.ifindex for row in rows.values()]):
                stack.enter_context(bpf.attach(programs.programs[program], ifindex, direction))
        yield {**net.way, **({NIC: topology.plug(net, nic)} if nic else {})}


def _hooks(kind: Kind, router: int, containers: Iterable[int]) -> Iterator[tuple[int, str, int]]:
    """(ifindex, program, where it is attached) of a node."""
    yield router, datapath.FROM_HOST, bpf.TCX_EGRESS
    yield socket.if_nametoindex(topology.UPLINK), datapath.FROM_WIRE, bpf.TCX_INGRESS
    for ifindex in containers:
        if kind.name == "netkit":
            yield ifindex, datapath.FROM_NETKIT, bpf.NETKIT_PEER
        else:
            yield ifindex, datapath.FROM_CONTAINER, bpf.TCX_INGRESS
