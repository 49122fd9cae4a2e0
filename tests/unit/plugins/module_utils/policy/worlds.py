# SPDX-License-Identifier: GPL-3.0-or-later
"""Random documents, endpoints and packets, small enough that everything meets everything."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.policy.model import Endpoint, NamedPort, Packet
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.policy.reference import NUMBERS, World

# Edges of the prefixes below, addresses of endpoints, and a neighbour of ::ffff:0:0/96.
ADDRESSES = (
    *("10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.127", "10.0.1.128", "10.1.0.0", "9.255.255.255", "11.0.0.0"),
    *("192.0.2.1", "255.255.255.255", "0.0.0.0", "fd00::1", "fd00::2", "fd00:0:0:1::1", "fd00:1::", "fe00::1"),
    *("::fffe:a00:1", "::1:0:0:1", "::a00:1"),
)
NODE = ("192.0.2.9", "fd00::9")
CIDRS = {
    "0.0.0.0/0": ("10.0.0.0/8", "0.0.0.0/1"),
    "10.0.0.0/8": ("10.0.0.0/16", "10.0.1.0/24", "10.0.0.1/32"),
    "10.0.0.0/16": ("10.0.1.0/24", "10.0.1.128/25", "10.0.0.2/32"),
    "10.0.1.0/24": ("10.0.1.128/25", "10.0.1.127/32"),
    "10.0.1.128/25": ("10.0.1.128/32",),
    "10.0.0.1/32": (),
    "192.0.2.1/32": (),
    "10.0.0.1/30": ("10.0.0.2/31",),  # with host bits
    "::/0": ("fd00::/8", "::/64", "::ffff:0:0/95"),
    "::/64": ("::/80",),
    "::fffe:0:0/95": (),
    "fd00::/8": ("fd00::/32", "fd00::1/128"),
    "fd00::/48": ("fd00::/64",),
    "fd00::2/128": (),
}
NAMESPACES = ("default", "prod", "kube-system")
LABELS = {"app": ("web", "db"), "tier": ("front", "back", "")}
NAMED = ("http", "dns")
PORTS = (1, 53, 79, 80, 81, 255, 256, 443, 65535)

one_of = st.sampled_from


def some(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


def _expression(key: str) -> st.SearchStrategy[dict[str, Any]]:
    values = st.lists(one_of(LABELS[key]), min_size=1, max_size=2)
    with_values = {"key": st.just(key), "operator": one_of(("In", "NotIn")), "values": values}
    without = {"key": st.just(key), "operator": one_of(("Exists", "DoesNotExist"))}
    return st.fixed_dictionaries(with_values) | st.fixed_dictionaries(without)


labels = some(**{key: one_of(values) for key, values in LABELS.items()})
selectors: st.SearchStrategy[dict[str, Any]] = st.just({}) | some(
    matchLabels=labels | st.none(), matchExpressions=st.lists(one_of(tuple(LABELS)).flatmap(_expression), max_size=2)
)
namespace_selectors = selectors | one_of(NAMESPACES).map(
    lambda name: {"matchLabels": {"kubernetes.io/metadata.name": name}}
)


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    cidr = draw(one_of(tuple(CIDRS)))
    excepts = draw(st.lists(one_of(CIDRS[cidr]), max_size=3)) if CIDRS[cidr] else []
    return {"cidr": cidr, **({"except": excepts} if excepts else {})}


peers = (
    st.builds(lambda block: {"ipBlock": block}, blocks())
    | st.builds(lambda pods: {"podSelector": pods}, selectors)
    | st.builds(lambda spaces: {"namespaceSelector": spaces}, namespace_selectors)
    | st.builds(lambda p, n: {"podSelector": p, "namespaceSelector": n}, selectors, namespace_selectors)
)


@st.composite
def ports(draw: st.DrawFn, own: bool) -> dict[str, Any]:
    """With a port, a range, a name, or none; ICMP only in documents of our own."""
    protocol = draw(one_of(tuple(NUMBERS) if own else ("TCP", "UDP", "SCTP")))
    found: dict[str, Any] = {"protocol": protocol} if protocol != "TCP" or draw(st.booleans()) else {}
    if protocol.startswith("ICMP"):
        if draw(st.booleans()):
            found["type"] = draw(one_of((0, 8, 128)))
            found.update(draw(some(code=one_of((0, 1)))))
    elif draw(st.booleans()):
        found["port"] = draw(one_of((*NAMED, *PORTS)))
        if isinstance(found["port"], int) and draw(st.booleans()):
            found["endPort"] = draw(one_of([port for port in PORTS if port >= found["port"]]))
    return found


@st.composite
def rules(draw: st.DrawFn, side: str, own: bool, ordered: bool) -> dict[str, Any]:
    few = 24 if draw(st.integers(0, 9)) == 0 else 3  # seldom so many that they do not fit into a row
    found = draw(some(**{side: st.lists(peers, max_size=3), "ports": st.lists(ports(own), max_size=few)}))
    return {**found, **({"action": draw(one_of(("allow", "deny")))} if ordered else {})}


@st.composite
def documents(draw: st.DrawFn, number: int) -> dict[str, Any]:
    own, ordered = draw(one_of(((False, False), (False, False), (True, False), (True, True))))
    spec = draw(
        some(
            podSelector=selectors,
            policyTypes=one_of(([], ["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Egress", "Ingress"])),
            ingress=st.lists(rules("from", own, ordered), max_size=3),
            egress=st.lists(rules("to", own, ordered), max_size=3),
            **({"log": st.booleans(), "audit": st.booleans()} if own else {}),
        )
    )
    if ordered:
        spec["priority"] = draw(st.integers(0, 2))
    if draw(st.booleans()):
        spec["podSelector"] = {}
    name = {"name": f"p{number}", **draw(some(namespace=one_of(NAMESPACES[:2])))}
    if own:
        return {"apiVersion": "fastpath.node/v1", "kind": "FastpathPolicy", "metadata": name, "spec": spec}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": name, "spec": spec}


@st.composite
def endpoints(draw: st.DrawFn, number: int, addresses: tuple[str, ...], slot: int | None) -> Endpoint:
    named = [
        NamedPort(name, draw(one_of(("TCP", "UDP"))), draw(one_of(PORTS))) for name in NAMED if draw(st.booleans())
    ]
    return Endpoint(f"e{number}", addresses, draw(one_of(("default", *NAMESPACES))), draw(labels), tuple(named), slot)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two containers of this node, up to three of others."""
    found = [
        draw(endpoints(0, ("10.0.0.1", "fd00::1"), 0)),
        draw(endpoints(1, ("10.0.1.1", "fd00:0:0:1::1"), 7)),
        draw(endpoints(2, ("10.0.1.128",), None)),
        draw(endpoints(3, ("192.0.2.1", "fd00::2"), None)),
    ]
    listed = [draw(documents(number)) for number in range(draw(st.integers(1, 6)))]
    spaces = {name: draw(labels) for name in NAMESPACES if draw(st.booleans())}
    return World(listed, found[: draw(st.integers(2, 4))], spaces, NODE)


def packets(world: World, seed: int, count: int) -> list[tuple[Packet, str]]:
    """Packets with a container of this node on one side, and the direction that asks about it."""
    random = Random(seed)
    found: list[tuple[Packet, str]] = []
    for _number in range(count):
        own = random.choice(
            [address for item in world.endpoints if item.slot is not None for address in item.addresses]
        )
        other = random.choice([item for item in (*ADDRESSES, *NODE) if (":" in item) == (":" in own)])
        protocol = random.choice((6, 6, 17, 132, 1, 58, 47))
        port = random.choice((*PORTS, *PORTS, 0, 54, 8080, 257, 8 << 8, (8 << 8) + 1, 128 << 8))
        if random.random() < 0.5:
            found.append((Packet(own, other, protocol, port), "egress"))
        else:
            found.append((Packet(other, own, protocol, port), "ingress"))
    return found
