# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong half-way is taken back; what is somebody else's stays; bad input changes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run
from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from ansible_collections.fastpath.node.plugins.module_utils.resources.attachments import Attachments
from ansible_collections.fastpath.node.plugins.module_utils.resources.dataplane import Dataplane
from tests.integration.conftest import OBJECT
from tests.integration.sandbox import DATAPLANE, UPLINK, Refused, Sandbox, attachment, ips

TWO = [attachment(1), attachment(2)]


@contextmanager
def untouched(node: Sandbox, *words: str) -> Iterator[None]:
    """The run in here is refused with these words, and the node is as before."""
    before = node.snapshot()
    with pytest.raises(Refused) as caught:
        yield
    assert node.snapshot() == before
    for word in words:
        assert word in caught.value.text
    assert not caught.value.kind.startswith("crash")


def failing_at(resource: type[Any], step: int, work: Callable[[], Any]) -> Any:
    """Work, but the resource's step number `step` fails as if the kernel refused it; the way back is free."""
    execute, count = resource.execute, 0

    def counted(self: Any, op: Any) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise OSError(12, "injected")
        execute(self, op)

    resource.execute = counted
    return work()


def test_a_failed_step_of_the_dataplane_is_taken_back(node: Sandbox, newer: Path) -> None:
    before = node.snapshot()
    for step in range(1, len(node.dataplane(check=True)["steps"]) + 1):
        with pytest.raises(Refused, match="injected"):
            node.call(failing_at, Dataplane, step, lambda: run.run_dataplane(DATAPLANE, "replaced", path=str(OBJECT)))
        assert node.snapshot() == before, f"step {step}"
    node.dataplane()
    node.attachments(TWO)
    before = node.snapshot()
    changed = {**DATAPLANE, "routing": "direct", "routes": [{"to": "10.128.4.0/24", "via": "192.0.2.1"}]}
    count = len(node.dataplane(changed, path=str(newer), check=True)["steps"])
    assert count > 6
    for step in range(1, count + 1):
        with pytest.raises(Refused, match="injected"):
            node.call(failing_at, Dataplane, step, lambda: run.run_dataplane(changed, "replaced", path=str(newer)))
        after = node.snapshot()
        assert after == before, f"step {step}"
        node.ping("c1", *ips(2), "192.0.2.1")


def test_a_failed_step_of_attachments_is_taken_back(node: Sandbox) -> None:
    node.dataplane()
    node.attachments([attachment(1)])
    before = node.snapshot()
    wish = [attachment(1, mtu=1400), attachment(2)]
    for step in range(1, len(node.attachments(wish, check=True)["steps"]) + 1):
        with pytest.raises(Refused, match="injected"):
            node.call(failing_at, Attachments, step, lambda: run.run_attachments(wish, "merged"))
        assert node.snapshot() == before, f"step {step}"
        node.ping("c1", "192.0.2.1", "fd00:192::1")


def _vanishing(step: int, config: list[dict[str, Any]]) -> Any:
    """Converge while the namespace of c2 goes away before a step."""
    execute, count = Attachments.execute, 0

    def counted(self: Attachments, op: Any) -> None:
        nonlocal count
        count += 1
        if count == step:
            subprocess.run(["ip", "netns", "del", "c2"], check=True)
        execute(self, op)

    Attachments.execute = counted  # type: ignore[method-assign]
    return run.run_attachments(config, "merged")


def test_a_namespace_that_vanishes_half_way(node: Sandbox) -> None:
    node.dataplane()
    node.attachments([attachment(1)])
    before = _without_c2(node)
    for step in range(1, len(node.attachments(TWO, check=True)["steps"])):
        with pytest.raises(Refused, match="c2") as caught:
            node.call(_vanishing, step, TWO)
        if caught.value.kind == "StepFailed":
            assert _without_c2(node) == before, f"step {step}"
        else:  # the kernel was slow to remove it: all steps went well, then the container was missed
            node.attachments([attachment(1)], "overridden", allow_disruption=True)
        assert _without_c2(node) == before, f"step {step}"
        node.ping("c1", "10.128.3.1")
        node.add_container("c2")
    node.attachments(TWO)
    node.ping("c1", *ips(2))


def _without_c2(node: Sandbox) -> dict[str, Any]:
    return {key: value for key, value in node.snapshot().items() if not key.startswith("c2 ")}


