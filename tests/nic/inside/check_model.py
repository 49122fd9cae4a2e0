# SPDX-License-Identifier: GPL-3.0-or-later
"""Random sets of rules: the device does with random frames what the model says, and counts what it did."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from tests.nic.inside.device import End, arrivals, rules, run, switchdev
from tests.nic.inside.frames import Frame, mac
from tests.nic.inside.model import Action, Outcome, Rule, outcome

VFS = 32
FRAMES = 8
PAYLOAD = len(b"VF 00, frame 00")
COUNTED = 4  # of the sets of a batch: what tc tells of the counters is compared
_ADDRESSES = {4: ["10.0.0.1", "10.0.0.2", "10.0.1.1"], 6: ["fd00::1", "fd00::2", "fd00:1::1"]}
_PROTOCOLS = {4: ["tcp", "udp", "icmp"], 6: ["tcp", "udp", "icmpv6"]}
_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
_PORTS = [80, 81, 1000]
_MACS = [mac(1), mac(2), mac(3)]
_TAGS = [(0, 5), (3, 5), (0, 6)]


def _colons(address: bytes) -> str:
    return address.hex(":")


def random_frame(source: random.Random) -> Frame:
    version = source.choice([4, 4, 6, 6, 0])
    addresses = _ADDRESSES.get(version, [""])
    protocol = source.choice(_PROTOCOLS.get(version, ["udp"]))
    return Frame(
        dst_mac=source.choice(_MACS), src_mac=source.choice(_MACS),
        tags=tuple(source.choice(_TAGS) for _index in range(source.choice([0, 0, 0, 1, 1, 2]))),
        version=version, src=source.choice(addresses), dst=source.choice(addresses),
        protocol=_NUMBERS[protocol], tos=source.choice([0, 16]), ttl=source.choice([1, 64]),
        fragment=source.choice(["no"] * 6 + ["first", "later"]) if version else "no",
        src_port=source.choice([8, 80, 81]) if "icmp" in protocol else source.choice(_PORTS),
        dst_port=0 if "icmp" in protocol else source.choice(_PORTS),
        tcp_flags=source.choice([2, 16, 18]) if protocol == "tcp" else 2,
    )  # fmt: skip


def random_shape(source: random.Random) -> tuple[str, dict[str, list[str]]]:
    """A protocol for tc, and the keys with the values that they may have: what the rules of a preference share."""
    protocol = source.choice(["all", "ip", "ip", "ipv6", "ipv6", "802.1Q"])
    keys: dict[str, list[str]] = {}

    def maybe(chance: float, key: str, values: list[str]) -> None:
        if source.random() < chance:
            keys[key] = values

    mask = source.choice(["", "/ff:ff:ff:ff:ff:fe"])
    maybe(0.3, "dst_mac", [_colons(address) + mask for address in _MACS])
    maybe(0.2, "src_mac", [_colons(address) for address in _MACS])
    version = {"ip": 4, "ipv6": 6}.get(protocol, 0)
    if protocol == "802.1Q":
        maybe(0.6, "vlan_id", ["5", "6"])
        maybe(0.3, "vlan_prio", ["0", "3"])
        if source.random() < 0.6:
            version = source.choice([4, 6])
            keys["vlan_ethtype"] = ["ip" if version == 4 else "ipv6"]
    if version:
        _network_shape(source, version, keys)
    return protocol, keys


def _network_shape(source: random.Random, version: int, keys: dict[str, list[str]]) -> None:
    length = source.choice([32, 24] if version == 4 else [128, 64])
    for key in ("src_ip", "dst_ip"):
        if source.random() < 0.4:
            keys[key] = [f"{address}/{length}" for address in _ADDRESSES[version]]
    if source.random() < 0.2:
        keys["ip_flags"] = [source.choice(["frag", "nofrag", "firstfrag", "nofirstfrag"])]
    if source.random() < 0.15:
        keys["ip_tos"] = ["0", "16"]
    if source.random() < 0.15:
        keys["ip_ttl"] = ["1", "64"]
    if source.random() < 0.6:
        _transport_shape(source, source.choice(_PROTOCOLS[version]), keys)


def _transport_shape(source: random.Random, protocol: str, keys: dict[str, list[str]]) -> None:
    keys["ip_proto"] = [protocol]
    if "icmp" in protocol:
        if source.random() < 0.5:
            keys["type"] = ["8", "80"]
        return
    if source.random() < 0.5:
        keys["dst_port"] = ["80", "81", "1000"]
    if source.random() < 0.3:
        keys["src_port"] = ["80", "1000"]
    if protocol == "tcp" and source.random() < 0.4:
        keys["tcp_flags"] = ["0x2/0x2", "0x0/0x2"]


def random_actions(source: random.Random, chain: int, own: str, version: int) -> tuple[Action, ...]:
    changes = [
        Action("push", (source.choice(["7", "8"]), source.choice(["0", "2"]))),
        Action("pop"),
        Action("modify", ("9", "1")),
        Action("macs", (_colons(mac(11)), _colons(mac(12)))),
    ]
    if version:
        changes.append(Action("ttl" if version == 4 else "hops", source.choice([("set", "33"), ("add", "255")])))
    ports = [f"v{number}" for number in range(VFS) if f"v{number}" != own] + ["w0"]
    chosen = source.sample(changes, source.choice([0, 0, 1, 2]))
    if source.random() < 0.15:
        chosen.insert(0, Action("mirror", (source.choice(ports),)))
    last = source.choice(["redirect"] * 4 + ["drop", "trap"] + ["goto"] * (2 if chain == 0 else 0))
    return (*chosen, Action(last, (source.choice(ports),) if last == "redirect" else ()))


def random_rules(source: random.Random, own: str) -> list[Rule]:
    made: list[Rule] = []
    for chain in (0, 1):
        for preference in source.sample(range(1, 9), source.choice([1, 2, 3])):
            protocol, keys = random_shape(source)
            seen = set()
            for _index in range(source.choice([1, 2, 3])):
                match = {key: source.choice(values) for key, values in keys.items()}
                # What tc takes for the same rule: masked bits do not count.
                identity = repr({key: _significant(key, value) for key, value in match.items()})
                if identity in seen:
                    continue
                seen.add(identity)
                version = {"ip": 4, "ipv6": 6}.get(match.get("vlan_ethtype", protocol), 0)
                actions = random_actions(source, chain, own, version)
                made.append(Rule(chain, preference, len(made) + 1, protocol, match, actions))
    return made


def _significant(key: str, value: str) -> str:
    if key in {"src_ip", "dst_ip"}:
        address, length = value.split("/")
        return address if length in {"32", "128"} else address.rpartition(":" if ":" in address else ".")[0]
    if key == "dst_mac" and "/" in value:
        return value[:-19] + str(int(value[15:17], 16) & 0xFE)
    return value


def test_random_sets_do_what_the_model_says(sets: int, seed: int) -> None:
    source = random.Random(seed)
    with switchdev(VFS) as (_nic, ends):
        # What a rule is given as output is the near netdev of the port that the frame leaves by.
        devices = {f"v{number}": ends[f"r{number}"].name for number in range(VFS)} | {"w0": ends["p0"].name}
        for batch in range(-(-sets // VFS)):
            _one_batch(source, batch, ends, devices)


def _one_batch(source: random.Random, batch: int, ends: dict[str, End], devices: dict[str, str]) -> None:
    """A set of rules for each VF in one go; then frames from all of them, told apart by their payload."""
    tables = {number: random_rules(source, f"v{number}") for number in range(VFS)}
    lines = []
    for number, table in tables.items():
        device = ends[f"r{number}"].name
        lines += [f"qdisc del dev {device} clsact", f"qdisc add dev {device} clsact"]
        lines += [rule.words(device, devices) for rule in table]
    run("tc", "-batch", "-", stdin="\n".join(lines))
    frames = {
        number: [replace(random_frame(source), payload=b"VF %02d, frame %02d" % (number, at)) for at in range(FRAMES)]
        for number in tables
    }
    outcomes = {number: [outcome(tables[number], frame, f"r{number}") for frame in frames[number]] for number in tables}
    for number, some in frames.items():
        for frame in some:
            ends[f"v{number}"].send(frame.pack())
    arrived = _by_payload(ends)
    for number, some in frames.items():
        for frame, expected in zip(some, outcomes[number], strict=True):
            there = sorted(arrived.pop(frame.payload, []))
            if there != sorted(expected.arrivals):
                text = "\n".join(rule.words("DEV", devices) for rule in tables[number])
                pytest.fail(f"{frame}\nby v{number}:\n{text}\nexpected {expected}\narrived {there}")
    assert not arrived, "frames that nobody has sent"
    for offset in range(COUNTED):
        number = (batch * COUNTED + offset) % VFS
        _compare_counters(tables[number], outcomes[number], ends[f"r{number}"].name)


def _by_payload(ends: dict[str, End]) -> dict[bytes, list[tuple[str, bytes]]]:
    """What has arrived where, by the payload, which is the end of each frame."""
    found: dict[bytes, list[tuple[str, bytes]]] = {}
    for name, frames in arrivals(ends).items():
        for frame in frames:
            found.setdefault(frame[-PAYLOAD:], []).append((name, frame))
    return found


def _compare_counters(table: list[Rule], outcomes: list[Outcome], device: str) -> None:
    packets: Counter[int] = Counter()
    octets: Counter[int] = Counter()
    for expected in outcomes:
        for rule, length in expected.hits:
            packets[rule.handle] += 1
            octets[rule.handle] += length
    told = {entry["handle"]: entry["actions"][-1]["stats"] for entry in rules(device)}
    assert {handle: (stats.get("hw_packets", 0), stats.get("hw_bytes", 0)) for handle, stats in told.items()} == {
        rule.handle: (packets[rule.handle], octets[rule.handle]) for rule in table
    }
