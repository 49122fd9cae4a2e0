# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that goes on when the connection that has asked for it is gone."""

from __future__ import annotations

import json
import os
import traceback
from contextlib import suppress
from typing import Any, Callable, NoReturn

from .errors import FastpathError


class Reported(FastpathError):
    """What the other process has failed with, in its words."""

    def __str__(self) -> str:
        return self.cause


def carry_out(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of the work, done in a session of its own: no hang-up and no sudo that ends reaches it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _work(writer, work)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    killed = {"error": "cannot carry out the change: its process was killed"}
    answer: dict[str, Any] = json.loads(said) if said else killed
    if "error" in answer:
        raise Reported("carry out", "the change", answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _work(writer: int, work: Callable[[], dict[str, Any]]) -> NoReturn:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # who has sent us waits for the end of these, and may be gone
        os.dup2(nothing, descriptor)
    answer: dict[str, Any]
    try:
        answer = {"result": work()}
    except (FastpathError, OSError) as error:
        answer = {"error": str(error)}
    except Exception:  # noqa: BLE001 (a mistake of ours, to be seen by who has asked)
        answer = {"error": traceback.format_exc()}
    with suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:
        file.write(json.dumps(answer).encode())
    os._exit(0)
