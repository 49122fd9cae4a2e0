# SPDX-License-Identifier: GPL-3.0-or-later
"""Another version of the programs takes over under traffic, is refused or taken back when it is bad, and goes back."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import cli, run, status, store, versions
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath, hooks, links, rtnl
from tests.integration.conftest import OBJECT
from tests.integration.sandbox import DATAPLANE, FABRIC, Refused, Result, Sandbox, attachment, ips, predicted
from tests.integration.variants import BROKEN, SCHEMA, SICK, variant

TWO = [attachment(1), attachment(2)]
# 400 packets a second for 4 s, each with its own number
_STREAM = ("ping", "-q", "-i", "0.0025", "-c", "1600", "-W", "2")
UPGRADE = ["keep", "test", "load", *["replace"] * 4, "check", "hand", "record"]
AGAIN = ["test", "fill", *["replace"] * 4, "check", "hand", "record"]  # to a version that is loaded


@pytest.fixture
def serving(node: Sandbox) -> Sandbox:
    node.dataplane()
    node.attachments(TWO)
    node.ping("c1", *ips(2))
    node.ping(FABRIC, *ips(1))
    return node


@pytest.fixture(scope="session")
def schema() -> Path:
    return variant("schema", SCHEMA)


def verbs(result: Result) -> list[str]:
    return [step["action"].split()[0] for step in result["steps"]]


def rollback(node: Sandbox, **options: Any) -> Result:
    return node.dataplane({}, "rolled_back", path="", **options)


def running(node: Sandbox) -> str:
    """The object behind all hooks and all maps."""
    generations, owner = node.call(datapath.generations), node.call(datapath.owner)
    programs = set(generations[owner].programs.values())
    assert {hook.program_id for hook in node.call(hooks.read).values()} <= programs
    name: str = owner.partition("_")[0]
    return name


def _loaded(program: int) -> bool:
    with suppress(bpf.BpfError):
        bpf.program_by_id(program).close()
        return True
    return False


def _eventually(true: Callable[[], bool], seconds: float = 5) -> bool:
    """The kernel frees programs some time after their last user."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def _maps() -> dict[str, int]:
    """The map behind each name that user space goes by."""
    found = {}
    for pin in datapath.MAPS.iterdir():
        with bpf.get(pin) as fd:
            found[pin.name] = bpf.map_info(fd).id
    return found


# Upgrade


def test_an_upgrade_loses_no_packet(serving: Sandbox, newer: Path, schema: Path) -> None:
    before = serving.call(hooks.read)
    assert set(before) == {"router", "uplink-up0", "at-c1", "at-c2"}
    streams = (("c1", ips(2)[0]), ("c2", ips(1)[1]), (FABRIC, ips(1)[0]), ("c2", "192.0.2.1"))
    pings = [serving.start(*_STREAM, target, container=source) for source, target in streams]
    time.sleep(0.2)
    done = [serving.dataplane(path=str(newer)), rollback(serving), serving.dataplane(path=str(schema))]
    done += [rollback(serving)]
    assert [process.poll() for process in pings] == [None] * len(pings), "the streams ended too early to tell"
    for process in pings:
        report = process.communicate()[0]
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", report)
        assert counts is not None
        assert counts[1] == counts[2] == "1600", report
    assert [verbs(result) for result in done] == [UPGRADE, AGAIN, [*UPGRADE, "unload", "forget"], AGAIN]
    assert not any(step["disruptive"] for result in done for step in result["steps"])
    assert serving.call(hooks.read) == before


def test_maps_are_shared_as_long_as_they_are_the_same(serving: Sandbox, newer: Path, schema: Path) -> None:
    endpoints, maps = serving.endpoints(), serving.call(_maps)
    serving.dataplane(path=str(newer))
    assert serving.endpoints() == endpoints
    assert serving.call(_maps) == maps
    serving.dataplane(path=str(schema))
    changed = {name for name, number in serving.call(_maps).items() if maps[name] != number}
    assert {"endpoints", "drops", "endpoint_stats", "icmp_bucket", "moves"} <= changed
    assert "hooks" not in changed
    assert serving.endpoints() == endpoints
    assert not serving.attachments(TWO)["changed"]


