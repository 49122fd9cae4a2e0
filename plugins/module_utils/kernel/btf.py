# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts out of BTF, the type information inside a compiled object or a loaded map.

So bpf/abi.h stays the one definition of what the kernel and user space share. Format: kernel
documentation, bpf/btf.rst. Numbers are in this machine's byte order, as the object itself is.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Union

Value = Union[int, bytes]

_MAGIC = 0xEB9F
_ELF_MAGIC = b"\x7fELF"
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _VAR, _DATASEC, _TYPE_TAG, _ENUM64 = 8, 9, 10, 11, 14, 15, 18, 19
_ALIASES = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _VAR, _TYPE_TAG)
_SCALARS = (_INT, _PTR, _ENUM, _ENUM64)
# bytes that follow a type: fixed, and for each of its members
_TAIL = {_INT: (4, 0), _ARRAY: (12, 0), _STRUCT: (0, 12), _UNION: (0, 12), _ENUM: (0, 8), 13: (0, 8), _VAR: (4, 0)}
_TAIL.update({_DATASEC: (0, 12), 17: (4, 0), _ENUM64: (0, 12)})


class Field(NamedTuple):
    """A member: offset and size in bytes; scalar: one number, not an array or a structure."""

    name: str
    offset: int
    size: int
    scalar: bool


class Struct(NamedTuple):
    """A structure or union; anonymous members count as its own, bit fields are left out."""

    size: int
    fields: tuple[Field, ...]

    def pack(self, values: Mapping[str, Value]) -> bytes:
        """The bytes of a value; members that are not named are zero. Numbers are in host order."""
        unknown = set(values) - {field.name for field in self.fields}
        if unknown:
            raise KeyError(f"no such members: {', '.join(sorted(unknown))}")
        data = bytearray(self.size)
        for field in self.fields:
            value = values.get(field.name, 0)
            raw = value.to_bytes(field.size, sys.byteorder) if isinstance(value, int) else value
            if len(raw) != field.size:
                raise ValueError(f"{field.name} has {field.size} bytes, not {len(raw)}")
            data[field.offset : field.offset + field.size] = raw
        return bytes(data)

    def unpack(self, data: bytes) -> dict[str, Value]:
        """The members of a value: scalars as unsigned numbers, all others as bytes."""
        found: dict[str, Value] = {}
        for field in self.fields:
            raw = data[field.offset : field.offset + field.size]
            found[field.name] = int.from_bytes(raw, sys.byteorder) if field.scalar else raw
        return found


class Member(NamedTuple):
    """A number, or else a row of bytes, in a key or value. name: its path, like "bucket.last_ns", "" when it is all
    there is; type: the name of its typedef, or ""; bits: of a bit field, whose offset is rounded down."""

    name: str
    offset: int
    size: int
    scalar: bool
    signed: bool
    type: str
    bits: int = 0


class Btf(NamedTuple):
    """What the object defines, by name. sections: variable -> (offset, size); offsets only after libbpf's opening."""

    structs: dict[str, Struct]
    enums: dict[str, dict[str, int]]
    sections: dict[str, dict[str, tuple[int, int]]]


class _Type(NamedTuple):
    name: str
    kind: int
    members: int
    flag: bool
    value: int  # size or the type that it refers to
    tail: bytes


def parse(data: bytes) -> Btf:
    """The layouts in a compiled object (ELF) or in raw BTF; raises ValueError when there is none."""
    try:
        return _Reader(_elf_section(data, b".BTF") if data[:4] == _ELF_MAGIC else data).read()
    except (IndexError, struct.error) as error:
        raise ValueError(f"broken BTF or object file: {error}") from error


def layout(data: bytes, type_id: int) -> tuple[Member, ...]:
    """What a type in raw BTF consists of, nested structures and arrays taken apart."""
    return tuple(_Reader(data).members(type_id, "", 0))


def _elf_section(elf: bytes, name: bytes) -> bytes:
    """The content of a section of a 64-bit ELF file of this machine's byte order."""
    table = struct.unpack_from("=Q", elf, 0x28)[0]
    entry, count, names = struct.unpack_from("=HHH", elf, 0x3A)
    headers = [struct.unpack_from("=IIQQQQ", elf, table + index * entry) for index in range(count)]
    strings = headers[names][4]
    for name_offset, _type, _flags, _address, offset, size in headers:
        start = strings + name_offset
        if elf[start : elf.index(b"\0", start)] == name:
            return elf[offset : offset + size]
    raise ValueError(f"the object has no section {name.decode()}: compile it with -g")


