# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong attachments are refused with the field, its value and what is allowed; right ones get their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel.links import Route
from ansible_collections.fastpath.node.plugins.module_utils.plan import predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish
from ansible_collections.fastpath.node.plugins.module_utils.resources.attachments_plan import Want

NODE = pure.Node(("10.128.3.0/24", "fd00:128:3::/64"), 1500, "g1")
HERE = pure.State(
    node=NODE,
    containers=frozenset(["netns:/run/netns/a", "netns:/run/netns/b", "pid:7"]),
    foreign=frozenset(["lo", "eth0", "docker0"]),
)


def item(**changes: Any) -> dict[str, Any]:
    base = {"name": "web-1", "container": {"netns": "/run/netns/a"}, "addresses": ["10.128.3.7/32"]}
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def want(*config: Mapping[str, Any], have: pure.State = HERE, state: str = "overridden", **options: Any) -> Want:
    return wish.want(have, pure.Request(config, state, **options), NODE)


OTHER = {"container": {"netns": "/run/netns/b"}, "addresses": ["10.128.3.8"]}
# (config, field, a piece of the shown value, a piece of what is allowed)
WRONG: dict[str, tuple[list[Any], str, str, str]] = {
    "not a dictionary": (["web-1"], "config[0]", "'web-1'", "a dictionary"),
    "unknown key": ([item(adresses=[])], "config[0].adresses", "[]", "addresses"),
    "no name": ([item(name=...)], "config[0].name", "''", "1 to 15 characters"),
    "name of 16 characters": ([item(name="a" * 16)], "config[0].name", "a" * 16, "1 to 15 characters"),
    "name of 16 bytes": ([item(name="ä" * 8)], "config[0].name", "ä" * 8, "1 to 15 characters"),
    "name with slash": ([item(name="a/b")], "config[0].name", "'a/b'", "no space, slash or colon"),
    "name with colon": ([item(name="a:b")], "config[0].name", "'a:b'", "no space, slash or colon"),
    "name with space": ([item(name="a b")], "config[0].name", "'a b'", "no space, slash or colon"),
    "name with control": ([item(name="a\x7f")], "config[0].name", "'a\\x7f'", "an interface name"),
    "name dot": ([item(name="..")], "config[0].name", "'..'", "an interface name"),
    "name twice": ([item(), item(addresses=["10.128.3.8"])], "config[1].name", "'web-1'", "each name once"),
    "name of a foreign interface": (
        [item(name="docker0")],
        "config[docker0].name",
        "'docker0'",
        "a name that no foreign interface has",
    ),
    "no container": ([item(container=...)], "config[web-1].container", "None", "netns, pid, podman"),
    "container without a key": ([item(container={})], "config[web-1].container", "{}", "exactly one of netns, pid"),
    "container with two keys": (
        [item(container={"pid": 7, "podman": "x"})],
        "config[web-1].container",
        "{'pid': 7, 'podman': 'x'}",
        "exactly one of netns, pid, podman",
    ),
    "container of another kind": (
        [item(container={"docker": "x"})],
        "config[web-1].container.docker",
        "'x'",
        "netns, pid, podman",
    ),
    "container as text": ([item(container="a")], "config[web-1].container", "'a'", "netns, pid, podman"),
    "pid zero": ([item(container={"pid": 0})], "config[web-1].container.pid", "0", "from 1 to"),
    "pid as a word": ([item(container={"pid": "init"})], "config[web-1].container.pid", "'init'", "from 1 to"),
    "relative path": ([item(container={"netns": "a"})], "config[web-1].container.netns", "'a'", "an absolute path"),
    "container that is not there": (
        [item(container={"podman": "gone"})],
        "config[web-1].container.podman",
        "'gone'",
        "a running container on this node",
    ),
    "VF without one": ([item(kind="vf")], "config[web-1].kind", "'vf'", "another kind: this node has no VFs"),
    "VF of a veth": ([item(kind="veth", vf="0000:3b:00.2")], "config[web-1].vf", "'0000:3b", "none without kind: vf"),
    "VF of auto": ([item(vf="0000:3b:00.2")], "config[web-1].vf", "'0000:3b:00.2'", "none without kind: vf"),
    "VF that is unknown": ([item(kind="vf", vf="pf0")], "config[web-1].vf", "'pf0'", "the PCI address of a VF"),
    "netkit without it": ([item(kind="netkit")], "config[web-1].kind", "'netkit'", "auto or veth; the kernel"),
    "mode of a veth": ([item(kind="veth", mode="l2")], "config[web-1].mode", "'l2'", "none without kind: netkit"),
    "mode of auto": ([item(mode="l3")], "config[web-1].mode", "'l3'", "none without kind: netkit"),
    "kind of another world": ([item(kind="macvlan")], "config[web-1].kind", "'macvlan'", "auto, veth"),
    "interface of 16 characters": ([item(interface="e" * 16)], "config[web-1].interface", "e" * 16, "1 to 15"),
    "no addresses": ([item(addresses=...)], "config[web-1].addresses", "[]", "at least one"),
    "empty addresses": ([item(addresses=[])], "config[web-1].addresses", "[]", "at least one"),
    "addresses as text": ([item(addresses="10.128.3.7")], "config[web-1].addresses", "'10.128.3.7'", "a list"),
    "no address": ([item(addresses=["web"])], "config[web-1].addresses[0]", "'web'", "an address, like"),
    "address with a network": (
        [item(addresses=["10.128.3.7/24"])],
        "config[web-1].addresses[0]",
        "'10.128.3.7/24'",
        "a single address, 10.128.3.7/32",
    ),
    "address outside the prefixes": (
        [item(addresses=["10.128.3.7", "10.128.4.7"])],
        "config[web-1].addresses[1]",
        "'10.128.4.7'",
        "10.128.3.0/24, fd00:128:3::/64",
    ),
    "network address": ([item(addresses=["10.128.3.0"])], "config[web-1].addresses[0]", "'10.128.3.0'", "none of the"),
    "gateway address": ([item(addresses=["10.128.3.1"])], "config[web-1].addresses[0]", "'10.128.3.1'", "gateway"),
    "IPv6 gateway": ([item(addresses=["fd00:128:3::1"])], "config[web-1].addresses[0]", "'fd00:128:3::1'", "gateway"),
    "broadcast address": ([item(addresses=["10.128.3.255"])], "config[web-1].addresses[0]", "255'", "broadcast"),
    "address twice in one": (
        [item(addresses=["10.128.3.7", "10.128.3.7/32"])],
        "config[web-1].addresses",
        "['10.128.3.7', '10.128.3.7/32']",
        "each address once",
    ),
    "IPv6 address twice in two spellings": (
        [item(addresses=["fd00:128:3::7", "FD00:128:3:0::7/128"])],
        "config[web-1].addresses",
        "'FD00:128:3:0::7/128'",
        "each address once",
    ),
    "address twice in two": (
        [item(), item(name="web-2", container={"netns": "/run/netns/b"})],
        "config[web-2].addresses",
        "'10.128.3.7/32'",
        "an address that web-1 does not have",
    ),
    "interface twice in a container": (
        [item(), item(name="web-2", addresses=["10.128.3.8"])],
        "config[web-2].interface",
        "'eth0'",
        "a name that web-1 does not use there",
    ),
    "MTU too small for IPv6": ([item(mtu=1279)], "config[web-1].mtu", "1279", "from 1280 to 1500"),
    "MTU larger than the uplink's": ([item(mtu=1501)], "config[web-1].mtu", "1501", "from 1280 to 1500"),
    "MTU as a word": ([item(mtu="jumbo")], "config[web-1].mtu", "'jumbo'", "a number from 1280 to 1500"),
    "MAC multicast": ([item(mac="03:00:00:00:00:01")], "config[web-1].mac", "'03:", "a unicast MAC"),
    "MAC broadcast": ([item(mac="ff:ff:ff:ff:ff:ff")], "config[web-1].mac", "'ff:", "a unicast MAC"),
    "MAC zero": ([item(mac="00:00:00:00:00:00")], "config[web-1].mac", "'00:", "a unicast MAC"),
    "MAC short": ([item(mac="02:00:00:00:01")], "config[web-1].mac", "'02:00:00:00:01'", "a unicast MAC"),
    "MAC with newline": ([item(mac="02:00:00:00:00:01\n")], "config[web-1].mac", "\\n'", "a unicast MAC"),
    "address with a scope": (
        [item(addresses=["fd00:128:3::7%eth0/128"])],
        "config[web-1].addresses[0]",
        "'fd00:128:3::7%eth0/128'",
        "an address, like",
    ),
    "destination twice": (
        [item(routes=[{"to": "10.0.0.0/8"}, {"to": "10.0.0.0/8", "via": "10.128.3.9"}])],
        "config[web-1].routes",
        "['10.0.0.0/8', '10.0.0.0/8']",
        "each destination once",
    ),
    "routes as a dictionary": ([item(routes={})], "config[web-1].routes", "{}", "a list"),
    "route without to": ([item(routes=[{}])], "config[web-1].routes[0].to", "None", "a prefix"),
    "route with host bits": ([item(routes=[{"to": "10.0.0.1/8"}])], "config[web-1].routes[0].to", "10.0.0.1/8", "host"),
    "route over another family": (
        [item(routes=[{"to": "0.0.0.0/0", "via": "fd00::1"}])],
        "config[web-1].routes[0].via",
        "'fd00::1'",
        "an IPv4 address",
    ),
    "route of a family without an address": (
        [item(routes=[{"to": "::/0"}])],
        "config[web-1].routes[0].via",
        "None",
        "an IPv6 address",
    ),
    "route with an unknown key": (
        [item(routes=[{"to": "0.0.0.0/0", "dev": "eth0"}])],
        "config[web-1].routes[0].dev",
        "'eth0'",
        "to, via",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("state", ["merged", "replaced", "overridden"])
def test_wrong_attachment_is_refused(case: str, state: str) -> None:
    config, field, value, allowed = WRONG[case]
    with pytest.raises(InvalidConfig) as caught:
        wish.plan(HERE, pure.Request(tuple(config), state))
    assert caught.value.field == field
    assert str(caught.value).startswith(f"cannot accept {field} = ")
    assert value in caught.value.object
    assert allowed in caught.value.cause


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"mode": "l4"}, "mode", "one of l2, l3"),
        ({"mode": "l3", "mac": "02:00:00:00:00:01"}, "mac", "none with mode: l3"),
        ({"kind": "auto", "mode": "l2"}, "mode", "none without kind: netkit"),
    ],
)
def test_wrong_netkit_is_refused_where_there_is_netkit(changes: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        want(item(**{"kind": "netkit", **changes}), have=replace(HERE, netkit=True))
    assert caught.value.field == f"config[web-1].{field}"
    assert allowed in caught.value.cause


def test_mac_of_an_attachment_that_has_none_is_refused_under_auto_too() -> None:
    have = replace(HERE, netkit=True)
    there = predict(have, wish.plan(have, pure.Request((item(kind="netkit", mode="l3"),), "merged")))
    with pytest.raises(InvalidConfig, match="none with mode: l3"):
        want(item(mac="02:00:00:00:00:01"), have=there)
    assert want(item(), have=there).attachments[0].mac == pure.NO_MAC


@pytest.mark.parametrize(
    ("changes", "pair"),
    [
        ({}, pure.NETKIT),
        ({"kind": "auto"}, pure.NETKIT),
        ({"kind": "veth"}, pure.VETH),
        ({"kind": "netkit"}, pure.NETKIT),
        ({"kind": "netkit", "mode": "l3"}, pure.Pair("netkit", "l3")),
    ],
)
def test_kind_of_a_new_attachment(changes: dict[str, Any], pair: pure.Pair) -> None:
    assert want(item(**changes), have=replace(HERE, netkit=True)).attachments[0].pair == pair


def test_defaults() -> None:
    (found,) = want(item(addresses=["10.128.3.7", "fd00:128:3::7"])).attachments
    assert found == pure.Attachment(
        name="web-1",
        container="netns:/run/netns/a",
        pair=pure.VETH,
        interface="eth0",
        addresses=frozenset(["10.128.3.7/32", "fd00:128:3::7/128"]),
        mtu=1500,
        mac=wish.derived_mac("web-1"),
        routes=frozenset([Route("0.0.0.0/0", "10.128.3.1"), Route("::/0", "fd00:128:3::1")]),
    )


def test_spellings_do_not_matter() -> None:
    loud = item(addresses=["FD00:128:3:0::7"], mac="02:AB:00:00:00:01", mtu="1400", container={"pid": "7"}, kind="veth")
    quiet = item(addresses=["fd00:128:3::7/128"], mac="02:ab:00:00:00:01", mtu=1400, container={"pid": 7}, routes=None)
    assert want(loud).attachments == want(quiet).attachments


def test_derived_mac_is_stable_local_and_unicast() -> None:
    macs = {wish.derived_mac(f"web-{number}") for number in range(1000)}
    assert len(macs) == 1000
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)
    assert wish.derived_mac("web-1") == "02:c4:71:9a:fa:76"


