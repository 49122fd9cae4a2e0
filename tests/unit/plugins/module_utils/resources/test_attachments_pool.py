# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VF an attachment gets, and what is said where there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel.links import GROUP, Link
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_links as whose
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_plan as plan
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_pool as pool
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_state as pure
from ansible_collections.fastpath.node.plugins.module_utils.resources import attachments_wish as wish

from .attachments_life import BARE, LENT, NIC, REFERENCES, VFS, example, half_given, moved, reached, vanish

BOUND, FIRST, SECOND, OTHER = sorted(VFS)
ANY: dict[str, Any] = {"kind": "vf"}


def three(*kinds: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple({**example(f"web-{n + 1}", n, f"10.128.3.{7 + n}"), **kind} for n, kind in enumerate(kinds))


def used(state: pure.State) -> dict[str, str]:
    return {name: end.vf for name, end in state.links.items()}


def after(state: pure.State, *kinds: dict[str, Any], skip: bool = False) -> pure.State:
    request = pure.Request(three(*kinds), "overridden", skip)
    end = reached(state, wish.plan(state, request))
    assert wish.plan(end, request) == ()
    return end


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ([None], [FIRST]),
        ([None, None, None], [FIRST, SECOND, OTHER]),
        ([None, FIRST], [SECOND, FIRST]),
        (["0000:5e:00.0", None], [OTHER, FIRST]),
        ([NIC, NIC.upper()], [FIRST, SECOND]),
    ],
)
def test_the_first_that_suits(wanted: list[str | None], given: list[str]) -> None:
    kinds = [{**ANY, "vf": vf} if vf else ANY for vf in wanted]
    assert list(used(after(BARE, *kinds)).values()) == given


def test_it_stays_with_who_has_it() -> None:
    end = after(LENT, {"kind": "veth"}, ANY)
    assert used(end) == {"web-1": "", "web-2": SECOND}
    assert used(after(end, ANY, ANY, ANY)) == {"web-1": FIRST, "web-2": SECOND, "web-3": OTHER}
    assert used(after(end, {**ANY, "vf": SECOND}, {**ANY, "vf": FIRST})) == {"web-1": SECOND, "web-2": FIRST}


@pytest.mark.parametrize("first", [{"kind": "veth"}, {"kind": "auto"}])
def test_what_one_gives_up_another_gets_at_once(first: dict[str, Any]) -> None:
    only = replace(BARE, vfs={FIRST: VFS[FIRST]})
    had = after(only, ANY, {"kind": "veth"})
    assert used(after(had, first, ANY)) == {"web-1": "", "web-2": FIRST}
    last = {**three({}, ANY)[1]}
    assert used(reached(had, wish.plan(had, pure.Request((last,), "overridden")))) == {"web-2": FIRST}
    with pytest.raises(InvalidConfig, match="web-1 has it"):
        wish.plan(had, pure.Request((last,), "replaced"))


@pytest.mark.parametrize("happened", [vanish, moved])
def test_who_loses_the_container_keeps_the_vf_for_the_next_one(happened: Any) -> None:
    state = replace(happened(LENT, REFERENCES[0]), containers=BARE.containers)
    assert used(after(state, ANY, ANY)) == {"web-1": FIRST, "web-2": SECOND}


def test_a_container_that_has_ended_gives_it_back() -> None:
    state = vanish(LENT, REFERENCES[0])
    end = after(state, ANY, ANY, skip=True)
    assert used(end) == {"web-2": SECOND}
    assert end.vfs == {**LENT.vfs, FIRST: VFS[FIRST]}
    others = wish.plan(state, pure.Request(({**three({}, {})[1], **ANY, "mtu": 1400},), "merged"))
    assert pure.DeleteLink("web-1") in [step.do for step in others], "any run does it"


def test_where_nobody_finds_it_it_is_still_had() -> None:
    """The container has another namespace, and whoever keeps the old one keeps the VF."""
    state = replace(moved(LENT, REFERENCES[0]), containers=BARE.containers - {REFERENCES[0]})
    assert used(after(state, ANY, ANY, skip=True)) == {"web-1": FIRST, "web-2": SECOND}


def test_auto_has_none_and_keeps_none() -> None:
    assert set(used(after(BARE, {}, {"kind": "auto"})).values()) == {""}
    end = after(LENT, {}, {"kind": "auto"})
    assert used(end) == {"web-1": "", "web-2": ""}
    assert end.vfs == VFS


def test_another_kind_or_vf_is_a_new_link_and_says_so() -> None:
    kinds = {"another kind is wanted": {"kind": "netkit"}, "another VF is wanted": {**ANY, "vf": OTHER}}
    for reason, kind in kinds.items():
        steps = wish.plan(LENT, pure.Request(three(kind), "replaced"))
        assert not any(isinstance(step.do, pure.Move) for step in steps)
        assert (steps[0].reason, steps[0].disrupts) == (reason, f"container {REFERENCES[0]}")


def test_half_given_is_given_back() -> None:
    state = half_given(LENT, REFERENCES[2])
    assert state.vfs[OTHER].user == "web-3"
    assert after(state, ANY, ANY).vfs[OTHER] == VFS[OTHER]


