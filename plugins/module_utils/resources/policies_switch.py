# SPDX-License-Identifier: GPL-3.0-or-later
"""What the policies in the kernel are made of, and the change to them. Pure.

Policies depend on their documents and on the containers that they select, so two resources change them: `policies`, and
`attachments`, which lets them know a container before it can be reached.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

from .. import policy
from ..errors import FastpathError
from ..kernel import patch
from ..kernel.policy import Installed
from ..kernel.sides import Side
from ..plan import Step
from ..policy import documents, members, part
from ..policy.compile import DEFAULT, Limits, Scene, compile_tables
from ..policy.model import DIRECTIONS, Endpoint
from ..policy.tables import Tables

Document = Mapping[str, Any]  # policies: list of documents; endpoints: of other nodes; namespaces: name -> labels


@dataclass(frozen=True)
class Policing:
    """What a node knows about policies.

    document: the wish that it keeps, None for none; unreadable: what is wrong with the one that is there, else "";
    installed: what the kernel has; able: do the programs that run know policies as this library writes them? node: the
    node's own addresses.
    """

    document: Document | None = None
    unreadable: str = ""
    installed: Installed | None = None
    able: bool = False
    node: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policed:
    """The part of a resource's state that policies are."""

    policing: Policing = Policing()


P = TypeVar("P", bound=Policed)


@dataclass(frozen=True)
class Source:
    """All that tables are compiled from. here: the containers of this node, each with its slot."""

    document: Document
    here: tuple[Endpoint, ...]
    node: tuple[str, ...]

    @property
    def endpoints(self) -> list[Endpoint]:
        """With those of other nodes; of an address that is attached here, nobody else is believed to have it."""
        own = {address for item in self.here for address in item.addresses}
        items = self.document.get("endpoints", ())
        others = [members.elsewhere(item, f"endpoints[{index}]") for index, item in enumerate(items)]
        kept = [replace(item, addresses=tuple(a for a in item.addresses if a not in own)) for item in others]
        return [*self.here, *kept]

    def tables(self, limits: Limits = DEFAULT) -> Tables:
        """Raises InvalidConfig. What comes out depends on nothing else, so that any process can name the rules."""
        policies = documents.policies(self.document["policies"])
        return compile_tables(policies, self.endpoints, namespaces(self.document), self.node, limits=limits)

    def digest(self) -> int:
        """64 bits, never 0."""
        here = [
            (item.slot, item.name, item.namespace, sorted(item.addresses), sorted(item.labels.items()), item.ports)
            for item in sorted(self.here, key=lambda item: item.name)
        ]
        text = json.dumps([_compiler(), self.document, here, sorted(self.node)], sort_keys=True)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") or 1


def namespaces(document: Document) -> dict[str, dict[str, str]]:
    """The labels of each namespace, checked."""
    return {
        documents.namespace_name(name, "namespaces"): documents.labels(labels, f"namespaces.{name}")
        for name, labels in document.get("namespaces", {}).items()
    }


@cache
def _compiler() -> str:
    """The compiler's own source: another one may make other tables of the same documents."""
    total = hashlib.sha256()
    for found in sorted(pkgutil.iter_modules(policy.__path__, policy.__name__ + "."), key=lambda item: item.name):
        spec = importlib.util.find_spec(found.name)
        loader: Any = spec.loader if spec else None
        text: str | bytes = loader.get_source(found.name)  # Ansible's own loader gives bytes
        total.update(text if isinstance(text, bytes) else text.encode())
    return total.hexdigest()


def attached(endpoints: Mapping[str, tuple[str, int]], items: Sequence[Mapping[str, Any]]) -> tuple[Endpoint, ...]:
    """The containers of this node as policies see them.

    endpoints: address -> attachment and slot; items: the attachments as users write them. Raises FastpathError for one
    of which nobody has said what it is: it must not pass for a container without labels.
    """
    written = {str(item["name"]): item for item in items}
    addresses: dict[tuple[str, int], list[str]] = {}
    for address, owner in sorted(endpoints.items()):
        addresses.setdefault(owner, []).append(address)
    unknown = sorted({name for name, _slot in addresses} - written.keys())
    if unknown:
        hint = "Give all attachments with state: overridden, as the role does"
        cause = f"{', '.join(unknown)} is attached, but not in /etc/fastpath/attachments.json with its labels"
        raise FastpathError("apply", "policies", cause, hint)
    return tuple(
        members.endpoint(name, found, written[name], f"attachments[{name}]", slot)
        for (name, slot), found in sorted(addresses.items())
    )


# Operations


@dataclass(frozen=True)
class Switch:
    """Put these policies in the place of those that are in force. tables None: compiled when it is carried out. known:
    what the kernel has before."""

    source: Source
    input: int
    epoch: int
    tables: Tables | Side | None = field(default=None, compare=False, repr=False)
    known: Installed | None = field(default=None, compare=False, repr=False)

    def effect(self, state: P) -> P:
        return _with(state, Installed(self.epoch, settled=True, input=self.input, intact=True))


@dataclass(frozen=True)
class GoBack:
    """Undo a switch: what was in force before is still there."""

    before: Installed

    def effect(self, state: P) -> P:
        now = state.policing.installed
        if now is None or now.input == self.before.input:
            return state
        return _with(state, replace(self.before, epoch=now.epoch + 1, settled=True))


