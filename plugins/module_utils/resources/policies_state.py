# SPDX-License-Identifier: GPL-3.0-or-later
"""The policies of a node as data: the state, and the operations of their own. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .policies_switch import Document, Policed


@dataclass(frozen=True)
class Request:
    """config: documents as users write them. endpoints, namespaces None: not given.

    assume: a dataplane that knows policies will be there (check mode)."""

    config: Sequence[Any]
    state: str
    endpoints: Sequence[Any] | None = None
    namespaces: Mapping[str, Any] | None = None
    assume: bool = False


@dataclass(frozen=True)
class State(Policed):
    """endpoints: published address -> attachment and slot; attachments: the list that the node keeps, None where it
    cannot be read."""

    endpoints: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    attachments: Sequence[Mapping[str, Any]] | None = ()


@dataclass(frozen=True)
class Record:
    """Keep the document as this node's desired state; None removes it."""

    document: Document | None

    def effect(self, state: State) -> State:
        return replace(state, policing=replace(state.policing, document=self.document, unreadable=""))
