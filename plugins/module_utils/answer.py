# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module ends: with a result, or with an error in an operator's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, NoReturn, Protocol

from .errors import FastpathError


class Module(Protocol):
    """Of Ansible's module what is needed here."""

    def exit_json(self, **result: Any) -> NoReturn: ...

    def fail_json(self, msg: str) -> NoReturn: ...


def answer(module: Module, work: Callable[[], Mapping[str, Any]]) -> None:
    """Do the module's work and end it; a traceback is left for what is a mistake of ours."""
    try:
        result = work()
    except (FastpathError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)
