# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on this node, with counters: read from the kernel, not from what was wished."""

from __future__ import annotations

from typing import Any

from . import store
from .errors import FastpathError
from .kernel import datapath, flows
from .resources import attachments_state, confirm, policies_wish
from .resources.attachments import Attachments
from .resources.dataplane import Dataplane, current
from .resources.policies_state import Request, State
from .resources.policies_switch import Policing

# the enums of bpf/abi.h in their order; a test holds them to the object
HOOKS = ("from_container", "from_wire", "from_host", "from_netkit")
REPLIES = ("arp", "ndisc", "icmp_error", "icmp_limited")
DROPS = (
    "malformed", "not_ip", "vlan", "wrong_mac", "spoofed", "multicast", "link_local", "martian", "arp", "ndisc",
    "to_self", "ttl", "too_big", "no_endpoint", "blackhole", "unreachable", "prohibited", "no_forwarding", "internal",
    "policy", "no_flow", "fragment",
)  # fmt: skip

_UNWATCHED = "a change is not confirmed, and nobody is there to take it back: systemctl start fastpath-confirm"


def status() -> dict[str, Any]:
    """dataplane, unconfirmed, attachments with their statistics, packets per hook, drops by reason if they happened."""
    dataplane = Dataplane()
    have = dataplane.have()
    unconfirmed = _unconfirmed()
    unwatched = [_UNWATCHED] if unconfirmed and not unconfirmed["watched"] else []
    if current(have) is None:
        return {
            "dataplane": {},
            "generation": None,
            "healthy": False,
            "problems": store.problems() + unwatched,
            "unconfirmed": unconfirmed,
            "attachments": [],
            "policies": {},
            "hooks": {},
            "drops": {},
            "replies": {},
        }
    attachments = Attachments()
    attached = attachments.have()
    slots = {endpoint.attachment: endpoint.slot for endpoint in attached.endpoints.values()}
    problems = store.problems() + unwatched
    problems += [f"{name}: {end.unfinished}" for name, end in attached.links.items() if end.unfinished]
    problems += _not_in_force(attached)
    dead = [key for key, (interface, generation) in have.hooks.items() if not interface or not generation]
    return {
        "dataplane": dataplane.public(have),
        "generation": current(have),
        "healthy": not dead and not problems,
        "problems": problems,
        "unconfirmed": unconfirmed,
        "attachments": _with_statistics(attachments.public(attached), slots),
        "policies": _policies(attached.policing),
        "hooks": dict(zip(HOOKS, datapath.counters("hooks"))),
        "drops": _happened(DROPS, "drops"),
        "replies": _happened(REPLIES, "replies"),
    }


def _unconfirmed() -> dict[str, Any] | None:
    """None also where its document is broken, which is a problem of its own."""
    try:
        return confirm.pending()
    except FastpathError:
        return None


def _not_in_force(attached: attachments_state.State) -> list[str]:
    """What a run of policies would change, in words: then others hold than those that this node keeps."""
    points = {address: (end.attachment, end.slot) for address, end in attached.endpoints.items() if end.attachment}
    have = State(attached.policing, points, None if attached.unreadable else attached.document or ())
    unreadable = have.policing.unreadable
    if unreadable:
        told = any(store.path("policies") in text for text in store.problems())
        return [] if told else [unreadable]
    if have.policing.document is None and have.policing.installed is not None:
        return [f"policies are in force, but {store.path('policies')} has gone"]
    try:
        return [f"policies: {step.reason}" for step in policies_wish.plan(have, Request((), "merged"))]
    except FastpathError as error:
        return [str(error)]


def _policies(policing: Policing) -> dict[str, Any]:
    """{} where none are in force."""
    now = policing.installed
    if now is None or not now.epoch:
        return {}
    known = flows.read()
    return {
        "epoch": now.epoch,
        "documents": len(policing.document["policies"]) if policing.document else 0,
        "flows": {"entries": known.entries, "limit": known.limit, "evicted": known.evicted},
        "young": {"entries": known.young, "limit": known.young_limit, "evicted": known.young_evicted},
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
        return "\n".join([said, *_waiting(found), *_problems(found)])
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
    if found["policies"]:
        held = found["policies"]
        lines.append(f"policies    {held['documents']} documents, epoch {held['epoch']}")
        lines += [f"{name:11} {_table(held[name])}" for name in ("flows", "young")]
    lines += [*_waiting(found), *_problems(found)]
    for item in found["attachments"]:
        counts = item.get("statistics", {})
        traffic = f"rx {counts.get('rx_packets', 0)} tx {counts.get('tx_packets', 0)} packets"
        kind = f"{item['kind']} {item.get('mode', '')}"
        lines.append(f"attachment  {item['name']:15} {kind:9} {' '.join(item['addresses'])}  {traffic}")
    return "\n".join(lines)


def _waiting(found: dict[str, Any]) -> list[str]:
    held = found["unconfirmed"]
    words = "taken back by the node unless 'fastpath confirm' comes before"
    return [f"unconfirmed {held['resource']}: {words} {held['deadline']}"] if held else []


def _problems(found: dict[str, Any]) -> list[str]:
    return [f"problem     {text}" for text in found["problems"]]


def _table(counts: dict[str, int]) -> str:
    return f"{counts['entries']} of {counts['limit']}, {counts['evicted']} pushed out"


def _pairs(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
