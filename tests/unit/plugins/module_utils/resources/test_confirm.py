# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that leads back: who watches it, how long, and runs and watchers that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import apart, cli, run, store
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.plan import Step, StepFailed
from ansible_collections.fastpath.node.plugins.module_utils.resources import confirm
from ansible_collections.fastpath.node.plugins.module_utils.resources.confirm import Undo

UNDO = Undo("thing", 3600, {"value": "old"})
LIBRARY = Path(str(confirm.__file__)).parents[1]
# A resource that is one file, changed in two steps; each process below works on it with the real documents and locks.
PROGRAM = """
import sys, time
from pathlib import Path
from unittest import mock

sys.path.insert(0, {library!r})
from fastpath import cli, run, store
from fastpath.resources import confirm

store.DIRECTORY, store._LOCK = {directory!r}, {folder!r}
thing = Path({folder!r}, "thing")

def write(value):
    thing.write_text(value)
    with open(thing.parent / "history", "a") as file:
        print(value, file=file)

def back(before, wait):
    write(before["value"])
    return {{"steps": [], "absent": []}}

run._UNDO = {{"thing": back}}
"""
CHANGE = """
with store.locked(), confirm.counted():
    print("go", flush=True)
    confirm.arm(confirm.Undo("thing", {timeout}, {{"value": thing.read_text()}}))
    print("armed", flush=True)
    write("half")
    print("half", flush=True)
    time.sleep({work})
    write("new")
print("done", flush=True)
"""
WATCH = """
while not Path(store.path("unconfirmed")).exists():
    time.sleep(0.01)
sys.exit(cli.main(["revert", "--due"]))
"""


class Node:
    """A folder with the documents and the thing, and processes that work on it."""

    def __init__(self, folder: Path) -> None:
        (folder / "library").mkdir()
        (folder / "library" / "fastpath").symlink_to(LIBRARY)
        self.thing = folder / "thing"
        self.thing.write_text("old")
        self.file = folder / "etc" / "unconfirmed.json"
        self._start = PROGRAM.format(library=str(folder / "library"), directory=str(folder / "etc"), folder=str(folder))
        self._history = folder / "history"
        self._started: list[subprocess.Popen[str]] = []

    def process(self, text: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-ISc", self._start + text]
        found = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._started.append(found)
        return found

    def change(self, timeout: int, work: float = 0) -> subprocess.Popen[str]:
        return self.process(CHANGE.format(timeout=timeout, work=work))

    def history(self) -> list[str]:
        return self._history.read_text().split()

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    found = Node(tmp_path)
    yield found
    found.end()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "DIRECTORY", str(tmp_path / "etc"))
    monkeypatch.setattr(store, "_LOCK", str(tmp_path))
    monkeypatch.setattr(confirm, "_PATIENCE", 0.3)
    return tmp_path / "etc"


def said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    pytest.fail(f"it has ended before '{word}'")


def test_the_change_is_taken_back_when_nobody_confirms(node: Node) -> None:
    watcher, change = node.process(WATCH), node.change(timeout=1)
    said(change, "done")
    assert watcher.wait(60) == 0
    assert (node.history(), node.file.exists()) == (["half", "new", "old"], False)


def test_a_run_that_takes_longer_than_the_timeout_is_not_taken_back_while_it_runs(node: Node) -> None:
    watcher, change = node.process(WATCH), node.change(timeout=1, work=2.5)
    said(change, "done")
    assert watcher.wait(60) == 0
    assert node.history() == ["half", "new", "old"]


def test_the_time_begins_anew_when_the_run_ends(node: Node) -> None:
    """Else a long run would leave none."""
    node.process(WATCH)
    change = node.change(timeout=3600, work=0.5)
    said(change, "half")
    first = json.loads(node.file.read_text())["due"]
    said(change, "done")
    assert json.loads(node.file.read_text())["due"] >= first + 0.5


@pytest.mark.parametrize("at", ["go", "armed", "half", "done"])
def test_a_run_that_is_killed_is_taken_back(node: Node, at: str) -> None:
    watcher, change = node.process(WATCH), node.change(timeout=1, work=0 if at == "done" else 30)
    said(change, at)
    change.send_signal(signal.SIGKILL)
    change.wait()
    if at == "go" and not node.file.exists():
        watcher.kill()
    watcher.wait(60)
    assert (node.thing.read_text(), node.file.exists()) == ("old", False)


def test_a_watcher_that_is_killed_is_followed_by_the_next(node: Node) -> None:
    watcher, change = node.process(WATCH), node.change(timeout=1)
    said(change, "done")
    watcher.kill()
    watcher.wait()
    assert node.process(WATCH).wait(60) == 0
    assert (node.thing.read_text(), node.file.exists()) == ("old", False)


