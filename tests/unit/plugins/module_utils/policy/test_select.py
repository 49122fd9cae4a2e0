# SPDX-License-Identifier: GPL-3.0-or-later
"""An index selects what a selector matches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Requirement, Selector
from ansible_collections.fastpath.node.plugins.module_utils.policy.select import Index

keys, values = st.sampled_from("abc"), st.sampled_from("xyz")
requirements = st.builds(
    Requirement,
    keys,
    st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    st.lists(values, min_size=1, max_size=2, unique=True).map(tuple),
)


@given(
    st.lists(st.dictionaries(keys, values), max_size=12), st.lists(requirements, max_size=3).map(tuple).map(Selector)
)
def test_an_index_selects_what_matches(items: list[dict[str, str]], selector: Selector) -> None:
    assert Index(items).select(selector) == [n for n, labels in enumerate(items) if selector.matches(labels)]
