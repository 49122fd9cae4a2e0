# SPDX-License-Identifier: GPL-3.0-or-later
"""The object itself: its layouts, its size for the verifier, and that old kernels will take it."""

from __future__ import annotations

import re
import struct

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from tests.bpf import stack
from tests.bpf.dataplane import LAYOUT, OBJECT, Dataplane, config, enum_names

ABI = OBJECT.parents[3] / "bpf/abi.h"

# Changing one of these needs a new directory of pinned maps; this table makes that a decision.
STRUCTS = {
    "fp_addr": (16, {"word": (0, 16)}),
    "fp_endpoint": (20, {"ifindex": (0, 4), "slot": (4, 4), "mac": (8, 6), "mtu": (14, 2), "flags": (16, 4)}),
    "fp_endpoint_stats": (
        32,
        {"rx_packets": (0, 8), "rx_bytes": (8, 8), "tx_packets": (16, 8), "tx_bytes": (24, 8)},
    ),
    "fp_config": (
        32,
        {
            "router_ifindex": (0, 4),
            "gateway_mac": (4, 6),
            "pad": (10, 2),
            "gateway_v4": (12, 4),
            "gateway_v6": (16, 16),
        },
    ),
    "fp_bucket": (16, {"last_ns": (0, 8), "credit_ns": (8, 8)}),
    "fp_drop_limit": (24, {"bucket": (0, 16), "left_out": (16, 8)}),
    "fp_event": (
        152,
        {
            "time_ns": (0, 8),
            "ifindex": (8, 4),
            "rule": (12, 4),
            "len": (16, 4),
            "hook": (20, 1),
            "reason": (21, 1),
            "kind": (22, 1),
            "pad": (23, 1),
            "head": (24, 128),
        },
    ),
    "fp_policy_state": (24, {"epoch": (0, 4), "settled": (4, 4), "input": (8, 8), "content": (16, 8)}),
    "fp_identity_key": (20, {"addr": (0, 16), "side": (16, 4)}),
    "fp_identity": (8, {"peers": (0, 4), "broad": (4, 4)}),
    "fp_row": (72, {"word": (0, 32), "low": (32, 16), "high": (48, 16), "protocol": (64, 8)}),
    "fp_subject": (80, {"number": (0, 4), "flags": (4, 4), "row": (8, 72)}),
    "fp_policy_key": (12, {"subject": (0, 4), "peers": (4, 4), "side": (8, 4)}),
    "fp_page_key": (8, {"page": (0, 4), "side": (4, 4)}),
    "fp_page": (1024, {"word": (0, 1024)}),
    "fp_flow_key": (
        40,
        {
            "a": (0, 16),
            "b": (16, 16),
            "port_a": (32, 2),
            "port_b": (34, 2),
            "protocol": (36, 1),
            "echo": (37, 1),
            "pad": (38, 2),
        },
    ),
    "fp_flow": (16, {"epoch": (0, 4), "seen": (4, 4), "flags": (8, 4), "rule": (12, 4)}),
    "fp_fragment_key": (40, {"src": (0, 16), "dst": (16, 16), "id": (32, 4), "protocol": (36, 1), "pad": (37, 3)}),
    "fp_segment": (
        8,
        {"port_src": (0, 2), "port_dst": (2, 2), "port": (4, 2), "protocol": (6, 1), "kind": (7, 1)},
    ),
    "fp_fragmented": (12, {"first": (0, 8), "seen": (8, 4)}),
}
PROGRAMS = ("from_container", "from_netkit", "from_wire", "from_host", "redecide", "asked")
HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, ARRAY_OF_MAPS, RINGBUF = 1, 2, 5, 6, 9, 12, 27
NO_PREALLOC, RDONLY_PROG = 1, 128
MAPS = {  # type, key size, value size, entries, flags
    "endpoints": (HASH, 16, 20, 65536, NO_PREALLOC | RDONLY_PROG),
    "moves": (HASH, 4, 4, 64, RDONLY_PROG),
    "endpoint_stats": (PERCPU_ARRAY, 4, 32, 4096, 0),
    "drops": (PERCPU_ARRAY, 4, 8, len(enum_names("drop")), 0),
    "hooks": (PERCPU_ARRAY, 4, 8, 4, 0),
    "replies": (PERCPU_ARRAY, 4, 8, 4, 0),
    "icmp_bucket": (PERCPU_ARRAY, 4, 16, 1, 0),
    "drop_watch": (ARRAY, 4, 8, 1, RDONLY_PROG),
    "drop_limit": (PERCPU_ARRAY, 4, 24, 1, 0),
    "events": (RINGBUF, 0, 0, 262144, 0),
    "policy_state": (ARRAY, 4, 24, 1, RDONLY_PROG),
    "identities": (HASH, 20, 8, 2 << 19, NO_PREALLOC | RDONLY_PROG),
    "subjects": (ARRAY, 4, 80, 2 * 2 * 4096, RDONLY_PROG),
    "policy": (HASH, 12, 72, 2 << 20, NO_PREALLOC | RDONLY_PROG),
    "pages": (HASH, 8, 1024, 2 << 13, NO_PREALLOC | RDONLY_PROG),
    "tries": (ARRAY_OF_MAPS, 4, 4, 2, 0),
    "rule_counts": (PERCPU_HASH, 4, 8, 2 * 65536, NO_PREALLOC),
    "flows": (LRU_HASH, 40, 16, 1 << 18, 0),
    "young": (LRU_HASH, 40, 16, 1 << 16, 0),
    "flow_counts": (PERCPU_ARRAY, 4, 8, len(enum_names("flow_count")), 0),
    "fragmented": (LRU_HASH, 40, 12, 8192, 0),
}


