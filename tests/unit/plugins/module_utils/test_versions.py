# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that a node keeps, by their content."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import store, versions
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError


@pytest.fixture(autouse=True)
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "fastpath" / "objects"
    monkeypatch.setattr(versions, "OBJECTS", str(folder))
    monkeypatch.setattr(versions, "OBJECT", str(tmp_path / "brought.o"))
    monkeypatch.setattr(store, "DIRECTORY", str(tmp_path / "etc"))
    (tmp_path / "brought.o").write_bytes(b"one")
    return folder


ONE = "fe05bcdcdc49"  # sha1 of "one"


def test_kept_object_is_found_by_its_content(objects: Path) -> None:
    versions.keep(ONE, versions.OBJECT)
    assert versions.kept() == {ONE}
    assert versions.read(ONE) == b"one"
    assert [path.name for path in objects.iterdir()] == [f"{ONE}.bpf.o"]
    versions.keep(ONE, versions.OBJECT)
    versions.forget([ONE, "nothing"])
    assert versions.kept() == frozenset()
    assert not objects.parent.exists()


def test_damaged_object_is_not_kept(objects: Path) -> None:
    versions.keep(ONE, versions.OBJECT)
    (objects / f"{ONE}.bpf.o").write_bytes(b"on")
    assert versions.kept() == frozenset()


def test_draft_of_a_killed_run_counts_for_nothing_and_goes(objects: Path) -> None:
    versions.keep(ONE, versions.OBJECT)
    (objects / f".{ONE}.bpf.o.new").write_bytes(b"o")
    assert versions.kept() == {ONE}
    versions.forget(["another"])
    assert [path.name for path in objects.iterdir()] == [f"{ONE}.bpf.o"]


@pytest.mark.parametrize("missing", [True, False])
def test_an_object_that_is_not_what_it_should_be(tmp_path: Path, missing: bool) -> None:
    if missing:
        (tmp_path / "brought.o").unlink()
    with pytest.raises(FastpathError, match="there is no such file" if missing else "cannot keep object ba9876543210"):
        versions.keep("ba9876543210", versions.OBJECT)
    assert versions.kept() == frozenset()


def test_recorded_object_is_wanted_as_long_as_it_is_kept() -> None:
    assert versions.wanted() == versions.OBJECT
    store.write("programs", {"current": ONE, "previous": "", "rolled_back": False})
    assert versions.wanted() == versions.OBJECT
    versions.keep(ONE, versions.OBJECT)
    assert versions.wanted() == versions.path(ONE)
