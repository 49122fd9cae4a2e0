# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane counts on the uplinks that NICs will have, by name, MTU and bond: check mode sees what a run finds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel.uplinks import Uplink
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_wish as wish
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_state
from ansible_collections.fastpath.node.plugins.module_utils.resources.dataplane_nics import foreseen
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch import Eswitch
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_change import Change

from .eswitch_nic import Node
from .test_eswitch_lag import BACKUP, DRIVERS, FIRST, fresh, items, run, states
from .test_eswitch_pairs import Item

OTHER = Uplink("eth9", 9, "02:00:00:00:01:09", "", 1500, True)
PREFIXES = ["10.128.3.0/24"]


def found(node: Node) -> pure.State:
    """What the dataplane finds there; an interface has one number for as long as it is there."""
    uplinks = [
        Uplink(nic.uplink, 2 + number, f"02:00:00:00:01:0{number}", handle[4:], int(nic.settings["mtu"] or 0), True)
        for number, (handle, nic) in enumerate(sorted(node.nics.items()))
    ]
    bonds = [Uplink(name, 0, "", "", lag.mtu, True) for name, lag in sorted(node.bonds.items())]
    return pure.State(uplinks=(OTHER, *uplinks, *bonds))


def change(node: Node, wished: tuple[Item, ...]) -> Change:
    resource = Eswitch(node, 0)
    have = resource.have()
    steps = resource.plan(have, eswitch_state.Request(wished, "overridden"))
    return Change(have, steps, lambda _handle, _vf: "")


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_foreseen_is_what_comes(driver: str) -> None:
    named: list[tuple[Item, ...]] = [
        tuple({**item, "names": {"uplink": f"pf{number}"}} for number, item in enumerate(wished))
        for wished in states(driver)
    ]
    for start, end in itertools.permutations([*states(driver), *named], 2):
        node = fresh(driver)
        run(node, start)
        before, ahead = found(node), change(node, end)
        run(node, end)
        assert sorted(foreseen(before, ahead).uplinks, key=str) == sorted(found(node).uplinks, key=str), (start, end)


def test_the_plan_is_that_of_the_uplinks_to_come() -> None:
    node, both = fresh(), {"mode": "switchdev", "vfs": 2, "mtu": 9000, "lag": BACKUP}
    ahead = change(node, items({**both, "names": {"uplink": "pf0"}}, both))
    for uplink, name in (({"name": "bond0"}, "bond0"), ({"name": "pf0"}, "pf0"), ({"pci": FIRST[4:]}, "pf0")):
        request = pure.Request({"uplinks": [uplink], "prefixes": PREFIXES}, "replaced", "0123456789ab")
        steps = [step.do for step in wish.plan(foreseen(found(node), ahead), request)]
        assert pure.CreateRouter(9000) in steps
        assert any(isinstance(step, pure.Hook) and step.interface == name for step in steps)


def test_hooks_of_what_is_renamed_and_what_ends() -> None:
    node, both = fresh(), {"mode": "switchdev", "vfs": 2, "lag": BACKUP}
    run(node, items(both, both))
    hooks = {"uplink-bond0": ("bond0", "g1"), "uplink-ens1f0np0": ("ens1f0np0", "g1"), "router": ("fastpath0", "g1")}
    before = replace(found(node), hooks=hooks, strangers={"bond0": (1,), "ens1f0np0": (2,), "eth9": (3,)})
    alone = {"mode": "switchdev", "vfs": 2}
    ahead = change(node, items({**alone, "names": {"uplink": "pf0"}}, alone))
    after = foreseen(before, ahead)
    assert after.hooks == {**hooks, "uplink-bond0": ("", "g1"), "uplink-ens1f0np0": ("pf0", "g1")}
    assert after.strangers == {"pf0": (2,), "eth9": (3,)}
    assert "uplink-bond0" not in foreseen(before, replace(ahead, pinned=False)).hooks
