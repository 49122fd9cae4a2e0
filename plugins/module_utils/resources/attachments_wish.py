# SPDX-License-Identifier: GPL-3.0-or-later
"""From a list as users write it to checked attachments. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import FastpathError, InvalidConfig
from ..kernel.containers import KINDS
from ..kernel.links import Route
from ..plan import Step
from ..policy import members
from . import attachments_plan, attachments_pool, fields
from .attachments_plan import Want
from .attachments_state import NETKIT, NO_MAC, VETH, VF, Attachment, Node, Pair, Request, State, bare

_KEYS = ("name", "container", "kind", "mode", "vf", "interface", "addresses", "mtu", "mac", "routes", *members.KEYS)
_MIN_MTU, _MAX_MTU = 1280, 65535  # RFC 8200: IPv6 needs 1280


def plan(have: State, request: Request) -> tuple[Step[State], ...]:
    """The steps from `have` to what is requested; raises InvalidConfig before anything is changed."""
    node = have.node
    if node is None and request.config and request.state != "deleted":
        cause = "the node has no dataplane, or its record in /etc/fastpath is broken"
        raise FastpathError("plan", "attachments", cause, "Install it first: fastpath.node.dataplane")
    if have.unreadable and not _is_all(request):
        hint = "Give all attachments with state: overridden, as the role does: that writes it anew"
        raise FastpathError("change", "some attachments and keep the others", have.unreadable, hint)
    if request.epoch is not None:
        have = replace(have, policing=attachments_plan.policing_at(have, request.epoch))
    checked = want(have, request, node or Node((), 0, ""))
    return tuple(attachments_plan.steps(have, checked, node.generation if node else ""))


def references(config: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The containers that a config names."""
    given = _by_name(config)
    found = [(name, item["container"]) for name, item in given.items() if "container" in item]
    return tuple(_container(container, f"config[{name}].container") for name, container in found)


def asks_for_vfs(config: Iterable[Mapping[str, Any]]) -> bool:
    return any(item.get("kind") == VF.kind for item in config)


def check_document(document: Sequence[Mapping[str, Any]]) -> None:
    """Raise InvalidConfig where a node's own list is not as such lists are written: somebody or something broke it."""
    for name, item in _by_name(document).items():
        _container(item.get("container"), f"{name}.container")
        fields.interface(item.get("interface", "eth0"), f"{name}.interface")
        for address in fields.sequence(item.get("addresses"), f"{name}.addresses"):
            fields.single(address, f"{name}.addresses")
        members.endpoint(name, (), item, name)


def want(have: State, request: Request, node: Node) -> Want:
    """What the request means on this node."""
    given = _by_name(request.config)
    kept = {str(item["name"]): dict(item) for item in have.document or ()}
    if request.state == "deleted":
        gone = frozenset(given) if given else frozenset(kept) | attachments_plan.known(have)
        rest = {name: item for name, item in kept.items() if name not in gone}
        return Want((), gone, _document(rest))
    if request.state == "merged":
        given = {name: {**_kept(kept.get(name, {}), item), **item} for name, item in given.items()}
    rest = {} if request.state == "overridden" else {name: item for name, item in kept.items() if name not in given}
    remove = attachments_plan.known(have) - frozenset(given) if request.state == "overridden" else frozenset()
    vfs = _vfs(given, have, remove, request.skip_absent)
    checked = [_attachment(item, f"config[{name}]", have, node, vfs.get(name, "")) for name, item in given.items()]
    _check_conflicts(checked, _Taken.by_others(have, rest, frozenset(given) | remove), have.foreign)
    here = [item for item in checked if _is_here(item, have, request.skip_absent) and (item.vf or item.pair != VF)]
    return Want(tuple(here), frozenset(remove), _document({**rest, **given}))


def _is_all(request: Request) -> bool:
    """Does the request say all that shall be, whatever was wished before?"""
    return request.state == "overridden" or (request.state == "deleted" and not request.config)


