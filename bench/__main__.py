# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: python3 -m bench [PART...]."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping

from bench import (
    convergence,
    datapath,
    decisions,
    eswitch,
    nic,
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
from lab import kmod
from lab.plan import KERNELS

PARTS = (
    "datapath", "programs", "tries", "policies", "revocation", "netkit", "verifier", "eswitch", "nic", "convergence",
)  # fmt: skip
_NIC_KERNEL = "6.12"


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
        _RUN[part](options)
    return 0


def _policies(options: argparse.Namespace) -> None:
    policy_report.show(decisions.measure(_progress()), policies.measure(options.rounds, _progress()))


def _eswitch(progress: Callable[[str], None]) -> eswitch.Times:
    """On the emulated NIC of a virtual machine."""
    with virtual.machines([_NIC_KERNEL], progress) as (node,):
        kmod.install(node, progress)
        progress(f"{' and '.join(map(str, eswitch.COUNTS))} VFs: some minutes")
        return eswitch.Times.of(virtual.run(node, ["bench.eswitch"]))


def _nic(progress: Callable[[str], None]) -> nic.Costs:
    with virtual.machines([_NIC_KERNEL], progress) as (node,):
        kmod.install(node, progress)
        progress(f"{max(nic.SIZES):,} rules: some minutes")
        return nic.Costs.of(virtual.run(node, ["bench.nic"]))


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


_RUN: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "datapath": lambda options: report.datapath(datapath.measure(options.rounds, _progress())),
    "programs": lambda _: report.programs(programs.measure(_progress())),
    "tries": lambda _: report.tries(tries.measure(_progress())),
    "policies": _policies,
    "revocation": lambda _: report.revocation(revocation.measure(_progress())),
    "netkit": lambda options: report.netkit(*_netkit(options.kernel, _progress())),
    "verifier": lambda _: report.verifier(verifier.committed(), _verifier(_progress())),
    "eswitch": lambda _: report.eswitch(_eswitch(_progress())),
    "nic": lambda _: report.nic(_nic(_progress())),
    "convergence": lambda options: report.convergence(convergence.measure(options.attachments, _progress())),
}

if __name__ == "__main__":
    sys.exit(main())
