# SPDX-License-Identifier: GPL-3.0-or-later
"""The library on a node: its plan from any state, and the files, in a folder that stands for the node."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fastpath.node.plugins.module_utils import cli, plan, store
from ansible_collections.fastpath.node.plugins.module_utils.resources import confirm, runtime

VERSIONS = ("aaa", "bbb", "ccc")
TEXTS = st.sampled_from(["old text", *runtime.FILES.values()])
STATES = st.sets(st.sampled_from(VERSIONS)).flatmap(
    lambda versions: st.builds(
        runtime.State,
        st.sampled_from(["", "damaged", *sorted(versions)]),
        st.just(frozenset(versions)),
        st.dictionaries(st.sampled_from(sorted(runtime.FILES)), TEXTS),
    )
)
WANTS = st.sampled_from(["", *VERSIONS])


@given(STATES, WANTS, st.floats(0, 1))
def test_plan_converges_from_any_state_and_after_a_kill(state: runtime.State, want: str, cut: float) -> None:
    steps = tuple(runtime.plan(state, want))
    end = plan.predict(state, steps)
    assert tuple(runtime.plan(end, want)) == ()
    assert end.versions == frozenset([want] if want else [])
    assert end.files == (runtime.FILES if want else {})
    killed = plan.predict(state, steps[: round(cut * len(steps))])
    assert plan.predict(killed, tuple(runtime.plan(killed, want))) == end


@given(STATES, WANTS, st.floats(0, 1))
def test_failed_upgrade_goes_back_to_what_was_there(state: runtime.State, want: str, cut: float) -> None:
    steps = tuple(runtime.plan(state, want))
    tried = [step for step in steps[: round(cut * len(steps))] if not isinstance(step.do, runtime.Remove)]
    end = plan.predict(state, tried)
    for step in reversed(tried):
        for op in step.undo:
            end = op.effect(end)
    assert end.files == state.files
    assert end.versions == state.versions
    if state.library != "damaged":
        assert end.library == state.library


@given(STATES, WANTS)
def test_operations_may_be_repeated(state: runtime.State, want: str) -> None:
    for step in runtime.plan(state, want):
        state = step.do.effect(state)
        assert step.do.effect(state) == state


def test_digest_sees_names_and_contents() -> None:
    texts: list[dict[str, str]] = [{}, {"a": "b"}, {"ab": ""}, {"a": "", "b": ""}, {"b": "", "a": "x"}]
    digests = {runtime.digest(text) for text in texts}
    assert len(digests) == len(texts)
    assert runtime.digest({"a": "1", "b": "2"}) == runtime.digest({"b": "2", "a": "1"})


def test_units_call_what_the_command_knows() -> None:
    """Together they leave no document out, and none to both."""
    calls = re.findall("^ExecStart=/usr/bin/fastpath (.*)$", "".join(runtime.FILES.values()), re.MULTILINE)
    parsed = [cli._parser().parse_args(call.split()) for call in calls]
    called = [options.only for options in parsed if options.command == "apply"]
    assert sorted(name for names in called for name in names) == sorted(cli._RESOURCES)
    assert [options.due for options in parsed if options.command != "apply"] == [True]


def test_the_watcher_waits_for_the_file_that_is_written() -> None:
    for path in (runtime.CONFIRM_UNIT, runtime.CONFIRM_PATH):
        assert f"PathExists={store.path(confirm.DOCUMENT)}\n" in runtime.FILES[path]


LIBRARY = Path(str(runtime.__file__)).parents[1]
FILES = {f"fastpath/{path.relative_to(LIBRARY)}": path.read_text(encoding="utf-8") for path in LIBRARY.rglob("*.py")}


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_library_knows_its_own_sources(tmp_path: Path, form: str) -> None:
    """As the node has it, and as Ansible sends it to a node."""
    place = tmp_path / form
    if form == "zip":
        with zipfile.ZipFile(place, "w") as archive:
            for name, text in FILES.items():
                archive.writestr(name, text)
    else:
        place.mkdir()
        (place / "fastpath").symlink_to(LIBRARY)
    code = f"import sys, json; sys.path.insert(0, {str(place)!r}); from fastpath.resources import runtime; "
    found = subprocess.check_output([sys.executable, "-ISBc", code + "print(json.dumps(runtime.library()))"])
    assert json.loads(found) == FILES


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the node's root."""
    files = {str(tmp_path / path.lstrip("/")): text for path, text in runtime.FILES.items()}
    modes = {str(tmp_path / path.lstrip("/")): mode for path, mode in runtime._MODES.items()}
    root = tmp_path / "usr" / "lib" / "fastpath"
    for name, value in {"FILES": files, "_MODES": modes, "ROOT": root, "CURRENT": root / "current"}.items():
        monkeypatch.setattr(runtime, name, value)
    return tmp_path


def install(sources: dict[str, str], **options: Any) -> plan.Result:
    return plan.converge(runtime.Runtime(sources), runtime.digest(sources) if sources else "", **options)


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_installed_twice_is_installed_once(node: Path) -> None:
    sources = {"fastpath/__init__.py": "", "fastpath/cli.py": "x = 1\n"}
    assert install(sources, check=True).changed
    assert contents(node) == set()
    assert install(sources).changed
    assert not install(sources).changed
    command = node / "usr/bin/fastpath"
    assert stat.S_IMODE(command.stat().st_mode) == 0o755
    assert stat.S_IMODE((node / "etc/systemd/system/fastpath.service").stat().st_mode) == 0o644
    assert (runtime.CURRENT / "fastpath/cli.py").read_text(encoding="utf-8") == "x = 1\n"


def test_upgrade_leaves_nothing_of_the_old_version(node: Path) -> None:
    install({"fastpath/old.py": ""})
    install({"fastpath/new.py": ""})
    assert not [path for path in contents(node) if path.endswith("old.py")]
    assert (runtime.CURRENT / "fastpath/new.py").exists()


def test_damaged_library_is_seen_and_mended(node: Path) -> None:
    sources = {"fastpath/cli.py": "x = 1\n"}
    install(sources)
    (runtime.CURRENT / "fastpath/cli.py").write_text("x = 2\n", encoding="utf-8")
    assert install(sources).changed
    assert (runtime.CURRENT / "fastpath/cli.py").read_text(encoding="utf-8") == "x = 1\n"
    assert not install(sources).changed


def test_removed_leaves_only_what_is_not_ours(node: Path) -> None:
    install({"fastpath/cli.py": ""})
    (runtime.ROOT / "fastpath.bpf.o").write_bytes(b"object")
    assert install({}).changed
    assert contents(node) == {"usr/lib/fastpath/fastpath.bpf.o"}
    assert not install({}).changed


def test_installed_command_runs_without_site_packages(node: Path) -> None:
    install(FILES)
    command = (node / "usr/bin/fastpath").read_text(encoding="utf-8").replace("/usr/lib", f"{node}/usr/lib")
    run = subprocess.run(
        [sys.executable, "-IS", "-c", command, "--help"], capture_output=True, text=True, check=True, env={}
    )
    assert "apply" in run.stdout
    assert os.listdir(runtime.ROOT / runtime.digest(FILES)) == ["fastpath"]
