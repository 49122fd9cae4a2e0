# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine, on a toy: a set of letters that is brought to another set."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import plan
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.plan import Op

Letters = frozenset[str]


@dataclass(frozen=True)
class Add:
    letter: str

    def effect(self, state: Letters) -> Letters:
        return state | {self.letter}


@dataclass(frozen=True)
class Drop:
    letter: str

    def effect(self, state: Letters) -> Letters:
        return state - {self.letter}


@dataclass
class Toy:
    """Letters in memory. broken: operations that fail; deaf: operations that do nothing; noise: joins in at the end."""

    letters: Letters
    broken: dict[Op[Letters], Exception] = field(default_factory=dict)
    deaf: frozenset[Op[Letters]] = frozenset()
    noise: Letters = frozenset()
    done: list[Op[Letters]] = field(default_factory=list)

    def have(self) -> Letters:
        return self.letters

    def plan(self, have: Letters, want: Letters) -> Sequence[plan.Step[Letters]]:
        drops = [
            plan.Step(f"drop {x}", "extra", Drop(x), (Add(x),), "readers" if x == "d" else "")
            for x in sorted(have - want)
            if x != "?"
        ]
        return drops + [plan.Step(f"add {x}", "missing", Add(x), (Drop(x),)) for x in sorted(want - have)]

    def execute(self, op: Op[Letters]) -> None:
        self.done.append(op)
        if op in self.broken:
            raise self.broken[op]
        if op not in self.deaf:
            self.letters = op.effect(self.letters) | self.noise

    def public(self, state: Letters) -> list[str]:
        return sorted(state)


def letters(text: str) -> Letters:
    return frozenset(text)


def test_check_promises_what_the_run_reaches() -> None:
    toy = Toy(letters("xab"))
    check = plan.converge(toy, letters("abc"), check=True)
    assert toy.done == []
    assert toy.letters == letters("xab")
    run = plan.converge(toy, letters("abc"))
    assert run == check
    assert toy.public(toy.letters) == run.after == ["a", "b", "c"]
    assert run.before == ["a", "b", "x"]
    assert [step["action"] for step in run.steps] == ["drop x", "add c"]
    assert toy.done == [Drop("x"), Add("c")]


def test_second_run_changes_nothing() -> None:
    toy = Toy(letters("x"))
    assert plan.converge(toy, letters("ab")).changed
    toy.done.clear()
    again = plan.converge(toy, letters("ab"))
    assert not again.changed
    assert again.steps == ()
    assert again.before == again.after
    assert toy.done == []


def test_steps_and_result_are_json() -> None:
    result = plan.converge(Toy(letters("d")), letters("a"), check=True, allow_disruption=True)
    assert json.loads(json.dumps(result.steps)) == [
        {"action": "drop d", "reason": "extra", "disruptive": True},
        {"action": "add a", "reason": "missing", "disruptive": False},
    ]


def test_diff_shows_steps_even_when_the_config_stays() -> None:
    diff = plan.Result(["a"], ["a"], ({"action": "load x", "reason": "stale", "disruptive": False},)).diff()
    assert diff["before"] != diff["after"]
    assert diff["after"].startswith("# load x: stale\n")
    assert diff["after"].endswith(diff["before"])


def test_nobody_reads_a_diff_of_megabytes() -> None:
    large = ["x" * 1000] * 2000
    diff = plan.Result(large, [*large, "y"], ({"action": "add y", "reason": "new", "disruptive": False},)).diff()
    assert diff == {"before": "# 1 MiB, not shown\n", "after": "# add y: new\n# 1 MiB, not shown\n"}


def test_progress_comes_before_each_step() -> None:
    toy = Toy(letters("x"))
    seen: list[tuple[int, int, str, int]] = []
    plan.converge(
        toy, letters("ab"), progress=lambda index, count, action: seen.append((index, count, action, len(toy.done)))
    )
    assert seen == [(0, 3, "drop x", 0), (1, 3, "add a", 1), (2, 3, "add b", 2)]


