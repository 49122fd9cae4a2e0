# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab asks of the machine's processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from lab import host

# Its first thread ends, another one goes on: as QEMU is for a moment after it was killed.
_LATE = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_has_not_gone_while_one_of_its_threads_is_there() -> None:
    with subprocess.Popen([sys.executable, "-c", _LATE]) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        try:
            while stat.read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.02)
            assert not host.gone(process.pid, 0.1)
        finally:
            process.kill()
        assert host.gone(process.pid, 60)
