# SPDX-License-Identifier: GPL-3.0-or-later
"""devlink: the mode and parameters of a NIC's eswitch, its ports, and who it is.

Numbers are from linux/devlink.h. A handle is a bus and a device, as `devlink` writes it: "pci/0000:3b:00.0".
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Union

from ..errors import FastpathError, Unsupported
from . import rtnl
from .genl import Family
from .links import packed

Value = Union[str, int, bool]

_GET, _PORT_GET, _PORT_SET, _ESWITCH_GET, _ESWITCH_SET, _PARAM_GET, _PARAM_SET, _INFO_GET = 1, 5, 6, 29, 30, 38, 39, 51
_BUS, _DEVICE, _PORT, _PORT_IFINDEX = 1, 2, 3, 6
_MODE, _INLINE, _ENCAP = 25, 26, 62
_FLAVOUR, _PARAM, _PARAM_NAME, _PARAM_TYPE, _VALUES, _VALUE, _DATA, _CMODE = 77, 80, 81, 83, 84, 85, 86, 87
_DRIVER, _SERIAL, _VF, _FUNCTION, _HW_ADDR = 98, 99, 128, 145, 1
_RUNTIME = 0
_MODES, _INLINES, _ENCAPS = ("legacy", "switchdev"), ("none", "link", "network", "transport"), ("none", "basic")
_FLAVOURS = ("physical", "cpu", "dsa", "pcipf", "pcivf", "virtual", "unused", "pcisf")
_NUMBERS = {1: "=B", 2: "=H", 3: "=I", 4: "=Q"}  # types of the netlink policy
_STRING, _FLAG = 5, 6
_ABSENT = (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL)  # the driver, or the kernel, has no such thing


@dataclass(frozen=True)
class Eswitch:
    """inline, encap: None where the driver has none."""

    mode: str
    inline: str | None
    encap: str | None


@dataclass(frozen=True)
class Port:
    """flavour: physical, pcivf ...; ifindex 0: no interface; vf: its number or None; mac: of what is behind, or ""."""

    index: int
    flavour: str
    ifindex: int
    vf: int | None
    mac: str


@dataclass(frozen=True)
class Instance:
    """eswitch None: the driver has none. params: what can be set at run time -> its value now."""

    handle: str
    driver: str
    serial: str
    eswitch: Eswitch | None
    params: Mapping[str, Value] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()


def instances() -> dict[str, Instance]:
    """All of the node, by handle; none where the kernel has no devlink."""
    try:
        family = Family("devlink")
    except Unsupported:
        return {}
    with family:
        handles = [_handle(rtnl.attrs(reply)) for reply in family.dump(_GET)]
        ports = _by_handle(family, _PORT_GET)
        params = _by_handle(family, _PARAM_GET)
        return {
            handle: Instance(
                handle,
                *_info(family, handle),
                _eswitch(family, handle),
                dict(_runtime(params.get(handle, ()))),
                tuple(map(_port, ports.get(handle, ()))),
            )
            for handle in handles
        }


def set_mode(handle: str, mode: str) -> None:
    """Raises OSError with the driver's words, as all changes do."""
    _change(_ESWITCH_SET, handle, rtnl.attr(_MODE, struct.pack("=H", _MODES.index(mode))))


def set_inline(handle: str, inline: str) -> None:
    _change(_ESWITCH_SET, handle, rtnl.attr(_INLINE, bytes([_INLINES.index(inline)])))


def set_encap(handle: str, encap: str) -> None:
    _change(_ESWITCH_SET, handle, rtnl.attr(_ENCAP, bytes([_ENCAPS.index(encap)])))


def set_param(handle: str, name: str, value: Value) -> None:
    """Set a parameter at run time, as the type that it has."""
    with Family("devlink") as family:
        try:
            reply = family.get(_PARAM_GET, _address(handle) + rtnl.text(_PARAM_NAME, name))
        except OSError as error:
            raise FastpathError("find", f"parameter {name} of {handle}", str(error)) from error
        kind = rtnl.attrs(rtnl.attrs(reply)[_PARAM])[_PARAM_TYPE][0]
        body = rtnl.text(_PARAM_NAME, name) + rtnl.attr(_PARAM_TYPE, bytes([kind]))
        body += rtnl.attr(_CMODE, bytes([_RUNTIME])) + _data(kind, value)
        family.request(_PARAM_SET, _address(handle) + body)


