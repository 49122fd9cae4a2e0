# SPDX-License-Identifier: GPL-3.0-or-later
"""The network as data, from what the nodes say (`fastpath status --json`) and the lab's plan; and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from demo.text import table
from lab import Lab, Node
from lab.plan import FABRIC_GATEWAYS, OUTSIDE_ADDRESSES, NodePlan

HOOKS = {"from_container": "each veth, ingress", "from_netkit": "each netkit, peer",
         "from_wire": "each uplink, ingress", "from_host": "fastpath0, egress"}  # fmt: skip


@dataclass(frozen=True)
class Attachment:
    """A container's interface; packets are None when the node does not say."""

    name: str
    kind: str
    addresses: tuple[str, ...]
    received: int | None = None
    sent: int | None = None


@dataclass(frozen=True)
class NodeView:
    """A node; hooks: packets that each program has seen; drops: packets by reason."""

    name: str
    addresses: tuple[str, ...]
    prefixes: tuple[str, ...]
    uplink: str
    attachments: tuple[Attachment, ...]
    hooks: Mapping[str, int]
    drops: Mapping[str, int]


@dataclass(frozen=True)
class Network:
    nodes: tuple[NodeView, ...]
    router: tuple[str, ...] = FABRIC_GATEWAYS
    outside: tuple[str, ...] = OUTSIDE_ADDRESSES


def read(lab: Lab) -> Network:
    """Ask all nodes at once; a node without `fastpath` is shown as bare."""
    with ThreadPoolExecutor(len(lab.nodes)) as pool:
        return Network(tuple(pool.map(_ask, lab.nodes)))


def _ask(node: Node) -> NodeView:
    answer = node.run(["fastpath", "status", "--json"], check=False)
    try:
        status = json.loads(answer.stdout)
    except ValueError:
        status = {}
    return view(node.plan, status)


def view(plan: NodePlan, status: Mapping[str, Any]) -> NodeView:
    """What is known of one node."""
    return NodeView(
        name=plan.name,
        addresses=plan.addresses,
        prefixes=plan.prefixes,
        uplink="eth0",
        attachments=tuple(_attachment(item) for item in status.get("attachments") or ()),
        hooks={name: int(count) for name, count in (status.get("hooks") or {}).items()},
        drops={reason: int(count) for reason, count in (status.get("drops") or {}).items() if count},
    )


def _attachment(item: Mapping[str, Any]) -> Attachment:
    statistics = item.get("statistics", {})
    return Attachment(
        name=item["name"],
        kind=item.get("kind", "veth"),
        addresses=tuple(item.get("addresses", ())),
        received=statistics.get("rx_packets"),
        sent=statistics.get("tx_packets"),
    )


def show(network: Network) -> str:
    """Three tables: attachments, programs, drops."""
    return "\n\n".join(part for part in (_attachments(network), _programs(network), _drops(network)) if part)


def _attachments(network: Network) -> str:
    rows = [["node", "container", "addresses", "attachment", "packets in", "packets out"]]
    for node in network.nodes:
        rows.append([node.name, "(host)", " ".join(node.addresses), node.uplink, "", ""])
        rows += [
            [node.name, item.name, " ".join(item.addresses), item.kind, _count(item.received), _count(item.sent)]
            for item in node.attachments
        ]
    return table(rows)


def _programs(network: Network) -> str:
    rows = [["program", "attached to", *(f"packets, {node.name}" for node in network.nodes)]]
    rows += [[name, where, *(_count(node.hooks.get(name)) for node in network.nodes)] for name, where in HOOKS.items()]
    return table(rows)


def _drops(network: Network) -> str:
    reasons = sorted({reason for node in network.nodes for reason in node.drops})
    rows = [["dropped because", *(node.name for node in network.nodes)]]
    rows += [[reason, *(_count(node.drops.get(reason, 0)) for node in network.nodes)] for reason in reasons]
    return table(rows) if reasons else ""


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def total(network: Network, hook: str) -> int:
    """Packets that a program has seen on all nodes."""
    return sum(node.hooks.get(hook, 0) for node in network.nodes)


def missing(network: Network, wanted: Sequence[NodePlan]) -> list[str]:
    """Containers of the plan that are not attached."""
    attached = {(node.name, item.name) for node in network.nodes for item in node.attachments}
    return [f"{plan.name}/{c.name}" for plan in wanted for c in plan.containers if (plan.name, c.name) not in attached]
