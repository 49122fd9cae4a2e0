# SPDX-License-Identifier: GPL-3.0-or-later
"""What the PF's driver enforces on a VF. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Attributes:
    """Rates in Mbit/s, 0 is none. None: not known, or not to be had; in a change: leave it."""

    mac: str | None = None
    vlan: int | None = None
    trust: bool | None = None
    spoofcheck: bool | None = None
    min_rate: int | None = None
    max_rate: int | None = None

    def given(self) -> dict[str, Any]:
        """The attributes that are known."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def over(self, base: Attributes) -> Attributes:
        """These, and those of `base` where these say nothing."""
        return replace(base, **self.given())

    def only(self, names: Iterable[str]) -> Attributes:
        return Attributes(**{name: value for name, value in self.given().items() if name in names})

    def differing(self, other: Attributes) -> Attributes:
        """Those of these that `other` has not."""
        return Attributes(**{name: value for name, value in self.given().items() if getattr(other, name) != value})
