# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: python3 -m bench [PART...]."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable

from bench import (
    convergence,
    datapath,
    decisions,
    policies,
    policy_report,
    programs,
    report,
    revocation,
    tries,
    verifier,
    virtual,
)
from bench.netkit import Costs
from bench.verifier import Verified
from lab.plan import KERNELS

PARTS = ("datapath", "programs", "tries", "policies", "revocation", "netkit", "verifier", "convergence")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Measure; print tables, write build/bench/.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=11, help="rounds of traffic (default: 11)")
    parser.add_argument("--attachments", type=int, default=1000, help="in one task (default: 1000)")
    parser.add_argument("--kernel", choices=KERNELS[1:], default=KERNELS[-1], help="of netkit (default: the newest)")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and nodes are removed
    for part in options.parts or PARTS:
        if part == "datapath":
            report.datapath(datapath.measure(options.rounds, _progress()))
        elif part == "programs":
            report.programs(programs.measure(_progress()))
        elif part == "tries":
            report.tries(tries.measure(_progress()))
        elif part == "policies":
            policy_report.show(decisions.measure(_progress()), policies.measure(options.rounds, _progress()))
        elif part == "revocation":
            report.revocation(revocation.measure(_progress()))
        elif part == "netkit":
            report.netkit(*_netkit(options.kernel, _progress()))
        elif part == "verifier":
            report.verifier(verifier.committed(), _verifier(_progress()))
        else:
            report.convergence(convergence.measure(options.attachments, _progress()))
    return 0


def _netkit(kernel: str, progress: Callable[[str], None]) -> tuple[Costs, Costs]:
    """In instructions, and in ns of an ordinary virtual machine."""
    counted = Costs(**virtual.counted(kernel, ["bench.netkit", "count"], progress))
    with virtual.machines([kernel], progress) as (node,):
        progress(f"measuring latency on {kernel}")
        return counted, Costs(**virtual.run(node, ["bench.netkit", "time"]))


def _verifier(progress: Callable[[str], None]) -> list[Verified]:
    """On this machine's kernel, and on those of virtual machines."""
    with virtual.machines(KERNELS, progress) as nodes:
        there = [Verified(**virtual.run(node, ["bench.verifier"])) for node in nodes]
    return [*there, Verified(verifier.kernel(), *verifier.measure())]


def _progress() -> Callable[[str], None]:
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:5.1f} s] {text}", file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
