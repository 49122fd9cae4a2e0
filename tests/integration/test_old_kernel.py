# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole library on a kernel without tcx: cls_bpf filters instead of links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils import run, status
from ansible_collections.fastpath.node.plugins.module_utils.kernel import hooks
from tests.integration.conftest import OBJECT
from tests.integration.sandbox import DATAPLANE, FABRIC, FABRIC_ADDRESSES, Result, Sandbox, attachment, ips
from tests.integration.variants import SCHEMA, variant

TWO = [attachment(1), attachment(2)]


def _without_tcx(work: Callable[[], Any]) -> Any:
    hooks._tcx = lambda: False  # type: ignore[assignment]
    return work()


def _dataplane(node: Sandbox, path: Path = OBJECT, **options: Any) -> Result:
    result: Result = node.call(
        _without_tcx, lambda: run.run_dataplane(DATAPLANE, "replaced", path=str(path), **options)
    )
    return result


def _attachments(node: Sandbox, config: list[dict[str, Any]], state: str, **options: Any) -> Result:
    result: Result = node.call(_without_tcx, lambda: run.run_attachments(config, state, **options))
    return result


def _filters(node: Sandbox) -> list[str]:
    """Interfaces with a clsact qdisc."""
    words = [line.split() for line in node.run("tc", "qdisc", "show").splitlines()]
    return sorted(line[4] for line in words if line[1] == "clsact")


def test_converge_upgrade_and_remove_without_tcx(node: Sandbox, newer: Path) -> None:
    bare = node.snapshot()
    check = _dataplane(node, check=True)
    real = _dataplane(node)
    assert (check["steps"], check["after"]) == (real["steps"], real["after"])
    assert not _dataplane(node)["changed"]
    made = _attachments(node, TWO, "merged")
    assert [item["name"] for item in made["after"]] == ["c1", "c2"]
    assert not _attachments(node, TWO, "overridden")["changed"]
    assert _filters(node) == ["c1", "c2", "fastpath0", "up0"]
    assert [pin for pin in node.pins() if "/links/" in pin] == []
    node.ping("c1", *ips(2), "10.128.3.1", "fd00:128:3::1", *FABRIC_ADDRESSES)
    node.ping(None, *ips(1))
    node.ping(FABRIC, *ips(1))
    upgraded = _dataplane(node, newer)
    assert [step["action"].split()[0] for step in upgraded["steps"]] == [
        "keep", "test", "load", *["replace"] * 4, "check", "hand", "record",
    ]  # fmt: skip
    assert not _dataplane(node, newer)["changed"]
    node.ping("c2", *ips(1), *FABRIC_ADDRESSES)
    other = variant("schema", SCHEMA)
    upgraded = _dataplane(node, other)
    assert [step["action"].split()[0] for step in upgraded["steps"][-2:]] == ["unload", "forget"]
    node.ping("c2", *ips(1), *FABRIC_ADDRESSES)
    node.call(_without_tcx, lambda: run.run_dataplane({}, "rolled_back"))
    node.ping("c2", *ips(1), *FABRIC_ADDRESSES)
    assert not _attachments(node, TWO, "overridden")["changed"]
    assert node.call(_without_tcx, status.status)["healthy"]
    assert _attachments(node, [], "deleted", allow_disruption=True)["after"] == []
    gone = node.call(_without_tcx, lambda: run.run_dataplane({}, "deleted", allow_disruption=True))
    assert gone["after"] == {}
    assert _filters(node) == []
    assert node.snapshot() == bare


def test_a_qdisc_and_filter_of_somebody_else_stay(node: Sandbox) -> None:
    node.run("tc", "qdisc", "add", "dev", "up0", "clsact")
    node.run("tc", "filter", "add", "dev", "up0", "egress", "protocol", "ip", "u32", "match", "u32", "0", "0")
    before = node.run("tc", "filter", "show", "dev", "up0", "egress")
    _dataplane(node)
    node.call(_without_tcx, lambda: run.run_dataplane({}, "deleted", allow_disruption=True))
    assert _filters(node) == ["up0"]
    assert node.run("tc", "filter", "show", "dev", "up0", "egress") == before
