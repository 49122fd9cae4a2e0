# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule of the NetworkPolicy API, and of what we add to it, with real packets that pass and real ones that do not.

Over IPv4 and IPv6, within a node and between two. What arrives is compared with the table and with `fastpath explain`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.pair import Flow, Pair, pair
from tests.integration.policy_cases import CASES
from tests.integration.policy_recipes import CASES as RECIPES
from tests.integration.policy_recipes import FOLDER

pytestmark = pytest.mark.xdist_group("policy_api")  # they share a network


@pytest.fixture(scope="module")
def network() -> Iterator[Pair]:
    with pair() as made:
        yield made


@pytest.mark.parametrize("name", [*CASES, *RECIPES])
def test_what_passes_and_what_does_not(network: Pair, name: str) -> None:
    case = {**CASES, **RECIPES}[name]
    passes, stops = ([Flow.parse(text) for text in side.split()] for side in (case.passes, case.stops))
    flows = [*passes, *stops]
    expected = {(flow, family) for flow in passes for family in range(len(flow.pairs))}
    network.policies(case.documents)
    arrived = network.passing(flows, passes)
    assert arrived == expected, f"only expected {_text(expected - arrived)}, only arrived {_text(arrived - expected)}"
    if case.documents:  # else there is nothing to explain
        said = network.explained(flows)
        assert said == expected, f"only expected {_text(expected - said)}, only explained {_text(said - expected)}"


def test_every_recipe_has_a_case() -> None:
    assert {f"recipe {path.stem}" for path in FOLDER.glob("*.yml")} == set(RECIPES)


def _text(found: set[tuple[Flow, int]]) -> str:
    return ", ".join(sorted(f"{flow} {('v4', 'v6')[family]}" for flow, family in found)) or "nothing"
