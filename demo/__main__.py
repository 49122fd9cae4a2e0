# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: python3 -m demo [--nodes N]. Exit code 0: everything that it shows holds."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from demo import connectivity, matrix, network, picture, playbook, svg
from demo.text import table
from lab import Lab, LabError


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Clock:
    """Time since the beginning, and what each phase took."""

    begin: float = field(default_factory=time.monotonic)
    phases: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        say(f"\n== {title}")
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases.append((title, time.monotonic() - start))

    def report(self, text: str) -> None:
        """A line of progress."""
        say(f"  {time.monotonic() - self.begin:6.1f} s  {text}")

    def summary(self) -> str:
        total = ("total", time.monotonic() - self.begin)
        return table([("phase", "seconds"), *((title, f"{taken:.1f}") for title, taken in [*self.phases, total])])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="demo", description="Make nodes, converge them twice, show the network.")
    parser.add_argument("--name", default="demo", help="the lab's name (default: demo)")
    parser.add_argument("--nodes", type=int, default=3, help="how many nodes (default: 3)")
    options = parser.parse_args(argv)
    clock = Clock()
    try:
        wrong = _demo(options.name, options.nodes, clock)
    except (LabError, connectivity.ProbeError, ValueError) as error:
        wrong = [str(error)]
    say(f"\n{clock.summary()}\n")
    for line in wrong:
        say(f"DOES NOT HOLD: {line}")
    return 1 if wrong else 0


def _demo(name: str, nodes: int, clock: Clock) -> list[str]:
    """Run all phases; returns what does not hold."""
    with clock.phase("nodes"):
        lab = Lab.up(name, nodes=nodes, report=clock.report)
    with clock.phase("first run of playbooks/site.yml"):
        wrong = _converge(lab, clock, second=False)
    if wrong:
        return wrong
    with clock.phase("second run"):
        wrong = _converge(lab, clock, second=True)
    with clock.phase("connectivity"):
        wrong += _connect(lab)
    with clock.phase("network"):
        wrong += _show(lab)
    say("\nLook further:  make shell NODE=node1      Take it down:  make down")
    return wrong


def _converge(lab: Lab, clock: Clock, *, second: bool) -> list[str]:
    name = "second-run" if second else "first-run"
    found = playbook.run(lab, name, clock.report)
    rows = [[node, *(str(counters.get(c, 0)) for c in _COUNTERS)] for node, counters in found.items()]
    say(f"\n{table([['recap', *_COUNTERS], *rows])}")
    wrong = playbook.problems(found, [node.name for node in lab.nodes], second=second)
    return [f"{name}: {line}, see {playbook.OUTPUT}/{name}.log" for line in wrong]


_COUNTERS = ("ok", "changed", "unreachable", "failed")


def _connect(lab: Lab) -> list[str]:
    probes = connectivity.measure(lab)
    say(f"\n{matrix.show(matrix.places(lab.topology), probes)}")
    failed = sum(probe.error is not None for probe in probes)
    return [f"{failed} of {len(probes)} probes failed"] if failed else []


def _show(lab: Lab) -> list[str]:
    seen = network.read(lab)
    say(f"\n{network.show(seen)}\n\n{picture.draw(seen)}")
    drawing = playbook.OUTPUT / "network.svg"
    drawing.write_text(svg.draw(seen))
    say(f"\npicture: {drawing}")
    return [f"{name} is not attached" for name in network.missing(seen, [node.plan for node in lab.nodes])]


if __name__ == "__main__":
    sys.exit(main())
