# SPDX-License-Identifier: GPL-3.0-or-later
"""Does traffic go on? Told from what programs have counted during a moment."""

from __future__ import annotations

import time
from dataclasses import dataclass

from . import bpf, btf, datapath

_LONGEST, _QUIET, _PAUSE = 0.2, 0.03, 0.005  # seconds: in all, without any packet, between two looks
_ENOUGH = 200  # packets
_FEW, _MANY = 5, 50  # that tell something where there was traffic before, and where there was none
# What a broken program says of a good packet.
_TELLING = frozenset({"malformed", "not_ip", "vlan", "wrong_mac", "spoofed", "martian", "internal"})


@dataclass(frozen=True)
class Traffic:
    """Packets in a moment: all, those that went on, and by reason those that were dropped as a broken program would."""

    seen: int
    served: int
    suspicious: dict[str, int]

    @property
    def looks_broken(self) -> bool:
        return sum(self.suspicious.values()) > self.served


def is_worse(before: Traffic | None, now: Traffic) -> bool:
    """Do the programs drop most of what comes, and did others not? What is not answered comes more slowly."""
    if before is None or before.served < _FEW:
        return now.seen >= _MANY and now.looks_broken and not (before and before.looks_broken)
    return now.seen >= _FEW and now.looks_broken and not before.looks_broken


def watch(generation: str) -> Traffic:
    """What the programs of a generation do now: ends after some packets, or at once where there are none."""
    maps, start = datapath.maps_of(generation), time.monotonic()
    packets, drops = datapath.counters("hooks", maps), datapath.counters("drops", maps)
    while True:
        time.sleep(_PAUSE)
        seen, waited = sum(datapath.counters("hooks", maps)) - sum(packets), time.monotonic() - start
        if seen >= _ENOUGH or waited > _LONGEST or (not seen and waited > _QUIET):
            break
    dropped = [now - before for now, before in zip(datapath.counters("drops", maps), drops)]
    names = _names(generation)
    suspicious = {name: count for name, count in zip(names, dropped) if count and name in _TELLING}
    return Traffic(seen, seen - sum(dropped), suspicious)


def _names(generation: str) -> list[str]:
    """The reasons as this version has them, in their order."""
    with bpf.get(datapath.maps_of(generation) / "drops") as fd:
        found = btf.parse(bpf.btf_data(bpf.map_info(fd).btf_id)).enums.get("fp_drop", {})
    return [name[len("FP_DROP_") :].lower() for name in sorted(found, key=lambda name: found[name])]
