# SPDX-License-Identifier: GPL-3.0-or-later
"""netkit on kernels that have it: pairs, programs where the far end sends, hooks, renaming, vanishing."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, hooks, links, netns
from ansible_collections.fastpath.node.plugins.module_utils.kernel.hooks import Hook
from ansible_collections.fastpath.node.plugins.module_utils.kernel.rtnl import Netlink, attrs

from .conftest import Spaces, run
from .traffic import FRAME, flowing, seen, send

MAC, PEER_MAC, NO_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "00:00:00:00:00:00"
PASS, DROP, SCRUB_DEFAULT, HEADROOM = 0, 2, 1, 32
# linux/if_link.h: IFLA_NETKIT_*
POLICY, PEER_POLICY, MODE, SCRUB, PEER_SCRUB, ROOM = 3, 4, 5, 6, 7, 8

needs_netkit = pytest.mark.skipif(not bpf.has_netkit(), reason="this kernel has no netkit (6.7)")
modes = pytest.mark.parametrize("mode", ["l2", "l3"])


class Pair(NamedTuple):
    """`near` is the primary; the far end is `eth0` in the other namespace."""

    spaces: Spaces
    near: links.Link

    @property
    def path(self) -> str:
        return f"/run/netns/{self.spaces.near}"

    @property
    def far_path(self) -> str:
        return f"/run/netns/{self.spaces.far}"


def _pair(spaces: Spaces, mode: str = "l2", name: str = "near", far: str = "eth0") -> Pair:
    descriptor = os.open(f"/run/netns/{spaces.far}", os.O_RDONLY)
    try:
        near, end = links.End(name, MAC), links.End(far, PEER_MAC)
        links.add_pair(spaces.netlink, "netkit", near, end, 1400, descriptor, mode)
    finally:
        os.close(descriptor)
    link = links.need(spaces.netlink, name)
    links.set_link(spaces.netlink, link.index, up=True, link_local=False)
    run("ip", "-n", spaces.far, "link", "set", far, "up")
    return Pair(spaces, links.need(spaces.netlink, name))


@pytest.fixture
def pair(spaces: Spaces) -> Pair:
    return _pair(spaces)


@pytest.fixture
def pins(bpffs: Path, monkeypatch: pytest.MonkeyPatch, spaces: Spaces) -> Iterator[Path]:
    """Where hooks pins its links; we are in the near namespace."""
    monkeypatch.setattr(hooks, "PINS", bpffs / "links")
    with netns.entered(f"/run/netns/{spaces.near}"):
        yield bpffs / "links"


def _data(spaces: Spaces, index: int) -> dict[int, int]:
    """The numbers among a link's netkit attributes."""
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    found = attrs(spaces.netlink.get(18, body)[16:])
    return {kind: int.from_bytes(raw, sys.byteorder) for kind, raw in attrs(attrs(found[18])[2]).items()}


def test_netkit_is_where_programs_can_be_attached_to_it() -> None:
    """bpf() must agree with rtnetlink: it says that the loopback is no netkit, or that it knows no such type."""
    with pytest.raises(bpf.BpfError) as caught:
        bpf.query(1, bpf.NETKIT_PEER)
    assert caught.value.errno == (errno.ENXIO if bpf.has_netkit() else errno.EINVAL)


def test_kinds_that_the_kernel_knows(spaces: Spaces) -> None:
    run("ip", "-n", spaces.near, "link", "add", "one", "type", "veth", "peer", "name", "two")  # may load a module
    assert links.has_kind(spaces.netlink, "veth")
    assert not links.has_kind(spaces.netlink, "nothing")


@needs_netkit
@modes
def test_a_pair_over_two_namespaces(spaces: Spaces, mode: str) -> None:
    near = _pair(spaces, mode).near
    mac, peer_mac = (MAC, PEER_MAC) if mode == "l2" else (NO_MAC, NO_MAC)
    assert (near.kind, near.mode, near.mac, near.mtu, near.group) == ("netkit", mode, mac, 1400, links.GROUP)
    with netns.entered(f"/run/netns/{spaces.far}"), Netlink() as netlink:
        far = links.need(netlink, "eth0")
    assert (far.kind, far.mode, far.mac, far.mtu, far.group) == ("netkit", mode, peer_mac, 1400, links.GROUP)
    assert (near.peer_index, far.peer_index) == (far.index, near.index)
    assert near.peer_nsid is not None
    assert set(links.links(spaces.netlink, "netkit")) == {"near"}
    # another program's view of the same
    assert "netkit" in run("ip", "-n", spaces.near, "-d", "link", "show", "near")
    assert ("NOARP" in run("ip", "-n", spaces.far, "link", "show", "eth0")) == (mode == "l3")


