# SPDX-License-Identifier: GPL-3.0-or-later
"""The library, the command and the boot units on a node, installed from the library that is running.

Each version lies in a directory named by its content; the link `current` is switched in one rename, so a
node that loses power meanwhile boots with the old version or the new one, never with a mixture.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import store, versions
from ..plan import Op, Step

ROOT = Path("/usr/lib/fastpath")
CURRENT = ROOT / "current"
COMMAND = "/usr/bin/fastpath"
UNIT = "/etc/systemd/system/fastpath.service"
NICS_UNIT = "/etc/systemd/system/fastpath-nics.service"
CONFIRM_UNIT = "/etc/systemd/system/fastpath-confirm.service"
CONFIRM_PATH = "/etc/systemd/system/fastpath-confirm.path"

_COMMAND_TEXT = """\
#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-3.0-or-later
import sys

sys.path.insert(0, "/usr/lib/fastpath/current")
from fastpath.cli import main

sys.exit(main())
"""
_UNIT_TEXT = """\
# SPDX-License-Identifier: GPL-3.0-or-later
[Unit]
Description=Container network of this node, from /etc/fastpath
After=network.target sys-fs-bpf.mount fastpath-nics.service
Before=podman.service podman-restart.service docker.service containerd.service crio.service kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/fastpath apply --skip-absent --allow-disruption --only dataplane attachments policies
# an uplink may appear late
Restart=on-failure
RestartSec=2
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_SYS_ADMIN
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_SYS_RESOURCE CAP_DAC_READ_SEARCH
UMask=0077

[Install]
WantedBy=multi-user.target
"""
# Not again and again when it fails: each try takes VFs from their drivers.
_NICS_UNIT_TEXT = """\
# SPDX-License-Identifier: GPL-3.0-or-later
[Unit]
Description=NICs with VFs of this node, from /etc/fastpath
DefaultDependencies=no
After=local-fs.target systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service
After=fastpath-confirm.service
Before=network-pre.target shutdown.target
Wants=network-pre.target fastpath-confirm.service
Conflicts=shutdown.target
ConditionPathExists=/etc/fastpath/eswitch.json

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/fastpath apply --only eswitch --wait 30 --allow-disruption
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN
UMask=0077

[Install]
WantedBy=multi-user.target
"""
# Runs as long as a change waits to be confirmed, then takes it back; after a boot at once, before the NICs are set up.
_CONFIRM_UNIT_TEXT = """\
# SPDX-License-Identifier: GPL-3.0-or-later
[Unit]
Description=Take back what is not confirmed, see fastpath status
DefaultDependencies=no
After=local-fs.target systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
ConditionPathExists=/etc/fastpath/unconfirmed.json

[Service]
Type=oneshot
ExecStart=/usr/bin/fastpath revert --due --wait 30
Restart=on-failure
RestartSec=10
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN
UMask=0077
"""
# systemd starts what it watches for after it. With the default dependencies that would be after cloud-init, and with it
# after the network, before which NICs are set up: a cycle.
_CONFIRM_PATH_TEXT = """\
# SPDX-License-Identifier: GPL-3.0-or-later
[Unit]
Description=Watch for changes that are not confirmed
DefaultDependencies=no
After=local-fs.target
Before=shutdown.target
Conflicts=shutdown.target

[Path]
PathExists=/etc/fastpath/unconfirmed.json

