# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that an operator reads: what failed, on which object, why, and what to do."""

from __future__ import annotations


class FastpathError(Exception):
    """An operation on an object failed.

    operation: what was tried ("create the link"); object: on what ("web-1");
    cause: the kernel's or library's own words; hint: what to do about it.
    """

    def __init__(self, operation: str, object: str, cause: str, hint: str = "") -> None:
        super().__init__(operation, object, cause, hint)
        self.operation = operation
        self.object = object
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        text = f"cannot {self.operation} {self.object}: {self.cause}"
        return f"{text}. {self.hint}" if self.hint else text


class Unsupported(FastpathError):
    """The node lacks a feature: kernel too old, no BTF, no libbpf."""


class InvalidConfig(FastpathError):
    """The wish is wrong; nothing was changed.

    object is the path of the field ("attachments[2].mtu").
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__("accept", f"{field} = {value!r}", f"allowed: {allowed}")
        self.field = field
