# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies on a real node: reads what there is, carries out the operations of policies_switch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from .. import store
from ..errors import FastpathError, InvalidConfig
from ..kernel import links, policy, rtnl
from . import policies_switch as pure
from . import policies_wish
from .policies_switch import Policing


def read() -> Policing:
    document, unreadable = _document()
    with rtnl.Netlink() as netlink:
        node = tuple(sorted(links.own_addresses(netlink)))
    return Policing(document, unreadable, policy.read(), policy.able(), node)


def _document() -> tuple[Mapping[str, Any] | None, str]:
    """What this node keeps, and why it cannot be read."""
    try:
        document = store.read("policies")
        if document is not None:
            policies_wish.check_document(document)
    except InvalidConfig as error:
        return None, f"{store.path('policies')}: {error}"
    except FastpathError as error:
        return None, f"{error.object}: {error.cause}"
    return document, ""


class Enforcer:
    """Carries out changes of policies. namespaces: address of each container here -> its network namespace, asked for
    only when it is needed. done: what became of open flows, of all changes together."""

    def __init__(self, namespaces: Callable[[], Mapping[str, str]]) -> None:
        self._namespaces = namespaces
        self.done = policy.Published(0, 0, 0, 0)
        self.operations: dict[type, Callable[[Any], None]] = {
            pure.Switch: self._switch,
            pure.GoBack: lambda op: self._add(policy.go_back(op.before, self._namespaces())),
            pure.Settle: lambda op: self._add(policy.settle(self._namespaces())),
            pure.Clear: lambda op: policy.clear(),
        }

    def _switch(self, op: pure.Switch) -> None:
        tables = op.source.tables() if op.tables is None else op.tables
        self._add(policy.publish(tables, op.input, self._namespaces(), known=op.known))

    def _add(self, new: policy.Published) -> None:
        old = self.done
        self.done = policy.Published(
            new.epoch,
            old.written + new.written,
            old.revoked + new.revoked,
            old.told + new.told,
            new.untold or old.untold,
        )

    def public(self) -> dict[str, Any]:
        """For a result; nothing where nothing was changed."""
        if not self.done.epoch:
            return {}
        said = {"flows": {"revoked": self.done.revoked, "told": self.done.told}}
        return {**said, "warnings": [self.done.untold]} if self.done.untold else said