[Install]
WantedBy=multi-user.target
"""
FILES: Mapping[str, str] = {
    COMMAND: _COMMAND_TEXT,
    UNIT: _UNIT_TEXT,
    NICS_UNIT: _NICS_UNIT_TEXT,
    CONFIRM_UNIT: _CONFIRM_UNIT_TEXT,
    CONFIRM_PATH: _CONFIRM_PATH_TEXT,
}
_MODES = {path: 0o755 if path == COMMAND else 0o644 for path in FILES}


def library() -> dict[str, str]:
    """The source of this very library by relative path; inside a module, that is what Ansible has sent along."""
    package = importlib.import_module(__name__.rpartition(".resources.")[0])
    sources = {"fastpath/__init__.py": ""}
    prefix = package.__name__ + "."
    for found in pkgutil.walk_packages(package.__path__, prefix):
        relative = found.name[len(prefix) :].replace(".", "/")
        name = f"fastpath/{relative}/__init__.py" if found.ispkg else f"fastpath/{relative}.py"
        sources[name] = "" if found.ispkg else _source(found.name)
    return sources


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    loader: Any = spec.loader if spec else None
    text: str | bytes = loader.get_source(module)  # Ansible's own loader gives bytes
    return text.decode() if isinstance(text, bytes) else text


def digest(sources: Mapping[str, str]) -> str:
    total = hashlib.sha256()
    for path in sorted(sources):
        total.update(f"{path}\0{sources[path]}\0".encode())
    return total.hexdigest()[:12]


@dataclass(frozen=True)
class State:
    """library: digest of what `current` holds, "" for none; versions: directories of libraries that are there;
    files: content of the command and the unit, only those that are there."""

    library: str = ""
    versions: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Install:
    """Put the files of a library into its directory; nothing uses them yet."""

    version: str

    def effect(self, state: State) -> State:
        return replace(state, versions=state.versions | {self.version})


@dataclass(frozen=True)
class Use:
    """Point `current` at a library; "" removes the link."""

    version: str

    def effect(self, state: State) -> State:
        return replace(state, library=self.version)


@dataclass(frozen=True)
class Remove:
    versions: frozenset[str]

    def effect(self, state: State) -> State:
        return replace(state, versions=state.versions - self.versions)


@dataclass(frozen=True)
class WriteFile:
    path: str
    content: str

    def effect(self, state: State) -> State:
        return replace(state, files={**state.files, self.path: self.content})


@dataclass(frozen=True)
class RemoveFile:
    path: str

    def effect(self, state: State) -> State:
        return replace(state, files={path: text for path, text in state.files.items() if path != self.path})


def plan(have: State, version: str) -> Iterator[Step[State]]:
    """The steps to library `version`, or with "" to none."""
    if have.library != version:
        reason = f"it has {have.library}" if have.library else "it has none"
        if version:
            undo = () if version in have.versions else (Remove(frozenset([version])),)
            yield Step(f"install library {version}", reason, Install(version), undo)
        yield Step(f"use library {version or 'no more'}", reason, Use(version), _back(have))
    for path in FILES:
        yield from _file(have, path, FILES[path] if version else None)
    rest = have.versions - {version}
    if rest:
        yield Step(f"remove library {', '.join(sorted(rest))}", "it is not used any more", Remove(rest))


def _back(have: State) -> tuple[Op[State], ...]:
    """A damaged library is not gone back to."""
    return (Use(have.library),) if have.library in {"", *have.versions} else ()


def _file(have: State, path: str, wanted: str | None) -> Iterator[Step[State]]:
    now = have.files.get(path)
    if now == wanted:
        return
    undo: Op[State] = RemoveFile(path) if now is None else WriteFile(path, now)
    if wanted is None:
        yield Step(f"remove {path}", "it is not wanted", RemoveFile(path), (undo,))
    else:
        yield Step(
            f"write {path}", "it is not there" if now is None else "it differs", WriteFile(path, wanted), (undo,)
        )


class Runtime:
    """For plan.converge(). The wish is a version: digest(library()), or "" to remove all."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def plan(self, have: State, want: str) -> Sequence[Step[State]]:
        return tuple(plan(have, want))

    def public(self, state: State) -> dict[str, Any]:
        return {"library": state.library, "files": sorted(state.files)} if state.library or state.files else {}

    def have(self) -> State:
        files = {path: Path(path).read_text(encoding="utf-8") for path in FILES if os.path.exists(path)}
        entries = ROOT.iterdir() if ROOT.is_dir() else ()
        folders = {entry.name for entry in entries if entry.is_dir() and not entry.is_symlink()}
        others = {os.path.basename(versions.OBJECTS)}
        return State(_installed() if CURRENT.is_symlink() else "", frozenset(folders - others), files)

    def execute(self, op: Op[State]) -> None:
        if isinstance(op, Install):
            for relative, text in self._sources.items():
                store.replace_file(str(ROOT / op.version / relative), text.encode())
        elif isinstance(op, Use):
            _use(op.version)
        elif isinstance(op, Remove):
            _remove(op.versions)
        elif isinstance(op, WriteFile):
            store.replace_file(op.path, op.content.encode(), _MODES[op.path])
        elif isinstance(op, RemoveFile):
            Path(op.path).unlink(missing_ok=True)


def _installed() -> str:
    """The digest of what is really in the files, so that a damaged library is seen."""
    base = CURRENT.resolve()
    found = {str(path.relative_to(base)): path.read_text(encoding="utf-8") for path in base.rglob("*.py")}
    return digest(found) if found else ""


def _use(version: str) -> None:
    if not version:
        CURRENT.unlink(missing_ok=True)
        return
    draft = CURRENT.with_name("current.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(version)
    os.replace(draft, CURRENT)


def _remove(versions: frozenset[str]) -> None:
    for version in versions:
        shutil.rmtree(ROOT / version, ignore_errors=True)
    with suppress(OSError):  # the object is still there
        ROOT.rmdir()
