# SPDX-License-Identifier: GPL-3.0-or-later
"""How much stack the functions of a compiled object use, out of its machine code: BTF does not say it."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CALL_FUNCTION = b"\x85\x10"  # call, relative to the next instruction
LOAD_ADDRESS = 0x18  # of a map, or of a function that a helper calls
ROUNDED_TO = 32  # by the verifier; 16 only since 6.9


@dataclass
class Function:
    stack: int = 0
    callees: set[str] = field(default_factory=set)


class Instruction(NamedTuple):
    """place: section number and offset in bytes; target: what a relocation makes it call."""

    place: tuple[str, int]
    code: bytes
    text: str
    target: str


def deepest(obj: Path, name: str) -> int:
    """Bytes of stack that the program and what it calls use at most, as the verifier counts them."""
    return _depth(_functions(obj), name)


def _depth(functions: dict[str, Function], name: str) -> int:
    own = -(-max(functions[name].stack, 1) // ROUNDED_TO) * ROUNDED_TO
    return own + max((_depth(functions, callee) for callee in functions[name].callees), default=0)


def _functions(obj: Path) -> dict[str, Function]:
    numbers = _sections(obj)
    starts = _starts(obj)
    found: dict[str, Function] = defaultdict(Function)
    name, pointers = "", set[str]()
    for instruction in _instructions(obj, numbers):
        if instruction.place in starts:
            name, pointers = starts[instruction.place], set()
        function = found[name]
        function.stack = max(function.stack, _used(instruction.text, pointers))
        if instruction.code[:2] == CALL_FUNCTION:
            function.callees.add(_callee(instruction, starts, numbers))
        elif instruction.code[0] == LOAD_ADDRESS and instruction.target == ".text":
            function.callees.add(starts[numbers[".text"], int.from_bytes(instruction.code[4:8], "little")])
    return found


def _used(text: str, pointers: set[str]) -> int:
    """The stack that this instruction reaches; pointers: registers that hold the frame pointer, kept up to date."""
    if match := re.search(r"r10 - (0x[0-9a-f]+|\d+)", text):
        return int(match[1], 0)
    if match := re.match(r"(r\d) \+= -(0x[0-9a-f]+|\d+)$", text):
        return int(match[2], 0) if match[1] in pointers else 0
    if match := re.match(r"(r\d) = (.*)", text):
        (pointers.add if match[2] == "r10" else pointers.discard)(match[1])
    return 0


def _callee(call: Instruction, starts: dict[tuple[str, int], str], numbers: dict[str, str]) -> str:
    distance = int.from_bytes(call.code[4:8], "little", signed=True)
    if call.target == ".text":  # a static function of another section: an offset into that one
        return starts[numbers[".text"], (distance + 1) * 8]
    if call.target:
        return call.target
    section, offset = call.place
    return starts[section, offset + (distance + 1) * 8]


def _instructions(obj: Path, numbers: dict[str, str]) -> Iterator[Instruction]:
    section, last = "", None
    for line in _lines("llvm-objdump", "-dr", str(obj)):
        if match := re.search(r"R_BPF_64_\d+\s+(\S+)", line):
            last = last and last._replace(target=match[1])
            continue
        if last:
            yield last
        last = None
        if match := re.match(r"Disassembly of section (\S+):", line):
            section = numbers[match[1]]
        elif match := re.match(r" *(\d+):\s((?:[0-9a-f]{2} )+[0-9a-f]{2})\t(.*)", line):
            last = Instruction((section, int(match[1]) * 8), bytes.fromhex(match[2]), match[3], "")


def _sections(obj: Path) -> dict[str, str]:
    return {
        name: number
        for line in _lines("readelf", "-SW", str(obj))
        for number, name in re.findall(r"\[ *(\d+)\] (\S+)", line)
    }


def _starts(obj: Path) -> dict[tuple[str, int], str]:
    """Functions by section number and offset."""
    rows = (line.split() for line in _lines("readelf", "-sW", str(obj)))
    return {(row[6], int(row[1], 16)): row[7] for row in rows if len(row) == 8 and row[3] == "FUNC"}


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