@dataclass(frozen=True)
class Settle:
    """Finish what a killed switch has left: decide each flow again, tell the sockets of those that are denied."""

    def effect(self, state: P) -> P:
        now = state.policing.installed
        return _with(state, replace(now, settled=True) if now else None)


@dataclass(frozen=True)
class Clear:
    """No policies at all."""

    def effect(self, state: P) -> P:
        return _with(state, None)


def _with(state: P, installed: Installed | None) -> P:
    return replace(state, policing=replace(state.policing, installed=installed))


# Steps


def enforcing(policing: Policing, source: Source) -> Iterator[Step[Any]]:
    """To what `source` says. Compiles only where there is something to do; raises InvalidConfig."""
    now, input = policing.installed, source.digest()
    if now is not None and now.epoch and now.input == input and now.intact:
        if not now.settled:
            action = f"finish the switch to policies epoch {now.epoch}"
            yield Step(action, "a run was killed before each flow was decided again", Settle())
        return
    tables = _patched(policing, source) or source.tables()
    epoch = now.epoch + 1 if now else 1
    undo: tuple[Any, ...] = (Clear(),)
    before: Document | None = None
    if now is not None and now.epoch:
        undo = (GoBack(now),) if now.intact else ()
        before = policing.document
    action = f"switch to policies epoch {epoch}: {difference(before, source.document)}"
    yield Step(action, _reason(policing, source), Switch(source, input, epoch, tables, now), undo)


def _patched(policing: Policing, source: Source) -> Side | None:
    """The tables, where only some rules differ from those that are in force and no more need be compiled; else None."""
    now, before = policing.installed, policing.document
    if now is None or now.active is None or before is None or before == source.document:
        return None
    same = all(before.get(key) == source.document.get(key) for key in ("endpoints", "namespaces"))
    if not same or now.input != replace(source, document=before).digest():
        return None
    scene = Scene.of(source.endpoints, namespaces(source.document), source.node, DEFAULT)
    found = part.parts(before["policies"], source.document["policies"], scene)
    return patch.patch(now.active, *found) if found else None


def expected(
    policing: Policing, epoch: int, endpoints: Mapping[str, tuple[str, int]], items: Sequence[Mapping[str, Any]]
) -> Policing:
    """As it will be when other policies are in force for these containers, see attached(), or with epoch 0 none are."""
    if not epoch:
        return replace(policing, document=None, unreadable="", installed=None)
    source = Source({"policies": []}, attached(endpoints, items), policing.node)
    installed = Installed(epoch, settled=True, input=source.digest(), intact=True)
    return replace(policing, document=source.document, unreadable="", installed=installed)


def following(
    policing: Policing, endpoints: Mapping[str, tuple[str, int]], items: Sequence[Mapping[str, Any]]
) -> Iterator[Step[Any]]:
    """What a change of the attachments makes of the policies, see attached(); nothing where there are none."""
    if policing.document is not None and policing.able:
        yield from enforcing(policing, Source(policing.document, attached(endpoints, items), policing.node))
    elif policing.unreadable or policing.document is not None or (policing.installed and policing.installed.epoch):
        no_programs = "the programs that run know no policies" if policing.document else ""
        cause = policing.unreadable or no_programs or "their document in /etc/fastpath has gone, but they are in force"
        raise FastpathError("keep", "the policies for what is attached", cause, "Run the role policy again")


def _reason(policing: Policing, source: Source) -> str:
    now = policing.installed
    if now is None or not now.epoch:
        return "none are in force"
    if not now.intact:
        return "the tables in the kernel are not those that were written"
    if policing.document != source.document:
        return "the documents differ"
    return "the containers or the node's addresses are others than before"


def difference(before: Document | None, after: Document | None) -> str:
    """How many policies and rules there are more, fewer and others, in words."""
    old, new = _policies(before), _policies(after)
    same = {key for key in old.keys() & new.keys() if old[key] == new[key]}
    old_rules, new_rules = Counter[str](), Counter[str]()
    encode = json.JSONEncoder(sort_keys=True).encode
    for key in (old.keys() | new.keys()) - same:
        for direction in DIRECTIONS:
            one, other = (policies.get(key, {}).get(direction) or () for policies in (old, new))
            for count, rules, places in zip((old_rules, new_rules), (one, other), part.different(one, other)):
                count.update(encode([key, direction, rules[place]]) for place in places)
    counts = [
        _count(len(new.keys() - old.keys()), "policy", "policies", " more"),
        _count(len(old.keys() - new.keys()), "policy", "policies", " fewer"),
        _count(len(old.keys() & new.keys()) - len(same), "policy", "policies", " changed"),
        _count(sum((new_rules - old_rules).values()), "rule", "rules", " more"),
        _count(sum((old_rules - new_rules).values()), "rule", "rules", " fewer"),
    ]
    return ", ".join(filter(None, counts)) or "the same rules"


def _count(number: int, one: str, many: str, what: str) -> str:
    return f"{number} {one if number == 1 else many}{what}" if number else ""


def _policies(document: Document | None) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    items = document["policies"] if document else ()
    return {documents.identity(item, "policies"): item.get("spec") or {} for item in items}
