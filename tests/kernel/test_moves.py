# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves as user space writes them, in the map that the programs read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath
from tests.bpf.dataplane import OBJECT


def test_moves(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datapath, "MAPS", bpffs / "maps")
    assert datapath.moves() == {}  # an older dataplane has no such map
    with bpf.load(OBJECT.read_bytes(), bpffs / "maps"):
        assert datapath.moves() == {}
        datapath.move(7, 9)
        datapath.move(9, 7)
        datapath.move(7, 5)
        assert datapath.moves() == {7: 5, 9: 7}
        datapath.unmove([7, 8])
        datapath.unmove([])
        assert datapath.moves() == {9: 7}


def test_every_program_is_known_by_name() -> None:
    with bpf.load(OBJECT.read_bytes()) as loaded:
        assert loaded.programs.keys() == datapath.ALL | {"redecide", "asked"}
