# SPDX-License-Identifier: GPL-3.0-or-later
"""`fastpath drops --follow` on a node with real packets: what it shows, and that it ends without a trace."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import drops
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath, watch
from tests.integration.conftest import REPOSITORY
from tests.integration.sandbox import FABRIC, UPLINK, Sandbox, attachment, ips

FOREIGN = "10.9.9.9"  # an address that c1 gives itself
_COMMAND = f"""
import sys
sys.path.insert(0, {str(REPOSITORY / "build")!r})
from ansible_collections.fastpath.node.plugins.module_utils.cli import main
sys.exit(main(sys.argv[1:]))
"""
_PATIENCE = 30  # seconds until a test that waits has failed


class Follower:
    """A running `fastpath drops --follow`."""

    def __init__(self, node: Sandbox, process: subprocess.Popen[str]) -> None:
        self.node = node
        self.process = process

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def first(self, **said: Any) -> dict[str, Any]:
        """The first line of JSON that says so; a starting container makes some noise of its own."""
        while text := self.line():
            found: dict[str, Any] = json.loads(text)
            if said.items() <= found.items():
                return found
        raise AssertionError(self.end())

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said on stderr."""
        _out, err = self.process.communicate(timeout=_PATIENCE)
        return self.process.returncode, err


def watched_until() -> int:
    with bpf.Map.open(datapath.MAPS / "drop_watch") as table:
        return int.from_bytes(table.get(bytes(4)) or b"", sys.byteorder)


@contextmanager
def command(node: Sandbox, *arguments: str) -> Iterator[Follower]:
    argv = node.command([sys.executable, "-c", _COMMAND, "drops", "--follow", *arguments])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(_PATIENCE, process.kill)
        guard.start()
        try:
            yield Follower(node, process)
        finally:
            guard.cancel()
            process.kill()


@contextmanager
def following(node: Sandbox, *arguments: str) -> Iterator[Follower]:
    """The command, once the dataplane knows of it."""
    before = node.call(watched_until)  # perhaps of one that was killed
    with command(node, *arguments) as follower:
        while node.call(watched_until) == before and follower.process.poll() is None:
            time.sleep(0.02)
        yield follower


def spoof(node: Sandbox, packets: int = 1) -> None:
    """c1 sends from an address that is not its own, all at once."""
    options = ("-q", "-c", str(packets), "-l", str(packets), "-W", "0.1", "-I", FOREIGN)
    node.succeeds("ping", *options, ips(2)[0], container="c1")


@pytest.fixture
def busy(node: Sandbox) -> Sandbox:
    """A node with two attachments."""
    node.dataplane()
    node.attachments([attachment(1), attachment(2)])
    node.run("ip", "address", "add", f"{FOREIGN}/32", "dev", "eth0", container="c1")
    node.ping("c1", ips(2)[0])  # so that it knows the gateway's MAC: asking for it would be spoofed too
    return node


def test_a_spoofed_packet(busy: Sandbox) -> None:
    with following(busy, "--json") as follower:
        spoof(busy)
        found = follower.first(reason="spoofed")
    said = {"hook": "from_container", "interface": "c1", "rule": 0, "length": 98, "protocol": "icmp"}
    said |= {"src": FOREIGN, "dst": ips(2)[0], "type": 8, "code": 0}
    assert said.items() <= found.items()


def test_from_the_wire_as_text(busy: Sandbox) -> None:
    with following(busy) as follower:
        busy.succeeds("ping", "-c1", "-W0.1", "-t1", ips(1)[1], container=FABRIC)
        while " ttl: " not in (text := follower.line()):
            assert text
    where, what = text.rstrip().split(" ttl: ")
    assert where.split()[1:] == ["from_wire", UPLINK]
    assert what == f"icmpv6 fd00:192::1 > {ips(1)[1]} type 128 code 0, 118 bytes"


def test_count_and_then_nobody_watches(busy: Sandbox) -> None:
    with following(busy, "--json", "--count", "2") as follower:
        spoof(busy, 5)
        assert [json.loads(follower.line())["hook"] for _ in range(2)]
        assert follower.line() == ""
        assert follower.end() == (0, "")
    assert busy.call(watched_until) == 0


