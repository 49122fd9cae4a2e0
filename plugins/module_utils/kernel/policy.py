# SPDX-License-Identifier: GPL-3.0-or-later
"""The policies in this node's kernel: which hold, and how another set of them takes over as a whole.

There are two sides of all tables, and the lowest bit of the epoch says which one the programs ask. What changes is
written to the other side, then the epoch. After that every flow that was allowed under an older epoch is decided
again, and sockets of those that are denied now are told. A run may be killed anywhere: what it left is a side that
nobody asks, or an epoch that is not settled, and the next run goes on from there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import FastpathError
from ..policy.collector import paused
from ..policy.tables import Tables
from . import bpf, connections, datapath, encoding, flows, grace, sides, tell
from .sides import Side

_STATE, _COUNTS = "policy_state", "rule_counts"
_FIRST = bytes(4)  # the key of an array's only element
_NUMBER = struct.Struct("=I")
_LAYOUT = struct.Struct("=IIQQ")  # struct fp_policy_state
_SIZES = {
    _STATE: (4, _LAYOUT.size),
    **{
        name: (len(encoding.on_side(name, bytes(encoding.KEYS[name]), 0)), size)
        for name, size in encoding.VALUES.items()
    },
    **dict.fromkeys((flows.FLOWS, flows.YOUNG), (flows.KEY.size, flows.VALUE.size)),
}
_MOST = 0xFFFFFFFF
_BEGUN = 1  # as `settled` while the epoch is 0: something may be in the maps


@dataclass(frozen=True)
class Place:
    """A directory of pinned maps, and the pinned program that decides flows again."""

    maps: Path = datapath.MAPS
    redecide: Path = field(default_factory=lambda: datapath.PROGRAMS / datapath.owner() / "redecide")


@dataclass(frozen=True)
class Installed:
    """epoch 0: a first publish() or clear() was killed; settled: all older flows were decided again and the sockets
    told; input: what publish() was told; intact: the tables are what was written; content: a digest of that; sides:
    what both hold."""

    epoch: int
    settled: bool
    input: int
    intact: bool
    content: int = field(default=0, compare=False)
    sides: tuple[Side, Side] | None = field(default=None, compare=False, repr=False)

    @property
    def active(self) -> Side | None:
        """What programs ask, where that was read and is what was written."""
        return self.sides[self.epoch & 1] if self.sides and self.epoch and self.intact else None


class Published(NamedTuple):
    """written: entries that were set or deleted; revoked: flows that were open and are denied now; told: sockets of
    containers that got an error; untold: why they could not, if they could not."""

    epoch: int
    written: int
    revoked: int
    told: int
    untold: str = ""


class _State(NamedTuple):
    epoch: int = 0
    settled: int = 0
    input: int = 0
    content: int = 0

    @property
    def following(self) -> int:
        """The next epoch. It has the other side, and is never 0."""
        return self.epoch + 1 if self.epoch < _MOST else 2


def read(place: Place | None = None) -> Installed | None:
    """None: there are no policies, and nothing is left of any. Raises BpfError."""
    maps = (place or Place()).maps
    if not (maps / _STATE).exists():
        return None
    state = _read(maps)
    if not state.epoch and not state.settled:
        return None
    found = sides.read(maps)
    intact = sides.digest(found[state.epoch & 1]) == state.content
    return Installed(state.epoch, state.settled == state.epoch, state.input, intact, state.content, found)


def able(place: Place | None = None) -> bool:
    """Do programs run here that know policies, in the layouts that this library writes? After a rollback to an older
    version they may know others, and a removal that was killed has left only some of the maps. Raises BpfError."""
    maps = (place or Place()).maps
    return all(_sizes(maps / name) == sizes for name, sizes in _SIZES.items())


def _sizes(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    with bpf.get(path) as fd:
        info = bpf.map_info(fd)
    return info.key_size, info.value_size


def epoch(place: Place | None = None) -> int:
    """That of the policies that hold, 0 for none: cheap, nothing is verified. Raises BpfError."""
    maps = (place or Place()).maps
    return _read(maps).epoch if (maps / _STATE).exists() else 0


def publish(
    wanted: Tables | Side,
    input: int,
    namespaces: Mapping[str, str],
    place: Place | None = None,
    known: Installed | None = None,
) -> Published:
    """Let these tables hold instead of those that do, and return when no flow lives that they deny.

    input: 64 bits that stand for what they were compiled from. namespaces: address of each container on this node ->
    path of its network namespace; one that is gone is fine. known: what read() has found, so that it need not be read
    again. May be repeated, whatever became of the run before. Raises FastpathError and OSError: before the switch what
    held holds on, after it settle() finishes.
    """
    place = place or Place()
    state = _read(place.maps)
    if state.settled != state.epoch:
        grace.wait()  # a run was killed after it switched: programs may still ask the side that is idle now
    if not state.epoch:
        _write(place.maps, state._replace(settled=_BEGUN))
    side = state.following & 1
    fits = known is not None and known.epoch == state.epoch and known.sides is not None
    found = known.sides if known and known.sides and fits else sides.read(place.maps)
    with paused():
        new = encoding.encode(wanted) if isinstance(wanted, Tables) else wanted
    counted = encoding.counted(new)
    _count(place.maps, counted)
    written = sides.write(place.maps, side, new, found[side])
    if not state.epoch:
        flows.forget(place.maps)
        connections.adopt(place.maps, side, namespaces)
    active = known.active if known and fits else None
    content = sides.digest(new) if active is None else sides.digest_after(state.content, active, new)
    done = _switch(place, state, input, content, namespaces)
    _count_only(place.maps, counted)
    return done._replace(written=written)


def go_back(before: Installed, namespaces: Mapping[str, str], place: Place | None = None) -> Published:
    """Let the tables hold again that did at `before`, which was intact; the last publish() has left them on the other
    side. May be repeated. Raises as publish()."""
    place = place or Place()
    state = _read(place.maps)
    if (state.input, state.content) == (before.input, before.content):
        return settle(namespaces, place)
    side = sides.read(place.maps)[state.following & 1]
    if sides.digest(side) != before.content:
        raise FastpathError("go back to", "the policies before", "the maps do not hold them any more")
    # nothing, but for what a failed writer of prefixes has left
    sides.write(place.maps, state.following & 1, side, side)
    counted = encoding.counted(side)
    _count(place.maps, counted)
    done = _switch(place, state, before.input, before.content, namespaces)
    _count_only(place.maps, counted)
    return done


def settle(namespaces: Mapping[str, str], place: Place | None = None) -> Published:
    """Finish what a killed publish() has left after its switch; nothing to do is fine. Raises as publish()."""
    place = place or Place()
    state = _read(place.maps)
    if not state.epoch or state.settled == state.epoch:
        return Published(state.epoch, 0, 0, 0)
    return _settle(place, state, namespaces)


def clear(place: Place | None = None) -> None:
    """As if there had never been policies: all is allowed, no flow is known. May be repeated. Raises BpfError."""
    maps = (place or Place()).maps
    if not (maps / _STATE).exists():
        return
    state = _read(maps)
    if state.epoch:
        _write(maps, state._replace(epoch=0, settled=_BEGUN))
    if _read(maps) != _State():
        grace.wait()
        for side in (0, 1):
            sides.write(maps, side, encoding.encode(Tables()))
        _count_only(maps, ())
        flows.forget(maps)
        _write(maps, _State())


def _switch(place: Place, state: _State, input: int, content: int, namespaces: Mapping[str, str]) -> Published:
    """To the other side, which is complete. A first switch has settled 0: _settle() looks for connections again."""
    grace.wait()
    switched = _State(state.following, state.settled if state.epoch else 0, input, content)
    _write(place.maps, switched)
    return _settle(place, switched, namespaces)


def _settle(place: Place, state: _State, namespaces: Mapping[str, str]) -> Published:
    if not state.settled:
        connections.adopt(place.maps, state.epoch & 1, namespaces)  # those that were made meanwhile
    grace.wait()
    denied = flows.decide_again(place.maps, place.redecide, state.epoch)
    told, untold = tell.tell((entry.key for entry in denied), namespaces)
    flows.close(place.maps, denied)
    _write(place.maps, state._replace(settled=state.epoch))
    return Published(state.epoch, 0, len(denied), told, untold)


def _count(maps: Path, numbers: Iterable[int]) -> None:
    """Count the packets of these words too, from 0 on if they are new."""
    with bpf.PerCpuMap.open(maps / _COUNTS) as table:
        have = {key for key, _value in table.items()}
        new = set(map(_NUMBER.pack, numbers)) - have
        if len(have) + len(new) > table.max_entries:
            cause = (
                f"there is room for {table.max_entries} logged or audited ones, before and after the change together"
            )
            raise FastpathError("count the packets of", f"{len(have) + len(new)} rules", cause, "Log fewer rules")
        zero = [bytes(table.value_size)] * table.cpus
        table.set_many((key, zero) for key in new)


def _count_only(maps: Path, numbers: Iterable[int]) -> None:
    with bpf.PerCpuMap.open(maps / _COUNTS) as table:
        wanted = set(map(_NUMBER.pack, numbers))
        table.delete_many([key for key, _value in table.items() if key not in wanted])


def _read(maps: Path) -> _State:
    with bpf.Map.open(maps / _STATE) as table:
        return _State(*_LAYOUT.unpack(table.get(_FIRST) or bytes(_LAYOUT.size)))


def _write(maps: Path, state: _State) -> None:
    with bpf.Map.open(maps / _STATE) as table:
        table.set(_FIRST, _LAYOUT.pack(*state))
