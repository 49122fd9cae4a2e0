# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's command: what it imports, what it says, what it returns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import cli, run, status, store
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError

RESOURCES = ("eswitch", "dataplane", "attachments", "policies")
LIBRARY = Path(str(cli.__file__)).parent


def imported(statement: str, folder: Path) -> set[str]:
    """The modules that a bare interpreter has after the statement, with the library below `folder`."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {statement}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-ISc", code], text=True).split())


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    (tmp_path / "fastpath").symlink_to(LIBRARY)
    return tmp_path


def test_command_needs_the_standard_library_only(installed: Path) -> None:
    """Nothing else can be imported here; this names what must never be tried."""
    found = {name.partition(".")[0] for name in imported("import fastpath.cli", installed)}
    assert "fastpath" in found
    assert not found & {"ansible", "ansible_collections", "pyroute2", "yaml", "jinja2"}


def test_command_starts_fast(installed: Path) -> None:
    """Modules that cost many milliseconds each on a node, and that nothing here needs."""
    found = imported("import fastpath.cli", installed)
    assert not found & {"asyncio", "ssl", "http.client", "urllib.request", "email", "xml.etree", "multiprocessing"}


RESULT = {
    "changed": True,
    "before": {},
    "after": {},
    "diff": {},
    "steps": [{"action": "do it", "reason": "it is not done", "disruptive": False}],
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, str, dict[str, Any]]]:
    """What the command asks of the resources, in order."""
    seen: list[tuple[str, Any, str, dict[str, Any]]] = []

    def runner(name: str) -> Any:
        def call(config: Any, state: str, **options: Any) -> dict[str, Any]:
            seen.append((name, config, state, options))
            return RESULT

        return call

    monkeypatch.setattr(run, "run_eswitch", runner("eswitch"))
    monkeypatch.setattr(run, "restore_eswitch", lambda items, **options: runner("eswitch")(items, "", **options))
    monkeypatch.setattr(run, "run_dataplane", runner("dataplane"))
    monkeypatch.setattr(run, "run_attachments", runner("attachments"))
    monkeypatch.setattr(run, "run_policies", runner("policies"))
    return seen


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is kept; an exception is what reading it gives."""
    kept: dict[str, Any] = {"dataplane": {"routing": "fabric"}, "attachments": [{"name": "web-1"}], "policies": {}}
    kept["eswitch"] = [{"device": {"serial": "MT1"}}]

    def read(resource: str) -> Any:
        if isinstance(kept.get(resource), Exception):
            raise kept[resource]
        return kept.get(resource)

    monkeypatch.setattr(store, "read", read)
    return kept


Calls = list[tuple[str, Any, str, dict[str, Any]]]


def test_apply_converges_nics_and_the_dataplane_first(
    calls: Calls, documents: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["apply", "--skip-absent"]) == 0
    assert [(name, config, state) for name, config, state, _options in calls] == [
        ("eswitch", documents["eswitch"], ""),
        ("dataplane", documents["dataplane"], "replaced"),
        ("attachments", documents["attachments"], "overridden"),
        ("policies", [], "merged"),
    ]
    assert calls[2][3]["skip_absent"] is True
    assert not any(options["check"] or options.get("allow_disruption") for *_rest, options in calls)
    assert "do it: it is not done" in capsys.readouterr().out


def test_others_count_on_nics_that_are_going_to_change(
    calls: Calls, documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*command: str) -> Any:
        calls.clear()
        cli.main(list(command))
        options = {name: options for name, *_rest, options in calls}
        return options["dataplane"]["nics"], options["attachments"]["ahead"]

    nics, dataplane = documents["eswitch"], documents["dataplane"]
    assert told("plan") == (nics, run.Ahead(dataplane, nics))
    assert told("plan", "--only", "dataplane", "attachments") == (None, run.Ahead(dataplane))
    monkeypatch.setitem(RESULT, "changed", False)
    assert told("plan") == (None, run.Ahead(dataplane))


@pytest.mark.parametrize("missing", RESOURCES)
def test_resource_without_a_document_is_left_alone(calls: Calls, documents: dict[str, Any], missing: str) -> None:
    del documents[missing]
    assert cli.main(["apply"]) == 0
    assert missing not in [name for name, *_rest in calls]


