# SPDX-License-Identifier: GPL-3.0-or-later
"""Talk to QEMU: JSON lines on a Unix socket (QMP)."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.host import LabError


class Monitor:
    """A connection to QEMU's monitor; as a context manager it is closed at the end."""

    def __init__(self, path: Path, timeout: float = 30) -> None:
        """Connect, waiting for the socket to appear; timeout, in seconds, is for each answer too."""
        self._path = path
        self._deadline = time.monotonic() + timeout
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._lines = self._socket.makefile("rb")
        try:
            self._connect()
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        while True:
            try:
                self._socket.connect(str(self._path))
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > self._deadline:
                    raise LabError(f"nobody listens at {self._path}") from None
                time.sleep(0.02)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Carry out a command (underscores in argument names become dashes); LabError if it fails."""
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        message = {"execute": command, "arguments": arguments}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise LabError(f"{self._path.name}: {error}") from None
        while True:
            answer = self._receive()
            if "error" in answer:
                raise LabError(f"{self._path.name}: {command}: {answer['error']['desc']}")
            if "return" in answer:  # else an event, or the greeting
                return answer["return"]

    def share_memory(self) -> None:
        """Leave the memory itself out of what is saved or loaded next: it is a file already."""
        capability = {"capability": "x-ignore-shared", "state": True}
        self.execute("migrate-set-capabilities", capabilities=[capability])

    def migrated(self, timeout: float = 60) -> None:
        """Wait until the state is saved or loaded; LabError if that fails or takes longer, in seconds."""
        deadline = time.monotonic() + timeout
        while (status := self.execute("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise LabError(f"{self._path.name}: state not transferred: {status}")
            time.sleep(0.02)

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise LabError(f"{self._path.name}: no answer: {error}") from None
        if not line:
            raise LabError(f"{self._path.name}: QEMU ended")
        return dict(json.loads(line))
