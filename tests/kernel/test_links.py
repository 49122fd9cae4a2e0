# SPDX-License-Identifier: GPL-3.0-or-later
"""Links, addresses and routes in a real kernel; iproute2 tells whether what we wrote is what is there."""

from __future__ import annotations

import errno
import json
import os
import platform
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel import links
from ansible_collections.fastpath.node.plugins.module_utils.kernel.links import Route

from .conftest import Spaces, run

MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def _veth(spaces: Spaces, name: str = "here", mtu: int = 1400) -> links.Link:
    """A pair whose other end `eth0` is in the far namespace."""
    descriptor = os.open(f"/run/netns/{spaces.far}", os.O_RDONLY)
    try:
        links.add_pair(spaces.netlink, "veth", links.End(name, MAC), links.End("eth0", PEER_MAC), mtu, descriptor)
    finally:
        os.close(descriptor)
    return links.need(spaces.netlink, name)


def _ip(space: str, *words: str) -> list[dict[str, Any]]:
    """What iproute2 reads there."""
    rows: list[dict[str, Any]] = json.loads(run("ip", "-n", space, "-json", "-details", *words) or "[]")
    return rows


def _judged(space: str, name: str) -> dict[str, Any]:
    return _ip(space, "link", "show", "dev", name)[0]


def test_a_pair_over_two_namespaces(spaces: Spaces) -> None:
    link = _veth(spaces)
    seen = _judged(spaces.near, "here")
    expected = (seen["ifindex"], "here", "veth", MAC, 1400, False, links.GROUP)
    assert (link.index, link.name, link.kind, link.mac, link.mtu, link.up, link.group) == expected
    assert (seen["address"], seen["mtu"], int(seen["group"])) == (MAC, 1400, links.GROUP)
    assert seen["linkinfo"]["info_kind"] == "veth"
    peer = _judged(spaces.far, "eth0")
    assert (peer["ifindex"], peer["address"], peer["mtu"]) == (link.peer_index, PEER_MAC, 1400)
    assert int(peer["group"]) == links.GROUP
    descriptor = os.open(f"/run/netns/{spaces.far}", os.O_RDONLY)
    try:
        assert links.nsid(spaces.netlink, descriptor) == link.peer_nsid is not None
    finally:
        os.close(descriptor)


def test_all_links_are_read_as_iproute2_reads_them(spaces: Spaces) -> None:
    _veth(spaces)
    run("ip", "-n", spaces.near, "link", "add", "br7", "type", "bridge")
    run("ip", "-n", spaces.near, "link", "add", "one", "type", "veth", "peer", "name", "two")
    found = links.links(spaces.netlink)
    judged = {one["ifname"]: one for one in _ip(spaces.near, "link")}
    assert found.keys() == judged.keys() == {"lo", "here", "br7", "one", "two"}
    for name, one in found.items():
        seen = judged[name]
        expected = (seen["ifindex"], seen["mtu"], seen["address"], "UP" in seen["flags"])
        assert (one.index, one.mtu, one.mac, one.up) == expected
    assert found["one"].peer_index == found["two"].index
    assert found["one"].peer_nsid is None
    assert links.links(spaces.netlink, "veth").keys() == {"here", "one", "two"}
    assert links.link(spaces.netlink, "br7") == found["br7"]
    assert links.link_by_index(spaces.netlink, found["br7"].index) == found["br7"]


def test_what_is_not_there(spaces: Spaces) -> None:
    assert links.link(spaces.netlink, "nobody") is None
    assert links.link_by_index(spaces.netlink, 4711) is None
    with pytest.raises(FastpathError, match="nobody"):
        links.need(spaces.netlink, "nobody")
    assert links.routes(spaces.netlink) == frozenset()
    links.delete_route(spaces.netlink, Route("10.9.0.0/16", "10.0.0.1"))
    links.delete_address(spaces.netlink, 1, "10.0.0.1/32")


def test_a_link_is_changed_in_one_request(spaces: Spaces) -> None:
    index = _veth(spaces).index
    links.set_link(
        spaces.netlink, index, up=True, mtu=1300, mac="02:00:00:00:00:09", alias="netns:/x", link_local=False
    )
    seen = _judged(spaces.near, "here")
    assert "UP" in seen["flags"]
    assert (seen["mtu"], seen["address"], seen["inet6_addr_gen_mode"]) == (1300, "02:00:00:00:00:09", "none")
    assert seen["ifalias"] == links.need(spaces.netlink, "here").alias == "netns:/x"
    links.set_link(spaces.netlink, index, up=False)
    assert not links.need(spaces.netlink, "here").up


