# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a node from running the dataplane, and what does not."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import features

NAMES = tuple(name for name, _ask in features._PROBES)


def found(*missing: str) -> dict[str, dict[str, Any]]:
    return {name: {"available": name not in missing, "reason": f"no {name}" * (name in missing)} for name in NAMES}


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ((), []),
        (("tcx",), []),
        (("kernel", "btf"), ["no kernel", "no btf"]),
        (("bpf",), ["no bpf"]),
        (("libbpf", "bpf", "tcx"), []),
        (("libbpf", "bpf", "bpffs"), ["no bpffs"]),
    ],
    ids=lambda value: "-".join(value) or "nothing",
)
def test_only_what_nothing_replaces_is_unsupported(missing: tuple[str, ...], said: list[str]) -> None:
    assert features.unsupported(found(*missing)) == said


@pytest.mark.parametrize(
    ("release", "old"),
    [("5.9.16", True), ("5.10.0-30-amd64", False), ("6.1.0", False), ("4.18.0-553.el8.x86_64", True),
     ("5.14.0-427.13.1.el9_4.x86_64", False), ("7.0-rc1", False)],
)  # fmt: skip
def test_kernel_by_its_number(monkeypatch: pytest.MonkeyPatch, release: str, old: bool) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    reason = features._kernel()
    assert bool(reason) == old
    assert not old or release in reason
