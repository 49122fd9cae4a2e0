# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of the dataplane by example: what is done and said in a case of interest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel.links import Route
from ansible_collections.fastpath.node.plugins.module_utils.plan import Step, predict
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane, dataplane_plan, dataplane_wish
from ansible_collections.fastpath.node.plugins.module_utils.resources import dataplane_state as pure

from .dataplane_life import (
    BARE,
    CONFIGURED,
    SERVING,
    Steps,
    carry_out,
    reached,
    rebooted,
    settled,
    unrecorded,
    with_attachment,
)
from .life import prefix

OBJECT = Path(__file__).parents[5] / "roles/runtime/files/fastpath.bpf.o"


def test_new_object_replaces_programs_without_a_gap() -> None:
    config = {"uplinks": [{"name": "eth0"}], "prefixes": ["10.128.3.0/24"]}
    old = predict(BARE, dataplane_wish.plan(BARE, pure.Request(config, "replaced", "old")))
    old = with_attachment(old)
    steps = dataplane_wish.plan(old, pure.Request(config, "replaced", "new"))
    assert kinds(steps) == "Keep Test Load Hook Hook Hook Check HandOver Choose"
    assert not any(step.disrupts for step in steps)
    end = predict(old, steps)
    assert set(end.hooks) == {"at-web-1", "router", "uplink-eth0"}
    assert {gen for _name, gen in end.hooks.values()} == {"new_10-128-3-1"}
    assert end.generations == {"old_10-128-3-1": True, "new_10-128-3-1": True}


def kinds(steps: Sequence[Step[pure.State]]) -> str:
    return " ".join(type(step.do).__name__ for step in steps)


def upgraded(*objects: str) -> pure.State:
    """A node that ran one after the other."""
    state = with_attachment(SERVING)
    for name in objects:
        state = predict(state, dataplane_wish.plan(state, pure.Request(CONFIGURED, "replaced", name)))
    return state


BACK = pure.Request({}, "rolled_back", "")


@pytest.mark.parametrize(
    "request_", [BACK, pure.Request({}, "merged", "old"), pure.Request(CONFIGURED, "replaced", "old")]
)
@pytest.mark.parametrize("what", [pure.POLICIES, pure.VFS])
def test_what_older_programs_do_not_know_is_not_left_behind(request_: pure.Request, what: str) -> None:
    node = upgraded("old", "new")
    assert dataplane_wish.plan(node, request_)
    later = replace(node, blind={"old": what})
    with pytest.raises(FastpathError, match=f"cannot run programs old: they know no {what}, and this node has some"):
        dataplane_wish.plan(later, request_)
    assert dataplane_wish.plan(later, pure.Request({}, "merged", "new")) == ()


def test_this_versions_programs_know_all(tmp_path: Path) -> None:
    assert dataplane._known(str(OBJECT)) == {pure.POLICIES, pure.VFS}
    (tmp_path / "none").write_bytes(b"no object")
    assert dataplane._known(str(tmp_path / "none")) == {pure.POLICIES, pure.VFS}, "it is refused later"


def test_previous_version_stays_until_the_next_upgrade() -> None:
    steps = dataplane_wish.plan(upgraded("bb"), pure.Request(CONFIGURED, "replaced", "cc"))
    assert kinds(steps).endswith("Choose Unload Forget")
    end = predict(upgraded("bb"), steps)
    assert end.programs == pure.Programs("cc", "bb")
    assert end.objects == {"bb", "cc"}
    assert {name.partition("_")[0] for name in end.generations} == {"bb", "cc"}


def test_rollback_only_updates_links_and_is_done_once() -> None:
    state = upgraded("bb")
    steps = dataplane_wish.plan(state, BACK)
    assert kinds(steps) == "Test Fill Hook Hook Hook Hook Check HandOver Choose"
    end = predict(state, steps)
    assert end.programs == pure.Programs("0123456789ab", "bb", rolled_back=True)
    assert set(end.generations) == set(state.generations)
    assert dataplane_wish.plan(end, BACK) == ()
    again = dataplane_wish.plan(end, pure.Request(CONFIGURED, "replaced", "bb"))
    assert kinds(again) == kinds(steps)
    assert predict(end, again).programs == pure.Programs("bb", "0123456789ab")


def test_rollback_after_a_reboot_loads_what_is_kept() -> None:
    state = rebooted(upgraded("bb"))
    assert "Keep" not in kinds(dataplane_wish.plan(state, BACK))
    end = predict(state, dataplane_wish.plan(state, BACK))
    assert end.owner.startswith("0123456789ab")


@pytest.mark.parametrize("state", [BARE, SERVING, unrecorded(SERVING)])
def test_without_a_previous_version_there_is_no_way_back(state: pure.State) -> None:
    with pytest.raises(FastpathError, match="cannot go back to the previous version"):
        dataplane_wish.plan(state, BACK)


