# SPDX-License-Identifier: GPL-3.0-or-later
"""The lives of policies: what a node can be in, what can happen to it, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel.policy import Installed
from ansible_collections.fastpath.node.plugins.module_utils.plan import Op, Step, predict
from ansible_collections.fastpath.node.plugins.module_utils.policy import documents
from ansible_collections.fastpath.node.plugins.module_utils.resources import policies_switch as switch
from ansible_collections.fastpath.node.plugins.module_utils.resources import policies_wish as wish
from ansible_collections.fastpath.node.plugins.module_utils.resources.policies_state import Request, State

from . import life

ATTACHMENTS = ({"name": "web-1", "labels": {"app": "web"}}, {"name": "db-1", "labels": {"app": "db"}})
ENDPOINTS = {"10.128.3.7": ("web-1", 0), "fd00:128:3::7": ("web-1", 0), "10.128.3.8": ("db-1", 1)}
BARE = State(switch.Policing(able=True, node=("192.0.2.2",)), ENDPOINTS, ATTACHMENTS)
UNTOUCHED = replace(BARE, endpoints={}, attachments=())


def document(name: str, app: str, *ports: int, **metadata: Any) -> dict[str, Any]:
    """Who may come to the containers with this label, by any of the ports."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, **metadata},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "ingress": [{"ports": [{"port": p}]} for p in ports]},
    }


WEB, DB, PROD = document("web", "web", 80, 443), document("db", "db"), document("web", "web", namespace="prod")
OTHER = {"name": "server-2/web-1", "addresses": ["10.128.4.7/32"], "labels": {"app": "web"}}
DOCUMENTS = (WEB, document("web", "web", 80), DB, PROD)
CONFIGS = st.lists(st.sampled_from(DOCUMENTS), max_size=3, unique_by=lambda item: documents.identity(item, ""))
REQUESTS = st.builds(
    Request,
    CONFIGS,
    st.sampled_from(["merged", "replaced", "overridden", "deleted"]),
    st.sampled_from([None, [], [OTHER]]),
    st.sampled_from([None, {}, {"prod": {"team": "shop"}}]),
)


def _with(state: State, **changes: Any) -> State:
    return replace(state, policing=replace(state.policing, **changes))


def rebooted(state: State) -> State:
    return replace(_with(state, installed=None), endpoints={})


def attached(state: State) -> State:
    return replace(state, endpoints=ENDPOINTS, attachments=ATTACHMENTS)


def readdressed(state: State) -> State:
    return _with(state, node=("192.0.2.3", "fd00:192::2"))


def forgotten(state: State) -> State:
    """Somebody removes the file."""
    return _with(state, document=None)


def _installed(**changes: Any) -> Callable[[State], State]:
    def happen(state: State) -> State:
        now = state.policing.installed
        return _with(state, installed=replace(now, **changes)) if now else state

    return happen


tampered, half_switched, half_cleared = _installed(intact=False), _installed(settled=False), _installed(epoch=0)
EVENTS = [rebooted, attached, readdressed, forgotten, tampered, half_switched, half_cleared]
HAPPEN = st.lists(st.sampled_from(EVENTS), max_size=2)


def planned(state: State, request: Request) -> tuple[Step[State], ...] | None:
    """None when it is refused."""
    try:
        return wish.plan(state, request)
    except FastpathError:
        return None


def why_not(state: State, op: Op[State]) -> str:
    """What the kernel layer would say."""
    now = state.policing.installed
    if isinstance(op, switch.Settle) and (now is None or not now.intact):
        return "nothing to settle"
    if isinstance(op, switch.GoBack) and not op.before.intact:
        return "the tables of before are not there"
    return "" if state.policing.able else "no programs"


KERNEL = life.Kernel(why_not, lambda _state: None)
SERVING = predict(BARE, wish.plan(BARE, Request((WEB, DB), "merged", [OTHER])))
Case = tuple[State, Request, tuple[Step[State], ...]]


def states() -> st.SearchStrategy[State]:
    return life.lives([SERVING, BARE, UNTOUCHED], HAPPEN, REQUESTS, planned)


def plans() -> st.SearchStrategy[Case]:
    return life.cases(states(), REQUESTS, planned)


def installed(state: State) -> Installed:
    assert state.policing.installed is not None
    return state.policing.installed
