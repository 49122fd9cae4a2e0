# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs as attachments, on the emulated NIC: its PF is the node's uplink, and what is behind the wire is another host."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils import run, store
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, InvalidConfig
from ansible_collections.fastpath.node.plugins.module_utils.kernel import datapath, hooks, netns, policy, rtnl, sriov
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from tests.nic.inside.device import Nic, kernel_complaints, load, unload, until
from tests.nic.inside.device import run as command

OBJECT = Path(__file__).parents[3] / "fastpath.bpf.o"
PREFIXES = ["10.128.3.0/24", "fd00:128:3::/64"]
FAR = ("198.51.100.1", "fd00:198::1")  # behind the wire
VFS = 4
SPACES = ("c1", "c2", "c3", "c4", "c5", "far", "nested")
Item = dict[str, Any]


class Killed(BaseException):
    """The run ends here and now."""


def item(number: int, **more: Any) -> Item:
    addresses = [f"10.128.3.{10 + number}/32", f"fd00:128:3::{10 + number}/128"]
    container = {"netns": f"/run/netns/c{number}"}
    return {"name": f"at{number}", "container": container, "addresses": addresses, "kind": "vf", **more}


def veth(number: int) -> Item:
    return item(number, kind="veth")


def ips(space: str) -> tuple[str, str]:
    number = 10 + int(space[1:]) if space != "far" else 0
    return (f"10.128.3.{number}", f"fd00:128:3::{number}") if number else FAR


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """The NIC stays from one check to the next."""
    command("dmesg", "-C")
    yield
    assert kernel_complaints() == []


@pytest.fixture(scope="module")
def prepared() -> Iterator[Nic]:
    """A node with a dataplane and containers, and a NIC with four VFs in switchdev mode."""
    nic = load(vfs=VFS)
    settings = [f"net.ipv6.conf.{of}.{key}=0" for of in ("all", "default") for key in ("disable_ipv6", "accept_dad")]
    command("sysctl", "-qw", *settings)
    nic.set_vfs(VFS)
    nic.set_mode("switchdev")
    command("udevadm", "settle")
    _batch(*(f"netns add {space}" for space in SPACES), f"link set {nic.wire} netns far")
    _wire(nic)
    try:
        config = {"uplinks": [{"pci": nic.address}], "prefixes": PREFIXES}
        run.run_dataplane(config, "replaced", path=str(OBJECT))
        yield nic
    finally:
        run.run_attachments([], "deleted", allow_disruption=True)
        run.run_dataplane({}, "deleted", allow_disruption=True)
        command("ip", "-n", "far", "link", "set", nic.wire, "netns", "1")
        _batch(*(f"netns del {space}" for space in os.listdir("/run/netns")))
        until(lambda: len(free(nic)) == VFS, "all VFs are back")
        unload()


@pytest.fixture
def nic(prepared: Nic) -> Iterator[Nic]:
    """The same, with nothing attached."""
    try:
        yield prepared
    finally:
        run.run_attachments([], "deleted", allow_disruption=True)
        run.run_policies([], "deleted")
        assert len(free(prepared)) == VFS


def _batch(*lines: str, space: str = "") -> None:
    command("ip", *(["-n", space] if space else []), "-batch", "-", stdin="\n".join(lines))


def _wire(nic: Nic) -> None:
    near = [f"address add {address} dev {nic.uplink}" for address in ("198.51.100.2/24", "fd00:198::2/64 nodad")]
    _batch(*near, f"link set {nic.uplink} up")
    far = [f"address add {address} dev {nic.wire}" for address in ("198.51.100.1/24", "fd00:198::1/64 nodad")]
    routes = [f"route add {PREFIXES[0]} via 198.51.100.2", f"route add {PREFIXES[1]} via fd00:198::2"]
    _batch(*far, f"link set {nic.wire} up", *routes, space="far")


def attach(*items: Item, state: str = "overridden", **options: Any) -> dict[str, Any]:
    return run.run_attachments(list(items), state, allow_disruption=True, **options)


