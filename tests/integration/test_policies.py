# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies on a real kernel as a resource: runs, failures, kills, boots, and who is restricted from when on."""

from __future__ import annotations

import contextlib
import io
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import cli, explain, run, status
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf, datapath, netns, policy
from ansible_collections.fastpath.node.plugins.module_utils.resources.attachments import Attachments
from ansible_collections.fastpath.node.plugins.module_utils.resources.policies import Policies
from tests.integration.conftest import OBJECT
from tests.integration.fuse import mortal
from tests.integration.sandbox import DATAPLANE, FABRIC, Killed, Refused, Sandbox, attachment, ips, predicted
from tests.integration.test_documents import command, switched_off, write
from tests.integration.test_drops import following
from tests.integration.test_failure import failing_at, untouched

WEB, CLIENT, OTHER = (
    attachment(1, labels={"app": "web"}),
    attachment(2, labels={"app": "client"}),
    attachment(3, labels={"app": "other"}),
)
ALL = [WEB, CLIENT, OTHER]


def document(name: str, app: str, *ingress: Any, **more: Any) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": {"app": app}}, "ingress": list(ingress), **more}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def peer(app: str) -> dict[str, Any]:
    return {"from": [{"podSelector": {"matchLabels": {"app": app}}}]}


CLOSED = document("web", "web")
OPEN = document("web", "web", peer("client"))
OTHERS = document("web", "web", peer("other"))


@pytest.fixture
def serving(node: Sandbox) -> Sandbox:
    """c2 may ping c1, c3 may not."""
    node.dataplane()
    node.policies([OPEN])
    node.attachments(ALL)
    return node


def answers(node: Sandbox, source: str | None, *targets: str) -> list[bool]:
    return [node.succeeds("ping", "-c1", "-W1", target, container=source) for target in targets]


def may(node: Sandbox, source: str) -> bool:
    """May it ping c1? Over both families, and as `fastpath explain` says."""
    found = answers(node, source, *ips(1))
    said = node.call(explain.explain, source, "c1/icmp")
    assert [answer["verdicts"]["ingress"]["verdict"] == "allow" for answer in said] == found
    assert not any(answer["disagree"] for answer in said)
    assert all(answer["current"] for answer in said)
    assert len(set(found)) == 1
    return found[0]


def test_life(node: Sandbox) -> None:
    bare = node.snapshot()
    node.dataplane()
    assert node.policies(state="gathered")["gathered"] == []
    assert node.call(policy.read) is None
    predicted(node, "policies", [OPEN], "merged")
    predicted(node, "attachments", ALL, "overridden")
    assert (may(node, "c2"), may(node, "c3")) == (True, False)
    # the node itself is always let in, who comes over the wire is not
    assert answers(node, None, *ips(1)) == [True, True]
    assert answers(node, FABRIC, *ips(1), *ips(2)) == [False, False, True, True]
    assert predicted(node, "policies", [OTHERS], "replaced")["after"] == [OTHERS]
    assert (may(node, "c2"), may(node, "c3")) == (False, True)
    relabelled = predicted(node, "attachments", [{"name": "c2", "labels": {"app": "other"}}], "merged")
    assert [step["action"].partition(" ")[0] for step in relabelled["steps"]] == ["record", "switch"]
    assert (may(node, "c2"), may(node, "c3")) == (True, True)
    predicted(node, "policies", [document("more", "other"), {**CLOSED, "spec": {"podSelector": {}}}], "overridden")
    assert answers(node, "c1", ips(3)[0]) == [False]
    predicted(node, "policies", [document("more", "")], "deleted")
    assert [step["disruptive"] for step in predicted(node, "policies", [], "deleted")["steps"]] == [False, False]
    assert answers(node, FABRIC, *ips(1)) == [True, True]
    assert node.call(policy.read) is None
    node.remove()
    assert node.snapshot() == bare