@needs_netkit
@modes
def test_its_far_end_is_closed_and_scrubbed(spaces: Spaces, mode: str) -> None:
    data = _data(spaces, _pair(spaces, mode).near.index)
    assert (data[POLICY], data[PEER_POLICY], data[MODE]) == (PASS, DROP, {"l2": 0, "l3": 1}[mode])
    # what an older kernel does not know it has skipped
    assert data.get(SCRUB, SCRUB_DEFAULT) == data.get(PEER_SCRUB, SCRUB_DEFAULT) == SCRUB_DEFAULT
    assert data.get(ROOM, HEADROOM) == HEADROOM


@needs_netkit
def test_without_a_program_nothing_comes_out(sample: bytes, pair: Pair) -> None:
    with bpf.load(sample) as loaded:
        with netns.entered(pair.path):
            ingress = bpf.attach(loaded.programs["second"], pair.near.index, bpf.TCX_INGRESS)
        with ingress:
            _refused(pair)
            assert seen(loaded) == [0, 0]
            with netns.entered(pair.path):
                peer = bpf.attach(loaded.programs["first"], pair.near.index, bpf.NETKIT_PEER)
            with peer:  # its verdict is TC_ACT_OK: on to the host end
                send(pair.far_path, "eth0", 4)
                assert seen(loaded) == [4, 4]
            _refused(pair)
            assert seen(loaded) == [4, 4]


def _refused(pair: Pair) -> None:
    """The sender is told, as of a full queue."""
    with netns.entered(pair.far_path):
        outlet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with outlet, pytest.raises(OSError, match="No buffer space"):
        outlet.sendto(FRAME, ("eth0", 0))


@needs_netkit
def test_what_is_sent_to_the_far_end_needs_no_program(sample: bytes, pair: Pair) -> None:
    with bpf.load(sample) as loaded:
        with netns.entered(pair.far_path):
            index = socket.if_nametoindex("eth0")
            link = bpf.attach(loaded.programs["first"], index, bpf.TCX_INGRESS)
        with link:
            send(pair.path, "near", 3)
            assert seen(loaded) == [3, 0]


@needs_netkit
def test_a_link_names_the_far_end(sample: bytes, pair: Pair, bpffs: Path) -> None:
    with bpf.load(sample) as loaded, netns.entered(pair.path):
        ids = {name: bpf.program_info(fd).id for name, fd in loaded.programs.items()}
        with bpf.attach(loaded.programs["first"], pair.near.index, bpf.NETKIT_PEER) as link:
            info = bpf.link_info(link)
            assert info[1:] == (ids["first"], bpf.NETKIT_PEER, pair.near.peer_index)
            assert bpf.query(pair.near.index, bpf.NETKIT_PEER) == [ids["first"]]
            assert bpf.query(pair.near.index, bpf.NETKIT_PRIMARY) == []
            bpf.link_update(link, loaded.programs["second"])
            assert bpf.query(pair.near.index, bpf.NETKIT_PEER) == [ids["second"]]
            bpf.pin(link, bpffs / "link")
        assert bpf.query(pair.near.index, bpf.NETKIT_PEER) == [ids["second"]]
        bpf.detach(bpffs / "link")
        assert bpf.query(pair.near.index, bpf.NETKIT_PEER) == []


@needs_netkit
def test_an_update_under_traffic_loses_nothing(sample: bytes, pair: Pair) -> None:
    with bpf.load(sample) as loaded:
        with netns.entered(pair.path):
            link = bpf.attach(loaded.programs["first"], pair.near.index, bpf.NETKIT_PEER)
        with link, flowing(pair.far_path, "eth0", 20000) as sender:
            while sender.poll() is None:
                for name in ("second", "first"):
                    bpf.link_update(link, loaded.programs[name])
        counts = seen(loaded)
    assert sum(counts) == 20000
    assert min(counts) > 0


# hooks


@needs_netkit
def test_a_hook_is_known_by_its_host_end(sample: bytes, spaces: Spaces, pins: Path) -> None:
    """Container ends of different namespaces often have the same number, so that one says nothing."""
    run("ip", "-n", spaces.near, "link", "add", "another", "type", "bridge")
    pair = _pair(spaces)
    assert pair.near.index != pair.near.peer_index
    with bpf.load(sample) as loaded:
        ids = {name: bpf.program_info(fd).id for name, fd in loaded.programs.items()}
        hooks.attach("nk-near", pair.near.index, loaded.programs["first"], bpf.NETKIT_PEER)
        assert hooks.read() == {"nk-near": Hook(pair.near.index, ids["first"])}
        (pin,) = pins.iterdir()
        hooks.attach("nk-near", pair.near.index, loaded.programs["second"], bpf.NETKIT_PEER)
        assert hooks.read() == {"nk-near": Hook(pair.near.index, ids["second"])}
        assert list(pins.iterdir()) == [pin]
        assert bpf.query(pair.near.index, bpf.NETKIT_PEER) == [ids["second"]]
        hooks.detach("nk-near")
        hooks.detach("nk-near")
        assert bpf.query(pair.near.index, bpf.NETKIT_PEER) == []
        assert list(pins.iterdir()) == []


