# SPDX-License-Identifier: GPL-3.0-or-later
"""What policies see of a container, from what users write about it to an endpoint. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidConfig
from ..resources import fields
from . import documents
from .model import Endpoint, NamedPort

KEYS = ("namespace", "labels", "ports")
_PROTOCOLS = ("TCP", "UDP", "SCTP")


def endpoint(
    name: str, addresses: Sequence[str], item: Mapping[str, Any], field: str, slot: int | None = None
) -> Endpoint:
    """Of a container with these keys, each of which may be left out; raises InvalidConfig."""
    return Endpoint(
        name,
        tuple(addresses),
        documents.namespace_name(item.get("namespace", "default"), f"{field}.namespace"),
        documents.labels(item.get("labels", {}), f"{field}.labels"),
        _ports(item.get("ports", []), f"{field}.ports"),
        slot,
    )


def elsewhere(value: object, field: str) -> Endpoint:
    """A container of another node: also `name` and `addresses`, of which any prefix length is cut off."""
    given = fields.mapping(value, field, ("name", "addresses", *KEYS))
    name = given.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidConfig(f"{field}.name", name, "a name")
    field = f"endpoints[{name}]"
    items = fields.sequence(given.get("addresses"), f"{field}.addresses")
    addresses = [str(fields.single(item, f"{field}.addresses[{index}]").ip) for index, item in enumerate(items)]
    return endpoint(name, addresses, given, field)


def _ports(value: object, field: str) -> tuple[NamedPort, ...]:
    found: list[NamedPort] = []
    for index, item in enumerate(fields.sequence(value, field)):
        where = f"{field}[{index}]"
        given = fields.mapping(item, where, ("name", "protocol", "port"))
        port = NamedPort(
            documents.port_name(given.get("name"), f"{where}.name"),
            fields.choice(given.get("protocol", "TCP"), f"{where}.protocol", _PROTOCOLS),
            fields.number(given.get("port"), f"{where}.port", 1, 65535),
        )
        if any((port.name, port.protocol) == (other.name, other.protocol) for other in found):
            raise InvalidConfig(f"{where}.name", port.name, f"each name of a {port.protocol} port once")
        found.append(port)
    return tuple(found)
