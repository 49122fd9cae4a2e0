# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a container's network namespace is. A reference is "netns:PATH", "pid:NUMBER" or "podman:NAME"."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping

from ..errors import FastpathError
from . import netns

_PATIENCE = 60  # seconds for podman to answer
KINDS = ("netns", "pid", "podman")


def locate(references: Iterable[str]) -> dict[str, str]:
    """The namespace's path for each reference whose container exists; the others are left out."""
    wanted = sorted(set(references))
    podman = _podman() if any(reference.startswith("podman:") for reference in wanted) else {}
    paths = {reference: _path(reference, podman) for reference in wanted}
    return {reference: path for reference, path in paths.items() if path and _is_namespace(path)}


def _path(reference: str, podman: Mapping[str, int]) -> str:
    kind, _colon, value = reference.partition(":")
    if kind == "netns":
        return value
    pid = value if kind == "pid" else podman.get(value, "")
    return f"/proc/{pid}/ns/net" if pid else ""


def _is_namespace(path: str) -> bool:
    """An existing namespace that is not the node's own (a container on the host's network has none to attach)."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev and netns.inode(path) != netns.own()
    except OSError:
        return False


def _podman() -> dict[str, int]:
    """The process of each running podman container by name, in one call."""
    command = shutil.which("podman")
    if command is None:
        return {}
    rows: list[dict[str, object]] = json.loads(_output(command, "ps", "--format", "json")) or []
    return {name: int(str(row["Pid"])) for row in rows for name in _names(row)}


def _output(*command: str) -> bytes:
    """What the command prints; raises FastpathError with its words when it fails or takes longer than a minute."""
    import asyncio  # only where podman is asked: it costs 40 ms

    async def run() -> tuple[int | None, bytes, bytes]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        output, errors = await asyncio.wait_for(process.communicate(), _PATIENCE)
        return process.returncode, output, errors

    try:
        status, output, errors = asyncio.run(run())
    except asyncio.TimeoutError:
        raise FastpathError("run", " ".join(command), f"no answer within {_PATIENCE} s") from None
    if status:
        raise FastpathError("run", " ".join(command), errors.decode(errors="replace").strip() or f"status {status}")
    return output


def _names(row: Mapping[str, object]) -> list[str]:
    names = row.get("Names") or []
    return [str(name) for name in names] if isinstance(names, list) else [str(names)]
