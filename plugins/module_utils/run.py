# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a resource, the same for a module and the CLI: options in, a result of JSON types out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable

from . import apart, plan, store, versions
from .kernel import bpf, sriov, way
from .policy.collector import paused
from .resources import (
    attachments_nics,
    attachments_pool,
    attachments_read,
    attachments_state,
    attachments_wish,
    confirm,
    dataplane_nics,
    dataplane_plan,
    dataplane_state,
    dataplane_wish,
    eswitch_change,
    eswitch_confirm,
    eswitch_node,
    eswitch_state,
    eswitch_wish,
    fields,
    policies_render,
    policies_state,
    runtime,
)
from .resources.attachments import Attachments
from .resources.attachments_state import Node
from .resources.dataplane import Dataplane
from .resources.eswitch import Eswitch
from .resources.policies import Policies

Config = Sequence[Mapping[str, Any]]


def given(value: Any) -> Any:
    """The value without the options that Ansible fills with None because nobody gave them.

    Keys of labels are no options: a None there is somebody's mistake, and is left for the check to find.
    """
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if item is not None}
        return {key: item if key == "labels" else given(item) for key, item in kept.items()}
    return [given(item) for item in value] if isinstance(value, list) else value


def run_dataplane(
    config: Mapping[str, Any],
    state: str,
    *,
    path: str = "",
    checksum: str = "",
    nics: Config | None = None,
    check: bool = False,
    allow_disruption: bool = False,
) -> dict[str, Any]:
    """Converge the dataplane: changed, before, after, steps, diff; or only `gathered`, or `rendered` and steps.

    path: the object to run, "" for the one that the node has recorded.
    checksum: SHA-1 of the object that is going to be at `path`, which a check cannot read there yet.
    nics: as in Ahead; used in check and rendered.
    """
    path = path or versions.wanted()
    change = _change(nics if check or state == "rendered" else None)
    resource = Dataplane(path, partial(dataplane_nics.foreseen, change=change))
    object_id = checksum[: versions.DIGITS] if check and checksum else versions.object_id(path)
    request = dataplane_state.Request(config, state, object_id)
    if state == "gathered":
        present = Dataplane(path)
        return {"changed": False, "gathered": present.public(present.have())}
    if state == "rendered":
        bare = dataplane_state.State(uplinks=resource.have().uplinks)
        return _rendered(resource, bare, request)
    with store.locked():
        return _report(plan.converge(resource, request, check=check, allow_disruption=allow_disruption))


@dataclass(frozen=True)
class Ahead:
    """What runs that come first will have made of the node, so far as they have only checked it.

    dataplane: its config. nics: the config of eswitch, None where it changes nothing. epoch: of the policies, None
    where they stay as they are.
    """

    dataplane: Mapping[str, Any] | None = None
    nics: Config | None = None
    epoch: int | None = None


def run_attachments(
    config: Config,
    state: str,
    *,
    ahead: Ahead = Ahead(),
    skip_absent: bool = False,
    check: bool = False,
    allow_disruption: bool = False,
) -> dict[str, Any]:
    """The same for attachments. ahead: used in check, and all but its epoch in rendered."""
    if state == "gathered":
        present = Attachments()
        return {"changed": False, "gathered": present.public(present.have())}
    references = attachments_wish.references(config)
    if not check:
        ahead = replace(ahead, epoch=None) if state == "rendered" else Ahead()
    change = _change(ahead.nics)

    def foresee(have: attachments_state.State) -> attachments_state.State:
        have = attachments_nics.foreseen(have, change)
        return replace(have, node=_planned(ahead.dataplane, change, have.node)) if ahead.dataplane else have

    resource = Attachments(references, attachments_wish.asks_for_vfs(config), foresee)
    request = attachments_state.Request(tuple(config), state, skip_absent, ahead.epoch)
    if state == "rendered":
        have = resource.have()
        bare = attachments_state.State(
            node=have.node,
            containers=frozenset(references),
            vfs=attachments_pool.bare(have.vfs),
            netkit=have.netkit,
        )
        return _rendered(resource, bare, request)
    with store.locked():
        result = plan.converge(resource, request, check=check, allow_disruption=allow_disruption)
    left_out = {"without_vf": resource.without_vf(config, result.after)} if skip_absent else {}
    return {**_report(result), **resource.enforcer.public(), **left_out}


def run_policies(
    config: Sequence[Any],
    state: str,
    *,
    endpoints: Sequence[Any] | None = None,
    namespaces: Mapping[str, Any] | None = None,
    assume: Mapping[str, Any] | None = None,
    check: bool = False,
) -> dict[str, Any]:
    """The same for policies, with `epoch`, and `flows`: how many were cut. assume: the dataplane's config, as in Ahead.

    endpoints: containers of other nodes; namespaces: their labels by name; None: as before."""
    resource = Policies()
    request = policies_state.Request(config, state, endpoints, namespaces, assume=bool(assume) and check)
    if state == "gathered":
        return {"changed": False, "gathered": resource.public(resource.have())}
    if state == "rendered":
        return {"changed": False, "rendered": policies_render.rendered(request, attachments_read.document()[0] or ())}
    with store.locked(), paused():
        result = plan.converge(resource, request, check=check)
    return {**_report(result), "epoch": resource.epoch, **resource.enforcer.public()}