def test_addresses(spaces: Spaces) -> None:
    index = _veth(spaces).index
    links.set_link(spaces.netlink, index, up=True)
    wanted = {"10.1.2.3/32", "10.1.2.4/24", "fd00::3/128", "fd00:1::4/64"}
    for address in (*wanted, *wanted):  # twice: the second time changes nothing
        links.add_address(spaces.netlink, index, address)
    assert links.addresses(spaces.netlink, index) == wanted
    (seen,) = _ip(spaces.near, "addr", "show", "dev", "here")
    assert {f"{one['local']}/{one['prefixlen']}" for one in seen["addr_info"] if one["scope"] != "link"} == wanted
    nodad = {one["local"] for one in seen["addr_info"] if one.get("nodad")}
    assert nodad >= {"fd00::3", "fd00:1::4"}
    for address in ("10.1.2.4/24", "fd00::3/128", "fd00::3/128"):
        links.delete_address(spaces.netlink, index, address)
    assert links.addresses(spaces.netlink, index) == {"10.1.2.3/32", "fd00:1::4/64"}


def test_routes(spaces: Spaces) -> None:
    index = _veth(spaces).index
    links.set_link(spaces.netlink, index, up=True)
    for address in ("10.1.2.3/32", "fd00::3/128"):
        links.add_address(spaces.netlink, index, address)
    wanted = {
        Route("0.0.0.0/0", "10.1.2.1"), Route("::/0", "fd00::1"), Route("10.7.0.0/16"), Route("fd00:7::/64"),
        Route("10.8.0.0/16", "10.1.2.1"),
    }  # fmt: skip
    for route in sorted(wanted, key=lambda one: one.to):
        links.add_route(spaces.netlink, route, index)
    assert links.routes(spaces.netlink) == links.routes(spaces.netlink, index) == wanted
    seen = [one for v in ("-4", "-6") for one in _ip(spaces.near, v, "route", "show", "proto", str(links.PROTOCOL))]
    default = {"10.1.2.1": "0.0.0.0/0", "fd00::1": "::/0"}
    judged = {
        Route(default[one["gateway"]] if one["dst"] == "default" else one["dst"], one.get("gateway", ""))
        for one in seen
    }
    assert judged == wanted
    assert {one["dev"] for one in seen} == {"here"}
    for route in wanted:
        links.delete_route(spaces.netlink, route, index)
        links.delete_route(spaces.netlink, route, index)
    assert links.routes(spaces.netlink) == frozenset()


def test_routes_of_others_are_not_seen(spaces: Spaces) -> None:
    index = _veth(spaces).index
    links.set_link(spaces.netlink, index, up=True)
    run("ip", "-n", spaces.near, "route", "add", "10.9.0.0/16", "dev", "here")
    links.add_route(spaces.netlink, Route("10.7.0.0/16"), index)
    assert links.routes(spaces.netlink) == {Route("10.7.0.0/16")}


def test_the_kernels_own_words_are_in_the_error(spaces: Spaces) -> None:
    index = _veth(spaces).index
    with pytest.raises(OSError, match="File exists") as caught:
        _veth(spaces)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(OSError, match=r"\(.+\)"):
        links.set_link(spaces.netlink, index, mtu=10)
    links.delete_link(spaces.netlink, "here")
    links.delete_link(spaces.netlink, "here")
    assert links.link(spaces.netlink, "here") is None
    assert [one["ifname"] for one in _ip(spaces.far, "link")] == ["lo"]


def test_an_abandoned_dump_does_not_disturb_the_next_request(spaces: Spaces) -> None:
    _veth(spaces)
    next(spaces.netlink.dump(18, bytes(16)))
    assert links.link(spaces.netlink, "here") is not None
    assert set(links.links(spaces.netlink)) == {"lo", "here"}


