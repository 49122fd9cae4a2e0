# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel's verifier has to do for the dataplane's programs: python3 -m bench.verifier [--write].

Instructions that it processed, which do not depend on the machine, and the time to load them all, which does.
The first are committed for each kernel in verifier.json; the second are of this very kernel.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from bench import fastpath

COMMITTED = Path(__file__).with_suffix(".json")
ALLOWED = 1.03  # times the committed figure: what a compiler's update may cost

_ROUTER = 7  # any number: the verifier knows the configuration


@dataclass(frozen=True)
class Verified:
    """What a kernel's verifier took: instructions by program, ms for all of them."""

    kernel: str
    counts: Mapping[str, int]
    milliseconds: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def kernel() -> str:
    """This kernel's name in verifier.json, like "6.12"."""
    return ".".join(platform.release().split(".")[:2])


def committed() -> dict[str, dict[str, int]]:
    """Instructions by kernel and program."""
    found: dict[str, dict[str, int]] = json.loads(COMMITTED.read_text(encoding="ascii"))
    return found


def measure() -> tuple[dict[str, int], float]:
    """Load the object: instructions by program, and ms for all of it."""
    begin = time.perf_counter()
    with fastpath.load(_ROUTER) as loaded:
        spent = time.perf_counter() - begin
        return {name: bpf.program_info(fd).verified_insns for name, fd in sorted(loaded.programs.items())}, spent * 1e3


def grown(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, str]:
    """Programs that need too much more than is committed, or are not in it, each with the numbers."""
    return {
        name: f"{count} instead of {before.get(name, 'none')}"
        for name, count in now.items()
        if count > before.get(name, 0) * ALLOWED
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.verifier", description="Measure on this kernel.")
    parser.add_argument("--write", action="store_true", help="commit to verifier.json what this kernel needs")
    options = parser.parse_args()
    counts, milliseconds = measure()
    print(json.dumps({"kernel": kernel(), "counts": counts, "milliseconds": milliseconds}))
    if options.write:
        everywhere = {**committed(), kernel(): counts}
        ordered = dict(sorted(everywhere.items(), key=lambda item: tuple(map(int, item[0].split(".")))))
        COMMITTED.write_text(json.dumps(ordered, indent=2) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
