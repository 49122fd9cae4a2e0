# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of NICs that has only been checked. Who comes after it counts on it, in check mode. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

from ..plan import Step, predict
from .eswitch_state import State


@dataclass(frozen=True)
class Change:
    """address: the PCI address of a VF, by its NIC's handle and its number, "" if it is not known before.

    pinned: hooks outlive their interfaces, as they do from Linux 6.6 on.
    """

    have: State
    steps: Sequence[Step[State]]
    address: Callable[[str, int], str]
    pinned: bool = True

    @property
    def then(self) -> State:
        return predict(self.have, self.steps)