def test_no_routes_means_none() -> None:
    assert want(item(routes=[])).attachments[0].routes == frozenset()


def test_route_gets_the_gateway_of_its_family() -> None:
    (found,) = want(item(routes=[{"to": "10.0.0.0/8"}])).attachments
    assert found.routes == frozenset([Route("10.0.0.0/8", "10.128.3.1")])


def test_two_interfaces_in_one_container() -> None:
    second = item(name="web-2", interface="eth1", addresses=["10.128.3.8"])
    assert [found.interface for found in want(item(), second).attachments] == ["eth0", "eth1"]


def test_absent_container_is_left_out_but_kept_in_the_document() -> None:
    gone = item(name="web-2", container={"podman": "gone"}, addresses=["10.128.3.8"])
    found = want(item(), gone, skip_absent=True)
    assert [one.name for one in found.attachments] == ["web-1"]
    assert found.document == (item(), gone)
    assert found.remove == frozenset()


def test_document_keeps_what_the_user_wrote() -> None:
    written = item(addresses=["FD00:128:3::7"], mtu="1400")
    assert want(written).document == (written,)


@pytest.mark.parametrize("state", ["merged", "replaced"])
def test_address_of_an_attachment_outside_the_request_is_refused(state: str) -> None:
    have = pure.State(node=NODE, containers=HERE.containers, document=(item(),))
    with pytest.raises(InvalidConfig, match="an address that web-1 does not have"):
        want(item(name="web-2", container={"pid": 7}), have=have, state=state)


