# SPDX-License-Identifier: GPL-3.0-or-later
"""What NICs need of the kernel and this machine has: numbers of the headers, features of interfaces, routes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import Unsupported
from ansible_collections.fastpath.node.plugins.module_utils.kernel import devlink, ethtool, genl, netns, vflinks, way

from .conftest import Wire, run

HEADERS = Path("/usr/include/linux")
FEATURE = "tx-checksum-ip-generic"


def enum(header: str, first: str) -> dict[str, int]:
    """The members of the enum that begins with `first`."""
    text = re.sub(r"/\*.*?\*/", "", (HEADERS / header).read_text(), flags=re.DOTALL)
    text = re.sub(r"^#define(?:[^\n]*\\\n)?[^\n]*", "", text, flags=re.MULTILINE)
    body = text[text.index(first) :].split("}")[0]
    names = [word.strip() for word in body.split(",") if word.strip()]
    return {name: number for number, name in enumerate(name for name in names if "=" not in name)}


def test_numbers_are_those_of_the_headers() -> None:
    commands, attributes = enum("devlink.h", "DEVLINK_CMD_UNSPEC"), enum("devlink.h", "DEVLINK_ATTR_UNSPEC")
    for name in ("GET", "PORT_GET", "PORT_SET", "ESWITCH_GET", "ESWITCH_SET", "PARAM_GET", "PARAM_SET", "INFO_GET"):
        assert getattr(devlink, f"_{name}") == commands[f"DEVLINK_CMD_{name}"]
    for ours, name in {
        "_BUS": "BUS_NAME", "_DEVICE": "DEV_NAME", "_PORT": "PORT_INDEX", "_PORT_IFINDEX": "PORT_NETDEV_IFINDEX",
        "_MODE": "ESWITCH_MODE", "_INLINE": "ESWITCH_INLINE_MODE", "_ENCAP": "ESWITCH_ENCAP_MODE",
        "_FLAVOUR": "PORT_FLAVOUR", "_PARAM": "PARAM", "_PARAM_NAME": "PARAM_NAME", "_PARAM_TYPE": "PARAM_TYPE",
        "_VALUES": "PARAM_VALUES_LIST", "_VALUE": "PARAM_VALUE", "_DATA": "PARAM_VALUE_DATA",
        "_CMODE": "PARAM_VALUE_CMODE", "_DRIVER": "INFO_DRIVER_NAME", "_SERIAL": "INFO_SERIAL_NUMBER",
        "_VF": "PORT_PCI_VF_NUMBER", "_FUNCTION": "PORT_FUNCTION",
    }.items():  # fmt: skip
        assert getattr(devlink, ours) == attributes[f"DEVLINK_ATTR_{name}"], name
    infos = enum("if_link.h", "IFLA_VF_UNSPEC")
    for ours, name in {
        "_MAC": "MAC",
        "_VLAN": "VLAN",
        "_SPOOFCHECK": "SPOOFCHK",
        "_RATE": "RATE",
        "_TRUST": "TRUST",
    }.items():
        assert getattr(vflinks, ours) == infos[f"IFLA_VF_{name}"], name
    links = enum("if_link.h", "IFLA_UNSPEC")
    for ours, name in {
        "_VFINFO_LIST": "VFINFO_LIST",
        "_SWITCH_ID": "PHYS_SWITCH_ID",
        "_PORT_NAME": "PHYS_PORT_NAME",
    }.items():
        assert getattr(vflinks, ours) == links[f"IFLA_{name}"], name
    files = [path for path in HEADERS.glob("ethtool_netlink*.h") if "ETHTOOL_MSG_USER_NONE" in path.read_text()]
    messages = enum(files[0].name, "ETHTOOL_MSG_USER_NONE")
    assert messages["ETHTOOL_MSG_PRIVFLAGS_GET"] == ethtool._PRIVATE_GET


def _judged(space: str) -> bool:
    """What ethtool reads there."""
    (found,) = json.loads(run("ip", "netns", "exec", Path(space).name, "ethtool", "--json", "-k", "near"))
    return bool(found[FEATURE]["active"])


def test_a_feature_is_read_and_changed_as_ethtool_sees_it(wire: Wire) -> None:
    with netns.entered(wire.netns):
        before = ethtool.feature("near", FEATURE)
        assert before is _judged(wire.netns) is True
        ethtool.set_feature("near", FEATURE, False)
        assert ethtool.feature("near", FEATURE) is _judged(wire.netns) is False
        ethtool.set_feature("near", FEATURE, True)
        assert ethtool.feature("near", FEATURE) is True


def test_a_feature_that_a_driver_does_not_have(wire: Wire) -> None:
    """The kernel says nothing when it does not change it; a veth has no hardware for rules."""
    with netns.entered(wire.netns):
        assert ethtool.feature("near", ethtool.HW_TC_OFFLOAD) is None
        with pytest.raises(OSError, match="near does not turn hw-tc-offload on"):
            ethtool.set_feature("near", ethtool.HW_TC_OFFLOAD, True)


def test_flags_of_a_driver_that_has_none(wire: Wire) -> None:
    with netns.entered(wire.netns):
        assert ethtool.flags("near") == frozenset()
        with pytest.raises(OSError, match="No such device"):
            ethtool.flags("nobody")


def test_the_drivers_own_name(wire: Wire) -> None:
    with netns.entered(wire.netns):
        assert ethtool.driver("near") == "veth"
        assert ethtool.driver("nobody") == ethtool.driver("") == ""


def test_families() -> None:
    with genl.Family("nlctrl") as family:
        assert family.get(3, b"\x0b\0\2\0nlctrl\0\0") != b""
    with pytest.raises(Unsupported, match="no-such-family"):
        genl.Family("no-such-family")


def test_the_way_to_the_controller(wire: Wire) -> None:
    space = Path(wire.netns).name
    for command in (
        "addr add 10.7.0.1/24 dev near",
        "addr add fd07::1/64 dev near nodad",
        "route add 10.8.0.0/16 via 10.7.0.9",
    ):
        run("ip", "-n", space, *command.split())
    with netns.entered(wire.netns):
        assert way.interfaces("10.7.0.2 50000 10.7.0.1 22") == {"near"}
        assert way.interfaces("10.8.1.1 50000 10.7.0.1 22") == {"near"}
        assert way.interfaces("fd07::2 50000 fd07::1 22") == {"near"}
        assert way.interfaces("fe80::1%far 50000 fe80::2%far 22") == {"far"}
        assert way.interfaces("") == frozenset()
