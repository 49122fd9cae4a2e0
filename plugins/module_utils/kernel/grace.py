# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until no program runs any more that has seen what was before: a grace period of RCU.

The kernel waits for one when an element of a map of maps is replaced. So a map of maps is made for nothing else.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint32

from .libbpf import call
from .objects import create_map

_ARRAY, _ARRAY_OF_MAPS = 2, 12  # map types
_NAME, _SIZE = "fastpath_grace", 4  # of a key, and of a descriptor


def wait() -> None:
    """Return when every program has ended that was running at the call. Raises BpfError."""
    with (
        create_map(_ARRAY, _NAME, _SIZE, _SIZE, 1) as inner,
        create_map(_ARRAY_OF_MAPS, _NAME, _SIZE, _SIZE, 1, inner=inner) as outer,
    ):
        value = ctypes.byref(c_uint32(inner))
        call("wait for", "running programs", "bpf_map_update_elem", outer, bytes(_SIZE), value, 0)