@needs_netkit
def test_a_hook_of_a_pair_that_has_gone(sample: bytes, spaces: Spaces, pins: Path) -> None:
    old = _pair(spaces).near
    with bpf.load(sample) as loaded:
        number = bpf.program_info(loaded.programs["first"]).id
        hooks.attach("nk-near", old.index, loaded.programs["first"], bpf.NETKIT_PEER)
        links.delete_link(spaces.netlink, "near")
        assert hooks.read() == {"nk-near": Hook(0, number)}
        new = _pair(spaces).near
        assert hooks.read() == {"nk-near": Hook(0, number)}
        hooks.attach("nk-near", new.index, loaded.programs["first"], bpf.NETKIT_PEER)
        assert hooks.read() == {"nk-near": Hook(new.index, number)}
        assert len(list(pins.iterdir())) == 1
        hooks.detach("nk-near")


@needs_netkit
def test_a_hook_gets_another_key(sample: bytes, spaces: Spaces, pins: Path) -> None:
    """As at the end of a move from one netkit to another."""
    old, new = _pair(spaces).near, _pair(spaces, "l3", "temporary", "eth1").near
    with bpf.load(sample) as loaded:
        number = bpf.program_info(loaded.programs["first"]).id
        for key, link in (("nk-near", old), ("nk-temporary", new)):
            hooks.attach(key, link.index, loaded.programs["first"], bpf.NETKIT_PEER)
        for _turn in range(2):
            hooks.rename("nk-temporary", "nk-near")
            assert hooks.read() == {"nk-near": Hook(new.index, number)}
        assert bpf.query(old.index, bpf.NETKIT_PEER) == []
        assert bpf.query(new.index, bpf.NETKIT_PEER) == [number]
        hooks.detach("nk-near")
        assert list(pins.iterdir()) == []


# the links' lives


@needs_netkit
def test_a_vanished_namespace_takes_all_with_it(sample: bytes, spaces: Spaces, pins: Path) -> None:
    near = _pair(spaces).near
    with bpf.load(sample) as loaded:
        hooks.attach("nk-near", near.index, loaded.programs["first"], bpf.NETKIT_PEER)
        run("ip", "netns", "del", spaces.far)
        run("ip", "netns", "add", spaces.far)
        deadline = time.monotonic() + 10
        while links.link(spaces.netlink, "near") is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert hooks.read()["nk-near"].ifindex == 0
        hooks.detach("nk-near")


@needs_netkit
@modes
def test_both_ends_get_other_names_while_packets_flow(sample: bytes, spaces: Spaces, mode: str) -> None:
    pair = _pair(spaces, mode)
    with netns.entered(pair.far_path):
        inside = Netlink()
    with inside, bpf.load(sample) as loaded:
        far = links.need(inside, "eth0").index
        links.add_address(inside, far, "10.1.2.3/32")
        links.add_route(inside, links.Route("0.0.0.0/0", "10.1.2.1"), far)
        with netns.entered(pair.path):
            link = bpf.attach(loaded.programs["first"], pair.near.index, bpf.NETKIT_PEER)
        with link, flowing(pair.far_path, "eth0", 30000) as sender:
            while not any(seen(loaded)):  # the sender takes the interface by its name
                pass
            going = True
            while going:  # at least once, however fast the sender is
                for name in ("other", "eth0"):
                    links.rename(inside, far, name)
                    links.rename(spaces.netlink, pair.near.index, f"near-{name}")
                going = sender.poll() is None
        assert sum(seen(loaded)) == 30000
        assert links.need(spaces.netlink, "near-eth0").up
        assert links.addresses(inside, far) == {"10.1.2.3/32"}
        assert links.routes(inside, far) == {links.Route("0.0.0.0/0", "10.1.2.1")}


@needs_netkit
def test_marks_stay_inside(sample: bytes, pair: Pair) -> None:
    """What a container says by a mark of its sockets, another namespace would take for its own."""
    marks: list[int] = []
    settings = struct.pack("=I6sH", 0x1234, bytes(6), 0)  # the program tells the mark that it finds, and sets this one
    with bpf.load(sample, rodata={"settings": settings}) as loaded, bpf.RingBuffer(loaded.maps["events"]) as ring:
        with netns.entered(pair.path):
            link = bpf.attach(loaded.programs["show"], pair.near.index, bpf.NETKIT_PEER)
        with netns.entered(pair.far_path), link, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as outlet:
            outlet.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x1234)
            with bpf.attach(loaded.programs["show"], socket.if_nametoindex("eth0"), bpf.TCX_EGRESS):
                outlet.sendto(FRAME, ("eth0", 0))
            while 0x1234 not in marks[:-1]:  # the kernel may have something to say of its own
                assert ring.poll(lambda event: marks.append(int.from_bytes(event, sys.byteorder)), timeout_ms=5000)
    assert marks.count(0x1234) == 1  # inside, and not again on the way out
