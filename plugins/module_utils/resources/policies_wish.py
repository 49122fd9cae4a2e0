# SPDX-License-Identifier: GPL-3.0-or-later
"""From policies as users write them to the document that a node keeps, and to the plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import FastpathError, InvalidConfig
from ..plan import Step
from ..policy import documents, members
from ..policy.model import DIRECTIONS
from . import fields, policies_switch
from .policies_state import Record, Request, State
from .policies_switch import Clear, Document, Source, Switch

Key = tuple[str, str, str]  # namespace, name, kind


def plan(have: State, request: Request) -> tuple[Step[State], ...]:
    """The steps from `have` to what is requested; raises InvalidConfig before anything is changed."""
    policing = have.policing
    if policing.unreadable and request.state != "overridden" and not _is_all_removed(request):
        hint = "Give all policies with state: overridden, as the role does: that writes it anew"
        raise FastpathError("change", "some policies and keep the others", policing.unreadable, hint)
    document = wish(policing.document, request)
    return tuple(_removal(have) if document is None else _steps(have, document, request.assume))


def _is_all_removed(request: Request) -> bool:
    return request.state == "deleted" and not request.config


def _steps(have: State, document: Document, assume: bool) -> Iterator[Step[State]]:
    policing = have.policing
    if not policing.able and not assume:
        cause = "no programs run that know policies as this version writes them"
        raise FastpathError("apply", "policies", cause, "Install or upgrade them first: fastpath.node.dataplane")
    switch = tuple(policies_switch.enforcing(policing, source(have, document)))
    if policing.unreadable or policing.document != document:
        # first: whoever comes after a killed run, at boot or to attach a container, goes on to this wish
        undo = (Record(policing.document),)
        yield Step("record the policies in /etc/fastpath", "the node restores them at boot", Record(document), undo)
    yield from switch


def source(have: State, document: Document) -> Source:
    """What is compiled of the document on this node; raises FastpathError where that cannot be known."""
    if have.attachments is None:
        hint = "Run the role attachments, which writes them anew"
        raise FastpathError("apply", "policies", "/etc/fastpath/attachments.json with the labels is broken", hint)
    return Source(document, policies_switch.attached(have.endpoints, have.attachments), have.policing.node)


def _removal(have: State) -> Iterator[Step[State]]:
    policing = have.policing
    if policing.installed is not None:
        action = f"take the policies away: {policies_switch.difference(policing.document, None)}"
        yield Step(action, "none is wanted", Clear(), _back(have))
    # last: as long as it is there, whoever attaches a container puts the policies in force again
    if policing.unreadable or policing.document is not None:
        undo = (Record(policing.document),)
        yield Step("forget the policies in /etc/fastpath", "none is wanted", Record(None), undo)


def _back(have: State) -> tuple[Switch, ...]:
    """The tables of before will be gone, and are compiled only if they are needed again."""
    policing = have.policing
    if policing.document is None or not policing.able:
        return ()
    try:
        before = source(have, policing.document)
    except FastpathError:
        return ()  # what could not be put in force can be taken away all the same
    return (Switch(before, before.digest(), 1),)


def wish(kept: Document | None, request: Request) -> Document | None:
    """What is to be kept after the request, in one order whatever order it was given in; None: no policies.

    A policy is one piece: `merged` does not look inside of it.
    """
    given = _by_key(request.config)
    before = kept or {}
    policies = {documents.identity(item, "policies"): item for item in before.get("policies", ())}
    if request.state == "deleted":
        policies = {key: item for key, item in policies.items() if given and key not in given}
    elif request.state == "overridden":
        policies = given
    else:
        policies = {**policies, **given}
    if not policies:
        return None
    return {
        "policies": [policies[key] for key in sorted(policies)],
        "endpoints": _endpoints(before.get("endpoints", ()), request),
        "namespaces": _namespaces(before.get("namespaces", {}), request),
    }


def _by_key(config: Sequence[Any]) -> dict[Key, Any]:
    found: dict[Key, Any] = {}
    for where, item in flat(config, "config"):
        key = documents.identity(item, where)
        if key in found:
            raise InvalidConfig(f"{where}.metadata.name", key[1], f"each name of a {key[2]} in {key[0]} once")
        found[key] = item
    return found


def flat(value: object, field: str) -> Iterator[tuple[str, Any]]:
    """The documents one by one with their path: those of lists, of `kind: List`, and none for an empty document."""
    if isinstance(value, Mapping) and value.get("kind") == "List":
        fields.choice(value.get("apiVersion"), f"{field}.apiVersion", ("v1",))
        given = fields.mapping(value, field, ("apiVersion", "kind", "metadata", "items"))
        yield from flat(fields.sequence(given.get("items", []), f"{field}.items"), f"{field}.items")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flat(item, f"{field}[{index}]")
    elif value is not None:
        yield field, value


def _endpoints(kept: Sequence[Mapping[str, Any]], request: Request) -> list[Mapping[str, Any]]:
    if request.endpoints is None:
        return list(kept)
    found = {str(item["name"]): item for item in kept} if request.state == "merged" else {}
    names = set()
    for index, item in enumerate(request.endpoints):
        name = members.elsewhere(item, f"endpoints[{index}]").name
        if name in names:
            raise InvalidConfig(f"endpoints[{index}].name", name, "each name once")
        names.add(name)
        found[name] = item
    return [found[name] for name in sorted(found)]


def _namespaces(kept: Mapping[str, Any], request: Request) -> dict[str, Any]:
    if request.namespaces is None:
        return dict(kept)
    found = {**(kept if request.state == "merged" else {}), **request.namespaces}
    policies_switch.namespaces({"namespaces": found})
    return found


def check_document(document: Mapping[str, Any]) -> None:
    """Raise InvalidConfig where a node's own document is not as such documents are written."""
    given = fields.mapping(document, "", ("policies", "endpoints", "namespaces"))
    for index, item in enumerate(fields.sequence(given.get("policies"), "policies")):
        documents.identity(item, f"policies[{index}]")
        spec = item.get("spec")
        if not isinstance(spec, Mapping):
            raise InvalidConfig(f"policies[{index}].spec", spec, "a dictionary")
        for direction in DIRECTIONS:
            fields.sequence(spec.get(direction) or [], f"policies[{index}].spec.{direction}")
    for index, item in enumerate(fields.sequence(given.get("endpoints"), "endpoints")):
        members.elsewhere(item, f"endpoints[{index}]")
    if not isinstance(given.get("namespaces"), Mapping):
        raise InvalidConfig("namespaces", given.get("namespaces"), "a dictionary")


def public(state: State) -> list[Any]:
    """The documents that are in force."""
    policing = state.policing
    return list(policing.document["policies"]) if policing.installed and policing.document else []
