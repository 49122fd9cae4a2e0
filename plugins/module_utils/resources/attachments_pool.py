# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VF an attachment gets: those of NICs in switchdev mode are one pool. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..errors import InvalidConfig
from .attachments_state import State, Vf

_TOLD = 8  # so many VFs an error names


def assign(have: State, asking: Mapping[str, object], leaving: frozenset[str], skip: bool) -> dict[str, str]:
    """PCI addresses by attachment: the VF that it has, else the first free one.

    asking: attachment -> address of a VF, or of a NIC any of whose VFs will do, None: any.
    leaving: attachments that will have given back theirs by then. skip: leave out who can get none.
    """
    wanted = {name: str(value or "").lower() for name, value in asking.items()}
    if not skip:  # a NIC that is not there now keeps nobody else from coming back
        _check_known(wanted, asking, have.vfs)
    usable = {pci: vf for pci, vf in sorted(have.vfs.items()) if not vf.obstacle}
    given = {vf.user: pci for pci, vf in usable.items() if vf.user in wanted and _suits(pci, vf, wanted[vf.user])}
    free = [pci for pci, vf in usable.items() if vf.home or vf.user in {*wanted, *leaving}]
    free = [pci for pci in free if pci not in given.values()]
    for name in sorted((name for name in wanted if name not in given), key=lambda name: not wanted[name]):
        found = next((pci for pci in free if _suits(pci, have.vfs[pci], wanted[name])), None)
        if found is not None:
            free.remove(found)
            given[name] = found
        elif not skip:
            raise _none_left(have.vfs, given, name, wanted[name])
    return given


def bare(vfs: Mapping[str, Vf]) -> dict[str, Vf]:
    """As if no attachment were there."""
    return {pci: replace(vf, user="", home=vf.home or bool(vf.user)) for pci, vf in vfs.items()}


def _check_known(wanted: Mapping[str, str], asking: Mapping[str, object], vfs: Mapping[str, Vf]) -> None:
    known = {*vfs, *(vf.nic for vf in vfs.values())}
    for name, address in wanted.items():
        if address not in ("", *known):
            allowed = f"the PCI address of a VF of this node or of its NIC: {_first(known)}"
            raise InvalidConfig(f"config[{name}].vf", asking[name], allowed)


def _suits(pci: str, vf: Vf, wanted: str) -> bool:
    return wanted in ("", pci, vf.nic)


def _none_left(vfs: Mapping[str, Vf], given: Mapping[str, str], name: str, wanted: str) -> InvalidConfig:
    users = {pci: user for user, pci in given.items()}
    why = {
        pci: vf.obstacle or f"{users.get(pci, vf.user)} has it" for pci, vf in vfs.items() if _suits(pci, vf, wanted)
    }
    if not why:
        return InvalidConfig(
            f"config[{name}].kind", "vf", "another kind: this node has no VFs, see fastpath.node.eswitch"
        )
    field, value = ("vf", wanted) if wanted else ("kind", "vf")
    told = _first(f"{pci}: {reason}" for pci, reason in why.items())
    return InvalidConfig(f"config[{name}].{field}", value, f"a VF that is free; {told}")


def _first(words: Iterable[str]) -> str:
    found = sorted(words)
    return ", ".join([*found[:_TOLD], *(["..."] if len(found) > _TOLD else [])]) or "it has none"
