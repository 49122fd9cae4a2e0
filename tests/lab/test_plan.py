# SPDX-License-Identifier: GPL-3.0-or-later
"""The address plan and what is written for ssh and Ansible: no root needed."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from lab import image, inventory
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


def test_recipe_decides_the_digest() -> None:
    minimal, podman = image.recipe("minimal"), image.recipe("podman")
    assert minimal == image.recipe("minimal")
    assert minimal.digest == image.recipe("minimal").digest != podman.digest
    assert set(minimal.packages) < set(podman.packages)