def test_requests_at_once(spaces: Spaces) -> None:
    """The first error is raised; the others are carried out, and the next request gets its own answer."""
    links.add_pair(spaces.netlink, "veth", links.End("one"), links.End("two"), 1400)
    index = links.need(spaces.netlink, "one").index

    def change(**second: Any) -> None:
        with spaces.netlink.at_once():
            links.set_link(spaces.netlink, index, alias="before")
            links.set_link(spaces.netlink, index, **second)
            links.set_link(spaces.netlink, index, mac="02:00:00:00:00:aa")
            links.set_link(spaces.netlink, index, mtu=21)
            assert links.need(spaces.netlink, "one").alias == ""

    with pytest.raises(TypeError):
        change(speed=1)
    assert links.need(spaces.netlink, "one").alias == ""
    with pytest.raises(OSError, match="mtu less than device minimum"):
        change(mtu=20)
    found = links.need(spaces.netlink, "one")
    assert (found.alias, found.mac, found.mtu) == ("before", "02:00:00:00:00:aa", 1400)
    links.set_link(spaces.netlink, index, mtu=1300)
    assert links.need(spaces.netlink, "one").mtu == 1300


def test_a_link_of_somebody_else_is_not_deleted(spaces: Spaces) -> None:
    run("ip", "-n", spaces.near, "link", "add", "theirs", "type", "veth", "peer", "name", "other")
    links.delete_link(spaces.netlink, "theirs")
    assert links.need(spaces.netlink, "theirs").group == 0


def test_a_link_that_is_up_gets_another_name(spaces: Spaces) -> None:
    """From Linux 6.2 on; older ones want it down."""
    link = _veth(spaces)
    links.set_link(spaces.netlink, link.index, up=True)
    links.add_address(spaces.netlink, link.index, "10.1.2.3/32")
    links.add_route(spaces.netlink, Route("10.7.0.0/16"), link.index)
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 2):
        with pytest.raises(OSError, match="busy"):
            links.rename(spaces.netlink, link.index, "there")
        return
    links.rename(spaces.netlink, link.index, "there")
    assert links.link(spaces.netlink, "here") is None
    assert _judged(spaces.near, "there")["ifindex"] == link.index
    assert "UP" in _judged(spaces.near, "there")["flags"]
    assert links.addresses(spaces.netlink, link.index) == {"10.1.2.3/32"}
    assert links.routes(spaces.netlink, link.index) == {Route("10.7.0.0/16")}
    with pytest.raises(OSError, match="File exists"):
        links.rename(spaces.netlink, link.index, "lo")


def test_a_link_goes_to_another_namespace(spaces: Spaces) -> None:
    """It arrives down and empty, by the name that is asked for, also where its own is taken there."""
    link = _veth(spaces)
    links.set_link(spaces.netlink, link.index, up=True)
    links.add_address(spaces.netlink, link.index, "10.1.2.3/32")
    run("ip", "-n", spaces.far, "link", "add", "here", "type", "veth", "peer", "name", "other")
    descriptor = os.open(f"/run/netns/{spaces.far}", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="File exists"):
            links.send(spaces.netlink, link.index, descriptor, "eth0")
        assert links.addresses(spaces.netlink, link.index) == {"10.1.2.3/32"}
        links.send(spaces.netlink, link.index, descriptor, "lan%d")
    finally:
        os.close(descriptor)
    assert links.link(spaces.netlink, "here") is None
    (seen,) = [one for one in _ip(spaces.far, "address") if one["address"] == MAC]
    assert seen["ifname"].startswith("lan")
    assert ("UP" in seen["flags"], seen["addr_info"]) == (False, [])


def test_group_and_alias_come_and_go(spaces: Spaces) -> None:
    run("ip", "-n", spaces.near, "link", "add", "theirs", "type", "veth", "peer", "name", "other")
    for group, alias in ((links.GROUP, "vf web-1 0000:3b:00.2"), (0, "")):
        links.label(spaces.netlink, links.need(spaces.netlink, "theirs").index, group, alias)
        found, seen = links.need(spaces.netlink, "theirs"), _judged(spaces.near, "theirs")
        assert (found.group, found.alias) == (group, alias)
        assert (seen["group"], seen.get("ifalias", "")) == (str(group) if group else "default", alias)


def test_a_device_is_behind_few_links(spaces: Spaces) -> None:
    _veth(spaces)
    assert links.link_of_device(spaces.netlink, "0000:3b:00.2") is None
    assert links.need(spaces.netlink, "here").parent == ""
