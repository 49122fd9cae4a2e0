# SPDX-License-Identifier: GPL-3.0-or-later
"""Which endpoints a selector selects, without asking each of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .model import NAMESPACE_LABEL, Endpoint, NamedPort, Pods, Requirement, Selector

_NAMESPACE = ""  # no label has this key, so an endpoint's namespace can be looked up like a label

Profile = tuple[str, tuple[tuple[str, str], ...], tuple[NamedPort, ...]]  # namespace, labels, named ports


def profile(endpoint: Endpoint) -> Profile:
    """What policies can see of an endpoint; those with the same profile are treated alike."""
    return endpoint.namespace, tuple(sorted(endpoint.labels.items())), tuple(sorted(endpoint.ports))


class Index:
    """Sets of labels, found through the rarest label that a selector asks for."""

    def __init__(self, items: Iterable[Mapping[str, str]]) -> None:
        self._items = list(items)
        self._pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._keys: dict[str, list[int]] = defaultdict(list)
        for number, labels in enumerate(self._items):
            for key, value in labels.items():
                self._pairs[key, value].append(number)
                self._keys[key].append(number)

    def select(self, selector: Selector) -> list[int]:
        """Positions in the list, ascending."""
        found: Sequence[Sequence[int]] = (range(len(self._items)),)
        size = len(self._items)
        for requirement in selector.requirements:
            candidates = self._candidates(requirement)
            if candidates is not None and sum(map(len, candidates)) < size:
                found, size = candidates, sum(map(len, candidates))
        return sorted(number for part in found for number in part if selector.matches(self._items[number]))

    def _candidates(self, requirement: Requirement) -> Sequence[Sequence[int]] | None:
        """Lists that together have everything that meets a requirement; None: it names no value to look for."""
        if requirement.operator == "In":
            return [self._pairs.get((requirement.key, value), ()) for value in requirement.values]
        return [self._keys.get(requirement.key, ())] if requirement.operator == "Exists" else None


class Selection:
    """Selects profiles; `namespaces` has the labels of the namespaces that have any."""

    def __init__(self, profiles: Iterable[Profile], namespaces: Mapping[str, Mapping[str, str]]) -> None:
        listed = list(profiles)
        self._pods = Index({**dict(labels), _NAMESPACE: namespace} for namespace, labels, _ports in listed)
        self._names = sorted({namespace for namespace, _labels, _ports in listed})
        self._namespaces = Index({**namespaces.get(name, {}), NAMESPACE_LABEL: name} for name in self._names)
        self._known: dict[Selector, tuple[str, ...]] = {}

    def select(self, pods: Pods) -> list[int]:
        """Positions of the profiles, ascending."""
        inside = Requirement(_NAMESPACE, "In", self._within(pods.namespace))
        return self._pods.select(Selector((inside, *pods.selector.requirements)))

    def _within(self, namespace: str | Selector) -> tuple[str, ...]:
        if isinstance(namespace, str):
            return (namespace,)
        if namespace not in self._known:
            self._known[namespace] = tuple(self._names[number] for number in self._namespaces.select(namespace))
        return self._known[namespace]
