# SPDX-License-Identifier: GPL-3.0-or-later
"""Python's view of the maps against the text of bpf/abi.h."""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils import status
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel import btf, datapath

ROOT = Path(__file__).parents[5]
OBJECT = (ROOT / "roles/runtime/files/fastpath.bpf.o").read_bytes()
ENDPOINT = btf.parse(OBJECT).structs["fp_endpoint"]
HEADER = re.sub(r"/\*.*?\*/", "", (ROOT / "bpf" / "abi.h").read_text(encoding="utf-8"), flags=re.DOTALL)
TYPES = {
    "__u8": "B",
    "__u16": "H",
    "__u32": "I",
    "__u64": "Q",
    "fp_counter": "Q",
    "__be32": "I",
    "struct fp_addr": "4I",
}


def names_of(enum: str) -> tuple[str, ...]:
    """The enumerators of `enum fp_x`, in order and lower case, without prefix and the final MAX."""
    block = re.search(rf"enum fp_{enum} \{{(.*?)\}}", HEADER, re.DOTALL)
    assert block
    words = re.findall(r"\w+", block[1])
    prefix = f"FP_{enum.upper()}_"
    assert words[-1] == prefix + "MAX"
    assert "=" not in block[1]
    return tuple(word.removeprefix(prefix).lower() for word in words[:-1])


def layout_of(name: str) -> struct.Struct:
    """The native layout of `struct fp_x`, as a C compiler makes it."""
    block = re.search(rf"struct fp_{name} \{{(.*?)\}};", HEADER, re.DOTALL)
    assert block
    code = "@"
    for kind, count in re.findall(r"((?:struct )?\w+) \w+(?:\[(\d+)\])?;", block[1]):
        code += TYPES[kind] * int(count or 1)
    return struct.Struct(code)


def number_of(name: str) -> int:
    found = re.search(rf"#define {name} +(\d+)", HEADER)
    assert found
    return int(found[1])


def test_names_of_counters_are_in_the_headers_order() -> None:
    assert names_of("hook") == status.HOOKS
    assert names_of("drop") == status.DROPS
    assert names_of("reply") == status.REPLIES


def test_layouts_have_the_headers_sizes() -> None:
    structs = btf.parse(OBJECT).structs
    assert layout_of("addr").size == len(datapath.key("::1")) == 16
    for name in ("endpoint", "config", "endpoint_stats"):
        assert layout_of(name).size == structs[f"fp_{name}"].size


def test_limits_are_the_headers() -> None:
    assert number_of("FP_MAX_SLOTS") == datapath.SLOTS


def test_endpoint_lies_where_the_header_says() -> None:
    for vf in (False, True):
        packed = datapath._pack(ENDPOINT, datapath.Endpoint(7, 9, "02:00:00:00:00:05", 1400, vf))
        assert layout_of("endpoint").unpack(packed) == (7, 9, 2, 0, 0, 0, 0, 5, 1400, vf * number_of("FP_ENDPOINT_VF"))


def test_programs_that_know_no_vfs_get_none() -> None:
    old = ENDPOINT._replace(size=16, fields=tuple(field for field in ENDPOINT.fields if field.name != "flags"))
    endpoint = datapath.Endpoint(7, 9, "02:00:00:00:00:05", 1400)
    assert datapath._unpack(old, datapath._pack(old, endpoint)) == endpoint
    with pytest.raises(FastpathError, match="behind a VF"):
        datapath._pack(old, replace(endpoint, vf=True))


def test_config_lies_where_the_header_says() -> None:
    found = layout_of("config").unpack(datapath.configuration(OBJECT, 5, ("10.128.3.1", "fd00::1")))
    mac = tuple(bytes.fromhex(datapath.GATEWAY_MAC.replace(":", "")))
    v6 = struct.unpack("=4I", ipaddress.ip_address("fd00::1").packed)
    assert found == (5, *mac, 0, *struct.unpack("=I", bytes([10, 128, 3, 1])), *v6)


@pytest.mark.parametrize(
    ("gateways", "v4", "v6"),
    [((), "0.0.0.0", "::"), (("10.0.0.1",), "10.0.0.1", "::"), (("fd00::1", "10.0.0.1"), "10.0.0.1", "fd00::1"),
     (("10.0.0.1", "10.9.0.1", "fd00::1", "fd09::1"), "10.0.0.1", "fd00::1")],
)  # fmt: skip
def test_first_gateway_of_each_family_answers(gateways: tuple[str, ...], v4: str, v6: str) -> None:
    packed = datapath.configuration(OBJECT, 1, gateways)
    assert ipaddress.ip_address(packed[12:16]) == ipaddress.ip_address(v4)
    assert ipaddress.ip_address(packed[16:]) == ipaddress.ip_address(v6)


MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
U32 = st.integers(0, 2**32 - 1)


@given(st.builds(datapath.Endpoint, U32, U32, MACS, st.integers(0, 65535), st.booleans()))
def test_endpoint_there_and_back(endpoint: datapath.Endpoint) -> None:
    assert datapath._unpack(ENDPOINT, datapath._pack(ENDPOINT, endpoint)) == endpoint


@given(st.ip_addresses().filter(lambda address: address.version == 4 or not address.ipv4_mapped))
def test_address_there_and_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert datapath._address(datapath.key(str(address))) == str(address)


def test_ipv4_is_kept_mapped() -> None:
    assert datapath.key("10.128.3.7") == ipaddress.ip_address("::ffff:10.128.3.7").packed
