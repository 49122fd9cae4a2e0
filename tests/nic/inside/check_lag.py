# SPDX-License-Identifier: GPL-3.0-or-later
"""VF LAG with the kernel's own bonds: two NICs from state to state, a run that fails, and whom a bond belongs to."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import plan, store
from ansible_collections.fastpath.node.plugins.module_utils.errors import InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel import sriov, way
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Request
from tests.nic.inside.device import Nic, load, run
from tests.nic.inside.eswitch import tour

NICS = (Nic("0001:01:00.0"), Nic("0002:01:00.0"))
ON: dict[str, Any] = {"mode": "switchdev", "vfs": 2, "vf_driver": "kernel"}
Item = dict[str, Any]


def lag(mode: str, name: str = "bond7") -> Item:
    return {"lag": {"name": name, "mode": mode}}


def both(first: Item, second: Item) -> tuple[Item, ...]:
    return tuple({"device": {"pci": nic.address}, **given} for nic, given in zip(NICS, (first, second), strict=True))


STATES = (
    both({**ON, "mode": "legacy"}, {**ON, "mode": "legacy", "vfs": 0}),
    both({**ON, **lag("active-backup")}, {**ON, "vfs": 3, **lag("active-backup")}),
    both({**ON, **lag("802.3ad"), "mtu": 1700}, {**ON, **lag("802.3ad")}),
    both({**ON, "mtu": 1500}, {**ON, "mtu": 1500}),
)


class Breaking:
    """The node, of which change number `at` fails; each second one after it was made."""

    def __init__(self, at: int) -> None:
        self._node, self._left, self._at = eswitch_node.Node(), at, at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._node, name)
        if not name.startswith(("set_", "bind", "unbind", "join", "leave", "create", "delete")):
            return found

        def change(*arguments: Any) -> None:
            self._left -= 1
            if self._left or self._at % 2 == 0:
                found(*arguments)
            if not self._left:
                raise OSError(errno.EIO, "as if")

        return change


def converge(wished: tuple[Item, ...], hardware: Any = None, check: bool = False) -> plan.Result:
    resource = Eswitch(hardware or eswitch_node.Node(), patience=20)
    return plan.converge(resource, Request(wished, "overridden"), check=check, allow_disruption=True)


def bond(name: str = "bond7") -> dict[str, Any]:
    (found,) = json.loads(run("ip", "-d", "-j", "link", "show", name))
    return dict(found)


def members(name: str = "bond7") -> list[str]:
    found = json.loads(run("ip", "-j", "link", "show", "master", name))
    return sorted(one["ifname"] for one in found)


def seen() -> Any:
    state = Eswitch(eswitch_node.Node()).have()
    found = Eswitch(eswitch_node.Node()).public(state)
    return found, {handle: (one.master, one.mtu, one.up) for handle, one in state.devices.items()}, state.lags


@pytest.fixture(autouse=True)
def nics() -> Iterator[None]:
    load(nics=2, vfs=4, profile="mlx5,mlx5")
    yield
    converge(())
    store.write(eswitch_node.DOCUMENT, None)
    eswitch_node.Node().write_rules("")


def test_every_pair() -> None:
    for nic in NICS:
        run("ip", "link", "set", nic.uplink, "up")
    converge(STATES[0])
    for _start, place in tour(len(STATES)):
        end = STATES[place]
        checked = converge(end, check=True)
        done = converge(end)
        assert (done.steps, done.after) == (checked.steps, checked.after)
        assert not converge(end).changed
        wished = end[0].get("lag")
        if wished is None:
            assert "bond7" not in run("ip", "-j", "link")
            assert all("UP" in json.loads(run("ip", "-j", "link", "show", nic.uplink))[0]["flags"] for nic in NICS)
            continue
        made = bond()
        data = made["linkinfo"]["info_data"]
        assert members() == sorted(nic.uplink for nic in NICS)
        assert (data["mode"], data["miimon"], data["xmit_hash_policy"]) == (wished["mode"], 100, "layer3+4")
        assert wished["mode"] != "802.3ad" or data["ad_lacp_rate"] == "fast"
        assert made["mtu"] == end[0].get("mtu", made["mtu"])
        assert "UP" in made["flags"]


def failure(wished: tuple[Item, ...], at: int) -> plan.StepFailed | None:
    try:
        converge(wished, Breaking(at))
    except plan.StepFailed as failed:
        return failed
    return None


def test_a_run_that_fails_leaves_what_was() -> None:
    """At every third change; the NICs in memory try all of them."""
    for start, end in ((0, 1), (1, 2)):
        converge(STATES[start])
        before = seen()
        at = 0
        while failed := failure(STATES[end], at := at + 3):
            assert not failed.stuck, failed
            assert seen() == before, (at, failed)
        assert at > 9


def test_frames_leave_by_the_bond() -> None:
    converge(STATES[1])
    run("ip", "address", "add", "198.51.100.1/24", "dev", "bond7")
    assert "bond7" in run("ip", "route", "get", "198.51.100.2")
    connection = "198.51.100.2 40000 198.51.100.1 22"
    below = sriov.carried(way.interfaces(connection))
    assert below >= {nic.uplink for nic in NICS}
    assert all(device.carries for device in eswitch_node.Node(connection).devices().values())


def test_a_bond_of_others_stays_theirs() -> None:
    run("ip", "link", "add", "bond7", "type", "bond", "mode", "active-backup")
    uplink = NICS[0].uplink
    run("ip", "link", "set", uplink, "down")
    run("ip", "link", "set", uplink, "master", "bond7")
    with pytest.raises(InvalidConfig, match="bonds of others stay theirs"):
        converge(STATES[1])
    other = both({**ON, **lag("active-backup", "bond8")}, {**ON, **lag("active-backup", "bond8")})
    with pytest.raises(InvalidConfig, match="in bond7, which others have made"):
        converge(other)
    converge(())
    assert members() == [uplink]
    run("ip", "link", "del", "bond7")