def set_port_mac(handle: str, port: int, mac: str) -> None:
    """The MAC of the function behind a port; its driver reads it when it is bound."""
    function = rtnl.nest(_FUNCTION, rtnl.attr(_HW_ADDR, packed(mac)))
    _change(_PORT_SET, handle, rtnl.u32(_PORT, port) + function)


def _change(command: int, handle: str, body: bytes) -> None:
    with Family("devlink") as family:
        family.request(command, _address(handle) + body)


def _address(handle: str) -> bytes:
    bus, _slash, device = handle.partition("/")
    return rtnl.text(_BUS, bus) + rtnl.text(_DEVICE, device)


def _handle(found: Mapping[int, bytes]) -> str:
    return f"{_text(found[_BUS])}/{_text(found[_DEVICE])}"


def _by_handle(family: Family, command: int) -> dict[str, list[dict[int, bytes]]]:
    """A dump, sorted by the instance; a driver that has none of it may end the dump."""
    found: dict[str, list[dict[int, bytes]]] = {}
    with _tolerating_absence():
        for reply in family.dump(command):
            values = rtnl.attrs(reply)
            found.setdefault(_handle(values), []).append(values)
    return found


def _info(family: Family, handle: str) -> tuple[str, str]:
    found: dict[int, bytes] = {}
    with _tolerating_absence():
        found = rtnl.attrs(family.get(_INFO_GET, _address(handle)))
    return _text(found.get(_DRIVER, b"")), _text(found.get(_SERIAL, b""))


def _eswitch(family: Family, handle: str) -> Eswitch | None:
    found: dict[int, bytes] = {}
    with _tolerating_absence():
        found = rtnl.attrs(family.get(_ESWITCH_GET, _address(handle)))
    if _MODE not in found:
        return None
    mode = _MODES[_number(found[_MODE])]
    inline = _INLINES[_number(found[_INLINE])] if _INLINE in found else None
    encap = _ENCAPS[_number(found[_ENCAP])] if _ENCAP in found else None
    return Eswitch(mode, inline, encap)


def _port(found: Mapping[int, bytes]) -> Port:
    flavour = _number(found.get(_FLAVOUR, b"\0"))
    function = rtnl.attrs(found.get(_FUNCTION, b""))
    return Port(
        index=_number(found[_PORT]),
        flavour=_FLAVOURS[flavour] if flavour < len(_FLAVOURS) else "unknown",
        ifindex=_number(found.get(_PORT_IFINDEX, b"\0")),
        vf=_number(found[_VF]) if _VF in found else None,
        mac="" if not any(function.get(_HW_ADDR, b"")) else function[_HW_ADDR].hex(":"),
    )


def _runtime(params: Iterable[Mapping[int, bytes]]) -> Iterator[tuple[str, Value]]:
    """name, value of the parameters that can be set at run time."""
    for values in params:
        param = rtnl.attrs(values[_PARAM])
        kind = _number(param.get(_PARAM_TYPE, b"\0"))
        for _list, payload in rtnl.each(param.get(_VALUES, b"")):
            value = rtnl.attrs(payload)
            if _number(value.get(_CMODE, b"\xff")) == _RUNTIME:
                yield _text(param[_PARAM_NAME]), _value(kind, value)


def _value(kind: int, found: Mapping[int, bytes]) -> Value:
    if kind == _FLAG:
        return _DATA in found
    data = found.get(_DATA, b"")
    return _text(data) if kind == _STRING else _number(data)


def _data(kind: int, value: Value) -> bytes:
    if kind == _FLAG:
        return rtnl.attr(_DATA, b"") if value else b""
    if kind == _STRING:
        return rtnl.text(_DATA, str(value))
    return rtnl.attr(_DATA, struct.pack(_NUMBERS[kind], value))


@contextmanager
def _tolerating_absence() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _ABSENT:
            raise


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes) -> int:
    """An integer of any size, in host order."""
    return int.from_bytes(value, sys.byteorder)
