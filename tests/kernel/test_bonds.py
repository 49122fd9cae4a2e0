# SPDX-License-Identifier: GPL-3.0-or-later
"""Interfaces in bonds and bridges of a real kernel, as iproute2 sees them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bonds, links

from .conftest import Spaces, run

MODES = ("active-backup", "802.3ad", "balance-xor")


def judged(spaces: Spaces, name: str) -> dict[str, Any]:
    (found,) = json.loads(run("ip", "-n", spaces.near, "-json", "-details", "link", "show", "dev", name))
    return dict(found)


def member(spaces: Spaces) -> int:
    links.add_pair(spaces.netlink, "veth", links.End("one"), links.End("two"), 1400)
    return links.need(spaces.netlink, "one").index


def test_into_a_bridge_and_out_of_it(spaces: Spaces) -> None:
    index = member(spaces)
    links.add(spaces.netlink, "bridge", "br7", links.GROUP, 1300, b"")
    bridge = links.need(spaces.netlink, "br7")
    assert (bridge.kind, bridge.up, bridge.mtu, bridge.group) == ("bridge", True, 1300, links.GROUP)
    links.put_into(spaces.netlink, index, bridge.index)
    assert judged(spaces, "one")["master"] == "br7"
    links.put_into(spaces.netlink, index, 0)
    assert "master" not in judged(spaces, "one")
    links.delete_link(spaces.netlink, "br7", bonds.GROUP)
    assert links.need(spaces.netlink, "br7").index == bridge.index
    links.delete_link(spaces.netlink, "br7")
    assert links.link(spaces.netlink, "br7") is None


@pytest.mark.parametrize("mode", MODES)
def test_into_a_bond_and_out_of_it(spaces: Spaces, mode: str) -> None:
    """An interface that is up gets in and, with the bond's MTU, out again."""
    index, bond = member(spaces), bonds.Bond("bond7", mode, 1300)
    try:
        bonds.create(spaces.netlink, bond)
    except OSError as error:
        pytest.skip(f"this kernel has no bonds: {error}")
    run("ip", "-n", spaces.near, "link", "add", "bond8", "type", "bond")
    assert bonds.ours(spaces.netlink) == {"bond7": bond}
    data = judged(spaces, "bond7")["linkinfo"]["info_data"]
    assert (data["mode"], data["miimon"], data["xmit_hash_policy"]) == (mode, 100, "layer3+4")
    links.set_link(spaces.netlink, index, up=True)
    bonds.join(spaces.netlink, index, "bond7")
    inside = links.need(spaces.netlink, "one")
    assert (judged(spaces, "one")["master"], inside.up, inside.mtu) == ("bond7", True, 1300)
    bonds.leave(spaces.netlink, inside)
    outside = links.need(spaces.netlink, "one")
    assert ("master" in judged(spaces, "one"), outside.up, outside.mtu) == (False, True, 1300)
    with pytest.raises(OSError, match="bond8 is not ours"):
        bonds.join(spaces.netlink, index, "bond8")
    bonds.delete(spaces.netlink, "bond7")
    bonds.delete(spaces.netlink, "bond8")
    assert (bonds.ours(spaces.netlink), links.need(spaces.netlink, "bond8").kind) == ({}, "bond")