class _Reader:
    def __init__(self, raw: bytes) -> None:
        magic, _version, _flags, header, types, types_size, strings, _size = struct.unpack_from("=HBBIIIII", raw)
        if magic != _MAGIC:
            raise ValueError("this is no BTF of this machine's byte order")
        self._raw = raw
        self._strings = header + strings
        self._types: list[_Type] = [_Type("", 0, 0, False, 0, b""), *self._scan(header + types, types_size)]

    def _scan(self, offset: int, size: int) -> Iterator[_Type]:
        end = offset + size
        while offset < end:
            name, info, value = struct.unpack_from("=III", self._raw, offset)
            offset += 12
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            fixed, each = _TAIL.get(kind, (0, 0))
            tail = self._raw[offset : offset + fixed + each * count]
            offset += len(tail)
            yield _Type(self._text(name), kind, count, bool(info >> 31), value, tail)

    def _text(self, offset: int) -> str:
        start = self._strings + offset
        return self._raw[start : self._raw.index(b"\0", start)].decode()

    def read(self) -> Btf:
        btf = Btf({}, {}, {})
        for kind in self._types:
            # a type without a name of its own goes by that of its typedef
            real = self._types[self._resolve(kind.value)] if kind.kind == _TYPEDEF else kind
            if not kind.name:
                continue
            if real.kind in (_STRUCT, _UNION):
                btf.structs.setdefault(kind.name, Struct(real.value, tuple(self._fields(real, 0))))
            elif real.kind in (_ENUM, _ENUM64):
                btf.enums.setdefault(kind.name, dict(self._enumerators(real)))
            elif real.kind == _DATASEC:
                btf.sections[kind.name] = dict(self._variables(real))
        return btf

    def _fields(self, kind: _Type, base: int) -> Iterator[Field]:
        for name_offset, type_id, position in struct.iter_unpack("=III", kind.tail):
            if kind.flag and position >> 24:  # a bit field
                continue
            offset = base + (position & 0xFFFFFF if kind.flag else position) // 8
            name, real = self._text(name_offset), self._types[self._resolve(type_id)]
            if name:
                yield Field(name, offset, self._size(type_id), real.kind in _SCALARS)
            elif real.kind in (_STRUCT, _UNION):
                yield from self._fields(real, offset)

    def members(self, type_id: int, name: str, offset: int) -> Iterator[Member]:
        typedef, kind = self._typedef(type_id), self._types[self._resolve(type_id)]
        if kind.kind == _STRUCT:
            for name_offset, member, position in struct.iter_unpack("=III", kind.tail):
                own, bits = self._text(name_offset), position >> 24 if kind.flag else 0
                path = f"{name}.{own}" if name and own else name or own
                place = offset + (position & 0xFFFFFF if kind.flag else position) // 8
                if bits:
                    yield Member(path, place, self._size(member), False, False, "", bits)
                else:
                    yield from self.members(member, path, place)
        elif kind.kind == _ARRAY:
            element, _index, count = struct.unpack("=III", kind.tail)
            if self._size(element) == 1:
                yield Member(name, offset, count, False, False, typedef)
            else:
                for index in range(count):
                    yield from self.members(element, f"{name}[{index}]", offset + index * self._size(element))
        else:
            signed = kind.kind == _INT and bool(kind.tail[3] & 1)  # the low bit of the encoding
            yield Member(name, offset, self._size(type_id), kind.kind in _SCALARS, signed, typedef)

    def _typedef(self, type_id: int) -> str:
        """The first name on the way to the type behind it."""
        while self._types[type_id].kind in _ALIASES:
            if self._types[type_id].kind == _TYPEDEF:
                return self._types[type_id].name
            type_id = self._types[type_id].value
        return ""

    def _enumerators(self, kind: _Type) -> Iterator[tuple[str, int]]:
        """As signed numbers: compilers before 2022 do not tell which they are."""
        if kind.kind == _ENUM:
            for name, value in struct.iter_unpack("=Ii", kind.tail):
                yield self._text(name), value
        else:
            for name, low, high in struct.iter_unpack("=IIi", kind.tail):
                yield self._text(name), high << 32 | low

    def _variables(self, kind: _Type) -> Iterator[tuple[str, tuple[int, int]]]:
        for type_id, offset, size in struct.iter_unpack("=III", kind.tail):
            yield self._types[type_id].name, (offset, size)

    def _resolve(self, type_id: int) -> int:
        """The id of the type behind typedefs and qualifiers."""
        while self._types[type_id].kind in _ALIASES:
            type_id = self._types[type_id].value
        return type_id

    def _size(self, type_id: int) -> int:
        kind = self._types[self._resolve(type_id)]
        if kind.kind == _PTR:
            return 8
        if kind.kind == _ARRAY:
            element, _index, count = struct.unpack("=III", kind.tail)
            return int(count) * self._size(element)
        return kind.value
