# SPDX-License-Identifier: GPL-3.0-or-later
"""tcx links: attach, replace under traffic, survive their maker, end with the interface."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, netns

from .conftest import Wire, run
from .traffic import flowing, seen, send

MAKER = """
import sys
from pathlib import Path
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, netns
obj, pins, namespace, ifindex = sys.argv[1:]
with netns.entered(namespace), bpf.load(Path(obj).read_bytes(), Path(pins) / "maps") as loaded:
    with bpf.attach(loaded.programs["first"], int(ifindex), bpf.TCX_INGRESS) as link:
        bpf.pin(link, Path(pins) / "links" / "near")
"""


needs_tcx = pytest.mark.skipif(not bpf.has_tcx(), reason="this kernel has no tcx links (6.6)")


def test_tcx_is_there_from_6_6_on() -> None:
    assert bpf.has_tcx() == (tuple(map(int, platform.release().split(".")[:2])) >= (6, 6))


@needs_tcx
def test_attach_query_detach(sample: bytes, wire: Wire) -> None:
    with bpf.load(sample) as loaded, netns.entered(wire.netns):
        ids = {name: bpf.program_info(fd).id for name, fd in loaded.programs.items()}
        with (
            bpf.attach(loaded.programs["first"], wire.near, bpf.TCX_INGRESS) as link,
            bpf.attach(loaded.programs["second"], wire.near, bpf.TCX_INGRESS),
        ):
            assert bpf.query(wire.near, bpf.TCX_INGRESS) == [ids["first"], ids["second"]]
            assert bpf.query(wire.near, bpf.TCX_EGRESS) == []
            info = bpf.link_info(link)
            assert info[1:] == (ids["first"], bpf.TCX_INGRESS, wire.near)
            send(wire.netns, "far", 3)
            assert seen(loaded) == [3, 0]  # the first one's verdict is final: TC_ACT_OK
            bpf.link_detach(link)
            assert bpf.query(wire.near, bpf.TCX_INGRESS) == [ids["second"]]
            assert bpf.link_info(link).ifindex == 0
        assert bpf.query(wire.near, bpf.TCX_INGRESS) == []


@needs_tcx
def test_a_pinned_link_survives_its_maker_and_is_updated_by_another(
    sample: bytes, wire: Wire, bpffs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    obj = tmp_path_factory.mktemp("object") / "sample.o"
    obj.write_bytes(sample)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    arguments = [str(obj), str(bpffs), wire.netns, str(wire.near)]
    subprocess.run([sys.executable, "-c", MAKER, *arguments], env=environment, check=True)
    with bpf.load(sample, bpffs / "maps") as loaded, netns.entered(wire.netns):
        send(wire.netns, "far", 5)
        assert seen(loaded) == [5, 0]
        with bpf.get(bpffs / "links" / "near") as link:
            bpf.link_update(link, loaded.programs["second"])
        second = bpf.program_info(loaded.programs["second"]).id
        assert bpf.query(wire.near, bpf.TCX_INGRESS) == [second]
        send(wire.netns, "far", 7)
        assert seen(loaded) == [5, 7]
        bpf.detach(bpffs / "links" / "near")
        assert bpf.query(wire.near, bpf.TCX_INGRESS) == []
        assert not (bpffs / "links" / "near").exists()
        bpf.detach(bpffs / "links" / "near")


@needs_tcx
def test_an_update_under_traffic_loses_nothing(sample: bytes, wire: Wire) -> None:
    with bpf.load(sample) as loaded:
        with netns.entered(wire.netns):
            link = bpf.attach(loaded.programs["first"], wire.near, bpf.TCX_INGRESS)
        with link, flowing(wire.netns, "far", 20000) as sender:
            while sender.poll() is None:
                for name in ("second", "first"):
                    bpf.link_update(link, loaded.programs[name])
        counts = seen(loaded)
        assert sum(counts) == 20000
        assert min(counts) > 0


@needs_tcx
def test_a_link_of_a_deleted_interface_is_dead_but_described(sample: bytes, wire: Wire, bpffs: Path) -> None:
    with bpf.load(sample) as loaded, netns.entered(wire.netns):
        with bpf.attach(loaded.programs["first"], wire.near, bpf.TCX_INGRESS) as link:
            bpf.pin(link, bpffs / "near")
        run("ip", "link", "del", "near")
        with bpf.get(bpffs / "near") as link:
            assert bpf.link_info(link).ifindex == 0
            with pytest.raises(bpf.BpfError) as caught:
                bpf.link_update(link, loaded.programs["second"])
            assert caught.value.errno == errno.ENOLINK
        bpf.detach(bpffs / "near")


def test_attach_to_no_interface_names_it(sample: bytes) -> None:
    with bpf.load(sample) as loaded, pytest.raises(bpf.BpfError, match="interface 987654"):
        bpf.attach(loaded.programs["first"], 987654, bpf.TCX_INGRESS)
