# SPDX-License-Identifier: GPL-3.0-or-later
"""From legacy mode without VFs to switchdev with many, beside the same by commands, on the emulated NIC.

A virtual machine runs `python3 -m bench.eswitch`, see virtual.py.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils import store
from ansible_collections.fastpath.node.plugins.module_utils.run import run_eswitch

COUNTS = (8, 64)
OURS, COMMANDS = "fastpath.node.eswitch", "loop of ip and devlink commands"
_ROUNDS = 3
_PCI = "0001:01:00.0"
_DEVICE = Path("/sys/bus/pci/devices") / _PCI
_SECONDS = 120

# The same changes, in the order that mlx5 wants. $1: number of VFs.
_SCRIPT = f"""
cd {_DEVICE}
echo 0 > sriov_drivers_autoprobe
echo "$1" > sriov_numvfs
devlink dev eswitch set pci/{_PCI} mode switchdev
uplink=$(grep -lx p0 net/*/phys_port_name | cut -d / -f 2)
ethtool -K "$uplink" hw-tc-offload on
vf=0
while test "$vf" -lt "$1"; do
  ip link set "$uplink" vf "$vf" mac "$(printf 02:00:00:00:00:%02x "$vf")"
  vf=$((vf + 1))
done
echo 1 > sriov_drivers_autoprobe
vf=0
while test "$vf" -lt "$1"; do
  basename "$(readlink "virtfn$vf")" > /sys/bus/pci/drivers_probe
  vf=$((vf + 1))
done
"""


@dataclass(frozen=True)
class Times:
    """Seconds until all is there, by the number of VFs, for each round; and of a second run of ours."""

    samples: Mapping[str, Mapping[int, list[float]]]
    again: Mapping[int, list[float]]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Times:
        """From JSON, which has no numbers as keys."""
        return cls({way: _by_count(one) for way, one in document["samples"].items()}, _by_count(document["again"]))

    def median(self, way: str, count: int) -> float:
        return median(self.samples[way][count])

    def each(self, way: str) -> float:
        """What one more VF costs, in seconds."""
        few, many = COUNTS
        return (self.median(way, many) - self.median(way, few)) / (many - few)

    def growth(self, way: str) -> float:
        """How many times as long as with few a VF takes with many; 1 is linear."""
        few, many = COUNTS
        return median(
            many_s / many / (few_s / few)
            for few_s, many_s in zip(self.samples[way][few], self.samples[way][many], strict=True)
        )

    def ratio(self, count: int) -> float:
        """Ours beside the commands, round by round."""
        pairs = zip(self.samples[OURS][count], self.samples[COMMANDS][count], strict=True)
        return median(ours / theirs for ours, theirs in pairs)


def _by_count(samples: Mapping[str, list[float]]) -> dict[int, list[float]]:
    return {int(count): values for count, values in samples.items()}


def measure() -> Times:
    """Both ways by turns."""
    subprocess.run(["modprobe", "-a", "fastpath_iommu"], check=True)
    subprocess.run(["modprobe", "fastpath_nic", f"vfs={max(COUNTS)}", "profile=mlx5"], check=True)
    ways: dict[str, Callable[[int], None]] = {OURS: _ours, COMMANDS: _commands}
    samples: dict[str, dict[int, list[float]]] = {way: {count: [] for count in COUNTS} for way in ways}
    again: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _round, count, way in itertools.product(range(_ROUNDS), COUNTS, ways):
        _bare()
        samples[way][count].append(_timed(ways[way], count))
        if way == OURS:
            _settle()
            again[count].append(_timed(_ours, count))
    _bare()
    return Times(samples, again)


def _timed(way: Callable[[int], None], count: int) -> float:
    begin = time.monotonic()
    way(count)
    while _there() != (count, count):
        if time.monotonic() > begin + _SECONDS:
            raise RuntimeError(f"{_there()} VFs and representors instead of {count}")
        time.sleep(0.01)
    return time.monotonic() - begin


def _there() -> tuple[int, int]:
    """Interfaces of VFs, and representors."""
    names = [path.read_text() for path in _DEVICE.glob("net/*/phys_port_name")]
    return len(list(_DEVICE.glob("virtfn*/net/*"))), sum("vf" in name for name in names)


def _ours(count: int) -> None:
    wished = {"device": {"pci": _PCI}, "mode": "switchdev", "vfs": count, "hw_tc_offload": True}
    _run(wished)


def _commands(count: int) -> None:
    subprocess.run(["sh", "-euc", _SCRIPT, "sh", str(count)], check=True, stdout=subprocess.DEVNULL)


def _bare() -> None:
    _run({"device": {"pci": _PCI}, "mode": "legacy", "vfs": 0, "hw_tc_offload": False})
    store.write("eswitch", None)
    _settle()


def _settle() -> None:
    """Let udev look at what is new: it would compete for the processor."""
    subprocess.run(["udevadm", "settle"], check=True)


def _run(wished: Mapping[str, Any]) -> None:
    run_eswitch([wished], "replaced", allow_disruption=True)


if __name__ == "__main__":
    json.dump(asdict(measure()), sys.stdout)
