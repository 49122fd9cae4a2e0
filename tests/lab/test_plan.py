# SPDX-License-Identifier: GPL-3.0-or-later
"""The address plan and what is written for ssh and Ansible: no root needed."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lab import image, initrd, inventory
from lab.machine import Machine
from lab.place import Place
from lab.plan import FABRIC_GATEWAYS, MAX_NODES, OUTSIDE_ADDRESSES, Topology, netns_of_lab

LAB = Topology("demo", 3, 2, "minimal")
VIRTUAL = Topology("demo", 3, 2, "minimal", "vm", ("6.1", "7.2"))
ACCESS = inventory.Access(
    config=Path("/r/.lab/demo/ssh_config"),
    key=Path("/r/.lab/demo/id_ed25519"),
    known_hosts=Path("/r/.lab/demo/known_hosts"),
    sockets=Path("/run/fastpath-lab/demo"),
    python="/usr/bin/python3",
    proxy=Path("/r/lab/proxy.py"),
)


def test_third_node() -> None:
    node = LAB.node(3)
    assert node.netns == "demo-node3"
    assert node.addresses == ("192.0.2.13", "fd00:192::13")
    assert node.prefixes == ("10.128.3.0/24", "fd00:128:3::/64")
    assert [(c.name, c.netns, c.addresses) for c in node.containers] == [
        ("c1", "/run/netns/c1", ("10.128.3.11/32", "fd00:128:3::11/128")),
        ("c2", "/run/netns/c2", ("10.128.3.12/32", "fd00:128:3::12/128")),
    ]


def test_largest_lab_has_unique_valid_values() -> None:
    nodes = list(Topology("x", MAX_NODES, 200, "minimal"))
    addresses = [ipaddress.ip_address(text) for node in nodes for text in node.addresses]
    addresses += [ipaddress.ip_address(text) for text in FABRIC_GATEWAYS + OUTSIDE_ADDRESSES]
    assert len(set(addresses)) == len(addresses) == 2 * MAX_NODES + 4
    assert len({node.mac for node in nodes}) == len({node.machine_id for node in nodes}) == MAX_NODES
    for node in nodes:
        for container in node.containers:
            for address, prefix in zip(container.addresses, node.prefixes, strict=True):
                assert ipaddress.ip_interface(address).ip in ipaddress.ip_network(prefix)


@pytest.mark.parametrize(
    ("name", "nodes", "containers", "flavour"),
    [
        ("", 1, 0, "minimal"),
        ("../x", 1, 0, "minimal"),
        ("Demo", 1, 0, "minimal"),
        ("a" * 21, 1, 0, "minimal"),
        ("demo\n", 1, 0, "minimal"),
        ("demo", 0, 0, "minimal"),
        ("demo", MAX_NODES + 1, 0, "minimal"),
        ("demo", 1, -1, "minimal"),
        ("demo", 1, 0, "docker"),
    ],
)
def test_refuses(name: str, nodes: int, containers: int, flavour: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is for people
        Topology(name, nodes, containers, flavour)


def test_zero_is_a_wish_and_not_a_default() -> None:
    assert Topology.wanted("demo", containers=0).containers == 0
    with pytest.raises(ValueError, match="nodes = 0"):
        Topology.wanted("demo", nodes=0)


def test_a_lab_grows_and_never_shrinks() -> None:
    assert LAB.grown(None, None, None) == LAB
    assert LAB.grown(5, 1, "minimal") == Topology("demo", 5, 2, "minimal")
    with pytest.raises(ValueError, match="take it down first"):
        LAB.grown(None, None, "podman")


def test_topology_survives_its_file() -> None:
    for lab in (LAB, VIRTUAL):
        assert Topology.from_dict(json.loads(json.dumps(lab.as_dict()))) == lab


@pytest.mark.parametrize(
    ("netns", "ours"),
    [
        ("a-fabric", True),
        ("a-outside", True),
        ("a-node12", True),
        ("a-node", False),
        ("a-b-node1", False),
        ("ab-node1", False),
        ("c1", False),
    ],
)
def test_netns_of_lab(netns: str, ours: bool) -> None:
    assert netns_of_lab("a", netns) is ours


def test_inventory() -> None:
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load(inventory.inventory(LAB, ACCESS))
    group = data["nodes"]
    assert list(data) == ["nodes"]
    assert list(group["hosts"]) == ["node1", "node2", "node3"]
    assert group["vars"]["ansible_user"] == "root"
    assert "-F /r/.lab/demo/ssh_config" in group["vars"]["ansible_ssh_args"]
    assert group["hosts"]["node2"] == {
        "ansible_host": "192.0.2.12",
        "lab_uplink": {"name": "eth0", "mac": "02:1a:b0:00:01:02", "addresses": ["192.0.2.12", "fd00:192::12"]},
        "lab_prefixes": ["10.128.2.0/24", "fd00:128:2::/64"],
        "lab_containers": [
            {"name": "c1", "netns": "/run/netns/c1", "addresses": ["10.128.2.11/32", "fd00:128:2::11/128"]},
            {"name": "c2", "netns": "/run/netns/c2", "addresses": ["10.128.2.12/32", "fd00:128:2::12/128"]},
        ],
    }


def test_inventory_without_containers() -> None:
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load(inventory.inventory(Topology("demo", 1, 0, "minimal"), ACCESS))
    assert data["nodes"]["hosts"]["node1"]["lab_containers"] == []


def test_ssh_config() -> None:
    text = inventory.ssh_config(LAB, ACCESS)
    assert "Host node2 192.0.2.12 fd00:192::12\n  HostName 192.0.2.12\n" in text
    assert "ProxyCommand nsenter --net=/run/netns/demo-fabric -- /usr/bin/python3" in text


def test_virtual_nodes_take_turns_with_kernels() -> None:
    assert [node.kernel for node in VIRTUAL] == ["6.1", "7.2", "6.1"]
    assert [node.kernel for node in LAB] == ["", "", ""]
    assert Topology.wanted("demo", kind="vm").kernels == ("6.12",)
    assert VIRTUAL.node(2).management == "127.0.0.12"
    assert VIRTUAL.node(2).addresses == LAB.node(2).addresses


@pytest.mark.parametrize(
    ("kind", "kernels"), [("vm", ("5.10",)), ("vm", ()), ("pod", ()), ("container", ("6.1",)), ("", ())]
)
def test_refuses_kinds_and_kernels(kind: str, kernels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is for people
        Topology("demo", 1, 0, "minimal", kind, kernels)


def test_a_virtual_lab_keeps_its_kind() -> None:
    assert VIRTUAL.grown(None, 3, None, "vm", ["6.1", "7.2"]).containers == 3
    for kind, kernels in (("container", ()), (None, ("6.1",))):
        with pytest.raises(ValueError, match="take it down first"):
            VIRTUAL.grown(None, None, None, kind, kernels)


def test_virtual_nodes_are_reached_beside_the_fabric() -> None:
    assert "Host node2 192.0.2.12 fd00:192::12 127.0.0.12\n  HostName 127.0.0.12\n" in inventory.ssh_config(
        VIRTUAL, ACCESS
    )
    assert "ansible_host: 127.0.0.12\n" in inventory.inventory(VIRTUAL, ACCESS)


def test_ssh_gets_each_argument_as_it_is() -> None:
    place = Place("node1/c1", ("nsenter", "--"), ("ssh", "node1"))
    assert place.command(["echo", "a b", "$x"]) == ["ssh", "node1", "nsenter -- echo 'a b' '$x'"]
    assert place.command(["bash"], terminal=True) == ["ssh", "node1", "-t", "nsenter -- bash"]


def test_a_machine_is_the_same_when_it_wakes_up_and_when_it_boots() -> None:
    machine = Machine("n", Path("/i"), Path("/d.qcow2"), Path("/m"), "127.0.0.11", "02:00:00:00:00:01", "node1")
    waking, booting = machine.resumed(), machine.booted()
    assert waking[-2:] == ["-incoming", "defer"]
    differing = [(one, other) for one, other in zip(waking, booting, strict=False) if one != other]
    assert [(json.loads(one)["qom-type"], json.loads(other)["qom-type"]) for one, other in differing] == [
        ("memory-backend-file", "memory-backend-ram")
    ]


def test_cpio() -> None:
    archive = initrd.cpio([("bin", b""), ("bin/busybox", b"abcde")])
    assert len(archive) % 4 == 0
    # A reader that knows nothing of the writer.
    if cpio := shutil.which("cpio"):
        command = [cpio, "--extract", "--to-stdout", "bin/busybox"]
        assert subprocess.run(command, input=archive, capture_output=True, check=True).stdout == b"abcde"
    name = archive.index(b"bin/busybox\0")
    assert archive[name - 110 :].startswith(b"070701")
    assert archive[name - 110 + 54 : name - 110 + 62] == b"00000005"


def test_recipe_decides_the_digest() -> None:
    minimal, podman = image.recipe("minimal"), image.recipe("podman")
    assert minimal == image.recipe("minimal")
    assert minimal.digest == image.recipe("minimal").digest != podman.digest
    assert set(minimal.packages) < set(podman.packages)


def test_half_an_image_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "CACHE", tmp_path)

    def killed(target: Path) -> None:
        target.mkdir()
        (target / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image.cached(image.recipe("minimal"), killed, print)
    path = image.cached(image.recipe("minimal"), Path.mkdir, print)
    assert path.is_dir()
    assert list(path.iterdir()) == []


def test_who_comes_second_waits_for_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "CACHE", tmp_path)
    said: list[str] = []
    second = threading.Thread(target=image.cached, args=(image.recipe("minimal"), pytest.fail, said.append))

    def slow(target: Path) -> None:
        second.start()
        while not any("waiting" in text for text in said):
            time.sleep(0.01)
        target.mkdir()

    image.cached(image.recipe("minimal"), slow, print)
    second.join(10)
    assert not second.is_alive()
