# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled objects on a node: the one that was brought, and those that are kept, each named by its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress

from . import store
from .errors import FastpathError

OBJECT = "/usr/lib/fastpath/fastpath.bpf.o"  # where the role runtime copies it to
OBJECTS = "/usr/lib/fastpath/objects"
DIGITS = 12
_SUFFIX = ".bpf.o"


def object_id(path: str) -> str:
    """The start of the file's SHA-1, which is also what Ansible's copy returns; "" when there is no file."""
    try:
        return _digest(_read(path))
    except FileNotFoundError:
        return ""


def wanted() -> str:
    """The path of the object that this node has recorded, else of the one that was brought."""
    record = store.salvaged("programs", {}) or {}
    recorded = path(str(record.get("current", "")))
    return recorded if os.path.exists(recorded) else OBJECT


def path(object_id: str) -> str:
    return os.path.join(OBJECTS, object_id + _SUFFIX)


def kept() -> frozenset[str]:
    """Ids of the objects that are kept; one whose content is another is not."""
    try:
        names = [name for name in os.listdir(OBJECTS) if not name.startswith(".")]
    except FileNotFoundError:
        return frozenset()
    return frozenset(
        name[: -len(_SUFFIX)] for name in names if name == object_id(os.path.join(OBJECTS, name)) + _SUFFIX
    )


def is_there() -> bool:
    """Is there anything of it, be it an empty directory that a killed removal left?"""
    return os.path.isdir(OBJECTS)


def keep(id: str, source: str) -> None:
    """Keep the object at `source`, which must have this id, so that it survives a power cut."""
    try:
        content = _read(source)
    except FileNotFoundError as error:
        raise FastpathError("read", source, "there is no such file", "The role runtime puts it there") from error
    if _digest(content) != id:
        raise FastpathError("keep", f"object {id}", f"it is gone, and {source} is another", "Run the playbook again")
    store.replace_file(path(id), content)


def read(id: str) -> bytes:
    return _read(path(id))


def forget(ids: Iterable[str]) -> None:
    """Remove objects, what a killed keep() left, and the directories that have become empty."""
    gone = {path(id) for id in ids}
    with suppress(FileNotFoundError):
        for name in os.listdir(OBJECTS):
            file = os.path.join(OBJECTS, name)
            if file in gone or name.startswith("."):
                os.unlink(file)
    with suppress(OSError):
        os.rmdir(OBJECTS)
        os.rmdir(os.path.dirname(OBJECTS))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _digest(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()[:DIGITS]