def test_new_version_that_was_never_checked_is_left_on_a_failed_check() -> None:
    """A run was killed after the last hook: what the next one finds wrong it puts right."""
    state = upgraded("bb")
    request = pure.Request(CONFIGURED, "replaced", "cc")
    steps = dataplane_wish.plan(state, request)
    ends = [index for index, step in enumerate(steps) if isinstance(step.do, (pure.Check, pure.HandOver))]
    for end in (ends[0], ends[1] + 1):  # before the check, and after the maps were handed over
        killed = predict(state, steps[:end])
        rest = dataplane_wish.plan(killed, request)
        check = next(index for index, step in enumerate(rest) if isinstance(step.do, pure.Check))
        left = predict(killed, rest[:check])
        for step in reversed(rest[: check + 1]):
            for op in step.undo:
                left = carry_out(left, op)
        assert {gen.partition("_")[0] for _name, gen in left.hooks.values()} == {"bb"}
        assert left.owner.startswith("bb")
        assert left.programs == pure.Programs("bb", "0123456789ab")


@given(st.floats(0, 1))
def test_killed_rollback_can_go_either_way(cut: float) -> None:
    state = upgraded("bb")
    killed = predict(state, prefix(dataplane_wish.plan(state, BACK), cut))
    for request, name in ((BACK, "0123456789ab"), (pure.Request(CONFIGURED, "replaced", "bb"), "bb")):
        end = reached(killed, dataplane_wish.plan(killed, request))
        assert end.owner.startswith(name)
        assert {gen for _name, gen in end.hooks.values()} == {end.owner}
        assert dataplane_wish.plan(end, request) == ()


def test_prefix_leads_to_the_router_device() -> None:
    config = {"uplinks": [{"name": "eth0"}], "prefixes": ["10.128.3.0/24", "fd00:128:3::/64"]}
    end = predict(BARE, dataplane_wish.plan(BARE, pure.Request(config, "replaced", "new")))
    assert end.routes == {Route("10.128.3.0/24"), Route("fd00:128:3::/64")}
    assert end.router
    assert {"10.128.3.1/32", "fd00:128:3::1/128"} <= end.router.addresses
    assert end.router.settings == dataplane_plan.SETTINGS
    assert end.router.mtu == 1500


def requested(**changes: Any) -> Steps:
    return dataplane_wish.plan(SERVING, pure.Request(changes, "merged", "0123456789ab"))


def test_new_gateway_of_a_route_replaces_it_and_is_undone() -> None:
    old, new = Route("10.128.4.0/24", "192.0.2.14"), Route("10.128.4.0/24", "192.0.2.99")
    steps = requested(routes=[{"to": new.to, "via": new.via}])
    assert [step.do for step in steps[:-1]] == [pure.ReplaceRoute(new, old)]
    assert not any(step.disrupts for step in steps)
    state = reached(SERVING, steps)
    assert state.routes == SERVING.routes - {old} | {new}
    for step in reversed(steps):
        for op in step.undo:
            state = carry_out(state, op)
    assert state == SERVING


@pytest.mark.parametrize("known", [True, False])
def test_programs_are_loaded_for_a_new_router_device(known: bool) -> None:
    """Whatever the old ones are said to be: they know the number of the old device."""
    gone = pure.DeleteRouter().effect(SERVING)
    gone = replace(gone, generations=dict.fromkeys(gone.generations, known))
    steps = dataplane_wish.plan(gone, pure.Request(CONFIGURED, "replaced", "0123456789ab"))
    types = [type(step.do) for step in steps]
    assert types.index(pure.CreateRouter) < types.index(pure.Load) < types.index(pure.Hook)
    assert types.count(pure.Hook) == len(SERVING.hooks)
    assert reached(gone, steps) == SERVING


def test_routes_of_a_router_that_has_gone_are_made_again() -> None:
    steps = dataplane_wish.plan(replace(SERVING, router=None), pure.Request(CONFIGURED, "replaced", "0123456789ab"))
    made = {step.do.route for step in steps if isinstance(step.do, pure.AddRoute)}
    assert made == {Route("10.128.3.0/24"), Route("fd00:128:3::/64")}


def test_what_disrupts_says_so() -> None:
    prefixes = {type(step.do): step.disrupts for step in requested(prefixes=["10.128.3.0/24"])}
    assert "fd00:128:3::1" in prefixes[pure.ConfigureRouter]
    assert prefixes[pure.DeleteRoute] == "traffic to fd00:128:3::/64"
    uplinks = {type(step.do): step.disrupts for step in requested(uplinks=[{"name": "eth0"}])}
    assert uplinks[pure.Unhook] == "container traffic over eth1"
    added = requested(prefixes=[*CONFIGURED["prefixes"], "10.129.0.0/16"])
    assert not any(step.disrupts for step in added)


def test_removal_is_undone_as_long_as_programs_are_loaded() -> None:
    steps = dataplane_wish.plan(SERVING, pure.Request({}, "deleted", ""))
    tried = [step for step in steps if isinstance(step.do, (pure.Unhook, pure.DeleteRoute, pure.DeleteRouter))]
    state = reached(SERVING, tried)
    for step in reversed(tried):
        for op in step.undo:
            state = carry_out(state, op)
    assert settled(state) == settled(SERVING)
