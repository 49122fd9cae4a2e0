# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a node from running the dataplane, and what does not."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import features
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf

NAMES = tuple(name for name, _ask in features._PROBES)


def found(*missing: str) -> dict[str, dict[str, Any]]:
    return {name: {"available": name not in missing, "reason": f"no {name}" * (name in missing)} for name in NAMES}


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ((), []),
        (("tcx", "netkit"), []),
        (("kernel", "btf"), ["no kernel", "no btf"]),
        (("bpf",), ["no bpf"]),
        (("libbpf", "bpf", "tcx", "netkit"), []),
        (("libbpf", "bpf", "bpffs"), ["no bpffs"]),
    ],
    ids=lambda value: "-".join(value) or "nothing",
)
def test_only_what_nothing_replaces_is_unsupported(missing: tuple[str, ...], said: list[str]) -> None:
    assert features.unsupported(found(*missing)) == said


@pytest.mark.parametrize(
    ("release", "old"),
    [("5.12.19", True), ("5.13.0-30-amd64", False), ("6.1.0", False), ("4.18.0-553.el8.x86_64", True),
     ("5.14.0-427.13.1.el9_4.x86_64", False), ("7.0-rc1", False)],
)  # fmt: skip
def test_kernel_by_its_number(monkeypatch: pytest.MonkeyPatch, release: str, old: bool) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    reason = features._kernel()
    assert bool(reason) == old
    assert not old or release in reason


@pytest.mark.parametrize(
    ("there", "release", "reason"),
    [
        (True, "6.12.0", ""),
        (False, "6.1.0-30-amd64", "kernel below 6.7 has no netkit"),
        (False, "6.12.0-custom", "kernel 6.12.0-custom is built without netkit (CONFIG_NETKIT)"),
    ],
)
def test_why_there_is_no_netkit(monkeypatch: pytest.MonkeyPatch, there: bool, release: str, reason: str) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.setattr(bpf, "has_netkit", lambda: there)
    assert features._netkit() == reason
