# SPDX-License-Identifier: GPL-3.0-or-later
"""NICs hand over a sum of the whole packet (CHECKSUM_COMPLETE). It must stay true while the packet is changed:

else the container's kernel blames the NIC ("hw csum failure") and computes each checksum itself. Kernels from 6.12
on can say whether it did, in a test run.
"""

from __future__ import annotations

import ctypes
import errno

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import netns, testrun
from ansible_collections.fastpath.node.plugins.module_utils.kernel.libbpf import attempt
from tests.bpf import packets
from tests.bpf.dataplane import DEVICES, PASS, REDIRECT, Dataplane
from tests.bpf.frames import FAMILIES, FLOWS, Family, from_container, from_wire
from tests.bpf.topology import C1, C2, GATEWAY6

CHECKSUM_COMPLETE = 4  # BPF_F_TEST_SKB_CHECKSUM_COMPLETE
ROOM = 4096

both = pytest.mark.parametrize("family", FAMILIES, ids=str)


def verdict(plane: Dataplane, hook: str, frame: bytes) -> int:
    """What the program returned; raises AssertionError when the sum is no longer that of the packet."""
    context = testrun._SkBuff(ifindex=plane.ifindex[DEVICES[hook]])
    data, out = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(ROOM)
    options = testrun._Options(
        sz=ctypes.sizeof(testrun._Options),
        data_in=ctypes.addressof(data),
        data_size_in=len(frame),
        data_out=ctypes.addressof(out),
        data_size_out=ROOM,
        ctx_in=ctypes.addressof(context),
        ctx_size_in=ctypes.sizeof(context),
        flags=CHECKSUM_COMPLETE,
        repeat=1,
    )
    with netns.entered(plane.net.path("node")):
        result = attempt("bpf_prog_test_run_opts", plane.loaded.programs[plane.program(hook)], ctypes.byref(options))
    if result == -errno.EINVAL:
        pytest.skip("this kernel cannot tell")
    assert result != -errno.EBADMSG, "the sum is not that of the packet"
    assert result == 0
    return ctypes.c_int32(options.retval).value


@both
@pytest.mark.parametrize("hook", FLOWS)
@pytest.mark.parametrize("size", [0, 1, 100, 1400])
def test_delivered(plane: Dataplane, family: Family, hook: str, size: int) -> None:
    for ttl in (2, 64, 255):
        assert verdict(plane, hook, FLOWS[hook](family).with_(size=size, ttl=ttl).frame()) == REDIRECT


@both
def test_routed(plane: Dataplane, family: Family) -> None:
    for dst in (family.far, family.node):
        assert verdict(plane, "from_container", from_container(family, dst).frame()) == REDIRECT


@both
def test_passed(plane: Dataplane, family: Family) -> None:
    assert verdict(plane, "from_wire", from_wire(family, family.node).frame()) == PASS


@both
@pytest.mark.parametrize("hook", ["from_container", "from_wire"])
@pytest.mark.parametrize("size", [0, 1, 31, 512])
def test_icmp_errors(plane: Dataplane, family: Family, hook: str, size: int) -> None:
    """Those that quote all of the packet; from one that is cut, the kernel takes the sum away."""
    flow = FLOWS[hook](family).with_(size=size)
    assert verdict(plane, hook, flow.with_(ttl=1).frame()) == REDIRECT
    with plane.published(C2, family.c2, mtu=20):
        assert verdict(plane, hook, flow.frame()) == REDIRECT


@pytest.mark.parametrize("src", [C1.v6, "fe80::1234", "::"])
def test_advertisements(plane: Dataplane, src: str) -> None:
    assert verdict(plane, "from_container", packets.solicitation(C1.mac, src, GATEWAY6)) == REDIRECT