@pytest.mark.parametrize("name", STRUCTS)
def test_layout(name: str) -> None:
    found = LAYOUT.structs[name]
    assert (found.size, {field.name: (field.offset, field.size) for field in found.fields}) == STRUCTS[name]


def test_layouts_as_user_space_packs_them() -> None:
    """struct formats without padding, so that Python may use them."""
    assert struct.calcsize("=II6sHI") == LAYOUT.structs["fp_endpoint"].size
    assert struct.calcsize("=4Q") == LAYOUT.structs["fp_endpoint_stats"].size
    assert struct.calcsize("=I6sH4s16s") == LAYOUT.structs["fp_config"].size
    assert struct.calcsize("=3Q") == LAYOUT.structs["fp_drop_limit"].size
    assert struct.calcsize("=QIIIBBBx128s") == LAYOUT.structs["fp_event"].size


def test_maps(plane: Dataplane) -> None:
    found = {}
    for name, fd in plane.loaded.maps.items():
        info = bpf.map_info(fd)
        found[name] = (info.type, info.key_size, info.value_size, info.max_entries, info.flags)
        # a ring buffer has neither keys nor values, those of an array of maps are numbers
        assert info.btf_id or info.type in (RINGBUF, ARRAY_OF_MAPS), (
            f"{name} has no BTF: bpftool could not show its values by name"
        )
    assert found == MAPS


def test_programs(plane: Dataplane) -> None:
    assert set(plane.loaded.programs) == set(PROGRAMS)
    for fd in plane.loaded.programs.values():
        info = bpf.program_info(fd)
        # kernels differ in how much they prune; the limit is 1,000,000
        assert 0 < info.verified_insns < 30_000


@pytest.mark.parametrize("enum", ["drop", "hook", "reply"])
def test_names(enum: str) -> None:
    """An operator reads them: every reason says in one line what it means."""
    names = enum_names(enum)
    assert len(set(names)) == len(names) == LAYOUT.enums[f"fp_{enum}"][f"FP_{enum.upper()}_MAX"]
    if enum == "drop":
        documented = re.findall(r"^\tFP_DROP_(\w+),\s+/\* \S.* \*/$", ABI.read_text(encoding="ascii"), re.MULTILINE)
        assert documented == names


def test_no_private_map_but_the_configuration(plane: Dataplane) -> None:
    """Constants in sections of their own would be maps that nobody pins."""
    names = set()
    for fd in plane.loaded.programs.values():
        for map_id in bpf.program_info(fd).map_ids:
            with bpf.map_by_id(map_id) as map_fd:
                names.add(bpf.map_info(map_fd).name)
    assert names == {*(name[:15] for name in MAPS), "fastpath.rodata"}


def test_loads_without_any_gateway() -> None:
    """The verifier knows the configuration and follows other ways with another one."""
    size = LAYOUT.structs["fp_config"].size
    for image in (bytes(size), config(1)[: size - 16] + bytes(16), config(1)[:12] + bytes(4) + config(1)[16:]):
        with bpf.load(OBJECT.read_bytes(), rodata={"config": image}) as loaded:
            assert len(loaded.programs) == len(PROGRAMS)


def test_same_source_same_object() -> None:
    """No paths and no time of the build in it: one object for all nodes can be compared."""
    assert b"/work/" not in OBJECT.read_bytes()
    assert str(OBJECT.parents[3]).encode() not in OBJECT.read_bytes()


@pytest.mark.parametrize("program", PROGRAMS)
def test_stack_fits_old_kernels(program: str) -> None:
    """512 bytes for a program and all that it calls, each function rounded up."""
    assert 32 < stack.deepest(OBJECT, program) <= 512
