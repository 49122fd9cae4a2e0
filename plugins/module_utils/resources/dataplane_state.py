# SPDX-License-Identifier: GPL-3.0-or-later
"""The dataplane of a node as data: its state, and the operations that change it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..kernel.datapath import FROM_CONTAINER, FROM_HOST, FROM_NETKIT, FROM_WIRE
from ..kernel.links import Route
from ..kernel.uplinks import Uplink

ROUTER = "fastpath0"
ROUTER_HOOK = "router"
POLICIES, VFS = "policies", "VFs"  # what came later than the first programs
UPLINK_HOOK, CONTAINER_HOOK, NETKIT_HOOK = "uplink-", "at-", "nk-"  # what follows is an uplink or an attachment


@dataclass(frozen=True)
class Request:
    """What the caller asks for. `object_id` names the object file's content, "" when the file is not there."""

    config: Mapping[str, Any]
    state: str
    object_id: str


@dataclass(frozen=True)
class Router:
    up: bool
    mtu: int
    addresses: frozenset[str]
    settings: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Programs:
    """Objects by the start of their SHA-1: which one the node runs, and which one it ran before ("" for none)."""

    current: str
    previous: str = ""
    rolled_back: bool = False


@dataclass(frozen=True)
class State:
    """hooks: key -> (interface or "" when it is gone, generation or "" when unknown);
    generations: name -> was it loaded for the router device that is there now;
    owner: the generation whose maps are read and written by user space, "" when none is;
    objects: those that are kept on the node, shelf: is their directory there; programs: which of them is to run;
    blind: objects that do not know what the node has -> what that is, POLICIES or VFS;
    strangers: interface -> ids of foreign programs at its ingress."""

    router: Router | None = None
    router_taken: bool = False
    routes: frozenset[Route] = frozenset()
    generations: Mapping[str, bool] = field(default_factory=dict)
    hooks: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    owner: str = ""
    maps: bool = False
    objects: frozenset[str] = frozenset()
    shelf: bool = False
    programs: Programs | None = None
    blind: Mapping[str, str] = field(default_factory=dict)
    attachments: frozenset[str] = frozenset()
    uplinks: tuple[Uplink, ...] = ()
    strangers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    document: dict[str, Any] | None = None


# Operations


@dataclass(frozen=True)
class CreateRouter:
    mtu: int

    def effect(self, state: State) -> State:
        # programs of an earlier router device know its old number
        stale = dict.fromkeys(state.generations, False)
        return replace(state, router=Router(False, self.mtu, frozenset(), ()), generations=stale)


@dataclass(frozen=True)
class DeleteRouter:
    def effect(self, state: State) -> State:
        hooks = {key: ("" if key == ROUTER_HOOK else name, gen) for key, (name, gen) in state.hooks.items()}
        routes = frozenset(route for route in state.routes if route.via)
        return replace(state, router=None, routes=routes, hooks=hooks)


@dataclass(frozen=True)
class ConfigureRouter:
    """Give the router device exactly these properties."""

    router: Router

    def effect(self, state: State) -> State:
        return replace(state, router=self.router)


@dataclass(frozen=True)
class AddRoute:
    """via "": a prefix of this node, behind the router device."""

    route: Route

    def effect(self, state: State) -> State:
        return replace(state, routes=state.routes | {self.route})


@dataclass(frozen=True)
class ReplaceRoute:
    """Another gateway for the same prefix, in one step of the kernel."""

    route: Route
    old: Route

    def effect(self, state: State) -> State:
        return replace(state, routes=(state.routes - {self.old}) | {self.route})


@dataclass(frozen=True)
class DeleteRoute:
    route: Route

    def effect(self, state: State) -> State:
        return replace(state, routes=state.routes - {self.route})


@dataclass(frozen=True)
class Keep:
    """Keep the object that was brought to the node, so that it is there at the next boot and for a way back."""

    object_id: str

    def effect(self, state: State) -> State:
        return replace(state, objects=state.objects | {self.object_id}, shelf=True)


@dataclass(frozen=True)
class Forget:
    """Remove these objects, and the shelf with the last one."""

    objects: frozenset[str]

    def effect(self, state: State) -> State:
        rest = state.objects - self.objects
        return replace(state, objects=rest, shelf=bool(rest))


@dataclass(frozen=True)
class Test:
    """Run an object's programs on sample packets, away from what serves."""

    object_id: str
    gateways: tuple[str, ...]
    uplinks: tuple[str, ...]

    def effect(self, state: State) -> State:
        return state


@dataclass(frozen=True)
class Load:
    """Load and pin the programs, with the owner's maps or, where they changed, with what is in them."""

    generation: str
    object_id: str
    gateways: tuple[str, ...]

    def effect(self, state: State) -> State:
        # hooks that run an older load of this name no longer run what is pinned
        hooks = {key: (name, "" if gen == self.generation else gen) for key, (name, gen) in state.hooks.items()}
        return replace(state, generations={**state.generations, self.generation: True}, hooks=hooks, maps=True)


@dataclass(frozen=True)
class Fill:
    """Bring the maps of a loaded generation up to date with the owner's. idle: no hook runs it."""

    generation: str
    idle: bool

    def effect(self, state: State) -> State:
        return state


@dataclass(frozen=True)
class Check:
    """See whether all goes well with the generation that the hooks run now."""

    generation: str

    def effect(self, state: State) -> State:
        return state


@dataclass(frozen=True)
class HandOver:
    """Make the generation the owner, after what `sources` have written until their last hook was replaced."""

    generation: str
    sources: tuple[str, ...] = ()

    def effect(self, state: State) -> State:
        return replace(state, owner=self.generation)


@dataclass(frozen=True)
class Choose:
    """Record which programs the node runs, from the next boot on too; None forgets it."""

    programs: Programs | None

    def effect(self, state: State) -> State:
        return replace(state, programs=self.programs)


@dataclass(frozen=True)
class Unload:
    generation: str

    def effect(self, state: State) -> State:
        rest = {name: fresh for name, fresh in state.generations.items() if name != self.generation}
        return replace(state, generations=rest, owner="" if state.owner == self.generation else state.owner)


@dataclass(frozen=True)
class Hook:
    """Run a program of the generation on the interface, in place of one of ours."""

    key: str
    interface: str
    generation: str

    @property
    def program(self) -> str:
        if self.key == ROUTER_HOOK:
            return FROM_HOST
        if self.key.startswith(UPLINK_HOOK):
            return FROM_WIRE
        return FROM_NETKIT if self.key.startswith(NETKIT_HOOK) else FROM_CONTAINER

    def effect(self, state: State) -> State:
        return replace(state, hooks={**state.hooks, self.key: (self.interface, self.generation)})


@dataclass(frozen=True)
class Unhook:
    key: str

    def effect(self, state: State) -> State:
        return replace(state, hooks={key: value for key, value in state.hooks.items() if key != self.key})


@dataclass(frozen=True)
class RemoveMaps:
    def effect(self, state: State) -> State:
        return replace(state, maps=False, owner="")


@dataclass(frozen=True)
class Record:
    """Keep the document as this node's desired state; None removes it."""

    document: dict[str, Any] | None

    def effect(self, state: State) -> State:
        return replace(state, document=self.document)