def test_what_is_confirmed_stays_and_the_watcher_goes(node: Node) -> None:
    watcher, change = node.process(WATCH), node.change(timeout=3600)
    said(change, "done")
    assert node.process('sys.exit(cli.main(["confirm"]))').wait(60) == 0
    assert watcher.wait(60) == 0
    assert (node.thing.read_text(), node.file.exists()) == ("new", False)


def test_confirmation_and_watcher_at_the_same_moment_agree(node: Node) -> None:
    """Whoever comes second is told."""
    for _round in range(2):
        node.thing.write_text("old")
        watcher, change = node.process(WATCH), node.change(timeout=1)
        said(change, "done")
        due = json.loads(node.file.read_text())["due"]
        late = node.process(f'time.sleep(max(0, {due} - time.clock_gettime(7)))\nsys.exit(cli.main(["confirm"]))')
        kept = late.wait(60) == 0
        assert watcher.wait(60) == 0
        assert (node.thing.read_text(), node.file.exists()) == ("new" if kept else "old", False)


def test_after_a_boot_it_is_due_at_once(directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    confirm._write(UNDO)
    armed = confirm.read()
    assert armed is not None
    assert 0 < armed.left() <= UNDO.timeout
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr(confirm, "_BOOT", str(tmp_path / "boot"))
    assert armed.left() == 0
    done: list[Any] = []

    def back(before: Any, _wait: float) -> dict[str, Any]:
        done.append(before)
        return {"steps": [], "absent": []}

    monkeypatch.setattr(run, "_UNDO", {"thing": back})
    assert list(run.revert(due=True)) == ["thing"]
    assert done == [{"value": "old"}]
    assert confirm.read() is None
    assert run.revert() == {}


def test_without_a_watcher_nothing_is_armed(directory: Path) -> None:
    with pytest.raises(FastpathError, match=r"nothing on this node watches.*role runtime"):
        confirm.arm(UNDO)
    assert confirm.read() is None


def test_a_confirmation_that_comes_too_late_says_so(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["confirm"]) == 1
    assert "the node has taken it back by itself, or it was confirmed before" in capsys.readouterr().err


def failed(stuck: list[str]) -> StepFailed:
    step: Step[None] = Step("do it", "it is wanted", object())  # type: ignore[arg-type]
    return StepFailed(step, OSError("no"), [], stuck)


@pytest.mark.parametrize(
    ("problem", "stays"),
    [(failed([]), False), (failed(["it"]), True), (FastpathError("verify", "it", "it differs"), True)],
)
def test_only_a_run_that_is_taken_back_wholly_needs_no_confirmation(
    directory: Path, problem: FastpathError, stays: bool
) -> None:
    def work() -> None:
        with confirm.counted():
            confirm._write(UNDO)
            raise problem

    with pytest.raises(type(problem)):
        work()
    assert (confirm.read() is not None) == stays


def test_a_run_that_fails_leaves_the_way_back_of_an_earlier_one(directory: Path) -> None:
    confirm._write(UNDO)
    before = confirm.read()
    with pytest.raises(StepFailed), confirm.counted():
        raise failed([])
    assert confirm.read() == before


def test_a_broken_document_is_an_error(directory: Path) -> None:
    store.write("unconfirmed", {"boot": "x"})
    with pytest.raises(FastpathError, match=r"unconfirmed\.json: it lacks something"):
        confirm.read()


def told(work: Callable[[], dict[str, Any]]) -> str:
    with pytest.raises(FastpathError) as caught:
        apart.carry_out(work)
    return str(caught.value)


def test_work_apart_answers_in_the_same_words() -> None:
    def fail() -> dict[str, Any]:
        raise FastpathError("do", "it", "no", "Try again")

    def die() -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    assert apart.carry_out(lambda: {"changed": True}) == {"changed": True}
    assert told(fail) == "cannot do it: no. Try again"
    assert "its process was killed" in told(die)
    assert "ZeroDivisionError" in told(lambda: {"x": 1 // 0})


@pytest.mark.parametrize("ends", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_work_apart_goes_on_when_who_has_asked_is_gone(node: Node, ends: signal.Signals) -> None:
    """As when the connection breaks: sshd and sudo end the whole group of processes."""
    process = node.process(
        "from fastpath import apart\n"
        "def work():\n"
        "    (thing.parent / 'started').touch()\n"
        "    time.sleep(0.5)\n"
        "    print('nobody listens')\n"
        "    thing.write_text('new')\n"
        "    return {}\n"
        "import os\nos.setsid()\n"
        "apart.carry_out(work)"
    )
    until((node.thing.parent / "started").exists)
    os.killpg(process.pid, ends)
    assert process.wait(60) == -ends
    assert node.thing.read_text() == "old"
    until(lambda: node.thing.read_text() == "new")


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