@pytest.mark.parametrize("check", [False, True])
def test_disruption_is_refused_before_anything_is_done(check: bool) -> None:
    toy = Toy(letters("cd"))
    with pytest.raises(FastpathError) as caught:
        plan.converge(toy, letters("ab"), check=check)
    assert toy.done == []
    text = str(caught.value)
    assert "drop d (disturbs readers)" in text
    assert "drop c" not in text
    assert "allow_disruption" in text


def test_allowed_disruption_goes_on() -> None:
    toy = Toy(letters("cd"))
    assert plan.converge(toy, letters("ab"), allow_disruption=True).after == ["a", "b"]
    assert toy.letters == letters("ab")


FAILURES: dict[str, Exception] = {
    "kernel": OSError(errno.EPERM, "Operation not permitted (said the kernel)"),
    "library": FastpathError("write", "it", "said the library"),
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("failing", range(5))
def test_failed_step_is_taken_back_with_all_before_it(kind: str, failing: int) -> None:
    toy = Toy(letters("xy"))
    steps = toy.plan(toy.letters, letters("abc"))
    toy.broken = {steps[failing].do: FAILURES[kind]}
    with pytest.raises(plan.StepFailed) as caught:
        plan.converge(toy, letters("abc"))
    assert toy.letters == letters("xy")
    forth = [step.do for step in steps[: failing + 1]]
    back = [op for step in reversed(steps[: failing + 1]) for op in step.undo]
    assert toy.done == forth + back
    text = str(caught.value)
    assert f"'{steps[failing].action}'" in text
    assert f"said the {kind}" in text
    undone = "; ".join(step.action for step in reversed(steps[: failing + 1]))
    assert undone in text
    assert caught.value.stuck == ()
    assert caught.value.__cause__ is FAILURES[kind]


def test_what_cannot_be_taken_back_is_named_and_the_rest_still_is() -> None:
    toy = Toy(letters("xy"))
    toy.broken = {Add("c"): OSError(errno.EIO, "disk"), Drop("a"): OSError(errno.EBUSY, "used by somebody")}
    with pytest.raises(plan.StepFailed) as caught:
        plan.converge(toy, letters("abc"))
    assert toy.letters == letters("xya")
    assert len(caught.value.stuck) == 1
    assert "add a" in caught.value.stuck[0]
    assert "used by somebody" in caught.value.stuck[0]
    assert "Could not be taken back: add a" in str(caught.value)
    assert "drop x" in str(caught.value).partition("Could not")[0]


def test_a_bug_is_not_hidden_as_a_failed_step() -> None:
    toy = Toy(letters(""))
    toy.broken = {Add("a"): TypeError("a bug")}
    with pytest.raises(TypeError):
        plan.converge(toy, letters("a"))


def spoil_deaf(toy: Toy) -> None:
    toy.deaf = frozenset([Add("b")])


def spoil_noise(toy: Toy) -> None:
    toy.noise = letters("?")


@pytest.mark.parametrize(
    ("spoil", "said"), [(spoil_deaf, "add b"), (spoil_noise, "differs")], ids=["step without effect", "somebody else"]
)
def test_verification_sees_a_node_that_is_not_as_promised(spoil: Callable[[Toy], None], said: str) -> None:
    toy = Toy(letters(""))
    spoil(toy)
    with pytest.raises(FastpathError) as caught:
        plan.converge(toy, letters("ab"))
    assert caught.value.operation == "verify"
    assert said in str(caught.value)


def test_predict_folds_the_effects_in_order() -> None:
    def step(op: Any) -> plan.Step[Letters]:
        return plan.Step("", "", op)

    assert plan.predict(letters("a"), []) == letters("a")
    assert plan.predict(letters("a"), [step(Drop("a")), step(Add("b")), step(Add("a"))]) == letters("ab")
