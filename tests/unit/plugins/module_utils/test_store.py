# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's documents: replaced at once or not at all."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import store
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc" / "fastpath"
    monkeypatch.setattr(store, "DIRECTORY", str(path))
    monkeypatch.setattr(store, "_LOCK", str(tmp_path))
    path.parent.mkdir()
    return path


def test_what_is_written_is_read(directory: Path) -> None:
    document = {"prefixes": ["10.128.3.0/24"], "routing": "fabric", "name": "nœud"}
    store.write("dataplane", document)
    assert store.read("dataplane") == document
    assert os.listdir(directory) == ["dataplane.json"]
    text = (directory / "dataplane.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == document


def test_small_documents_are_for_people_and_large_ones_are_not(directory: Path) -> None:
    for count, legible in ((3, True), (100_000, False)):
        document = {"policies": [{"name": "x" * 20}] * count}
        store.write("policies", document)
        assert store.read("policies") == document
        text = (directory / "policies.json").read_text()
        assert (text.count("\n") > 1) == legible
        assert text.endswith("}\n")


def test_no_document_is_none(directory: Path) -> None:
    assert store.read("dataplane") is None
    assert not directory.exists()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_document_is_readable_whatever_the_umask(directory: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store.write("dataplane", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((directory / "dataplane.json").stat().st_mode) == 0o644


def test_draft_of_a_killed_run_is_overwritten(directory: Path) -> None:
    directory.mkdir()
    draft = directory / ".attachments.json.new"
    draft.write_text("[" + "x" * 10_000)
    store.write("attachments", [{"name": "web-1"}])
    assert os.listdir(directory) == ["attachments.json"]
    assert store.read("attachments") == [{"name": "web-1"}]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_death_before_the_rename_keeps_the_old_document(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store.write("dataplane", {"version": 1})

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, die)
        with pytest.raises(KeyboardInterrupt):
            store.write("dataplane", {"version": 2})
    assert store.read("dataplane") == {"version": 1}
    store.write("dataplane", {"version": 3})
    assert store.read("dataplane") == {"version": 3}
    assert os.listdir(directory) == ["dataplane.json"]


def test_content_reaches_the_disk_before_the_name(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor: int) -> None:
        calls.append("fsync " + ("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"))
        fsync(descriptor)

    def logged_replace(source: str, target: str) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    store.write("dataplane", {})
    assert calls == ["fsync file", "replace", "fsync directory"]


def test_a_document_that_is_no_json_type_leaves_the_old_one(directory: Path) -> None:
    store.write("dataplane", {"version": 1})
    with pytest.raises(TypeError):
        store.write("dataplane", {"routes": {object()}})
    assert store.read("dataplane") == {"version": 1}


def test_none_removes_the_document(directory: Path) -> None:
    store.write("dataplane", {})
    store.write("attachments", [])
    store.write("dataplane", None)
    assert os.listdir(directory) == ["attachments.json"]
    store.write("dataplane", None)  # a second time is fine
    assert store.read("dataplane") is None


def test_end_of_a_run_tidies_up(directory: Path) -> None:
    store.write("attachments", [])
    (directory / ".dataplane.json.new").write_text("{")
    with store.locked():
        assert len(os.listdir(directory)) == 2
    assert os.listdir(directory) == ["attachments.json"]
    with store.locked():
        store.write("attachments", None)
    assert not directory.exists()


def test_directory_with_a_foreign_file_stays(directory: Path) -> None:
    store.write("dataplane", {})
    (directory / "notes").write_text("mine")
    with store.locked():
        store.write("dataplane", None)
    assert os.listdir(directory) == ["notes"]


BROKEN = [b"", b"{", b'{"a": 1}}', b"\xff\xfe", bytes(4096), b"null", b"7", b'"text"']


@pytest.mark.parametrize("content", [*BROKEN, b"[]"])
def test_broken_document_says_what_to_do(directory: Path, content: bytes) -> None:
    directory.mkdir()
    (directory / "dataplane.json").write_bytes(content)
    with pytest.raises(FastpathError) as caught:
        store.read("dataplane")
    assert str(directory / "dataplane.json") in str(caught.value)
    assert "Run the playbook again" in caught.value.hint
    assert store.problems() == [str(caught.value)]


@pytest.mark.parametrize("content", [*BROKEN, b"{}"])
def test_broken_document_is_replaced(directory: Path, content: bytes) -> None:
    directory.mkdir()
    (directory / "attachments.json").write_bytes(content)
    assert store.salvaged("attachments", "broken") == "broken"
    store.write("attachments", [])
    assert store.salvaged("attachments", "broken") == store.read("attachments") == []
    assert store.problems() == []


@pytest.mark.usefixtures("directory")
def test_nothing_is_broken_where_there_is_nothing() -> None:
    assert store.problems() == []
    assert store.salvaged("dataplane", "broken") is None


@pytest.mark.usefixtures("directory")
def test_one_run_at_a_time() -> None:
    second = threading.Event()

    def other() -> None:
        with store.locked():
            second.set()

    thread = threading.Thread(target=other)
    with store.locked():
        thread.start()
        assert not second.wait(0.2)
    assert second.wait(10)
    thread.join()


@pytest.mark.usefixtures("directory")
def test_lock_is_free_after_a_failure() -> None:
    with pytest.raises(RuntimeError), store.locked():
        raise RuntimeError
    with store.locked():
        pass