def test_what_is_too_much_is_counted(busy: Sandbox) -> None:
    with following(busy, "--json") as follower:
        spoof(busy, 400)
        shown = 0
        while "left_out" not in (found := json.loads(follower.line())):
            shown += found["reason"] == "spoofed"
    assert 50 <= shown < 400
    assert shown + found["left_out"] >= 400


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_interrupted(busy: Sandbox, options: tuple[str, ...]) -> None:
    with following(busy, *options) as follower:
        follower.process.send_signal(signal.SIGINT)
        assert follower.end() == (0, "")
    assert busy.call(watched_until) == 0


@pytest.mark.parametrize("packets", [0, 5])
def test_nobody_reads_on(busy: Sandbox, packets: int) -> None:
    """Told by the next packet, and without one."""
    for name in ("c1", "c2") if not packets else ():
        busy.run("ip", "link", "set", "eth0", "down", container=name)  # so that there is none
    with following(busy) as follower:
        assert follower.process.stdout
        assert follower.process.stderr
        follower.process.stdout.close()
        if packets:
            spoof(busy, packets)
        assert follower.process.wait(_PATIENCE) == 0
        assert follower.process.stderr.read() == ""
    assert busy.call(watched_until) == 0


def test_one_at_a_time(busy: Sandbox) -> None:
    with following(busy), command(busy) as second:
        status, said = second.end()
        assert status == 1
        assert said == "fastpath: cannot watch drops: somebody already does, and only one can\n"
    with following(busy, "--json") as third:
        spoof(busy)
        assert third.first(reason="spoofed")


def test_no_dataplane(node: Sandbox) -> None:
    with command(node) as follower:
        assert follower.end() == (1, "fastpath: cannot watch drops: no dataplane is installed\n")


def test_only_root(busy: Sandbox) -> None:
    argv = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", _COMMAND, "drops", "--follow"]
    done = subprocess.run(busy.command(argv), capture_output=True, text=True, timeout=_PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_goes_on_through_an_upgrade(busy: Sandbox, newer: Path) -> None:
    with following(busy, "--json") as follower:
        spoof(busy)
        assert follower.first(reason="spoofed")
        busy.dataplane(path=str(newer))
        spoof(busy)
        assert follower.first(reason="spoofed")


def test_dataplane_removed(busy: Sandbox) -> None:
    with following(busy) as follower:
        busy.remove()
        assert follower.end() == (1, "fastpath: cannot watch drops: the dataplane was removed\n")


def _abandon() -> None:
    """As one that was killed leaves it, and with a long time to go."""
    with bpf.Map.open(datapath.MAPS / "drop_watch") as table:
        table.set(bytes(4), (2**63).to_bytes(8, sys.byteorder))


def _read() -> list[str]:
    """The reasons that a new reader finds."""
    with watch.Watch() as one:
        return [drops.decode(event).reason for event in one.read(1)]


def test_old_events_are_not_shown(busy: Sandbox) -> None:
    busy.call(_abandon)
    spoof(busy)
    assert "spoofed" not in busy.call(_read)


def _left_out() -> tuple[int, ...]:
    """What a reader is told after each CPU has left out seven events."""
    with watch.Watch() as one, bpf.PerCpuMap.open(datapath.MAPS / "drop_limit") as table:
        value = table.get(bytes(4)) or []
        table.set(
            bytes(4),
            [old[:16] + (int.from_bytes(old[16:], sys.byteorder) + 7).to_bytes(8, sys.byteorder) for old in value],
        )
        return len(value), one.left_out(), one.left_out()


def test_what_is_left_out_is_told_once(busy: Sandbox) -> None:
    for _ in range(2):
        cpus, told, again = busy.call(_left_out)
        assert (told, again) == (7 * cpus, 0)


def _replaced(path: str) -> list[bool]:
    """Before and after another map took the place of the watched one."""
    with watch.Watch() as one, bpf.load(Path(path).read_bytes()) as loaded:
        seen = [one.replaced()]
        bpf.pin(loaded.maps["events"], datapath.MAPS / "events", replace=True)
        return [*seen, one.replaced()]


def test_another_map_is_noticed(busy: Sandbox) -> None:
    assert busy.call(_replaced, str(busy.object_file)) == [False, True]


def _late() -> tuple[float, ...]:
    """What a reader that always comes too late is told: nothing at first, then something, and that once."""
    watch._PATIENCE_NS = 0
    with watch.Watch() as one:
        one.read(1)
        first = one.unwatched()
        one.read(1)
        return first, one.unwatched(), one.unwatched()


def test_late_reader_is_told(busy: Sandbox) -> None:
    first, second, third = busy.call(_late)
    assert (first, third) == (0, 0)
    assert second > 0
