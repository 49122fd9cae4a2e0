# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers for things: a number is a hash of what it stands for, so it needs no memory.

Two nodes, or one before and after a reboot, agree on it. Two things with one hash are told apart in the order in which
they come: the second one gets a number from a place of its own. So who sees a part of all things can tell from the
numbers in use whether those of his part would be the same among all of them, see part.py.
"""

from __future__ import annotations

from hashlib import blake2b


def digest(text: str) -> int:
    """64 bits, the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Space:
    """Numbers from `first` to `size` - 1, by digests. If that is too few, larger ones: who has a limit counts."""

    def __init__(self, size: int, first: int = 1) -> None:
        self._size = size
        self._first = first
        self._half = (size - first) // 2
        self._taken: set[int] = set()
        self.given: dict[int, int] = {}  # digest -> number

    def home(self, content: int) -> int:
        """The number of this content unless another one has it, in the lower half."""
        return self._first + content % self._half

    def spare(self, home: int) -> int:
        """In the upper half, in use as soon as two contents have this home."""
        return home + self._half

    def give(self, content: int) -> int:
        """The number of this content."""
        found = self.given.get(content)
        if found is None:
            found = self.home(content)
            if found in self._taken:
                found = self._free(self.spare(found))
            self.given[content] = found
            self._taken.add(found)
        return found

    def _free(self, number: int) -> int:
        if len(self._taken) >= self._size - self._first:
            number = self._size
        while number in self._taken:
            number = self._first if number + 1 == self._size else number + 1
        return number
