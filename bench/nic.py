# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hit in the emulated NIC's table costs with few and with many rules, and one more rule: runs in a virtual node.

Each size is another device's, so that they are measured in turns. It prints its results as JSON.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

SIZES = (10, 1_000, 100_000)
_ROUNDS, _HITS, _INSERTS = 15, 300, 1_000
_ADDRESS = "10.200.0.1"  # what the frame is sent to: of the last rule


@dataclass(frozen=True)
class Costs:
    """By the number of rules: ns of a lookup, round by round, and microseconds of one more rule by `tc -batch`."""

    hit: Mapping[int, Sequence[float]]
    insert: Mapping[int, float]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Costs:
        return cls(
            {size: told["hit"][str(size)] for size in SIZES}, {size: told["insert"][str(size)] for size in SIZES}
        )

    def ratio(self, size: int) -> float:
        """Median over the rounds of a hit's cost, as many times that with the fewest rules in the same round."""
        return median(cost / base for cost, base in zip(self.hit[size], self.hit[SIZES[0]], strict=True))


def main() -> int:
    """Measure here."""
    _run("modprobe", "fastpath_iommu")
    _run("modprobe", "fastpath_nic", f"nics={len(SIZES)}", "vfs=1")
    devices = {size: _Device(index) for index, size in enumerate(SIZES)}
    for size, device in devices.items():
        device.fill(size)
    insert = {size: device.insert() for size, device in devices.items()}
    rounds = [{size: device.hit() for size, device in devices.items()} for _round in range(_ROUNDS)]
    print(json.dumps({"hit": {size: [one[size] for one in rounds] for size in SIZES}, "insert": insert}))
    return 0


class _Device:
    def __init__(self, index: int) -> None:
        self._address = f"{index + 1:04}:01:00.0"
        sysfs = Path("/sys/bus/pci/devices") / self._address
        (sysfs / "sriov_numvfs").write_text("1")
        _run("devlink", "dev", "eswitch", "set", f"pci/{self._address}", "mode", "switchdev")
        vf = next((sysfs / "virtfn0/net").iterdir()).name
        names = {(path / "phys_port_name").read_text().strip(): path.name for path in (sysfs / "net").iterdir()}
        self._near = names["pf0vf0"]
        for name in (vf, self._near):
            _run("ip", "link", "set", name, "up")
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((vf, 0))

    def fill(self, size: int) -> None:
        _run("tc", "qdisc", "add", "dev", self._near, "clsact")
        self._add(1, [_some(10, number) for number in range(1, size)] + [_ADDRESS])

    def insert(self) -> float:
        """Microseconds for one of some more rules, which are removed again."""
        addresses = [_some(11, number) for number in range(_INSERTS)]
        began = time.perf_counter()
        self._add(2, addresses)
        took = time.perf_counter() - began
        _run("tc", "filter", "del", "dev", self._near, "ingress", "prio", "2")
        return took * 1e6 / _INSERTS

    def _add(self, preference: int, addresses: Sequence[str]) -> None:
        head = f"filter add dev {self._near} ingress protocol ip prio {preference} flower skip_sw dst_ip"
        _run("tc", "-batch", "-", stdin="\n".join(f"{head} {address} action drop" for address in addresses))

    def hit(self) -> float:
        """ns of a lookup, by the device's own clock."""
        lookups, _probes, ns = self._looked_up()
        for _hit in range(_HITS):
            self._socket.send(_FRAME)
        more, _probes, later = self._looked_up()
        return (later - ns) / (more - lookups)

    def _looked_up(self) -> tuple[int, int, int]:
        words = Path(f"/sys/kernel/debug/fastpath_nic/{self._address}/lookups").read_text().split()
        return int(words[0]), int(words[1]), int(words[2])


def _some(first: int, number: int) -> str:
    return f"{first}.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _frame() -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0)
    addresses = socket.inet_aton("10.9.0.1") + socket.inet_aton(_ADDRESS)
    return bytes.fromhex("0200000000020200000000010800") + header + addresses + struct.pack("!HHHH", 1, 2, 8, 0)


_FRAME = _frame()


def _run(*command: str, stdin: str = "") -> None:
    subprocess.run(command, input=stdin, text=True, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
