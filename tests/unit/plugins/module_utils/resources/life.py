# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lives of all resources share: runs that are cut anywhere, and a kernel that may object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from hypothesis import assume, event
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.plan import Op, Step, predict


class Request(Protocol):
    @property
    def state(self) -> str: ...


S = TypeVar("S")
R = TypeVar("R", bound=Request)
CUT = st.floats(0, 1)


def prefix(steps: Sequence[Step[S]], cut: float) -> Sequence[Step[S]]:
    return steps[: round(cut * len(steps))]


@st.composite
def lives(
    draw: st.DrawFn,
    starts: Sequence[S],
    happenings: st.SearchStrategy[list[Callable[[S], S]]],
    requests: st.SearchStrategy[R],
    planned: Callable[[S, R], tuple[Step[S], ...] | None],
) -> S:
    """Where what happens to a node leads to, and requests, each killed at any step. planned: None when refused."""
    state = draw(st.sampled_from(starts))
    killed = draw(st.lists(st.tuples(requests, CUT | st.just(1.0)), max_size=2))
    for happened in [draw(happenings) for _life in range(len(killed) + 1)]:
        for happen in happened:
            state = happen(state)
        if killed:
            request, cut = killed.pop()
            state = predict(state, prefix(planned(state, request) or (), cut))
    return state


@st.composite
def cases(
    draw: st.DrawFn,
    states: st.SearchStrategy[S],
    requests: st.SearchStrategy[R],
    planned: Callable[[S, R], tuple[Step[S], ...] | None],
) -> tuple[S, R, tuple[Step[S], ...]]:
    state, request = draw(states), draw(requests)
    steps = planned(state, request)
    assume(steps is not None)
    assert steps is not None
    event(f"{request.state}, {len(steps) if len(steps) < 4 else 'many'} steps")
    return state, request, steps


class Refused(Exception):
    """The kernel does not do this in this state."""


@dataclass(frozen=True)
class Kernel(Generic[S]):
    """why_not: what it objects to, "" for nothing; assert_safe: what holds in every state."""

    why_not: Callable[[S, Op[S]], str]
    assert_safe: Callable[[S], None]

    def carry_out(self, state: S, op: Op[S]) -> S:
        reason = self.why_not(state, op)
        if reason:
            raise Refused(reason)
        return op.effect(state)

    def walk(self, state: S, steps: Sequence[Step[S]]) -> Iterator[S]:
        """The states that the steps pass, each checked for safety."""
        self.assert_safe(state)
        for step in steps:
            state = self.carry_out(state, step.do)
            self.assert_safe(state)
            yield state

    def reached(self, state: S, steps: Sequence[Step[S]]) -> S:
        for after in self.walk(state, steps):
            state = after
        return state
