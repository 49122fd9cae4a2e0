# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's own desired state: one JSON document per resource, written atomically."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .errors import FastpathError

DIRECTORY = "/etc/fastpath"
_DRAFT = ".json.new"
_LEGIBLE = 1 << 20  # bytes; nobody reads more of them
_LOCK = "/sys/fs/bpf"  # where our pins live: a directory that is there, so that locking leaves nothing behind


def path(resource: str) -> str:
    return os.path.join(DIRECTORY, f"{resource}.json")


def read(resource: str) -> Any | None:
    """The document, None where there is none. Raises FastpathError on a broken one.

    No older version is kept to fall back on: it could give an address to a container that has lost it since.
    """
    try:
        with open(path(resource), encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _broken(resource, str(error)) from error
    wanted = list if resource in ("attachments", "eswitch") else dict
    if not isinstance(document, wanted):
        raise _broken(resource, f"it holds no {'list' if wanted is list else 'dictionary'}")
    return document


def _broken(resource: str, cause: str) -> FastpathError:
    hint = "Run the playbook again, which writes it anew, or remove the file to start without it"
    return FastpathError("read", path(resource), cause, hint)


def salvaged(resource: str, broken: Any) -> Any | None:
    """The same, but `broken` in the place of a broken one: for who does not need it, and writes it anew."""
    try:
        return read(resource)
    except FastpathError:
        return broken


def problems() -> list[str]:
    """What is wrong with the documents of this node."""
    found = []
    for resource in ("eswitch", "dataplane", "attachments", "policies", "programs", "unconfirmed"):
        try:
            read(resource)
        except FastpathError as error:
            found.append(str(error))
    return found


def write(resource: str, document: Any | None) -> None:
    """Replace the document; None removes it."""
    if document is None:
        with suppress(FileNotFoundError):
            os.unlink(path(resource))
        return
    text = json.dumps(document, sort_keys=True)  # without indentation this is many times faster
    if len(text) < _LEGIBLE:
        text = json.dumps(document, indent=2, sort_keys=True)
    replace_file(path(resource), (text + "\n").encode())


def replace_file(path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file, its directory created as needed: whatever happens, it is the old one or the new one."""
    directory, name = os.path.split(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    # a fixed name: what a killed run left is overwritten, never piled up
    draft = os.path.join(directory, f".{name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(draft, path)
    _sync(directory)


def _sync(directory: str) -> None:
    """Make the rename survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked() -> Iterator[None]:
    """One run at a time on a node: a module, the boot unit and the CLI wait for each other."""
    descriptor = os.open(_LOCK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _tidy()
        os.close(descriptor)


def _tidy() -> None:
    """Remove drafts of killed runs, and the directory when no document is left. Only the holder of the lock may."""
    with suppress(OSError):
        for name in os.listdir(DIRECTORY):
            if name.startswith(".") and name.endswith(_DRAFT):
                os.unlink(os.path.join(DIRECTORY, name))
        os.rmdir(DIRECTORY)