def run_eswitch(
    config: Config,
    state: str,
    *,
    check: bool = False,
    allow_disruption: bool = False,
    confirm_timeout: int = 0,
) -> dict[str, Any]:
    """The same for NICs with VFs, with `unconfirmed`: whether the node takes it back unless that is confirmed.

    confirm_timeout: seconds for that; without it, what the SSH connection comes in by is not touched.
    """
    if confirm_timeout:
        fields.number(confirm_timeout, "confirm_timeout", 1, 3600)
    only_look = state in ("gathered", "rendered")
    resource = Eswitch(eswitch_node.Node("" if only_look else way.connection()))
    request = eswitch_state.Request(tuple(config), state, confirm_timeout)
    if state == "gathered":
        return {"changed": False, "gathered": resource.public(resource.have())}
    if state == "rendered":
        return _rendered(resource, eswitch_wish.bare(resource.have()), request)

    def work() -> dict[str, Any]:
        with store.locked():
            with confirm.counted():
                result = plan.converge(resource, request, check=check, allow_disruption=allow_disruption)
            return {**_report(result), "unconfirmed": confirm.read() is not None}

    return apart.carry_out(work) if confirm_timeout and not check else work()


def revert(*, due: bool = False, wait: float = 0) -> dict[str, dict[str, Any]]:
    """Take back the change that nobody has confirmed, if there is one; with `due`, when the time for that is over.

    wait: seconds for NICs to appear.
    """
    while True:
        with store.locked():
            armed = confirm.read()
            if armed is None:
                return {}
            left = armed.left() if due else 0.0
            if not left:
                result = _UNDO[armed.undo.resource](armed.undo.before, wait)
                confirm.disarm()
                return {armed.undo.resource: result}
        time.sleep(min(left, 1))


def _undo_eswitch(before: Mapping[str, Any], wait: float) -> dict[str, Any]:
    resource, document = Eswitch(eswitch_node.Node()), before["document"]
    found = resource.ready(before["config"], wait)
    request = eswitch_state.Request(
        found, eswitch_state.RESTORED, document=None if document is None else tuple(document)
    )
    result = plan.converge(resource, request, allow_disruption=True)
    return {**_report(result), "absent": [_words(item["device"]) for item in before["config"] if item not in found]}


_UNDO: Mapping[str, Callable[[Mapping[str, Any], float], dict[str, Any]]] = {eswitch_confirm.RESOURCE: _undo_eswitch}


def restore_eswitch(
    document: Config, *, wait: float = 0, check: bool = False, allow_disruption: bool = False
) -> dict[str, Any]:
    """The document's NICs as it says; those that are not there after `wait` seconds are told in `absent`."""
    resource = Eswitch(eswitch_node.Node())
    found = resource.ready(document, wait)
    result = run_eswitch(found, "replaced", check=check, allow_disruption=allow_disruption)
    return {**result, "absent": [_words(item["device"]) for item in document if item not in found]}


def _words(device: Mapping[str, Any]) -> str:
    ((by, value),) = device.items()
    return f"{by} {value}"


def _planned(config: Mapping[str, Any], change: eswitch_change.Change | None, now: Node | None) -> Node:
    """What attachments would find once the dataplane has this config. Where programs run, it sees to those itself."""
    have = dataplane_nics.foreseen(Dataplane().have(), change)
    wish = dataplane_wish.wish({"routing": "fabric", **config}, have)
    return Node(wish.prefixes, dataplane_plan.smallest_mtu(have, wish), now.generation if now else "")


def _change(config: Config | None) -> eswitch_change.Change | None:
    """What a run of eswitch would do; NICs that are not there it leaves out."""
    if config is None:
        return None
    resource, there = Eswitch(eswitch_node.Node()), {one.handle: one for one in sriov.physical()}
    have = resource.have()
    found = tuple(item for item in config if eswitch_wish.ready(item, have))
    steps = resource.plan(have, eswitch_state.Request(found, "overridden"))
    return eswitch_change.Change(have, steps, lambda handle, vf: there[handle].address(vf), bpf.has_tcx())


def _rendered(resource: plan.Resource[Any, Any], bare: Any, request: Any) -> dict[str, Any]:
    steps = resource.plan(bare, request)
    rendered = resource.public(plan.predict(bare, steps))
    return {"changed": False, "rendered": rendered, "steps": [step.public() for step in steps]}


def install(present: bool, *, check: bool = False) -> dict[str, Any]:
    """Put the running library on this node, or remove it."""
    sources = runtime.library() if present else {}
    resource = runtime.Runtime(sources)
    return _report(plan.converge(resource, runtime.digest(sources) if present else "", check=check))


def _report(result: plan.Result) -> dict[str, Any]:
    return {
        "changed": result.changed,
        "before": result.before,
        "after": result.after,
        "steps": list(result.steps),
        "diff": result.diff(),
    }
