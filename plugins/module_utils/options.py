# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that several modules have, as argument specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STATES: Mapping[str, Any] = {
    "type": "str",
    "choices": ["merged", "replaced", "overridden", "deleted", "gathered", "rendered"],
    "default": "merged",
}
CONFIG_NEEDED: Sequence[Any] = [
    ("state", state, ["config"]) for state in ("merged", "replaced", "overridden", "rendered")
]
NAMED_PORTS: Mapping[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "name": {"type": "str", "required": True},
        "protocol": {"type": "str", "choices": ["TCP", "UDP", "SCTP"]},
        "port": {"type": "int", "required": True},
    },
}
