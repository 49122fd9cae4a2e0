# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on this node, with counters: read from the kernel, not from what was wished."""

from __future__ import annotations

from typing import Any

from . import store
from .kernel import datapath
from .resources.attachments import Attachments
from .resources.dataplane import Dataplane, current

# the enums of bpf/abi.h in their order; a test holds them to the object
HOOKS = ("from_container", "from_wire", "from_host", "from_netkit")
REPLIES = ("arp", "ndisc", "icmp_error", "icmp_limited")
DROPS = (
    "malformed", "not_ip", "vlan", "wrong_mac", "spoofed", "multicast", "link_local", "martian", "arp", "ndisc",
    "to_self", "ttl", "too_big", "no_endpoint", "blackhole", "unreachable", "prohibited", "no_forwarding", "internal",
    "policy", "no_flow", "fragment",
)  # fmt: skip


def status() -> dict[str, Any]:
    """dataplane, attachments with their statistics, packets per hook, drops by reason (only those that happened)."""
    dataplane = Dataplane()
    have = dataplane.have()
    if current(have) is None:
        return {
            "dataplane": {},
            "generation": None,
            "healthy": False,
            "problems": store.problems(),
            "attachments": [],
            "hooks": {},
            "drops": {},
            "replies": {},
        }
    attachments = Attachments()
    attached = attachments.have()
    slots = {endpoint.attachment: endpoint.slot for endpoint in attached.endpoints.values()}
    problems = store.problems() + [
        f"{name}: {end.unfinished}" for name, end in attached.links.items() if end.unfinished
    ]
    dead = [key for key, (interface, generation) in have.hooks.items() if not interface or not generation]
    return {
        "dataplane": dataplane.public(have),
        "generation": current(have),
        "healthy": not dead and not problems,
        "problems": problems,
        "attachments": _with_statistics(attachments.public(attached), slots),
        "hooks": dict(zip(HOOKS, datapath.counters("hooks"))),
        "drops": _happened(DROPS, "drops"),
        "replies": _happened(REPLIES, "replies"),
    }


def _with_statistics(attachments: list[dict[str, Any]], slots: dict[str, int]) -> list[dict[str, Any]]:
    rows = datapath.statistics(slots.values())
    names = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
    return [
        {**item, "statistics": dict(zip(names, rows[slots[item["name"]]]))} if item["name"] in slots else item
        for item in attachments
    ]


def _happened(names: Any, table: str) -> dict[str, int]:
    return {name: count for name, count in zip(names, datapath.counters(table)) if count}


def render(found: dict[str, Any]) -> str:
    """For people: one line a fact."""
    if not found["generation"]:
        said = "the dataplane is not attached: fastpath apply" if found["dataplane"] else "no dataplane is installed"
        return "\n".join([said, *_problems(found)])
    wish = found["dataplane"]
    uplinks = ", ".join(uplink["name"] for uplink in wish["uplinks"])
    lines = [
        f"dataplane   {found['generation']}, {'healthy' if found['healthy'] else 'NOT HEALTHY: fastpath apply'}",
        f"uplinks     {uplinks}",
        f"prefixes    {', '.join(wish['prefixes'])} ({wish['routing']})",
        f"packets     {_pairs(found['hooks'])}",
        f"drops       {_pairs(found['drops']) or 'none'}",
        f"replies     {_pairs(found['replies']) or 'none'}",
    ]
    lines += _problems(found)
    for item in found["attachments"]:
        counts = item.get("statistics", {})
        traffic = f"rx {counts.get('rx_packets', 0)} tx {counts.get('tx_packets', 0)} packets"
        kind = f"{item['kind']} {item.get('mode', '')}"
        lines.append(f"attachment  {item['name']:15} {kind:9} {' '.join(item['addresses'])}  {traffic}")
    return "\n".join(lines)


def _problems(found: dict[str, Any]) -> list[str]:
    return [f"problem     {text}" for text in found["problems"]]


def _pairs(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
