# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers are the same for the same thing, never shared, and handed on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.policy.numbers import Numbers, Space, assign, digest


def test_a_digest_is_the_same_on_every_machine() -> None:
    assert digest("fastpath") == 0xD17D9D98B61703A8


@given(st.lists(st.integers(0, 40), unique=True, max_size=15), st.sets(st.integers(1, 15), max_size=3))
def test_things_with_one_hash_get_different_numbers(contents: list[int], reserved: set[int]) -> None:
    space = Space(20)
    for number in reserved:
        space.reserve(number)
    given_ = [space.give(content) for content in contents]
    assert len(set(given_) | reserved) == len(given_) + len(reserved)
    assert all(1 <= number < 20 for number in given_)
    assert [space.give(content) for content in contents] == given_


def test_a_space_that_is_too_small_goes_beyond_its_end() -> None:
    space = Space(4)
    assert [space.give(content) for content in (3, 6, 9, 12, 15, 3)] == [1, 2, 3, 4, 5, 1]


def numbers(contents: list[int], previous: Numbers | None = None) -> tuple[list[int], Numbers]:
    wanted = {"p": [(content, 1000 + content) for content in contents]}
    groups = [1000 + content for content in contents]
    made = assign(wanted, list(dict.fromkeys(groups)), previous or Numbers(), Space(1 << 20), Space(1 << 20))
    return [item.number for item in made.rules["p"]], made


contents = st.lists(st.integers(1, 9), max_size=8)


@given(contents, contents)
def test_rules_that_stay_keep_their_number(old: list[int], new: list[int]) -> None:
    before, memory = numbers(old)
    after, _made = numbers(new, memory)
    assert len(set(after)) == len(after)
    for content in set(old) & set(new):
        count = min(old.count(content), new.count(content))
        kept = [before[at] for at, item in enumerate(old) if item == content][:count]
        assert [after[at] for at, item in enumerate(new) if item == content][:count] == kept


@given(contents, contents)
def test_groups_have_numbers_of_their_own(old: list[int], new: list[int]) -> None:
    _before, memory = numbers(old)
    _after, made = numbers(new, memory)
    assert len(set(made.groups.values())) == len(made.groups) == len(set(new))
    assert all(made.groups[key] == memory.groups[key] for key in made.groups if key in memory.groups)


def test_what_replaces_a_rule_has_its_number_and_its_peers() -> None:
    before, memory = numbers([1, 2, 3])
    after, made = numbers([1, 7, 3], memory)
    assert after == before
    assert made.groups[1007] == memory.groups[1002]
