# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrong dataplane is refused with the field, its value and what is allowed."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel.links import Route
from ansible_collections.fastpath.node.plugins.module_utils.kernel.uplinks import Uplink
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_plan, dataplane_wish
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_state as pure

UPLINKS = (
    Uplink("eth0", 2, "02:00:00:00:01:00", "0000:3b:00.0", 1500, True),
    Uplink("eth1", 3, "02:00:00:00:01:01", "", 9000, True),
    Uplink("twin1", 4, "02:00:00:00:02:02", "", 9000, True),
    Uplink("twin2", 5, "02:00:00:00:02:02", "", 9000, True),
    Uplink("busy", 6, "02:00:00:00:01:06", "", 1500, True),
)
BARE = pure.State(uplinks=UPLINKS, strangers={"busy": (41, 42)})


def config(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"uplinks": [{"name": "eth0"}], "prefixes": ["10.128.3.0/24", "fd00:128:3::/64"]}
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def wish(**changes: Any) -> dataplane_plan.Wish:
    request = pure.Request(config(**changes), "replaced", "0123456789ab")
    return dataplane_wish.wish(dataplane_wish.merge(BARE, request), BARE)


ROUTE = {"to": "10.128.4.0/24", "via": "192.0.2.14"}
WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "unknown key": ({"uplink": []}, "config.uplink", "[]", "uplinks, prefixes, routing, routes"),
    "no prefixes": ({"prefixes": ...}, "config.prefixes", "[]", "at least one prefix"),
    "empty prefixes": ({"prefixes": []}, "config.prefixes", "[]", "at least one prefix"),
    "prefixes as text": ({"prefixes": "10.0.0.0/8"}, "config.prefixes", "'10.0.0.0/8'", "a list"),
    "no prefix": ({"prefixes": ["home"]}, "config.prefixes[0]", "'home'", "a prefix without host bits"),
    "host bits": ({"prefixes": ["10.128.3.1/24"]}, "config.prefixes[0]", "'10.128.3.1/24'", "without host bits"),
    "prefix without room": ({"prefixes": ["10.128.3.0/31"]}, "config.prefixes[0]", "'10.128.3.0/31'", "/30"),
    "IPv6 prefix without room": ({"prefixes": ["fd00::/127"]}, "config.prefixes[0]", "'fd00::/127'", "/126"),
    "prefixes overlap": (
        {"prefixes": ["10.128.0.0/16", "fd00::/64", "10.128.3.0/24"]},
        "config.prefixes[2]",
        "'10.128.3.0/24'",
        "does not overlap 10.128.0.0/16",
    ),
    "prefix twice": ({"prefixes": ["fd00::/64", "fd00::/64"]}, "config.prefixes[1]", "'fd00::/64'", "does not overlap"),
    **{
        f"prefix {prefix}": (
            {"prefixes": [prefix]},
            "config.prefixes[0]",
            f"'{ip_network(prefix)}'",
            "a unicast prefix",
        )
        for prefix in (
            "0.0.0.0/0",
            "::/0",
            "127.0.0.0/8",
            "224.0.0.0/4",
            "fe80::/64",
            "ff00::/8",
            "169.254.0.0/16",
            "::ffff:a00:0/104",
        )
    },
    "prefix with a scope": ({"prefixes": ["fe80::%eth0/64"]}, "config.prefixes[0]", "%eth0", "without host bits"),
    "no uplinks": ({"uplinks": ...}, "config.uplinks", "[]", "at least one uplink"),
    "empty uplinks": ({"uplinks": []}, "config.uplinks", "[]", "at least one uplink"),
    "uplink as text": ({"uplinks": ["eth0"]}, "config.uplinks[0]", "'eth0'", "name, mac, pci"),
    "uplink without a key": ({"uplinks": [{}]}, "config.uplinks[0]", "{}", "exactly one of name, mac, pci"),
    "uplink with two keys": (
        {"uplinks": [{"name": "eth0", "pci": "0000:3b:00.0"}]},
        "config.uplinks[0]",
        "'pci': '0000:3b:00.0'",
        "exactly one of name, mac, pci",
    ),
    "uplink by another key": ({"uplinks": [{"ifindex": 2}]}, "config.uplinks[0].ifindex", "2", "name, mac, pci"),
    "uplink unknown": (
        {"uplinks": [{"name": "eth0"}, {"name": "eth9"}]},
        "config.uplinks[1].name",
        "'eth9'",
        "busy, eth0, eth1",
    ),
    "uplink with unknown MAC": (
        {"uplinks": [{"mac": "02:00:00:00:09:09"}]},
        "config.uplinks[0].mac",
        "'02:00:00:00:09:09'",
        "02:00:00:00:01:00",
    ),
    "uplink ambiguous": (
        {"uplinks": [{"mac": "02:00:00:00:02:02"}]},
        "config.uplinks[0].mac",
        "'02:00:00:00:02:02'",
        "one interface of this node",
    ),
    "uplink PCI unknown": (
        {"uplinks": [{"pci": "0000:3b:00.1"}]},
        "config.uplinks[0].pci",
        "'0000:3b:00.1'",
        "it has: 0000:3b:00.0",
    ),
    "uplink PCI malformed": ({"uplinks": [{"pci": "3b:00.0"}]}, "config.uplinks[0].pci", "'3b:00.0'", "0000:3b:00.0"),
    "uplink MAC malformed": ({"uplinks": [{"mac": "eth0"}]}, "config.uplinks[0].mac", "'eth0'", "a unicast MAC"),
    "uplink twice": (
        {"uplinks": [{"name": "eth0"}, {"pci": "0000:3b:00.0"}]},
        "config.uplinks",
        "['eth0', 'eth0']",
        "each interface once",
    ),
    "foreign program on the uplink": (
        {"uplinks": [{"name": "busy"}]},
        "config.uplinks[0]",
        "'busy'",
        "without foreign BPF programs at its ingress; it runs program 41, 42",
    ),
    "routing of another kind": ({"routing": "bgp"}, "config.routing", "'bgp'", "fabric, direct"),
    "routes with fabric": ({"routes": [ROUTE]}, "config.routes", "['10.128.4.0/24']", "none with routing: fabric"),
    "routes as a dictionary": ({"routing": "direct", "routes": ROUTE}, "config.routes", "'via'", "a list"),
    "route without via": (
        {"routing": "direct", "routes": [{"to": "10.128.4.0/24"}]},
        "config.routes[0].via",
        "None",
        "an IPv4 address",
    ),
    "route without to": (
        {"routing": "direct", "routes": [{"via": "192.0.2.14"}]},
        "config.routes[0].to",
        "None",
        "a prefix",
    ),
    "route over another family": (
        {"routing": "direct", "routes": [{**ROUTE, "via": "fd00::1"}]},
        "config.routes[0].via",
        "'fd00::1'",
        "an IPv4 address",
    ),
    "destination twice": (
        {"routing": "direct", "routes": [ROUTE, {**ROUTE, "via": "192.0.2.15"}]},
        "config.routes",
        "['10.128.4.0/24', '10.128.4.0/24']",
        "each destination once",
    ),
    "route to an own prefix": (
        {"routing": "direct", "routes": [ROUTE, {**ROUTE, "to": "10.128.3.0/24"}]},
        "config.routes",
        "['10.128.3.0/24']",
        "prefixes of other nodes",
    ),
    "gateway with a scope": (
        {"routing": "direct", "routes": [{"to": "fd00:4::/64", "via": "fe80::1%eth0"}]},
        "config.routes[0].via",
        "'fe80::1%eth0'",
        "an IPv4 or IPv6 address",
    ),
    "route with an unknown key": (
        {"routing": "direct", "routes": [{**ROUTE, "metric": 5}]},
        "config.routes[0].metric",
        "5",
        "to, via",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("state", ["merged", "replaced"])
def test_wrong_dataplane_is_refused(case: str, state: str) -> None:
    changes, field, value, allowed = WRONG[case]
    with pytest.raises(InvalidConfig) as caught:
        dataplane_wish.plan(BARE, pure.Request(config(**changes), state, "0123456789ab"))
    assert caught.value.field == field
    assert str(caught.value).startswith(f"cannot accept {field} = ")
    assert value in caught.value.object
    assert allowed in caught.value.cause


def test_config_must_be_a_dictionary() -> None:
    request: Any = pure.Request(["eth0"], "replaced", "")  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="a dictionary with uplinks, prefixes"):
        dataplane_wish.plan(BARE, request)


