# SPDX-License-Identifier: GPL-3.0-or-later
"""Something of a lab in which commands can run: a node, a container of it, the fabric, the outside."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from lab.host import LabError


@dataclass(frozen=True)
class Place:
    """A name and the command line that leads into it; ssh, if set, comes first and takes the rest as one text."""

    name: str
    enter: tuple[str, ...]
    ssh: tuple[str, ...] = ()

    def command(self, argv: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The whole command line that runs argv here, for Popen or exec; terminal: for a person who types."""
        if not self.ssh:
            return [*self.enter, *argv]
        return [*self.ssh, *(["-t"] if terminal else []), shlex.join([*self.enter, *argv])]

    def run(
        self, argv: Sequence[str], *, stdin: str = "", check: bool = True, timeout: float | None = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here and capture its text; LabError if it fails and check is set, or takes too long."""
        try:
            result = subprocess.run(
                self.command(argv), input=stdin, capture_output=True, text=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: {' '.join(argv)}: not done after {error.timeout} s") from None
        if check and result.returncode:
            output = (result.stderr.strip() or result.stdout.strip())[-2000:]
            raise LabError(f"{self.name}: {' '.join(argv)}: exit code {result.returncode}: {output}")
        return result


def netns_place(name: str, netns: str) -> Place:
    """The machine's own programs in a network namespace."""
    return Place(name, ("nsenter", f"--net=/run/netns/{netns}", "--"))
