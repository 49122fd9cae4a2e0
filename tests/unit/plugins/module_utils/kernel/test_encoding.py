# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables as bytes, against the layouts in the object and the text of bpf/abi.h."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import btf, encoding, flows, sides
from ansible_collections.fastpath.node.plugins.module_utils.policy.model import DIRECTIONS, EGRESS, INGRESS
from ansible_collections.fastpath.node.plugins.module_utils.policy.ports import (
    ALLOW,
    AUDIT,
    INLINE,
    IS_PAGE,
    LOG,
    NUMBER,
    PAGE,
    STRETCH,
    Entry,
)  # fmt: skip
from ansible_collections.fastpath.node.plugins.module_utils.policy.tables import (
    NODE,
    UNKNOWN,
    Identity,
    Subject,
    Tables,
)

ROOT = Path(__file__).parents[5]
LAYOUT = btf.parse((ROOT / "roles/runtime/files/fastpath.bpf.o").read_bytes())
Fields = Mapping[str, btf.Value]
HEADER = (ROOT / "bpf/abi.h").read_text(encoding="utf-8")

ROW = (Entry(1, 80, 81, 7 << NUMBER | ALLOW), Entry(0, 0, 65535, 5 << NUMBER | LOG))
TABLES = Tables(
    exact={(4, 0x0A000001): Identity(3, 9), (6, 1 << 120 | 2): Identity(4, 4)},
    subject={(0, INGRESS): Subject(11, True, False, ROW), (4095, EGRESS): Subject(12, False, True, ())},
    policy={(11, 3): ROW, (11, 4): (), (12, 1): tuple(Entry(2, n, n, n << NUMBER) for n in range(1, INLINE + 1))},
    pages={6: tuple(range(PAGE))},
)


def defined(name: str) -> int:
    found = re.search(rf"^#define {name} (\d+)", HEADER, re.MULTILINE)
    assert found, name
    return int(found[1])


def names_of(enum: str) -> list[str]:
    """In the order of `enum fp_x`, lower case, without prefix."""
    found = re.search(rf"^enum fp_{enum} \{{\n(.*?)^\}};", HEADER, re.MULTILINE | re.DOTALL)
    assert found, enum
    names = re.findall(r"^\tFP_(\w+),", found[1], re.MULTILINE)
    return [name.lower().removeprefix(f"{enum}_") for name in names]


def members(name: str, raw: bytes) -> Fields:
    return LAYOUT.structs[name].unpack(raw)


def numbers(value: btf.Value, form: str) -> tuple[int, ...]:
    assert isinstance(value, bytes)
    return struct.unpack(f"={len(value) // struct.calcsize(form)}{form}", value)


def records(tables: Tables, name: str, side: int, key: str, value: str) -> list[tuple[Fields, Fields]]:
    """The members of keys and values, by key."""
    size = encoding.KEYS[name]
    assert LAYOUT.structs[value].size == encoding.VALUES[name]
    encoded = sorted(encoding.encode(tables)[name])
    return [
        (members(key, encoding.on_side(name, record[:size], side)), members(value, record[size:])) for record in encoded
    ]


@pytest.mark.parametrize("side", [0, 1])
def test_records_are_those_of_the_object(side: int) -> None:
    four: Fields = {"addr": bytes(10) + b"\xff\xff\x0a\0\0\1", "side": side}
    six: Fields = {"addr": b"\1" + bytes(14) + b"\2", "side": side}
    found = records(TABLES, "identities", side, "fp_identity_key", "fp_identity")
    assert found == [(four, {"peers": 3, "broad": 9}), (six, {"peers": 4, "broad": 4})]
    found = records(TABLES, "policy", side, "fp_policy_key", "fp_row")
    assert found == [
        ({"subject": subject, "peers": peers, "side": side}, members("fp_row", encoding.row(row)))
        for (subject, peers), row in TABLES.policy.items()
    ]
    ((key, value),) = records(TABLES, "pages", side, "fp_page_key", "fp_page")
    assert key == {"page": 6, "side": side}
    assert numbers(value["word"], "I") == tuple(range(PAGE))


@pytest.mark.parametrize("entries", [(), ROW[:1], ROW, TABLES.policy[12, 1]])
def test_a_row_is_that_of_the_object(entries: tuple[Entry, ...]) -> None:
    found = members("fp_row", encoding.row(entries))
    for name, form in (("word", "I"), ("low", "H"), ("high", "H"), ("protocol", "B")):
        values = numbers(found[name], form)
        assert len(values) == INLINE == defined("FP_ROW")
        assert values[: len(entries)] == tuple(getattr(entry, name) for entry in entries)
        assert not any(values[len(entries) :])


