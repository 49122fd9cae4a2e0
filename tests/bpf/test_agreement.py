# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever the policies, the programs decide as `tables.lookup` does: for a question, and for real first packets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, flows
from ansible_collections.fastpath.node.plugins.module_utils.kernel.asked import frame as question
from ansible_collections.fastpath.node.plugins.module_utils.policy import classes, documents
from ansible_collections.fastpath.node.plugins.module_utils.policy.compile import compile_tables
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import EGRESS, INGRESS, Packet, parse_address
from ansible_collections.fastpath.node.plugins.module_utils.policy.ports import ALLOW, OTHER, STRETCH_OF, Entry
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import NODE, Subject, Tables, identify, lookup
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.policy import worlds
from ansible_collections.fastpath.node.tests.unit.plugins.module_utils.policy.reference import World
from tests.bpf.dataplane import LAYOUT, REDIRECT, Dataplane
from tests.bpf.frames import Flow
from tests.bpf.policies import FAR, HOST, ONE, TWO, Policed, Who, policed
from tests.bpf.topology import C1, C2

# The containers of worlds.worlds(), at the devices of ours.
PLACES = {0: (ONE, C1), 7: (TWO, C2)}
ADDRESSES = {0: ("10.0.0.1", "fd00::1"), 7: ("10.0.1.1", "fd00:0:0:1::1")}
OWNER = {address: slot for slot, addresses in ADDRESSES.items() for address in addresses}
UNROUTED = {"MULTICAST", "MARTIAN", "LINK_LOCAL", "TO_SELF"}
ECHO_REPLY = {1: 0, 58: 129 << 8}
SOCKETS = (6, 17, 132)


@pytest.fixture
def node(session_plane: Dataplane) -> Iterator[Policed]:
    with policed(session_plane) as made:
        for slot, (_who, container) in PLACES.items():
            row = {"ifindex": session_plane.ifindex[container.name], "slot": slot, "mtu": 1500}
            value = LAYOUT.structs["fp_endpoint"].pack(row | {"mac": bytes.fromhex(container.mac.replace(":", ""))})
            for address in ADDRESSES[slot]:
                session_plane.endpoints.set(key(address), value)
        made.epoch = 1
        yield made
        for address in OWNER:
            session_plane.endpoints.delete(key(address))


def key(address: str) -> bytes:
    packed = ip_address(address).packed
    return packed.rjust(16, b"\0") if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def compiled(world: World) -> Tables:
    return compile_tables(documents.policies(world.documents), world.endpoints, world.namespaces, world.node)


def expected(tables: Tables, packet: Packet) -> tuple[int, int]:
    return lookup(tables, packet, EGRESS), lookup(tables, packet, INGRESS)


def asked(node: Policed, packet: Packet) -> tuple[int, int]:
    frame = question(packet.source, packet.destination, packet.protocol, packet.port)
    result = bpf.test_run(node.plane.loaded.programs["asked"], frame)
    words = result.ctx["cb0"], result.ctx["cb1"]
    assert result.retval == (0 if words[0] & words[1] & ALLOW else 2)
    return words


def own(packet: Packet, number: int) -> bytes:
    """What it carries; number: of its flow."""
    if packet.protocol in SOCKETS:
        return struct.pack("!HHIIBBHHH", number, packet.port, 0, 0, 5 << 4, 2, 0, 0, 0)
    return struct.pack("!HHHH", packet.port, 0, number, 0)


def sent(node: Policed, packet: Packet, number: int) -> str:
    """ "" if it goes on, else why it was dropped."""
    who: Who = FAR
    if packet.source in OWNER:
        who, _container = PLACES[OWNER[packet.source]]
    elif packet.source in worlds.NODE:
        who = HOST
    if packet.protocol not in (*SOCKETS, *ECHO_REPLY):  # its flows have no numbers
        node.young.delete(flows.key(key(packet.source), key(packet.destination), bytes(2), bytes(2), packet.protocol))
    frame = Flow(packet.source, packet.destination, who.mac, who.gateway).carrying(own(packet, number), packet.protocol)
    out = node.run(who, frame)
    assert (out.verdict == REDIRECT) == (out.dropped is None)
    return out.dropped or ""


def restricted(tables: Tables, packet: Packet) -> bool:
    """Do policies have a say?"""
    for direction, address, peer in (
        (EGRESS, packet.source, packet.destination),
        (INGRESS, packet.destination, packet.source),
    ):
        slot = tables.slots.get(parse_address(address))
        known = slot is not None and (slot, direction) in tables.subject
        if known and identify(tables, parse_address(peer)).peers != NODE:
            return True
    return False


