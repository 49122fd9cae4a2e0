# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel settings of one interface, below /proc/sys/net."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/proc/sys/net")


def read(family: str, interface: str, name: str) -> str:
    """The value of net.<family>.conf.<interface>.<name>; "" when there is no such setting."""
    try:
        return _file(family, interface, name).read_text().strip()
    except FileNotFoundError:
        return ""


def write(family: str, interface: str, name: str, value: str) -> None:
    _file(family, interface, name).write_text(value)


def _file(family: str, interface: str, name: str) -> Path:
    return _ROOT / family / "conf" / interface / name