def test_the_version_before_stays_until_the_next_upgrade(serving: Sandbox, newer: Path, schema: Path) -> None:
    first = {hook.program_id for hook in serving.call(hooks.read).values()}
    serving.dataplane(path=str(newer))
    assert all(map(_loaded, first))
    serving.dataplane(path=str(schema))
    assert _eventually(lambda: not any(map(_loaded, first)))
    kept = {versions.object_id(str(path)) for path in (newer, schema)}
    assert serving.call(versions.kept) == kept
    assert {name.partition("_")[0] for name in serving.call(datapath.generations)} == kept


@pytest.mark.skipif(not bpf.has_netkit(), reason="this kernel has no netkit")
def test_containers_behind_netkit(node: Sandbox, newer: Path, schema: Path) -> None:
    """Of both modes, and one behind a veth beside them."""
    node.dataplane()
    kinds: list[dict[str, Any]] = [{"kind": "netkit", "mode": "l2"}, {"kind": "netkit", "mode": "l3"}, {"kind": "veth"}]
    items = [attachment(number, **kind) for number, kind in enumerate(kinds, 1)]
    node.attachments(items)
    for path in (newer, schema, variant("broken", BROKEN["the packet lacks 3f at byte 22"])):
        if "broken" in path.name:
            with pytest.raises(Refused, match="test programs"):
                node.dataplane(path=str(path))
        else:
            node.dataplane(path=str(path))
        for number in (1, 2, 3):
            node.ping(f"c{number}", *ips(number % 3 + 1), "192.0.2.1", "fd00:192::1")
    assert {hook.ifindex for hook in node.call(hooks.read).values()} >= {p.ifindex for p in node.endpoints().values()}
    rollback(node)
    node.ping("c1", *ips(2), *ips(3))
    assert not node.attachments(items, "overridden")["changed"]


# Roll back


def test_check_diff_and_idempotence_of_a_rollback(serving: Sandbox, newer: Path) -> None:
    serving.dataplane(path=str(newer))
    assert verbs(predicted(serving, "dataplane", {}, "rolled_back", path="")) == AGAIN
    assert running(serving) == versions.object_id(str(OBJECT))
    # the collection on the controller has not changed: its next run goes forward again
    assert verbs(serving.dataplane(path=str(newer))) == AGAIN
    assert running(serving) == versions.object_id(str(newer))


def test_without_a_version_before_nothing_is_changed(serving: Sandbox) -> None:
    before = serving.snapshot()
    with pytest.raises(Refused, match="cannot go back to the previous version"):
        rollback(serving)
    assert serving.snapshot() == before


def _reboot() -> None:
    """What is not on disk goes."""
    shutil.rmtree(datapath.PINS)
    with rtnl.Netlink() as netlink:
        for link in links.links(netlink).values():
            if link.group == links.GROUP:
                links.delete_link(netlink, link.name)


@pytest.mark.parametrize("back", [True, False])
def test_the_node_boots_with_what_ran_last(serving: Sandbox, newer: Path, back: bool) -> None:
    """Whatever file the controller has brought meanwhile."""
    serving.dataplane(path=str(newer))
    if back:
        rollback(serving)
    serving.run("sh", "-c", f"echo junk > {versions.OBJECT}")
    serving.call(_reboot)
    assert serving.call(cli.main, ["apply", "--skip-absent", "--json"]) == 0
    assert running(serving) == versions.object_id(str(OBJECT if back else newer))
    serving.ping("c1", *ips(2), "192.0.2.1")
    assert serving.call(cli.main, ["plan"]) == 0
    if not back:  # the version before is not loaded, but kept
        assert serving.call(cli.main, ["rollback"]) == 0
        assert running(serving) == versions.object_id(str(OBJECT))
        serving.ping("c1", *ips(2), "192.0.2.1")
    assert serving.call(store.read, "programs")["rolled_back"]


def test_a_damaged_object_is_brought_again(serving: Sandbox) -> None:
    serving.run("sh", "-c", f"truncate -s 100 {versions.OBJECTS}/*")
    assert verbs(serving.dataplane()) == ["keep"]
    assert not serving.dataplane()["changed"]


# Bad versions


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_version_never_serves(serving: Sandbox, words: str) -> None:
    before = serving.snapshot(), serving.call(status.status)
    with pytest.raises(Refused, match=re.escape(words)) as caught:
        serving.dataplane(path=str(variant("broken", BROKEN[words])))
    assert "cannot carry out 'test programs" in caught.value.text
    assert serving.snapshot() == before[0]
    assert _quiet(serving.call(status.status)) == _quiet(before[1])