def outcome(tables: Tables, packet: Packet) -> str:
    egress, ingress = expected(tables, packet)
    if packet.source not in OWNER and ":" in packet.source and int(ip_address(packet.source)) >> 64 == 0:
        return "SPOOFED"  # no such packet comes from the wire
    if ECHO_REPLY.get(packet.protocol) == packet.port:
        return "NO_FLOW" if restricted(tables, packet) else ""
    return "" if egress & ingress & ALLOW else "POLICY"


def checked(node: Policed, world: World, seed: int, count: int) -> None:
    tables = compiled(world)
    node.switch(tables)
    for number, (packet, _direction) in enumerate(worlds.packets(world, seed, count), 1024):
        if packet.source == packet.destination or {packet.source, packet.destination} <= set(ADDRESSES[0]):
            continue
        words = expected(tables, packet)
        assert asked(node, packet) == words, packet
        found = sent(node, packet, number)
        event(found or "passed")
        assert found in UNROUTED or found == outcome(tables, packet), packet
    flows.forget(node.maps)


# to shrink what failed takes minutes
quiet = settings(
    deadline=None, suppress_health_check=list(HealthCheck), max_examples=30, phases=[Phase.explicit, Phase.generate]
)


@pytest.mark.parametrize("many", [0, 1, 256])
@quiet
@given(data=st.data())
def test_programs_decide_as_tables_say(node: Policed, many: int, data: st.DataObject) -> None:
    """Also where groups count as broad early."""
    world = data.draw(worlds.worlds())
    with patch.object(classes, "BROAD", many):
        checked(node, world, data.draw(st.integers(0, 1 << 32)), 60)


@st.composite
def rows(draw: st.DrawFn) -> tuple[Entry, ...]:
    """Whatever a row may hold, in any order; words of pages 0 to 3 among them."""
    found = []
    for _number in range(draw(st.integers(0, 8))):
        low = draw(st.sampled_from((0, 1, 79, 80, 255, 256, 8 << 8, 65535)))
        high = draw(st.sampled_from([port for port in (0, 80, 255, 256, 300, 8 << 8, 65535) if port >= low] or [low]))
        word = draw(st.integers(1, 7)) | draw(st.integers(0, 3)) << 4
        page = draw(st.integers(0, 3)) << 4 | 8
        found.append(Entry(draw(st.integers(0, 5)), low, high, page if draw(st.booleans()) else word))
    return tuple(found)


@quiet
@given(data=st.data())
def test_any_rows_and_pages(node: Policed, data: st.DataObject) -> None:
    """More than the compiler makes: what one entry does not say is left to the next."""
    world = World([], data.draw(worlds.worlds()).endpoints, {}, worlds.NODE)
    tables = compiled(world)
    words = st.integers(0, 1 << 10).map(lambda number: number & ~8)
    leaf = data.draw(st.lists(words, min_size=4, max_size=4))
    pages = {0: tuple(leaf * 64), 1: (0,) * 256}
    pages[2] = tuple(data.draw(st.sampled_from((0, 1 << 4 | 8, 0 << 4 | 8, 5 << 4 | 1))) for _ in range(4)) * 64
    pages[3] = tuple(data.draw(st.sampled_from((0 << 4 | 8, 7 << 4 | 5))) for _ in range(4)) * 64
    identities = set(tables.exact.values())
    subjects, policy = {}, {}
    for number, place in enumerate((slot, direction) for slot in PLACES for direction in (INGRESS, EGRESS)):
        narrow, broad = data.draw(st.booleans()), data.draw(st.booleans())
        subjects[place] = Subject(number, narrow, broad, data.draw(rows()))
        for peers, wide in identities:
            for class_ in {peers, wide, 0}:
                if data.draw(st.booleans()):
                    policy[number, class_] = data.draw(rows())
    made = Tables(tables.exact, tables.prefix, subjects, policy, pages, tables.slots)
    node.switch(made)
    for packet, _direction in worlds.packets(world, data.draw(st.integers(0, 1 << 32)), 60):
        if packet.source == packet.destination:
            continue
        protocol = STRETCH_OF.get(packet.protocol, OTHER)
        asked_for = (
            packet if protocol != OTHER else packet.__class__(packet.source, packet.destination, packet.protocol)
        )
        assert asked(node, packet) == expected(made, asked_for), packet
