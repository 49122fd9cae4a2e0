# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine: have and want become steps; steps become check, diff, apply, verify and undo.

A resource is described by pure data. An operation (`Op`) knows what it makes of a state (`effect`),
so the steps alone predict the state that a real run must reach; how it is carried out in a kernel
is the resource's `execute`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Generic, Protocol, TypeVar

from .errors import FastpathError

S = TypeVar("S")
W_contra = TypeVar("W_contra", contravariant=True)
_LEGIBLE = 1 << 20  # bytes of a config that somebody may read as a diff
Progress = Callable[[int, int, str], None]  # index, count, action of the step that begins


class Op(Protocol[S]):
    """One change, as data. It may be carried out twice: the second time changes nothing."""

    def effect(self, state: S) -> S:
        """The state after the change. Pure."""


@dataclass(frozen=True)
class Step(Generic[S]):
    """A change, its reason, how it is taken back, and whom it disturbs ("" = nobody)."""

    action: str
    reason: str
    do: Op[S]
    undo: tuple[Op[S], ...] = ()
    disrupts: str = ""

    def public(self) -> dict[str, Any]:
        return {"action": self.action, "reason": self.reason, "disruptive": bool(self.disrupts)}


class Resource(Protocol[S, W_contra]):
    """What the engine needs of a resource. Only `have` and `execute` touch the node."""

    def have(self) -> S: ...

    def plan(self, have: S, want: W_contra) -> Sequence[Step[S]]: ...

    def execute(self, op: Op[S]) -> None: ...

    def public(self, state: S) -> Any:
        """The state in the shape of the user's config: JSON types only."""


@dataclass(frozen=True)
class Result:
    """What a run did, or in check mode would do. `before` and `after` have the config's shape."""

    before: Any
    after: Any
    steps: tuple[dict[str, Any], ...]

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    def diff(self) -> dict[str, str]:
        """For Ansible's --diff: the steps first, since not every step shows in the config."""
        actions = "".join(f"# {step['action']}: {step['reason']}\n" for step in self.steps)
        return {"before": _pretty(self.before), "after": actions + _pretty(self.after)}


class StepFailed(FastpathError):
    """A step failed; the steps before it were taken back, except those named in `stuck`."""

    def __init__(self, step: Step[Any], cause: BaseException, undone: Sequence[str], stuck: Sequence[str]) -> None:
        words = f"taken back: {'; '.join(undone)}" if undone else "nothing had been changed before"
        if stuck:
            words += f". Could not be taken back: {'; '.join(stuck)}"
        super().__init__("carry out", f"'{step.action}'", str(cause), f"{words}. The next run starts from there")
        self.stuck = tuple(stuck)


def predict(state: S, steps: Sequence[Step[S]]) -> S:
    """The state after the steps, computed."""
    for step in steps:
        state = step.do.effect(state)
    return state


def converge(
    resource: Resource[S, W_contra],
    want: W_contra,
    *,
    check: bool = False,
    allow_disruption: bool = False,
    progress: Progress = lambda _index, _count, _action: None,
) -> Result:
    """Bring the node to `want`; with `check`, only say how.

    progress is called before each step with (index, count, action).
    Raises FastpathError: disruptive steps that are not allowed (nothing was changed), StepFailed, or
    a node that is not what the steps promised.
    """
    have = resource.have()
    steps = list(resource.plan(have, want))
    if not allow_disruption:
        _refuse_disruption(steps)
    expected = predict(have, steps)
    result = Result(resource.public(have), resource.public(expected), tuple(step.public() for step in steps))
    if check or not steps:
        return result
    _apply(resource, steps, progress)
    _verify(resource, want, result.after)
    return result


def _refuse_disruption(steps: Sequence[Step[S]]) -> None:
    disruptive = [f"{step.action} (disturbs {step.disrupts})" for step in steps if step.disrupts]
    if disruptive:
        raise FastpathError(
            "go on with",
            "the plan",
            "it would disturb traffic: " + "; ".join(disruptive),
            "Set allow_disruption to allow it",
        )


def _apply(resource: Resource[S, W_contra], steps: Sequence[Step[S]], progress: Progress) -> None:
    for index, step in enumerate(steps):
        progress(index, len(steps), step.action)
        try:
            resource.execute(step.do)
        except (OSError, FastpathError) as cause:
            raise StepFailed(step, cause, *_undo(resource, steps[: index + 1])) from cause


def _verify(resource: Resource[S, W_contra], want: W_contra, promised: Any) -> None:
    hint = "All steps were carried out; somebody else may be changing the node. Run it again"
    try:
        reached = resource.have()
        left = resource.plan(reached, want)
    except FastpathError as error:
        raise FastpathError("verify", "the result", str(error), hint) from error
    if left or resource.public(reached) != promised:
        missing = "; ".join(step.action for step in left) or "the state differs from the prediction"
        raise FastpathError("verify", "the result", f"there is still to do: {missing}", hint)


def _undo(resource: Resource[S, W_contra], steps: Sequence[Step[S]]) -> tuple[list[str], list[str]]:
    """Take back steps, newest first; the last of them may be half done. Returns (undone, stuck)."""
    undone: list[str] = []
    stuck: list[str] = []
    for step in reversed(steps):
        try:
            for op in step.undo:
                resource.execute(op)
        except (OSError, FastpathError) as problem:
            stuck.append(f"{step.action} ({problem})")
        else:
            undone.append(step.action)
    return undone, stuck


def _pretty(state: Any) -> str:
    size = len(json.dumps(state))  # without indentation this is many times faster
    if size > _LEGIBLE:
        return f"# {size >> 20} MiB, not shown\n"
    return json.dumps(state, indent=2, sort_keys=True) + "\n"