@pytest.mark.parametrize("written", ["FD00:128:3:0::7", "fd00:128:3::7/128"])
def test_conflict_is_seen_in_any_spelling(written: str) -> None:
    have = pure.State(node=NODE, containers=HERE.containers, document=(item(addresses=[written]),))
    with pytest.raises(InvalidConfig, match="an address that web-1 does not have"):
        want(item(name="web-2", container={"pid": 7}, addresses=["fd00:128:3::7"]), have=have, state="merged")


def test_interface_of_an_attachment_outside_the_request_is_refused() -> None:
    have = pure.State(node=NODE, containers=HERE.containers, document=(item(),))
    with pytest.raises(InvalidConfig, match="a name that web-1 does not use there"):
        want(item(name="web-2", addresses=["10.128.3.8"]), have=have, state="merged")


def test_attachments_can_go_after_their_dataplane() -> None:
    link = pure.HostEnd("netns:/run/netns/a", pure.VETH, up=True, connected=False)
    have = pure.State(links={"web-1": link}, programs={"web-1": False}, document=(item(),))
    steps = wish.plan(have, pure.Request((), "deleted"))
    assert predict(have, steps) == pure.State()


def test_without_a_dataplane_nothing_is_planned() -> None:
    with pytest.raises(FastpathError, match="no dataplane") as caught:
        wish.plan(pure.State(containers=HERE.containers), pure.Request((item(),), "merged"))
    assert "fastpath.node.dataplane" in caught.value.hint
    assert wish.plan(pure.State(), pure.Request((), "deleted")) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["web-1", "10.128.3.7", "l3"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*item(), "kind", "mode", "mac", "netns", "pid", "routes"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)

