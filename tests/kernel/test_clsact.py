# SPDX-License-Identifier: GPL-3.0-or-later
"""The fallback below 6.6: cls_bpf filters that are known as ours, replaced by handle, among those of others."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, clsact, netns
from ansible_collections.fastpath.node.plugins.module_utils.kernel.rtnl import Netlink

from .conftest import Wire, run
from .traffic import flowing, seen, send

INGRESS, EGRESS = bpf.TCX_INGRESS, bpf.TCX_EGRESS


@pytest.fixture
def loaded(sample: bytes) -> Iterator[bpf.LoadedObject]:
    with bpf.load(sample) as one:
        yield one


@pytest.fixture
def netlink(wire: Wire) -> Iterator[Netlink]:
    with netns.entered(wire.netns), Netlink() as one:
        yield one


def test_attach_query_detach(loaded: bpf.LoadedObject, wire: Wire, netlink: Netlink) -> None:
    assert clsact.query(netlink, wire.near, INGRESS) is None
    assert not clsact.detach(netlink, wire.near, INGRESS)
    clsact.attach(netlink, wire.near, INGRESS, loaded.programs["first"], "first")
    found = clsact.query(netlink, wire.near, INGRESS)
    number = bpf.program_info(loaded.programs["first"]).id
    assert found == (clsact.PRIORITY, clsact.HANDLE, "bpf", "fastpath:first", number)
    assert clsact.query(netlink, wire.near, EGRESS) is None
    send(wire.netns, "far", 3)
    assert seen(loaded) == [3, 0]
    assert clsact.detach(netlink, wire.near, INGRESS)
    send(wire.netns, "far", 3)
    assert seen(loaded) == [3, 0]


def test_both_directions_do_not_disturb_each_other(loaded: bpf.LoadedObject, wire: Wire, netlink: Netlink) -> None:
    clsact.attach(netlink, wire.near, INGRESS, loaded.programs["first"], "first")
    clsact.attach(netlink, wire.near, EGRESS, loaded.programs["second"], "second")
    send(wire.netns, "far", 2)
    send(wire.netns, "near", 5)
    assert seen(loaded) == [2, 5]
    clsact.detach(netlink, wire.near, INGRESS)
    assert clsact.query(netlink, wire.near, EGRESS)


def test_a_replacement_under_traffic_loses_nothing(loaded: bpf.LoadedObject, wire: Wire, netlink: Netlink) -> None:
    clsact.attach(netlink, wire.near, INGRESS, loaded.programs["first"], "first")
    with flowing(wire.netns, "far", 20000) as sender:
        while sender.poll() is None:
            for name in ("second", "first"):
                clsact.attach(netlink, wire.near, INGRESS, loaded.programs[name], name)
    counts = seen(loaded)
    assert sum(counts) == 20000
    assert min(counts) > 0
    assert len(clsact.filters(netlink, wire.near, INGRESS)) == 1


def test_the_filter_holds_the_program(sample: bytes, wire: Wire, netlink: Netlink) -> None:
    with bpf.load(sample) as loaded:
        clsact.attach(netlink, wire.near, INGRESS, loaded.programs["first"], "first")
    found = clsact.query(netlink, wire.near, INGRESS)
    assert found
    with bpf.program_by_id(found.prog_id) as program:
        assert bpf.program_info(program).name == "first"


def test_the_filters_and_the_qdisc_of_others_stay(
    loaded: bpf.LoadedObject, wire: Wire, netlink: Netlink, bpffs: Path
) -> None:
    bpf.pin(loaded.programs["second"], bpffs / "foreign")
    run("tc", "qdisc", "add", "dev", "near", "clsact")
    add = ("tc", "filter", "add", "dev", "near", "ingress", "prio", 7, "bpf", "da", "object-pinned")
    run(*add, bpffs / "foreign")
    clsact.attach(netlink, wire.near, INGRESS, loaded.programs["first"], "first")
    names = [(one.priority, one.is_ours) for one in clsact.filters(netlink, wire.near, INGRESS)]
    assert names == [(7, False), (clsact.PRIORITY, True)]
    clsact.detach(netlink, wire.near, INGRESS)
    assert not clsact.remove_qdisc(netlink, wire.near)
    assert [one.priority for one in clsact.filters(netlink, wire.near, INGRESS)] == [7]
    run("tc", "filter", "del", "dev", "near", "ingress", "prio", 7)
    assert clsact.remove_qdisc(netlink, wire.near)
    assert not clsact.remove_qdisc(netlink, wire.near)


@pytest.mark.parametrize("handle", [1, clsact.HANDLE])
def test_a_foreign_filter_with_our_priority_is_kept(
    loaded: bpf.LoadedObject, wire: Wire, netlink: Netlink, bpffs: Path, handle: int
) -> None:
    bpf.pin(loaded.programs["second"], bpffs / "foreign")
    run("tc", "qdisc", "add", "dev", "near", "clsact")
    place = ("ingress", "prio", clsact.PRIORITY, "handle", handle)
    run("tc", "filter", "add", "dev", "near", *place, "bpf", "da", "object-pinned", bpffs / "foreign")
    with pytest.raises(bpf.BpfError, match="taken by the bpf filter") as caught:
        clsact.attach(netlink, wire.near, INGRESS, loaded.programs["first"], "first")
    assert caught.value.errno == errno.EEXIST
    assert not clsact.detach(netlink, wire.near, INGRESS)
    assert len(clsact.filters(netlink, wire.near, INGRESS)) == 1


def test_an_ingress_qdisc_in_the_place_of_clsact_is_refused(
    loaded: bpf.LoadedObject, wire: Wire, netlink: Netlink
) -> None:
    run("tc", "qdisc", "add", "dev", "near", "ingress")
    with pytest.raises(bpf.BpfError, match="cannot add a clsact qdisc to interface"):
        clsact.attach(netlink, wire.near, EGRESS, loaded.programs["first"], "first")
    assert not clsact.remove_qdisc(netlink, wire.near)


def test_an_interface_that_is_not_there_is_named(loaded: bpf.LoadedObject, netlink: Netlink) -> None:
    with pytest.raises(bpf.BpfError, match="interface 987654"):
        clsact.attach(netlink, 987654, INGRESS, loaded.programs["first"], "first")
    assert clsact.query(netlink, 987654, INGRESS) is None
