# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers are the same for the same thing, never shared, and tell where two things had one hash."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.policy.numbers import Space, digest

contents = st.lists(st.integers(0, 40), unique=True, max_size=18)


def test_a_digest_is_the_same_on_every_machine() -> None:
    assert digest("fastpath") == 0xD17D9D98B61703A8


@given(contents)
def test_things_with_one_hash_get_different_numbers(contents: list[int]) -> None:
    space = Space(20)
    given_ = [space.give(content) for content in contents]
    assert len(set(given_)) == len(given_)
    assert all(1 <= number < 20 for number in given_)
    assert [space.give(content) for content in contents] == given_


@given(st.lists(st.integers(0, 1000), unique=True, max_size=40))
def test_a_number_tells_whether_it_depends_on_others(contents: list[int]) -> None:
    """Whose home is nobody else's has the number that it would have alone, and nobody is at the spare one."""
    space = Space(200)
    used = {space.give(content) for content in contents}
    for content in contents:
        home = space.home(content)
        alone = [other for other in contents if space.home(other) == home] == [content]
        assert (space.give(content) == home) or not alone
        assert alone or space.spare(home) in used


def test_a_space_that_is_too_small_goes_beyond_its_end() -> None:
    space = Space(4)
    assert [space.give(content) for content in (3, 6, 9, 12, 15, 3)] == [1, 2, 3, 4, 5, 1]