def free(nic: Nic) -> dict[str, str]:
    """VFs whose interface is on the node, down, and whose representor nobody owns: PCI address -> name."""
    found = {}
    (one,) = [one for one in sriov.physical() if one.handle == nic.handle]
    for number, vf in one.vfs.items():
        near = Path("/sys/class/net") / one.representor(number).name
        for name in vf.netdevs:
            up = int((Path("/sys/class/net") / name / "flags").read_text(), 16) & 1
            if not up and (near / "netdev_group").read_text().strip() == "0" and not (near / "ifalias").read_text():
                found[vf.pci] = name
    return found


def talks(source: str, target: str) -> bool:
    """A quarter of a megabyte by TCP over IPv4 and IPv6; what arrives is what was sent."""
    return all(_talks(source, target, here, there, 60) for here, there in zip(ips(source), ips(target), strict=True))


def silent(source: str, target: str) -> bool:
    """Neither over IPv4 nor over IPv6 anything comes through, so long as one can wait."""
    return not any(_talks(source, target, here, there, 3) for here, there in zip(ips(source), ips(target), strict=True))


def _talks(source: str, target: str, here: str, there: str, patience: float) -> bool:
    family, data, got = socket.AF_INET6 if ":" in there else socket.AF_INET, os.urandom(1 << 18), bytearray()
    with netns.entered(f"/run/netns/{target}"):
        listener = socket.socket(family, socket.SOCK_STREAM)
    with listener:
        listener.settimeout(patience)
        listener.bind((there, 0))
        listener.listen()

        def receive() -> None:
            try:
                peer, _address = listener.accept()
                with peer:
                    peer.settimeout(patience)
                    while part := peer.recv(1 << 16):
                        got.extend(part)
            except OSError:
                pass  # then too little has arrived

        thread = threading.Thread(target=receive)
        thread.start()
        with netns.entered(f"/run/netns/{source}"):
            sender = socket.socket(family, socket.SOCK_STREAM)
        with sender:
            sender.settimeout(patience)
            try:
                sender.bind((here, 0))
                sender.connect(listener.getsockname()[:2])
                sender.sendall(data)
            except OSError:
                listener.close()
                thread.join()
                return False
        thread.join()
    return bytes(got) == data


def broken_off(at: int, work: Callable[[], Any], patch: pytest.MonkeyPatch, error: BaseException | None = None) -> bool:
    """Was the run killed, before the change number `at`? error: only this change fails, with it."""
    left = at

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0 and error is None:
                raise Killed
            if left == -1 and error is not None:
                raise error
            return real(*arguments, **options)

        return change

    with patch.context() as broken:
        changes = ((rtnl.Netlink, "request"), (datapath, "hook"), (datapath, "publish"), (datapath, "withdraw"))
        for owner, name in (*changes, (hooks, "detach"), (store, "write"), (policy, "publish")):
            broken.setattr(owner, name, dying(getattr(owner, name)))
        try:
            work()
        except Killed:
            return True
    return False


def test_everybody_reaches_everybody(nic: Nic) -> None:
    items = [item(1), item(2, interface="lan0", mtu=1400), veth(3)]
    checked = run.run_attachments(items, "overridden", check=True)
    before = free(nic)
    done = attach(*items)
    assert done["steps"] == checked["steps"]
    assert done["after"] == checked["after"]
    assert [one["kind"] for one in done["after"]] == ["vf", "vf", "veth"]
    assert [one.get("vf") for one in done["after"]] == [*sorted(before)[:2], None]
    assert not attach(*items)["changed"]
    users = [vf.user for vf in eswitch_node.Node().devices()[nic.handle].vfs]
    assert users == ["container netns:/run/netns/c1", "container netns:/run/netns/c2", "", ""]
    for source, target in (("c1", "c2"), ("c2", "c1"), ("c1", "c3"), ("c3", "c1"), ("c1", "far"), ("far", "c2")):
        assert talks(source, target), f"{source} to {target}: {datapath.counters('drops')}"
    again = attach(*done["after"])["steps"]  # what is there is a config that makes it
    assert [step["action"] for step in again] == ["record the attachments in /etc/fastpath"]
    attach()
    assert free(nic) == before