def test_a_subject_is_where_the_program_looks_for_it() -> None:
    encoded = sorted(encoding.encode(TABLES)["subjects"], key=lambda record: struct.unpack_from("=I", record))
    slots = defined("FP_MAX_SLOTS")
    keys = [encoding.on_side("subjects", record[:4], 1) for record in encoded]
    assert [struct.unpack("=I", key)[0] for key in keys] == [slots * 2, (slots + 4095) * 2 + 1]
    assert [len(record) for record in encoded] == [encoding.KEYS["subjects"] + LAYOUT.structs["fp_subject"].size] * 2
    first, second = (members("fp_subject", record[4:]) for record in encoded)
    flags = [defined(f"FP_SUBJECT_{name}") for name in ("EXISTS", "NARROW", "BROAD")]
    assert first == {"number": 11, "flags": flags[0] | flags[1], "row": encoding.row(ROW)}
    assert second == {"number": 12, "flags": flags[0] | flags[2], "row": bytes(72)}
    assert (DIRECTIONS[INGRESS], DIRECTIONS[EGRESS]) == tuple(names_of("direction"))


def test_words_protocols_and_classes_mean_the_same_on_both_sides() -> None:
    flags = {"ALLOW": ALLOW, "LOG": LOG, "AUDIT": AUDIT, "PAGE": IS_PAGE, "NUMBER": NUMBER}
    assert flags == {name: defined(f"FP_WORD_{name}") for name in flags}
    assert (defined("FP_IDENTITY_UNKNOWN"), defined("FP_IDENTITY_NODE")) == (UNKNOWN, NODE)
    assert defined("FP_PAGE") == PAGE
    assert names_of("stretch") == ["other", *(name.lower() for name in sorted(STRETCH, key=lambda name: STRETCH[name]))]


def test_words_that_want_it_are_counted_wherever_they_are() -> None:
    page = (1 << NUMBER | LOG, 2 << NUMBER | AUDIT | ALLOW, 3 << NUMBER | ALLOW, *[0] * (PAGE - 3))
    row = (Entry(1, 1, 1, 4 << NUMBER | LOG), Entry(1, 2, 2, 9 << NUMBER | IS_PAGE | LOG))
    plain = Subject(1, True, False, (Entry(0, 0, 9, 5 << NUMBER),))
    tables = Tables(policy={(1, 1): row}, pages={9: page}, subject={(1, 0): plain})
    assert encoding.counted(encoding.encode(tables)) == {1, 2, 4}
    audited = Subject(1, True, False, (Entry(0, 0, 9, 6 << NUMBER | AUDIT),))
    assert 6 in encoding.counted(encoding.encode(replace(tables, subject={(1, 0): audited})))


def test_the_digest_tells_every_record() -> None:
    encoded = encoding.encode(TABLES)
    whole = sides.digest(encoded)
    assert whole < 1 << 64
    assert sides.digest(encoding.encode(TABLES)) == whole
    for name, found in encoded.items():
        for record in found:
            assert sides.digest({**encoded, name: found - {record}}) != whole
            assert sides.digest({**encoded, name: found - {record} | {record[:-1] + b"\x99"}}) != whole


def test_a_digest_follows_from_another_one() -> None:
    one, two = encoding.encode(TABLES), encoding.encode(replace(TABLES, exact={}, policy={(1, 2): ()}))
    assert sides.digest_after(sides.digest(one), one, two) == sides.digest(two)
    assert sides.digest_after(sides.digest(two), two, one) == sides.digest(one)


def test_flows_are_those_of_the_object() -> None:
    low, high = b"\1" * 16, b"\2" * 16
    raw = flows.key(high, low, b"\0\x50", b"\x80\0", 6)
    expected = {"a": low, "b": high, "port_a": 0x0080, "port_b": 0x5000, "protocol": 6, "echo": 0, "pad": bytes(2)}
    assert members("fp_flow_key", raw) == expected
    assert raw == flows.key(low, high, b"\x80\0", b"\0\x50", 6)
    one, other, protocol = flows.ends(raw)
    assert one == (low, low + high + b"\x80\0" + b"\0\x50")
    assert other == (high, high + low + b"\0\x50" + b"\x80\0")
    assert protocol == 6
    value = members("fp_flow", flows.VALUE.pack(1, 2, 3, 4))
    assert value == {"epoch": 1, "seen": 2, "flags": 3, "rule": 4}
    names = ("ASKED_BY_B", "ANSWERED", "FIN_A", "FIN_B", "RESET", "LOCAL", "REVOKED")
    assert [getattr(flows, name) for name in names] == [defined(f"FP_FLOW_{name}") for name in names]
    assert names_of("flow_count") == [*flows.COUNTS, "max"]
