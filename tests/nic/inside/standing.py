# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge the NIC, and stand still at a change: python3 -m tests.nic.inside.standing N < one item of a config.

Says `standing` before change number N, for an even one after it, and waits for its end; or says `through`, and what
the NIC is then. Without N only that.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from typing import NoReturn

from tests.nic.inside.eswitch import Breaking, converge, seen


def _stand() -> NoReturn:
    print("standing", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        at = int(sys.argv[1])
        converge(json.load(sys.stdin), Breaking(at, _stand, half=at % 2 == 0))
    print("through", replace(seen(), up=False), flush=True)  # up is whoever manages it