def test_policies_hold(nic: Nic) -> None:
    labelled = [item(1, labels={"app": "web"}), item(2, labels={"app": "db"}), veth(3)]
    spec: Item = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}
    spec["ingress"] = [{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]
    kubernetes = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    run.run_policies([{**kubernetes, "metadata": {"name": "p", "namespace": "default"}, "spec": spec}], "overridden")
    attach(*labelled)
    assert talks("c2", "c1")
    assert silent("c3", "c1")
    assert silent("far", "c1")
    assert talks("c1", "c3")


def test_programs_are_upgraded_under_it(nic: Nic, tmp_path: Path) -> None:
    attach(item(1), veth(3))
    other = tmp_path / "other.bpf.o"
    other.write_bytes(OBJECT.read_bytes() + bytes(8))
    done = run.run_dataplane({}, "merged", path=str(other))
    assert any("from_container" in step["action"] for step in done["steps"]), done["steps"]
    assert talks("c1", "c3")
    assert talks("far", "c1")
    assert not attach(item(1), veth(3))["changed"]


def test_a_pool_has_an_end(nic: Nic) -> None:
    attach(*map(item, range(1, 5)))
    before = run.run_attachments([], "gathered")
    with pytest.raises(InvalidConfig, match=r"config\[at5\]\.kind = 'vf'.*at1 has it"):
        attach(*map(item, range(1, 6)))
    assert run.run_attachments([], "gathered") == before
    assert talks("c1", "c4")
    told = attach(*map(item, range(1, 6)), skip_absent=True)
    assert (told["changed"], told["without_vf"]) == (True, ["at5"])  # the list is kept for later
    attach(*map(item, range(2, 6)))
    assert talks("c5", "c4")


def test_what_others_have_is_left_alone(nic: Nic) -> None:
    vfs = sorted(free(nic))
    command("ip", "link", "add", "br0", "type", "bridge")
    try:
        command("ip", "link", "set", nic.near("pf0vf0"), "master", "br0")
        command("ip", "link", "set", nic.vf(1), "up")
        command("modprobe", "vfio-pci")
        nic.bind(2, "vfio-pci")
        assert attach(item(1))["after"][0]["vf"] == vfs[3]
        words = ("is in br0", "is up", "vfio-pci", "at1 has it")
        for pci, why in zip(vfs, words, strict=True):
            with pytest.raises(InvalidConfig, match=why):
                attach(item(1), item(2, vf=pci))
        with pytest.raises(InvalidConfig, match="PCI address of a VF"):
            attach(item(1, vf="0000:00:00.0"))
    finally:
        command("ip", "link", "del", "br0")
        command("ip", "link", "set", nic.vf(1), "down")
        nic.bind(2, None)
        sriov.bind(vfs[2])
    attach()
    nic.set_mode("legacy")
    with pytest.raises(InvalidConfig, match="switchdev"):
        attach(item(1))
    nic.set_mode("switchdev")


def test_a_container_that_has_died_gives_it_back(nic: Nic) -> None:
    before = free(nic)
    attach(item(1), item(2))
    command("ip", "netns", "del", "c1")
    until(
        lambda: any(vf.netdevs for one in sriov.physical() for vf in one.vfs.values() if vf.pci == min(before)), "home"
    )
    done = attach(item(1), item(2), skip_absent=True)
    assert [one["name"] for one in done["after"]] == ["at2"]
    assert free(nic) == {pci: name for pci, name in before.items() if pci != sorted(before)[1]}
    command("ip", "netns", "add", "c1")
    assert attach(item(1), item(2))["after"][0]["vf"] == min(before)
    assert talks("c1", "c2")


def test_it_comes_back_from_wherever_it_is(nic: Nic) -> None:
    """Somebody in the container changes all that can be changed, and takes it to a namespace that nobody knows."""
    before = free(nic)
    macs = {pci: Path(f"/sys/class/net/{name}/address").read_text() for pci, name in before.items()}
    attach(item(1))
    command("ip", "-n", "c1", "link", "set", "eth0", "mtu", "1300", "address", "02:00:00:00:00:99")
    done = attach(item(1))
    assert "mac" in done["steps"][0]["action"]
    command("ip", "-n", "c1", "link", "set", "eth0", "mtu", "1300", "address", "02:00:00:00:00:99")
    command("ip", "-n", "c1", "link", "set", "eth0", "name", next(iter(os.listdir("/sys/class/net"))))
    attach()
    assert free(nic) == before
    attach(item(1))
    command("ip", "-n", "c1", "link", "set", "eth0", "netns", "nested")
    attach()
    assert {pci: Path(f"/sys/class/net/{name}/address").read_text() for pci, name in free(nic).items()} == macs


def test_from_a_pair_and_back(nic: Nic) -> None:
    before = free(nic)
    attach(veth(1), veth(3))
    with pytest.raises(FastpathError, match="allow_disruption"):
        run.run_attachments([item(1)], "merged")
    for kind in ("vf", "veth", "vf"):
        assert attach(item(1, kind=kind), state="replaced")["changed"]
        assert talks("c1", "c3")
    plain = {key: value for key, value in item(1).items() if key != "kind"}
    assert attach(plain, state="replaced")["after"][0]["kind"] != "vf"
    assert free(nic) == before


def test_check_counts_on_what_nics_will_be(nic: Nic) -> None:
    """VFs that are not there yet, then what is made anew under those who have them, then a MAC that one gets."""
    none = {"device": {"pci": nic.address}, "mode": "legacy", "vfs": 0}
    two = {**none, "mode": "switchdev", "vfs": 2}
    three = {**two, "vfs": 3}
    other_mac = {**three, "vf": [{"index": 0, "mac": "02:00:00:00:00:77"}]}
    items = [item(1), item(2, vf=sorted(free(nic))[1]), veth(3)]
    try:
        run.run_eswitch([none], "overridden", allow_disruption=True)
        for wished in (two, three, other_mac):
            assert run.run_eswitch([wished], "overridden", check=True, allow_disruption=True)["changed"]
            checked = attach(*items, ahead=run.Ahead(nics=[wished]), check=True)
            run.run_eswitch([wished], "overridden", allow_disruption=True)
            done = attach(*items)
            assert [checked[key] for key in ("steps", "before", "after")] == [
                done[key] for key in ("steps", "before", "after")
            ]
            assert done["changed"]
            assert talks("c1", "c2")
            assert talks("c3", "c1")
        assert "02:00:00:00:00:77" in command("ip", "-n", "c1", "link", "show", "eth0")
    finally:
        attach()
        run.run_eswitch([], "deleted", allow_disruption=True)
        nic.set_vfs(VFS)
        nic.set_mode("switchdev")
        command("udevadm", "settle")


def test_a_removal_that_fails_is_taken_back(nic: Nic, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(item(1), veth(3))
    before, at = run.run_attachments([], "gathered"), 0
    while True:
        said = ""
        try:
            broken_off(at, partial(attach, veth(3)), monkeypatch, OSError(12, "injected"))
            break
        except FastpathError as error:
            said = str(error)
        assert "injected" in said
        assert "Could not be taken back" not in said
        assert run.run_attachments([], "gathered") == before, at
        at += 1
        assert talks("c1", "c3"), at
    assert at > 7
    assert len(free(nic)) == VFS


def test_a_killed_run_is_finished_by_the_next(nic: Nic, monkeypatch: pytest.MonkeyPatch) -> None:
    before = free(nic)
    attach(veth(3))
    for wanted in ([item(1), veth(3)], [veth(3)], [item(1, vf=max(before)), veth(3)], [veth(1), veth(3)], [veth(3)]):
        start = run.run_attachments([], "gathered")["gathered"]
        at = 0
        while broken_off(at, partial(attach, *wanted), monkeypatch):
            attach(*wanted)
            assert not attach(*wanted)["changed"], at
            if len(wanted) > 1:
                assert talks("c1", "c3"), at
            assert len(free(nic)) == VFS - (wanted[0]["kind"] == "vf"), at
            attach(*start)
            at += 1
        assert at > 3
    assert free(nic) == before
