# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies in maps: what a publication writes, what is noticed, what a kill leaves. No packet moves here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, encoding, flows, grace, policy, sides
from ansible_collections.fastpath.node.plugins.module_utils.kernel.policy import Installed, Place
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import Tables

from .policies import killed, placed, tables

OLD, NEW = tables(40), tables(50, port=443)
MOST = 100  # changes of one run


@pytest.fixture
def place(bpffs: Path) -> Place:
    return placed(bpffs)


@pytest.fixture(autouse=True)
def _no_programs_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else these tests do little but wait."""
    monkeypatch.setattr(grace, "wait", lambda: None)


def active(place: Place) -> sides.Side:
    found = policy.read(place)
    assert found
    return sides.read(place.maps)[found.epoch & 1]


def assert_holds(place: Place, wanted: Tables, input: int) -> None:
    """These tables, settled, and nothing but them."""
    found = policy.read(place)
    assert found
    assert (found.settled, found.intact, found.input) == (True, True, input)
    assert active(place) == encoding.encode(wanted)
    assert counted(place) == encoding.counted(active(place))


def counted(place: Place) -> set[int]:
    with bpf.PerCpuMap.open(place.maps / "rule_counts") as table:
        return {int.from_bytes(key, "little") for key, _value in table.items()}


def entries(place: Place) -> int:
    """Of both sides and of all that goes with them."""
    tables_ = sum(len(found) for side in sides.read(place.maps) for found in side.values())
    return tables_ + len(counted(place)) + sum(flows.read(place.maps)[0:4:3])


def test_nothing_is_there_before_the_first(place: Place, bpffs: Path) -> None:
    assert policy.read(place) is None
    assert policy.read(replace(place, maps=bpffs / "nowhere")) is None
    policy.clear(replace(place, maps=bpffs / "nowhere"))
    with pytest.raises(bpf.BpfError, match="policy_state"):
        policy.publish(OLD, 1, {}, replace(place, maps=bpffs / "nowhere"))


def test_maps_that_are_not_all_there_take_no_policies(place: Place) -> None:
    assert policy.able(place)
    (place.maps / "identities").unlink()
    assert not policy.able(place)


def test_the_sides_take_turns_and_only_what_differs_is_written(place: Place) -> None:
    whole = sum(map(len, encoding.encode(OLD).values()))
    for epoch, input in ((1, 11), (2, 12)):
        assert policy.publish(OLD, input, {}, place) == policy.Published(epoch, whole, 0, 0)
        assert policy.read(place) == Installed(epoch, True, input, True)
        assert_holds(place, OLD, input)
    assert policy.publish(OLD, 13, {}, place).written == 0
    changed = replace(OLD, policy={**OLD.policy, (7, 2): (), (7, 99): ()})
    assert policy.publish(changed, 14, {}, place).written == 2
    assert_holds(place, changed, 14)
    assert policy.publish(OLD, 15, {}, place).written == 0
    assert policy.publish(OLD, 16, {}, place).written == 2
    fewer = tables(3)
    policy.publish(fewer, 17, {}, place)
    assert_holds(place, fewer, 17)


def test_the_epoch_is_never_0_and_the_sides_still_take_turns(place: Place) -> None:
    policy.publish(OLD, 1, {}, place)
    with bpf.Map.open(place.maps / "policy_state") as table:
        raw = table.get(bytes(4))
        assert raw
        table.set(bytes(4), b"\xff" * 8 + raw[8:])
    assert policy.publish(NEW, 2, {}, place).epoch == 2
    assert_holds(place, NEW, 2)


@pytest.mark.parametrize("name", encoding.KEYS)
def test_every_change_of_a_table_is_noticed_and_repaired(place: Place, name: str) -> None:
    policy.publish(OLD, 1, {}, place)
    whole = active(place)[name]
    record = min(whole)
    for others in ([], [record[:-1] + bytes([record[-1] ^ 1])]):
        sides.write(place.maps, 1, {name: whole - {record} | {*others}})
        assert not intact(place)
        sides.write(place.maps, 1, {name: whole})
        assert intact(place)
    sides.write(place.maps, 1, {name: whole - {record}})
    for _side in range(2):
        policy.publish(OLD, 1, {}, place)
        assert_holds(place, OLD, 1)


def intact(place: Place) -> bool:
    found = policy.read(place)
    assert found
    return found.intact


def test_the_idle_side_may_hold_anything(place: Place) -> None:
    policy.publish(OLD, 1, {}, place)
    junk = encoding.encode(tables(90, port=7))
    sides.write(place.maps, 0, junk)
    assert intact(place)
    policy.publish(NEW, 2, {}, place)
    assert_holds(place, NEW, 2)


def test_what_was_read_is_not_read_again_but_after_a_switch(place: Place) -> None:
    """known: only what differs is written, and what somebody else has done meanwhile is found by who reads next."""
    for input, wanted in ((1, OLD), (2, OLD)):
        policy.publish(wanted, input, {}, place)
    known = policy.read(place)
    changed = replace(OLD, policy={**OLD.policy, (7, 2): ()})
    assert policy.publish(changed, 3, {}, place, known).written == 1
    assert_holds(place, changed, 3)
    # `known` is of an older epoch now
    assert policy.publish(NEW, 4, {}, place, known).written
    assert_holds(place, NEW, 4)
    known = policy.read(place)
    sides.write(place.maps, 1, encoding.encode(tables(90, port=7)))
    policy.publish(NEW, 5, {}, place, known)
    assert not intact(place)
    policy.publish(NEW, 6, {}, place)
    assert_holds(place, NEW, 6)


def test_counts_go_on_while_their_rule_is_there(place: Place) -> None:
    policy.publish(OLD, 1, {}, place)
    number = min(counted(place)).to_bytes(4, "little")
    with bpf.PerCpuMap.open(place.maps / "rule_counts") as table:
        table.set(number, [b"\5" + bytes(7)] * table.cpus)
        policy.publish(NEW, 2, {}, place)
        assert bpf.add_up(table.get(number) or []) == (5 * table.cpus,)
        policy.publish(Tables(), 3, {}, place)
        assert table.get(number) is None


def test_clear_leaves_nothing(place: Place) -> None:
    policy.clear(place)
    policy.publish(OLD, 1, {}, place)
    policy.publish(NEW, 2, {}, place)
    assert entries(place)
    for _turn in range(2):
        policy.clear(place)
        assert policy.read(place) is None
        assert entries(place) == 0
    assert policy.publish(OLD, 3, {}, place).epoch == 1
    assert_holds(place, OLD, 3)


def test_go_back_to_what_was_there(place: Place) -> None:
    policy.publish(OLD, 1, {}, place)
    before = policy.read(place)
    assert before
    assert policy.go_back(before, {}, place) == policy.Published(1, 0, 0, 0)
    policy.publish(NEW, 2, {}, place)
    assert policy.go_back(before, {}, place).epoch == 3
    assert_holds(place, OLD, 1)
    assert policy.go_back(before, {}, place).epoch == 3


def test_go_back_only_to_what_is_still_there(place: Place) -> None:
    policy.publish(OLD, 1, {}, place)
    before = policy.read(place)
    assert before
    for input in (2, 3, 4):
        policy.publish(NEW, input, {}, place)
    with pytest.raises(FastpathError, match="do not hold them any more"):
        policy.go_back(before, {}, place)
    assert_holds(place, NEW, 4)


def test_programs_are_waited_for_where_one_may_still_see_what_was_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def telling(name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        done.append(name)
        return real(*arguments)

    for module, name in ((grace, "wait"), (sides, "write"), (policy, "_write"), (flows, "decide_again")):
        monkeypatch.setattr(module, name, partial(telling, name, getattr(module, name)))
    policy.publish(OLD, 1, {}, place)
    done.clear()
    steps = ["write", "wait", "_write", "wait", "decide_again", "_write"]
    policy.publish(OLD, 2, {}, place)
    assert done == steps
    with bpf.Map.open(place.maps / "policy_state") as table:
        raw = table.get(bytes(4))
        assert raw
        table.set(bytes(4), raw[:4] + b"\1" + raw[5:])  # as if the first epoch had been settled last
    done.clear()
    policy.publish(OLD, 3, {}, place)
    assert done == ["wait", *steps]
    done.clear()
    policy.clear(place)
    assert done == ["_write", "wait", "write", "write", "_write"]


def _prepared(place: Place, *sets: Tables) -> None:
    policy.clear(place)
    for number, wanted in enumerate(sets):
        policy.publish(wanted, number + 1, {}, place)


def _assert_whole(place: Place, *allowed: Tables) -> None:
    """What holds is one of these, whatever was killed: never a mixture. None that holds is one of them, too."""
    found = policy.read(place)
    if found and found.epoch:
        assert found.intact
        assert active(place) in [encoding.encode(wanted) for wanted in allowed]


@pytest.mark.parametrize("before", [(), (OLD, OLD)], ids=["first", "next"])
def test_a_publication_killed_before_any_change_is_finished_by_the_next(
    place: Place, before: tuple[Tables, ...]
) -> None:
    def work() -> object:
        return policy.publish(NEW, 9, {}, place)

    for limit in range(1, MOST):
        _prepared(place, *before)
        if not killed(limit, work):
            break
        _assert_whole(place, OLD, NEW)
        if limit % 2:
            _finish_elsewhere(place)
        work()
        assert_holds(place, NEW, 9)
    assert 5 < limit < MOST


def _finish_elsewhere(place: Place) -> None:
    """As a run does that has nothing to do but to settle."""
    found = policy.read(place)
    policy.settle({}, place)
    again = policy.read(place)
    assert again == (replace(found, settled=True) if found and found.epoch else found)


def _go_back(place: Place) -> Callable[[], object]:
    before = policy.read(place)
    assert before
    policy.publish(NEW, 2, {}, place)
    return lambda: policy.go_back(before, {}, place)


def test_a_way_back_killed_before_any_change_is_finished_by_the_next(place: Place) -> None:
    for limit in range(1, MOST):
        _prepared(place, OLD)
        work = _go_back(place)
        if not killed(limit, work):
            break
        _assert_whole(place, OLD, NEW)
        work()
        assert_holds_but_counts(place, OLD, 1)
    assert 3 < limit < MOST


def assert_holds_but_counts(place: Place, wanted: Tables, input: int) -> None:
    """Counters of what was tried may stay until the next publication."""
    assert active(place) == encoding.encode(wanted)
    assert policy.read(place) == Installed(3, True, input, True)
    assert counted(place) >= encoding.counted(active(place))


def test_clearing_killed_before_any_change_is_finished_by_the_next(place: Place) -> None:
    for limit in range(1, MOST):
        _prepared(place, OLD, NEW)
        if not killed(limit, lambda: policy.clear(place)):
            break
        _assert_whole(place, NEW)
        if limit % 2:
            policy.publish(OLD, 5, {}, place)
            assert_holds(place, OLD, 5)
        policy.clear(place)
        assert policy.read(place) is None
        assert entries(place) == 0
    assert 5 < limit < MOST


def test_more_logged_rules_than_can_be_counted_are_refused_in_words(place: Place) -> None:
    """Those of before and after a change are counted together."""
    policy.publish(OLD, 1, {}, place)
    with pytest.raises(FastpathError, match="131073 rules: there is room for 131072 logged or audited ones"):
        policy._count(place.maps, range(2 * 65536 + 1))
    assert_holds(place, OLD, 1)
