# SPDX-License-Identifier: GPL-3.0-or-later
"""From a dataplane as users write it to a checked wish, and to the plan. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import FastpathError, InvalidConfig
from ..plan import Step
from . import dataplane_plan, fields
from .dataplane_plan import Wish
from .dataplane_state import POLICIES, ROUTER, VFS, Request, State

_KEYS = ("uplinks", "prefixes", "routing", "routes")


def plan(have: State, request: Request) -> tuple[Step[State], ...]:
    """The steps from `have` to what is requested; raises InvalidConfig before anything is changed."""
    if have.router_taken:
        raise InvalidConfig("interface", ROUTER, "a node on which no foreign interface has this name")
    if request.state == "deleted":
        return tuple(dataplane_plan.removal(have))
    if request.state == "rolled_back":
        return _rollback(have)
    config = merge(have, request)
    _check_sight(have, request.object_id)
    return tuple(dataplane_plan.installation(have, wish(config, have), config, request.object_id))


def _rollback(have: State) -> tuple[Step[State], ...]:
    """To the programs that ran before the last upgrade; a second time nothing is left to do."""
    programs, config = have.programs, have.document
    if programs is None or config is None:
        raise FastpathError("go back to", "the previous version", "no dataplane is installed")
    target = programs.current if programs.rolled_back else programs.previous
    if not target:
        hint = "A node keeps the version that an upgrade has replaced"
        raise FastpathError("go back to", "the previous version", f"there was none before {programs.current}", hint)
    _check_sight(have, target)
    return tuple(dataplane_plan.installation(have, wish(config, have), config, target, back=True))


_LOST = {
    POLICIES: (
        "all that these deny would be allowed",
        "Take the policies away (fastpath.node.policies with state: deleted)",
    ),
    VFS: ("their containers would get no packets", "Give those containers another kind of attachment"),
}


def _check_sight(have: State, object_id: str) -> None:
    """Neither policies nor containers on VFs are left behind by going to programs of a time before there were any."""
    unknown = have.blind.get(object_id)
    if unknown:
        lost, remedy = _LOST[unknown]
        cause = f"they know no {unknown}, and this node has some: {lost}"
        raise FastpathError("run", f"programs {object_id}", cause, f"{remedy} first, or stay with newer programs")


def merge(have: State, request: Request) -> dict[str, Any]:
    """The config that holds after the request, as the node keeps it."""
    given = fields.mapping(request.config, "config", _KEYS)
    base = (have.document or dataplane_plan.public(have) or {}) if request.state == "merged" else {}
    return {"routing": "fabric", "routes": [], **base, **given}


def wish(config: Mapping[str, Any], have: State) -> Wish:
    """Check a config against this node; raises InvalidConfig."""
    prefixes = tuple(
        fields.network(item, f"config.prefixes[{index}]")
        for index, item in enumerate(fields.sequence(config.get("prefixes", []), "config.prefixes"))
    )
    if not prefixes:
        raise InvalidConfig("config.prefixes", [], "at least one prefix of this node, like 10.128.3.0/24")
    for index, prefix in enumerate(prefixes):
        _check_prefix(index, prefix, prefixes[:index])
    given = fields.sequence(config.get("uplinks", []), "config.uplinks")
    if not given:
        raise InvalidConfig("config.uplinks", [], "at least one uplink: {name: ...}, {mac: ...} or {pci: ...}")
    uplinks = tuple(_uplink(item, f"config.uplinks[{index}]", have) for index, item in enumerate(given))
    if len(set(uplinks)) != len(uplinks):
        raise InvalidConfig("config.uplinks", list(uplinks), "each interface once")
    routing = fields.choice(config.get("routing"), "config.routing", ("fabric", "direct"))
    routes = fields.routes(config.get("routes", []), "config.routes", {})
    if routes and routing == "fabric":
        raise InvalidConfig(
            "config.routes", [r.to for r in routes], "none with routing: fabric, the default gateway knows"
        )
    own = sorted(route.to for route in routes if route.to in prefixes)
    if own:
        raise InvalidConfig("config.routes", own, "prefixes of other nodes; these are this node's own")
    return Wish(uplinks, prefixes, routing, routes)


def _is_special(end: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Not a place where containers can live; IPv4 inside IPv6 would alias the keys of the dataplane's maps."""
    mapped = isinstance(end, ipaddress.IPv6Address) and end.ipv4_mapped is not None
    return mapped or end.is_multicast or end.is_loopback or end.is_link_local or end.is_reserved


def _check_prefix(index: int, prefix: str, earlier: Sequence[str]) -> None:
    field_name, value = f"config.prefixes[{index}]", ipaddress.ip_network(prefix)
    if value.num_addresses < 4:
        raise InvalidConfig(field_name, prefix, "a prefix with room for a gateway and containers (/30, /126 or larger)")
    first, last = value.network_address, value.broadcast_address
    if not value.prefixlen or _is_special(first) or _is_special(last):
        raise InvalidConfig(field_name, prefix, "a unicast prefix of this node, like 10.128.3.0/24")
    for other in map(ipaddress.ip_network, earlier):
        if other.version == value.version and other.overlaps(value):
            raise InvalidConfig(field_name, prefix, f"a prefix that does not overlap {other}")


def _uplink(item: object, field_name: str, have: State) -> str:
    given = fields.mapping(item, field_name, ("name", "mac", "pci"))
    if len(given) != 1:
        raise InvalidConfig(field_name, item, "exactly one of name, mac, pci")
    ((by, value),) = given.items()
    checked = {"name": fields.interface, "mac": fields.mac, "pci": fields.pci}[by](value, f"{field_name}.{by}")
    found = [uplink for uplink in have.uplinks if getattr(uplink, by) == checked]
    if len(found) != 1:
        there = ", ".join(sorted(str(getattr(uplink, by)) for uplink in have.uplinks if getattr(uplink, by))) or "none"
        raise InvalidConfig(f"{field_name}.{by}", value, f"one interface of this node; it has: {there}")
    foreign = have.strangers.get(found[0].name, ())
    if foreign:
        ids = ", ".join(map(str, foreign))
        raise InvalidConfig(
            field_name,
            found[0].name,
            f"an interface without foreign BPF programs at its ingress; it runs program {ids}",
        )
    return found[0].name