@pytest.mark.parametrize("state", ["merged", "replaced", "deleted"])
def test_foreign_interface_with_the_routers_name_is_not_touched(state: str) -> None:
    have = pure.State(uplinks=UPLINKS, router_taken=True)
    with pytest.raises(InvalidConfig, match="fastpath0"):
        dataplane_wish.plan(have, pure.Request(config(), state, ""))


def test_removal_is_refused_while_attachments_are_served() -> None:
    have = pure.State(uplinks=UPLINKS, maps=True, attachments=frozenset(["web-2", "web-1"]))
    with pytest.raises(FastpathError, match="web-1, web-2") as caught:
        dataplane_wish.plan(have, pure.Request({}, "deleted", ""))
    assert "attachments first" in caught.value.hint


@pytest.mark.parametrize("by", [{"name": "eth0"}, {"mac": "02:00:00:00:01:00"}, {"pci": "0000:3B:00.0"}])
def test_uplink_is_found_by_each_key(by: dict[str, str]) -> None:
    assert wish(uplinks=[by]).uplinks == ("eth0",)


def test_normal_form_and_gateways() -> None:
    found = wish(prefixes=["FD00:128:3:0::/64", "10.128.3.0/24"], routing="direct", routes=[ROUTE])
    assert found.prefixes == ("fd00:128:3::/64", "10.128.3.0/24")
    assert found.gateways == ("fd00:128:3::1", "10.128.3.1")
    assert found.routes == frozenset([Route("10.128.4.0/24", "192.0.2.14")])
    assert wish().routing == "fabric"


def test_mtu_is_the_smallest_of_the_uplinks() -> None:
    found = wish(uplinks=[{"name": "eth1"}, {"name": "eth0"}])
    assert dataplane_plan.smallest_mtu(BARE, found) == 1500
