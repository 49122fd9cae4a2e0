# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of single fields of a wish: a normal form, or an error that names field, value and what is allowed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Union

from ..errors import InvalidConfig
from ..kernel.links import Route

Interface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def mapping(value: object, field: str, known: Sequence[str]) -> dict[str, Any]:
    """A dictionary with known keys; keys whose value is None count as not given."""
    if not isinstance(value, Mapping):
        raise InvalidConfig(field, value, f"a dictionary with {', '.join(known)}")
    given = {key: item for key, item in value.items() if item is not None}
    for key, item in given.items():
        if key not in known:
            raise InvalidConfig(f"{field}.{key}", item, f"no such key; there are {', '.join(known)}")
    return given


def sequence(value: object, field: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise InvalidConfig(field, value, "a list")
    return list(value)


def network(value: object, field: str) -> str:
    try:
        return str(ipaddress.ip_network(_without_scope(value)))
    except ValueError:
        raise InvalidConfig(field, value, "a prefix without host bits, like 10.128.3.0/24") from None


def address(value: object, field: str) -> str:
    try:
        return str(ipaddress.ip_address(_without_scope(value)))
    except ValueError:
        raise InvalidConfig(field, value, "an IPv4 or IPv6 address") from None


def single(value: object, field: str) -> Interface:
    """An address with the prefix length of a single one; it may be left out."""
    try:
        found = ipaddress.ip_interface(_without_scope(value))
    except ValueError:
        raise InvalidConfig(field, value, "an address, like 10.128.3.7/32") from None
    if found.network.num_addresses != 1:
        raise InvalidConfig(field, value, f"a single address, {found.ip}/{found.ip.max_prefixlen}")
    return found


def _without_scope(value: object) -> str:
    """The kernel's tables have no scope ids (fe80::1%eth0), so a wish with one would never be reached."""
    text = str(value)
    if "%" in text:
        raise ValueError(text)
    return text


def mac(value: object, field: str) -> str:
    text = str(value).lower()
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise InvalidConfig(field, value, "a unicast MAC address, like 02:00:00:00:00:07")
    return text


def pci(value: object, field: str) -> str:
    text = str(value).lower()
    if not _PCI.fullmatch(text):
        raise InvalidConfig(field, value, "a PCI address, like 0000:3b:00.0")
    return text


def interface(value: object, field: str) -> str:
    """A name that the kernel takes (dev_valid_name: 1-15 bytes, no slash, colon or space, not . or ..)."""
    text = str(value)
    bad = not 1 <= len(text.encode()) <= 15 or text in (".", "..") or re.search(r"[/:\s]", text)
    if bad or not text.isprintable():
        raise InvalidConfig(field, value, "an interface name: 1 to 15 characters, no space, slash or colon")
    return text


def number(value: object, field: str, low: int, high: int) -> int:
    try:
        result = int(str(value))
    except ValueError:
        result = low - 1
    if not low <= result <= high:
        raise InvalidConfig(field, value, f"a number from {low} to {high}")
    return result


def choice(value: object, field: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise InvalidConfig(field, value, f"one of {', '.join(allowed)}")
    return str(value)


def route(value: object, field: str, gateways: Mapping[int, str]) -> Route:
    """{to, via}; `via` defaults to the gateway of the family where there is one."""
    given = mapping(value, field, ("to", "via"))
    if "to" not in given:
        raise InvalidConfig(f"{field}.to", None, "a prefix, like 10.0.0.0/8")
    to = network(given["to"], f"{field}.to")
    version = ipaddress.ip_network(to).version
    via = address(given["via"], f"{field}.via") if "via" in given else gateways.get(version, "")
    if not via or ipaddress.ip_address(via).version != version:
        raise InvalidConfig(f"{field}.via", given.get("via"), f"an IPv{version} address")
    return Route(to, via)


def routes(value: object, field: str, gateways: Mapping[int, str]) -> frozenset[Route]:
    """A list of routes, one for each destination."""
    found = [route(item, f"{field}[{index}]", gateways) for index, item in enumerate(sequence(value, field))]
    if len({item.to for item in found}) != len(found):
        raise InvalidConfig(field, [item.to for item in found], "each destination once")
    return frozenset(found)


def gateway(prefix: str) -> str:
    """The first host address of a prefix; the containers' default gateway."""
    return str(ipaddress.ip_network(prefix)[1])


def gateways(prefixes: Sequence[str]) -> dict[int, str]:
    """IP version -> gateway, of the first prefix of each version."""
    found: dict[int, str] = {}
    for prefix in prefixes:
        found.setdefault(ipaddress.ip_network(prefix).version, gateway(prefix))
    return found


def public_route(item: Route) -> dict[str, str]:
    return {"to": item.to, "via": item.via}


def by_prefix(item: Route) -> tuple[int, int, int]:
    to = ipaddress.ip_network(item.to)
    return to.version, int(to.network_address), to.prefixlen