def test_containers_of_other_nodes(serving: Sandbox) -> None:
    there = {"name": "node2/c1", "addresses": ["192.0.2.1/32", "fd00:192::1"], "labels": {"app": "client"}}
    assert answers(serving, FABRIC, *ips(1)) == [False, False]
    predicted(serving, "policies", [OPEN], "overridden", endpoints=[there])
    assert answers(serving, FABRIC, *ips(1)) == [True, True]
    assert [a["from"] for a in serving.call(explain.explain, "node2/c1", "c1:80")] == ["192.0.2.1", "fd00:192::1"]
    elsewhere = {**there, "namespace": "prod"}
    everywhere = document(
        "web", "web", {"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}}]}
    )
    predicted(serving, "policies", [everywhere], "overridden", endpoints=[elsewhere], namespaces={"prod": {}})
    assert answers(serving, FABRIC, *ips(1)) == [False, False]
    predicted(serving, "policies", [], "merged", namespaces={"prod": {"team": "a"}})
    assert answers(serving, FABRIC, *ips(1)) == [True, True]


# Until it is ended, at most for ten seconds; it does not mind what comes back.
FLOOD = """
import contextlib, socket, sys, time
with socket.socket(type=socket.SOCK_DGRAM) as sender:
    for _turn in range(10000):
        with contextlib.suppress(OSError):
            sender.sendto(b"x", (sys.argv[1], 9))
        time.sleep(.001)
"""


@contextlib.contextmanager
def flooded(node: Sandbox, source: str, target: str) -> Iterator[None]:
    """Somebody sends to an address that nobody has yet."""
    with node.start("python3", "-c", FLOOD, target, container=source) as flood:
        try:
            before = sum(node.call(datapath.counters, "hooks"))
            while sum(node.call(datapath.counters, "hooks")) < before + 20:
                assert flood.poll() is None
            yield
            assert flood.poll() is None
        finally:
            flood.terminate()


def _delivered(attachments: dict[str, int]) -> dict[str, int]:
    rows = datapath.statistics(attachments.values())
    return {name: rows[slot][0] for name, slot in attachments.items()}


def test_a_new_container_is_restricted_from_its_first_packet_on(node: Sandbox) -> None:
    """While somebody floods its address: not one packet is delivered to it, before or after its run has ended."""
    node.dataplane()
    node.policies([CLOSED])
    node.attachments([OTHER])
    with flooded(node, "c3", ips(1)[0]):
        node.attachments([WEB, CLIENT])
        slots = {name: point.slot for address, point in node.endpoints().items() for name in _owner(address)}
        assert answers(node, "c3", ips(2)[0]) == [True]
        found = node.call(_delivered, slots)
    assert found["c1"] == 0
    assert found["c2"] > 0


def _owner(address: str) -> list[str]:
    return [f"c{number}" for number in (1, 2) if address in ips(number)]


def test_a_slot_never_serves_under_the_policies_of_another(node: Sandbox) -> None:
    """c1, whom nobody restricts, goes, and c2, who is closed, comes in its place and gets its slot."""
    node.dataplane()
    free, closed = attachment(1, labels={"app": "free"}), attachment(2, labels={"app": "web"})
    node.policies([CLOSED])
    node.attachments([free])
    slot = {point.slot for point in node.endpoints().values()}
    with flooded(node, FABRIC, ips(2)[0]):
        predicted(node, "attachments", [closed], "overridden", allow_disruption=True)
        assert {point.slot for point in node.endpoints().values()} == slot
        assert node.call(_delivered, {"c2": next(iter(slot))}) == {"c2": 0}


def test_bad_documents_change_nothing(serving: Sandbox) -> None:
    bad = {**CLOSED, "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}}
    with untouched(serving, "policies[web].spec.ingress[0].from[0].ipBlock.cidr = '10.0.0.0/33'"):
        serving.policies([bad])
    with untouched(serving, "config[c1].labels.app = 7"):
        serving.attachments([{"name": "c1", "labels": {"app": 7}}])
    assert may(serving, "c2")


# Open connections


def _talk(serving: Sandbox, work: Callable[[socket.socket, socket.socket], None]) -> None:
    """A TCP connection from c2 to c1, seen from both ends."""
    ends: dict[str, socket.socket] = {}
    root = f"/proc/{serving.holder}/root/run/netns"
    for name in ("c1", "c2"):
        with netns.entered(f"{root}/{name}"):
            ends[name] = socket.socket()
    with ends["c1"] as listener, ends["c2"] as client:
        listener.bind((ips(1)[0], 80))
        listener.listen()
        client.settimeout(5)
        client.connect((ips(1)[0], 80))
        server, _address = listener.accept()
        with server:
            server.settimeout(5)
            work(client, server)


def test_open_connection_is_cut_when_the_run_ends(serving: Sandbox) -> None:
    def work(client: socket.socket, server: socket.socket) -> None:
        client.sendall(b"before")
        assert server.recv(16) == b"before"
        assert serving.policies([OPEN, document("more", "other")])["flows"] == {"revoked": 0, "told": 0}
        client.sendall(b"still")
        assert server.recv(16) == b"still"
        result = serving.policies([CLOSED])
        assert result["flows"]["revoked"] == 1
        if "warnings" not in result:  # the kernel can end sockets
            assert result["flows"]["told"] == 2
            with pytest.raises(ConnectionAbortedError):
                server.recv(16)
            with pytest.raises(ConnectionAbortedError):
                client.sendall(b"after")

    _talk(serving, work)


def test_label_that_is_taken_away_cuts_too(serving: Sandbox) -> None:
    def work(client: socket.socket, _server: socket.socket) -> None:
        result = serving.attachments([{"name": "c2", "labels": {}}])
        assert result["flows"]["revoked"] == 1
        assert client.fileno() >= 0

    _talk(serving, work)


# Failures and kills


def test_a_failed_step_is_taken_back(serving: Sandbox) -> None:
    before = _lasting(serving.snapshot())
    for step in (1, 2):
        with pytest.raises(Refused, match="injected"):
            serving.call(failing_at, Policies, step, lambda: run.run_policies([CLOSED], "overridden"))
        assert _lasting(serving.snapshot()) == before, f"step {step}"
    wish = [{"name": "c1", "labels": {"app": "other"}}, attachment(2, mtu=1400)]
    for step in range(1, len(serving.attachments(wish, check=True)["steps"]) + 1):
        with pytest.raises(Refused, match="injected"):
            serving.call(failing_at, Attachments, step, lambda: run.run_attachments(wish, "merged"))
        assert _lasting(serving.snapshot()) == before, f"step {step}"
        assert (may(serving, "c2"), may(serving, "c3")) == (True, False)


def _lasting(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Epochs only grow."""
    now = snapshot["policies"]
    return {**snapshot, "policies": (now.settled, now.intact, now.input)}


def _policed(documents: list[Any], items: list[Any]) -> None:
    run.run_policies(documents, "overridden")
    run.run_attachments(items, "overridden", allow_disruption=True)


def _killed_everywhere(node: Sandbox, work: Callable[[], None], check: Callable[[], None]) -> int:
    """Kill the work before each of its changes in turn, let a boot finish it, and check."""
    limit = 0
    while True:
        limit += 1
        try:
            node.call(mortal, limit, work)
        except Killed:
            node.call(work)
            check()
        else:
            return limit
        node.call(_policed, [OPEN], ALL)


def test_a_killed_switch_is_finished_by_the_next_run(serving: Sandbox) -> None:
    def check() -> None:
        assert (may(serving, "c2"), may(serving, "c3")) == (False, True)
        assert command(serving, "plan") == (0, "")

    assert _killed_everywhere(serving, lambda: _policed([OTHERS], ALL), check) > 8


def test_killed_while_they_are_taken_away(serving: Sandbox) -> None:
    def check() -> None:
        assert serving.call(policy.read) is None
        assert answers(serving, "c3", ips(1)[0]) == [True]

    def work() -> None:
        run.run_policies([], "deleted")

    assert _killed_everywhere(serving, work, check) > 3


# Boot


def test_boot(serving: Sandbox) -> None:
    for number in (1, 2, 3):
        serving.run("ip", "link", "del", f"c{number}")
    switched_off(serving)
    assert command(serving, "apply", "--skip-absent", "--allow-disruption") == (0, "")
    assert (may(serving, "c2"), may(serving, "c3")) == (True, False)
    found = serving.call(status.status)
    assert (found["healthy"], found["policies"]["documents"], found["policies"]["epoch"]) == (True, 1, 1)
    assert command(serving, "plan") == (0, "")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"policies": [{}], "endpoints": [], "namespaces": {}}'])
def test_nobody_is_attached_while_policies_are_broken(serving: Sandbox, content: str) -> None:
    for number in (1, 2, 3):
        serving.run("ip", "link", "del", f"c{number}")
    switched_off(serving)
    write(serving, "policies.json", content)
    code, errors = command(serving, "apply", "--skip-absent", "--allow-disruption")
    assert (code, "Traceback" in errors) == (1, False)
    assert "/etc/fastpath/policies.json" in errors
    assert serving.endpoints() == {}
    assert not serving.call(status.status)["healthy"]
    # what the playbook does mends it
    serving.policies([OPEN])
    serving.attachments(ALL, "overridden")
    assert (may(serving, "c2"), may(serving, "c3")) == (True, False)
    write(serving, "policies.json", content)
    assert command(serving, "remove") == (0, "")
    assert not serving.succeeds("ls", "/etc/fastpath")


def test_tampered_tables_are_found_and_mended(serving: Sandbox) -> None:
    serving.call(_tamper)
    assert answers(serving, "c3", ips(1)[0]) == [True]
    found = serving.call(status.status)
    assert "the tables in the kernel are not those that were written" in found["problems"][0]
    assert command(serving, "apply") == (0, "")
    assert (may(serving, "c2"), may(serving, "c3")) == (True, False)


def _tamper() -> None:
    with bpf.Map.open(datapath.MAPS / "subjects") as table:
        for key, value in table.items():
            if any(value):
                table.set(key, bytes(len(value)))


# Programs


def test_policies_outlive_an_upgrade(serving: Sandbox, newer: Path) -> None:
    before = serving.call(policy.read)
    serving.dataplane(path=str(newer))
    assert serving.call(policy.read) == before
    assert (may(serving, "c2"), may(serving, "c3")) == (True, False)
    assert command(serving, "plan") == (0, "")
    serving.dataplane(state="rolled_back")
    assert (may(serving, "c2"), may(serving, "c3")) == (True, False)


def test_programs_of_before_there_were_policies(node: Sandbox, tmp_path: Path) -> None:
    old = tmp_path / "old.o"
    old.write_bytes(OBJECT.read_bytes().replace(b"fp_policy_state", b"no_policy_state"))
    node.dataplane(path=str(old))
    node.dataplane()
    node.policies([OPEN])
    for state in ("rolled_back", "replaced"):
        with untouched(node, "they know no policies, and this node has some"):
            node.dataplane(DATAPLANE, state, path=str(old))
    node.policies(state="deleted")
    node.dataplane(state="rolled_back")


def test_rendered_touches_nothing(node: Sandbox) -> None:
    bare = node.snapshot()
    there = {"name": "node2/c1", "addresses": ["10.128.4.7/32"], "labels": {"app": "client"}}
    found = node.policies([OPEN], "rendered", endpoints=[there])["rendered"]
    assert found["policies"][0]["rules"][0]["peers"] == ["node2/c1"]
    assert node.snapshot() == bare


def test_explain_says_why(serving: Sandbox) -> None:
    said = json.loads(serving.call(_output, "explain", "--from", "c3", "--to", "c1:80/tcp", "--json"))
    assert [(item["from"], item["to"]) for item in said] == list(zip(ips(3), ips(1), strict=True))
    for item in said:
        assert item["verdicts"]["ingress"] == {"verdict": "deny", "rule": "NetworkPolicy default/web isolates"}
        assert item["kernel"] == item["verdicts"]


def test_a_denied_packet_is_shown_with_its_rule(serving: Sandbox) -> None:
    audit = {
        **document("guard", "web", {"action": "deny", "from": [{"podSelector": {}}]}, priority=1, audit=True),
        "apiVersion": "fastpath.node/v1",
        "kind": "FastpathPolicy",
    }
    with following(serving, "--json") as follower:
        assert answers(serving, "c3", ips(1)[0]) == [False]
        assert follower.first(reason="policy")["policy"] == "NetworkPolicy default/web isolates"
        # named as it is called now, also after a change
        serving.policies([{**CLOSED, "metadata": {"name": "closed"}}])
        assert answers(serving, "c3", ips(1)[0]) == [False]
        assert follower.first(reason="policy")["policy"] == "NetworkPolicy default/closed isolates"
        serving.policies([OPEN, audit])
        assert answers(serving, "c2", ips(1)[0]) == [True]
        assert follower.first(kind="audited")["policy"] == "FastpathPolicy default/guard ingress[0]"


def _output(*words: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert cli.main(words) == 0
    return text.getvalue()