# often nearly right, else no check but the first would ever say something
WRITTEN = JSON | st.builds(
    lambda key, value: {**item(), key: value}, st.sampled_from([*item(), "kind", "mode", "mac", "mtu", "routes"]), JSON
)


@given(st.lists(WRITTEN, max_size=3), st.sampled_from(["merged", "replaced", "overridden", "deleted"]))
def test_whatever_is_written_is_refused_in_words(config: list[Any], state: str) -> None:
    for check in (wish.check_document, wish.references, lambda c: wish.plan(HERE, pure.Request(tuple(c), state))):
        with suppress(FastpathError):
            check(config)


@given(st.lists(WRITTEN, max_size=2), st.sampled_from(["merged", "replaced", "overridden", "deleted"]))
def test_document_that_passes_its_check_can_be_planned_with(document: list[Any], state: str) -> None:
    try:
        wish.check_document(document)
    except FastpathError:
        return
    have = replace(HERE, document=tuple(document))
    wish.plan(have, pure.Request((item(name="new", addresses=["10.128.3.99"], interface="new"),), state))


def test_broken_list_is_written_anew_by_who_gives_all() -> None:
    have = replace(HERE, unreadable="/etc/fastpath/attachments.json: empty")
    for state in ("merged", "replaced"):
        with pytest.raises(FastpathError, match=r"attachments\.json: empty"):
            wish.plan(have, pure.Request((item(),), state))
    with pytest.raises(FastpathError, match=r"attachments\.json: empty"):
        wish.plan(have, pure.Request((item(),), "deleted"))
    for request in (pure.Request((item(),), "overridden"), pure.Request((), "overridden"), pure.Request((), "deleted")):
        end = predict(have, wish.plan(have, request))
        assert (end.unreadable, end.document) == ("", request.config or None)


def test_references_of_a_config() -> None:
    config = [item(), item(name="b", container={"pid": 7}), item(name="c", container={"podman": "x"}), {"name": "d"}]
    assert wish.references(config) == ("netns:/run/netns/a", "pid:7", "podman:x")