def test_gathered_names_the_vf_and_not_its_mac() -> None:
    found = {item["name"]: item for item in plan.public(LENT)}
    assert (found["web-2"]["kind"], found["web-2"]["vf"]) == ("vf", SECOND)
    assert not {"mac", "mode"} & set(found["web-2"])


@pytest.mark.parametrize(
    ("kinds", "vfs", "field", "allowed"),
    [
        (
            [ANY] * 3,
            dict(list(VFS.items())[:2]),
            "web-3].kind",
            f"a VF that is free; {FIRST}: web-1 has it, {SECOND}: web-2",
        ),
        ([ANY], {BOUND: VFS[BOUND]}, "web-1].kind", f"a VF that is free; {BOUND}: it is bound to vfio-pci"),
        ([{**ANY, "vf": BOUND}], VFS, "web-1].vf", f"a VF that is free; {BOUND}: it is bound to vfio-pci"),
        ([ANY, {**ANY, "vf": OTHER}, {**ANY, "vf": OTHER}], VFS, "web-3].vf", f"{OTHER}: web-2 has it"),
        ([{**ANY, "vf": "0000:99:00.0"}], VFS, "web-1].vf", f"or of its NIC: {NIC}, {BOUND}, {FIRST}"),
        ([{**ANY, "vf": [7]}], VFS, "web-1].vf", f"or of its NIC: {NIC}"),
        ([ANY], {}, "web-1].kind", "this node has no VFs"),
        ([{**ANY, "mac": "02:00:00:00:00:01"}], VFS, "web-1].mac", "fastpath.node.eswitch"),
        ([{**ANY, "mode": "l2"}], VFS, "web-1].mode", "none without kind: netkit"),
    ],
)
def test_who_gets_none_is_told_why(kinds: list[dict[str, Any]], vfs: Any, field: str, allowed: str) -> None:
    have = replace(BARE, vfs=vfs)
    with pytest.raises(InvalidConfig, match=re.escape(allowed)) as caught:
        wish.plan(have, pure.Request(three(*kinds), "overridden"))
    assert caught.value.field.endswith(field)


def test_who_gets_none_is_left_out_at_boot() -> None:
    few = replace(BARE, vfs={FIRST: VFS[FIRST]})
    end = after(few, ANY, ANY, {"kind": "veth"}, skip=True)
    assert used(end) == {"web-1": FIRST, "web-3": ""}
    assert [item["name"] for item in end.document or ()] == ["web-1", "web-2", "web-3"]


def test_a_nic_that_is_not_there_at_boot_keeps_nobody_else_from_coming_back() -> None:
    end = after(replace(BARE, vfs={}), {**ANY, "vf": OTHER}, {**ANY, "vf": NIC}, {"kind": "veth"}, skip=True)
    assert used(end) == {"web-3": ""}
    assert (
        used(after(replace(end, vfs=VFS), {**ANY, "vf": OTHER}, {**ANY, "vf": NIC}, {"kind": "veth"}))["web-1"] == OTHER
    )


def test_many_are_not_all_told() -> None:
    vfs = {f"0000:3b:{n:02x}.0": pure.Vf(NIC, "") for n in range(64)}
    with pytest.raises(InvalidConfig, match="switchdev mode, \\.\\.\\.") as caught:
        wish.plan(replace(BARE, vfs=vfs), pure.Request(three(ANY), "merged"))
    assert str(caught.value).count("switchdev mode") < 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"master": "br0", "driver": "vfio-pci", "user": "web-1"}, "its representor pf0r0 is in br0"),
        ({"driver": "vfio-pci", "user": "web-1", "home": False}, "it is bound to vfio-pci"),
        ({"driver": "", "home": False}, "it is bound to no driver"),
        ({"user": "web-1", "home": False}, ""),
        ({"user": "web-1", "busy": "enp59s0v0"}, ""),
        ({"representor": "", "home": False}, "its NIC is not in switchdev mode"),
        ({"home": False}, "its interface is in another network namespace"),
        ({"busy": "enp59s0v0"}, "its interface enp59s0v0 is up"),
        ({}, ""),
    ],
)
def test_obstacles(change: dict[str, Any], words: str) -> None:
    assert replace(VFS[FIRST], **change).obstacle == words


def test_bare_is_without_attachments() -> None:
    assert pool.bare(LENT.vfs) == VFS


def test_the_representor_says_whose_it_is() -> None:
    for container in (REFERENCES[0], "podman:a", "netns:/run/netns/with a space"):
        owner = whose.Owner("web-1", container, vf=whose.Lent(FIRST, "enp59s0v0", 1500, VFS[FIRST].mac))
        link = Link(7, "enp59s0r0", "", "02:00:00:00:00:01", 1500, True, True, GROUP, owner.alias, 0, None)
        assert whose.owner(link) == owner
        assert (whose.pair(link), whose.key(link)) == (pure.VF, "at-web-1")
    plain = replace(link, alias="vf web-1 and no more")
    assert (whose.owner(plain).vf, whose.pair(plain)) == (None, pure.Pair(""))