def test_an_object_that_is_none(node: Sandbox, tmp_path: Path) -> None:
    broken = tmp_path / "broken.bpf.o"
    whole = OBJECT.read_bytes()
    for content in (b"", b"not an ELF file", whole[: len(whole) // 2], whole[:4096]):
        broken.write_bytes(content)
        with untouched(node, "load"):
            node.dataplane(path=str(broken))
    with untouched(node, str(tmp_path / "missing.o")):
        node.dataplane(path=str(tmp_path / "missing.o"))


def test_a_broken_upgrade_leaves_the_old_version_running(node: Sandbox, tmp_path: Path) -> None:
    node.dataplane()
    node.attachments(TWO)
    broken = tmp_path / "broken.bpf.o"
    broken.write_bytes(OBJECT.read_bytes()[:5000])
    with untouched(node, "load"):
        node.dataplane(path=str(broken))
    node.ping("c1", *ips(2))


def _foreign_program(ifindex: int, path: str) -> None:
    """Somebody else's program at the interface's ingress, held by a pin of theirs."""
    with bpf.load(OBJECT.read_bytes()) as loaded, bpf.attach(loaded.programs["from_wire"], ifindex, 46) as link:
        bpf.pin(link, Path(path))


def test_a_foreign_program_on_the_uplink(node: Sandbox) -> None:
    index = int(node.run("cat", f"/sys/class/net/{UPLINK}/ifindex"))
    node.call(_foreign_program, index, "/sys/fs/bpf/foreign")
    with untouched(node, "foreign BPF programs", UPLINK):
        node.dataplane()
    node.run("rm", "/sys/fs/bpf/foreign")
    node.dataplane()


@pytest.mark.parametrize("name", ["c1", "fastpath0"])
def test_a_foreign_interface_with_a_name_of_ours(node: Sandbox, name: str) -> None:
    if name != "fastpath0":
        node.dataplane()
    node.run("ip", "link", "add", name, "type", "veth", "peer", "name", "theirs")
    with untouched(node, name):
        node.dataplane()
        node.attachments(TWO)
    with pytest.raises(Refused) if name == "fastpath0" else _fine():
        node.remove()
    assert node.succeeds("ip", "link", "show", "theirs")


@contextmanager
def _fine() -> Iterator[None]:
    yield


def test_a_foreign_interface_inside_the_container(node: Sandbox) -> None:
    node.dataplane()
    node.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "x", container="c2")
    before = node.snapshot()
    with pytest.raises(Refused, match="c2"):
        node.attachments(TWO)
    assert node.snapshot() == before


def test_foreign_addresses_and_routes_of_a_container_stay(node: Sandbox) -> None:
    node.dataplane()
    node.attachments(TWO)
    node.run("ip", "route", "add", "203.0.113.0/24", "dev", "eth0", container="c1")
    node.run("ip", "route", "add", "203.0.113.0/24", "dev", UPLINK)
    assert not node.attachments(TWO)["changed"]
    assert not node.dataplane()["changed"]
    node.attachments([attachment(1, mtu=1400)])
    assert "203.0.113.0/24" in node.run("ip", "route", container="c1")
    node.remove()
    assert "203.0.113.0/24" in node.run("ip", "route")


BAD_ITEMS: dict[str, tuple[Mapping[str, Any], str]] = {
    "address twice": ({"addresses": ["10.128.3.11/32"]}, "10.128.3.11/32"),
    "address twice in one": ({"addresses": ["10.128.3.12/32", "10.128.3.12/32"]}, "each address once"),
    "address outside": ({"addresses": ["10.128.4.12/32"]}, "10.128.4.12/32"),
    "address of the gateway": ({"addresses": ["10.128.3.1/32"]}, "gateway"),
    "whole network": ({"addresses": ["10.128.3.12/24"]}, "10.128.3.12/32"),
    "no address": ({"addresses": []}, "at least one"),
    "MTU over the uplink's": ({"mtu": 1501}, "from 1280 to 1500"),
    "MTU below IPv6": ({"mtu": 1279}, "from 1280 to 1500"),
    "16 characters": ({"name": "a234567890123456"}, "1 to 15 characters"),
    "slash in the name": ({"name": "a/b"}, "interface name"),
    "unknown netns": ({"container": {"netns": "/run/netns/nowhere"}}, "/run/netns/nowhere"),
    "a file that is no netns": ({"container": {"netns": "/etc/passwd"}}, "/etc/passwd"),
    "unknown process": ({"container": {"pid": 4194303}}, "4194303"),
    "the node itself": ({"container": {"pid": 1}}, "1"),
    "unknown podman container": ({"container": {"podman": "nobody"}}, "nobody"),
    "two references": ({"container": {"pid": 1, "netns": "/run/netns/c2"}}, "exactly one"),
    "no reference": ({"container": {}}, "exactly one"),
    "netkit": ({"kind": "netkit"}, "netkit"),
    "multicast MAC": ({"mac": "01:00:00:00:00:01"}, "unicast"),
    "route of another family": ({"routes": [{"to": "10.0.0.0/8", "via": "fd00::1"}]}, "IPv4"),
    "host bits in a route": ({"routes": [{"to": "10.0.0.1/8"}]}, "10.0.0.1/8"),
    "unknown key": ({"adresses": []}, "no such key"),
    "same place": ({"container": {"netns": "/run/netns/c1"}}, "eth0"),
    "router's name": ({"name": "fastpath0"}, "fastpath0"),
    "router's other end": ({"name": "fastpath1"}, "fastpath1"),
    "the uplink's name": ({"name": UPLINK}, UPLINK),
}  # fmt: skip


def test_bad_attachments_change_nothing(node: Sandbox) -> None:
    node.dataplane()
    node.attachments([attachment(1)])
    before = node.snapshot()
    for title, (bad, words) in BAD_ITEMS.items():
        for state in ("merged", "replaced", "overridden"):
            # a good one first: it must not be made either
            config = [attachment(1), attachment(3), {**attachment(2), **bad}]
            with pytest.raises(Refused) as caught:
                node.attachments(config, state)
            assert not caught.value.kind.startswith("crash"), (title, caught.value.text)
            assert words in caught.value.text, title
    assert node.snapshot() == before


BAD_DATAPLANES: dict[str, tuple[Mapping[str, Any], str]] = {
    "no uplink": ({"uplinks": []}, "at least one uplink"),
    "unknown uplink": ({"uplinks": [{"name": "eth9"}]}, UPLINK),
    "unknown MAC": ({"uplinks": [{"mac": "02:00:00:00:00:99"}]}, "02:00:00:00:00:99"),
    "unknown PCI": ({"uplinks": [{"pci": "0000:99:00.0"}]}, "0000:99:00.0"),
    "uplink twice": ({"uplinks": [{"name": UPLINK}, {"name": UPLINK}]}, "each interface once"),
    "no prefix": ({"prefixes": []}, "at least one prefix"),
    "host bits": ({"prefixes": ["10.128.3.1/24"]}, "10.128.3.1/24"),
    "too small": ({"prefixes": ["10.128.3.0/31"]}, "/30"),
    "overlap": ({"prefixes": ["10.128.0.0/16", "10.128.3.0/24"]}, "overlap"),
    "routes with fabric": ({"routes": [{"to": "10.9.0.0/16", "via": "192.0.2.1"}]}, "fabric"),
    "unknown routing": ({"routing": "bgp"}, "bgp"),
    "unknown key": ({"uplink": "eth0"}, "no such key"),
    "gateway out of reach": (
        {"routing": "direct", "routes": [{"to": "10.9.0.0/16", "via": "203.0.113.1"}]}, "203.0.113.1",
    ),
    "route into our own prefix": (
        {"routing": "direct", "routes": [{"to": "10.128.3.0/24", "via": "192.0.2.1"}]}, "10.128.3.0/24",
    ),
}  # fmt: skip


def test_bad_dataplanes_change_nothing(node: Sandbox) -> None:
    before = node.snapshot()
    for title, (bad, words) in BAD_DATAPLANES.items():
        with pytest.raises(Refused) as caught:
            node.dataplane({**DATAPLANE, **bad})
        assert not caught.value.kind.startswith("crash"), (title, caught.value.text)
        assert words in caught.value.text, title
        assert node.snapshot() == before, title


def test_order_and_permission(node: Sandbox) -> None:
    with untouched(node, "no dataplane"):
        node.attachments(TWO)
    node.dataplane()
    node.attachments(TWO)
    with untouched(node, "c1, c2"):
        node.dataplane({}, "deleted", allow_disruption=True)
    with untouched(node, "allow_disruption"):
        node.attachments([attachment(1)], "overridden")
    with untouched(node, "allow_disruption"):
        node.attachments([{**attachment(2), "container": {"netns": "/run/netns/c3"}}])