@pytest.mark.parametrize("broken", RESOURCES)
@pytest.mark.parametrize("command", ["apply", "plan"])
def test_broken_document_keeps_nothing_else_from_coming_back(
    calls: Calls, documents: dict[str, Any], broken: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    documents[broken] = FastpathError("read", broken, "it is empty")
    assert cli.main([command]) == 1
    assert [name for name, *_rest in calls] == [name for name in RESOURCES if name != broken]
    found = capsys.readouterr()
    assert found.err == f"fastpath: cannot read {broken}: it is empty\n"
    assert "do it: it is not done" in found.out


def test_failed_dataplane_does_not_keep_attachments_from_being_tried(
    calls: Calls, documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise PermissionError(1, "not you")

    monkeypatch.setattr(run, "run_dataplane", fail)
    assert cli.main(["apply"]) == 1
    assert [name for name, *_rest in calls] == ["eswitch", "attachments", "policies"]
    assert "not you" in capsys.readouterr().err


def test_only_some(calls: Calls, documents: dict[str, Any]) -> None:
    assert cli.main(["apply", "--only", "policies", "eswitch", "--wait", "30"]) == 0
    assert [name for name, *_rest in calls] == ["eswitch", "policies"]
    assert calls[0][3]["wait"] == 30


def test_nic_that_is_not_there_is_told_and_keeps_nothing_from_coming_back(
    calls: Calls, documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RESULT, "absent", ["serial MT1"])
    assert cli.main(["apply", "--only", "eswitch"]) == 1
    found = capsys.readouterr()
    assert found.err == "fastpath: cannot find the NIC with serial MT1\n"
    assert "do it: it is not done" in found.out


def test_plan_only_checks_and_its_status_tells(
    calls: Calls, documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["plan"]) == 2
    assert all(options["check"] for *_rest, options in calls)
    monkeypatch.setitem(RESULT, "changed", False)
    assert cli.main(["plan"]) == 0


def test_rollback_asks_for_what_ran_before(calls: Calls) -> None:
    assert cli.main(["rollback"]) == 0
    assert [(name, config, state) for name, config, state, _options in calls] == [("dataplane", {}, "rolled_back")]


def test_remove_takes_attachments_first(calls: Calls) -> None:
    assert cli.main(["remove"]) == 0
    assert [(name, config, state) for name, config, state, _options in calls] == [
        ("attachments", [], "deleted"),
        ("policies", [], "deleted"),
        ("dataplane", {}, "deleted"),
        ("eswitch", [], "deleted"),
    ]


@pytest.mark.parametrize("command", ["plan", "apply", "remove"])
@pytest.mark.usefixtures("calls", "documents")
def test_json_is_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([command, "--json"])
    assert json.loads(capsys.readouterr().out) == dict.fromkeys(RESOURCES, RESULT)


@pytest.mark.parametrize("problem", [FastpathError("read", "it", "broken", "Mend it"), PermissionError(1, "not you")])
def test_failure_is_one_line_and_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: Exception
) -> None:
    def fail() -> None:
        raise problem

    monkeypatch.setattr(status, "status", fail)
    assert cli.main(["status"]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == f"fastpath: {problem}\n"


def test_what_was_cut_is_said(
    calls: Calls, documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RESULT, "flows", {"revoked": 3, "told": 0})
    monkeypatch.setitem(RESULT, "warnings", ["nobody was told"])
    assert cli.main(["apply"]) == 0
    said = capsys.readouterr().out
    assert "policies: 1 step(s)\n  do it: it is not done\n  3 open flow(s) are denied now and were cut\n" in said
    assert "  warning: nobody was told\n" in said


def test_given_drops_what_nobody_gave() -> None:
    assert run.given([{"name": "a", "mtu": None, "routes": [{"to": "x", "via": None}]}]) == [
        {"name": "a", "routes": [{"to": "x"}]}
    ]


def test_given_leaves_labels_for_the_check() -> None:
    assert run.given({"labels": {"app": None}, "namespace": None}) == {"labels": {"app": None}}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [([], (False, None)), (["--json"], (True, None)), (["--count", "3", "--json"], (True, 3))],
)
def test_drops(monkeypatch: pytest.MonkeyPatch, arguments: list[str], asked: tuple[bool, int | None]) -> None:
    calls: list[tuple[bool, int | None]] = []
    monkeypatch.setattr(cli, "follow", lambda *given: calls.append(given))
    assert cli.main(["drops", "--follow", *arguments]) == 0
    assert calls == [asked]


@pytest.mark.parametrize("arguments", [[], ["--count", "1"], *(["--follow", "--count", n] for n in ("0", "-1", "x"))])
def test_drops_refuses(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["drops", *arguments])
    assert ended.value.code == 2
    assert "fastpath drops: error: " in capsys.readouterr().err