def _quiet(found: dict[str, Any]) -> dict[str, Any]:
    """Without counters that the kernel's own chatter moves."""
    return {key: value for key, value in found.items() if key not in ("hooks", "attachments", "replies", "drops")} | {
        "spoofed": found["drops"].get("spoofed", 0)
    }


@pytest.mark.parametrize("more", [(), SCHEMA])
def test_a_version_that_fails_under_traffic_is_taken_back(serving: Sandbox, more: tuple[Any, ...]) -> None:
    before = serving.snapshot()
    stream = serving.start("ping", "-q", "-i", "0.002", "-s", "400", "-W", "1", ips(2)[0], container="c1")
    time.sleep(0.2)
    with pytest.raises(Refused, match=r"of \d+ packets they dropped \d+ as malformed") as caught:
        serving.dataplane(path=str(variant("sick", (*SICK, *more))))
    assert stream.poll() is None
    for taken_back in ("replace from_container on c1", "replace from_wire on up0", "load programs", "keep object"):
        assert taken_back in caught.value.text
    assert serving.snapshot() == before
    time.sleep(0.2)
    stream.send_signal(signal.SIGINT)
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", stream.communicate()[0])
    assert counts is not None
    sent, received = int(counts[1]), int(counts[2])
    assert 0 < received < sent
    dropped = serving.call(status.status)["drops"]["malformed"]
    assert sent - received - dropped in (0, 1), "what they counted is kept; one may be on its way"


def test_without_traffic_the_same_version_is_taken(serving: Sandbox) -> None:
    serving.dataplane(path=str(variant("sick", SICK)))
    serving.ping("c1", *ips(2))


def _replaced_by_somebody(path: str) -> None:
    """While the new programs are checked one of them is put aside."""
    from ansible_collections.fastpath.node.plugins.module_utils.resources.dataplane import Dataplane  # noqa: PLC0415

    check = Dataplane._check

    def late(self: Dataplane, op: Any) -> None:
        old = next(name for name in datapath.generations() if name != op.generation)
        datapath.hook("at-c1", hooks.read()["at-c1"].ifindex, old, datapath.FROM_CONTAINER)
        check(self, op)

    Dataplane._check = late  # type: ignore[method-assign]
    run.run_dataplane(DATAPLANE, "replaced", path=path)


def test_a_hook_that_runs_something_else_fails_the_check(serving: Sandbox, newer: Path) -> None:
    before = serving.snapshot()
    with pytest.raises(Refused, match="others run at at-c1"):
        serving.call(_replaced_by_somebody, str(newer))
    assert serving.snapshot() == before


# Another schema


def test_counters_go_on_across_a_schema_change(serving: Sandbox, schema: Path) -> None:
    serving.run("ping", "-c1", "-W1", "10.128.3.99", container="c1", check=False)  # no_endpoint
    first = serving.call(status.status)
    for state, path in (("replaced", str(schema)), ("rolled_back", "")):
        serving.dataplane(DATAPLANE, state, path=path)
        now = serving.call(status.status)
        assert now["drops"]["no_endpoint"] == first["drops"]["no_endpoint"]
        for old, new in zip(first["attachments"], now["attachments"], strict=True):
            assert all(new["statistics"][name] >= count > 0 for name, count in old["statistics"].items())
            assert new["statistics"]["rx_packets"] - old["statistics"]["rx_packets"] < 20
        first = now


def test_attachments_come_and_go_under_another_schema(serving: Sandbox, schema: Path) -> None:
    serving.dataplane(path=str(schema))
    serving.attachments([TWO[0], attachment(3)], "overridden", allow_disruption=True)
    serving.ping("c3", *ips(1), "192.0.2.1")
    endpoints = serving.endpoints()
    assert set(endpoints) == {*ips(1), *ips(3)}
    rollback(serving)  # its maps know c2 and not c3, from the time of the upgrade
    assert serving.endpoints() == endpoints
    serving.ping("c3", *ips(1), "192.0.2.1")
    assert not serving.succeeds("ping", "-c1", "-W1", ips(2)[0], container="c1")
    serving.remove()
    assert serving.pins() == []