def _kept(before: Mapping[str, Any], item: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a merge keeps: a mode and a VF belong to the kind that they were given with."""
    return {key: value for key, value in before.items() if key not in ("mode", "vf")} if "kind" in item else before


def _by_name(config: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for index, item in enumerate(config):
        given = fields.mapping(item, f"config[{index}]", _KEYS)
        name = fields.interface(given.get("name", ""), f"config[{index}].name")
        if name in found:
            raise InvalidConfig(f"config[{index}].name", name, "each name once")
        found[name] = given
    return found


def _document(items: Mapping[str, Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(dict(items[name]) for name in sorted(items))


def _vfs(given: Mapping[str, Any], have: State, remove: frozenset[str], skip: bool) -> dict[str, str]:
    """The VF of each attachment that is to have one and whose container is here. skip: leave out who can get none."""
    here = {
        name: item
        for name, item in given.items()
        if _container(item.get("container"), f"config[{name}].container") in have.containers
    }
    asking = {name: item.get("vf") for name, item in here.items() if item.get("kind") == VF.kind}
    return attachments_pool.assign(have, asking, remove | frozenset(here) - frozenset(asking), skip)


def _attachment(item: Mapping[str, Any], field: str, have: State, node: Node, vf: str) -> Attachment:
    name = str(item["name"])
    container = _container(item.get("container"), f"{field}.container")
    interface = fields.interface(item.get("interface", "eth0"), f"{field}.interface")
    now = have.links[name].pair if have.connects(name, container, interface) else None
    pair = _pair(item, field, now, have.netkit)
    addresses = _addresses(item.get("addresses", []), f"{field}.addresses", node)
    versions = {int(ipaddress.ip_interface(address).version) for address in addresses}
    gateways = {version: node.gateways[version] for version in versions}
    members.endpoint(name, (), item, field)  # only policies need it, but what is wrong is said at once
    return Attachment(
        name=name,
        container=container,
        pair=pair,
        interface=interface,
        addresses=addresses,
        mtu=fields.number(item.get("mtu", node.mtu), f"{field}.mtu", _MIN_MTU, node.mtu or _MAX_MTU),
        mac=have.vfs[vf].mac if vf else _mac(item, field, pair),
        routes=_routes(item, field, gateways),
        vf=vf,
    )


def _pair(item: Mapping[str, Any], field: str, now: Pair | None, netkit: bool) -> Pair:
    """The kind that is asked for; auto leaves what there is (`now`), and else takes the best that the node has.

    A VF stays only as long as it is asked for.
    """
    kind = fields.choice(item.get("kind", "auto"), f"{field}.kind", ("auto", "veth", "netkit", "vf"))
    for key, of in (("mode", "netkit"), ("vf", "vf")):
        if key in item and kind != of:
            raise InvalidConfig(f"{field}.{key}", item[key], f"none without kind: {of}")
    if kind == "vf":
        if "mac" in item:
            raise InvalidConfig(f"{field}.mac", item["mac"], "none with kind: vf, where fastpath.node.eswitch gives it")
        return VF
    if kind == "auto":
        return now if now not in (None, VF) else NETKIT if netkit else VETH
    if kind == "veth":
        return VETH
    if not netkit:
        allowed = "auto or veth; the kernel of this node has no netkit (Linux 6.7 with CONFIG_NETKIT)"
        raise InvalidConfig(f"{field}.kind", kind, allowed)
    return Pair(kind, fields.choice(item.get("mode", "l2"), f"{field}.mode", ("l2", "l3")))


def _mac(item: Mapping[str, Any], field: str, pair: Pair) -> str:
    if pair.mode == "l3":
        if "mac" in item:
            raise InvalidConfig(f"{field}.mac", item["mac"], "none with mode: l3, which has no MAC addresses")
        return NO_MAC
    return fields.mac(item["mac"], f"{field}.mac") if "mac" in item else derived_mac(str(item["name"]))


def _container(value: object, field: str) -> str:
    given = fields.mapping(value, field, KINDS)
    if len(given) != 1:
        raise InvalidConfig(field, value, f"exactly one of {', '.join(KINDS)}")
    ((kind, reference),) = given.items()
    if kind == "pid":
        reference = fields.number(reference, f"{field}.pid", 1, 2**22)
    elif kind == "netns" and not str(reference).startswith("/"):
        raise InvalidConfig(f"{field}.netns", reference, "an absolute path, like /run/netns/web-1")
    return f"{kind}:{reference}"


def _addresses(value: object, field: str, node: Node) -> frozenset[str]:
    given = fields.sequence(value, field)
    found: list[str] = []
    for index, item in enumerate(given):
        where = f"{field}[{index}]"
        interface = fields.single(item, where)
        inside = [p for p in map(ipaddress.ip_network, node.prefixes) if interface.ip in p]
        if not inside:
            raise InvalidConfig(where, item, f"an address inside this node's prefixes: {', '.join(node.prefixes)}")
        if interface.ip in (inside[0].network_address, inside[0][1], inside[0].broadcast_address):
            raise InvalidConfig(where, item, f"none of the first two and the last of {inside[0]} (gateway, broadcast)")
        found.append(str(interface))
    if not found:
        raise InvalidConfig(field, value, "at least one address")
    if len(set(found)) != len(found):
        raise InvalidConfig(field, value, "each address once")
    return frozenset(found)


def _routes(item: Mapping[str, Any], field: str, gateways: Mapping[int, str]) -> frozenset[Route]:
    if "routes" not in item:
        default = {4: "0.0.0.0/0", 6: "::/0"}
        return frozenset(Route(default[version], gateway) for version, gateway in gateways.items())
    return fields.routes(item["routes"], f"{field}.routes", gateways)


@dataclass
class _Taken:
    """Who has an address, and who has an interface of a container."""

    addresses: dict[str, str]
    places: dict[tuple[str, str], str]

    @classmethod
    def by_others(cls, have: State, rest: Mapping[str, Mapping[str, Any]], gone: frozenset[str]) -> _Taken:
        """By attachments that are there and stay, and by those that are desired though not attached now."""
        addresses = {a: point.attachment for a, point in have.endpoints.items() if point.attachment not in gone | {""}}
        places = {
            (end.container, have.interfaces[name].name): name
            for name, end in have.links.items()
            if name not in gone and name in have.interfaces
        }
        for name, item in rest.items():
            addresses.update({str(ipaddress.ip_interface(address).ip): name for address in item["addresses"]})
            places[_container(item["container"], f"{name}.container"), item.get("interface", "eth0")] = name
        return cls(addresses, places)


def _check_conflicts(checked: list[Attachment], taken: _Taken, foreign: frozenset[str]) -> None:
    for item in checked:
        field = f"config[{item.name}]"
        if item.name in foreign:
            raise InvalidConfig(f"{field}.name", item.name, "a name that no foreign interface has")
        for address in sorted(item.addresses):
            other = taken.addresses.setdefault(bare(address), item.name)
            if other != item.name:
                raise InvalidConfig(f"{field}.addresses", address, f"an address that {other} does not have")
        other = taken.places.setdefault((item.container, item.interface), item.name)
        if other != item.name:
            raise InvalidConfig(f"{field}.interface", item.interface, f"a name that {other} does not use there")


def _is_here(item: Attachment, have: State, skip_absent: bool) -> bool:
    if item.container in have.containers:
        return True
    if skip_absent:
        return False
    kind, _colon, value = item.container.partition(":")
    allowed = "a running container on this node with a network namespace of its own"
    raise InvalidConfig(f"config[{item.name}].container.{kind}", value, allowed)


def derived_mac(name: str) -> str:
    """A stable MAC: locally administered, unicast. It never leaves the node, where the name is unique."""
    return "02:" + hashlib.sha256(name.encode()).digest()[:5].hex(":")
