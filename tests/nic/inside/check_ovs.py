# SPDX-License-Identifier: GPL-3.0-or-later
"""Open vSwitch as Debian has it forwards through the device: its flows are in the table, representors are silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.nic.inside.device import CommandError, End, Nic, arrivals, load, run, until
from tests.nic.inside.frames import IPV4

ADDRESSES = {"left": "10.9.0.1/24", "right": "10.9.0.2/24"}


@pytest.fixture
def nic() -> Iterator[Nic]:
    """In switchdev mode; a name space for each of two VFs and for the wire, which are up and have addresses."""
    nic = load()
    nic.set_vfs(2)
    nic.set_mode("switchdev")
    run("ethtool", "-K", nic.uplink, "hw-tc-offload", "on")
    for name in nic.nears().values():
        run("ip", "link", "set", name, "up")
    devices = {"left": nic.vf(0), "right": nic.vf(1), "wire": nic.wire}
    for space, device in devices.items():
        run("ip", "netns", "add", space)
        run("ip", "link", "set", device, "netns", space)
        run("ip", "-n", space, "link", "set", device, "up")
    for space, address in ADDRESSES.items():
        run("ip", "-n", space, "address", "add", address, "dev", devices[space])
    yield nic
    # A name space takes what has no parent along.
    run("ip", "-n", "wire", "link", "set", nic.wire, "netns", "1")
    for space in devices:
        run("ip", "netns", "del", space)


@contextmanager
def bridge(nic: Nic) -> Iterator[None]:
    """A bridge over all ports, made when the daemon already knows of hw-offload."""
    run("systemctl", "start", "openvswitch-switch")
    # Flows outlive the seconds that an emulated machine may need between two packets.
    run("ovs-vsctl", "set", "Open_vSwitch", ".", "other_config:hw-offload=true", "other_config:max-idle=600000")
    try:
        ports = [word for name in nic.nears().values() for word in ("--", "add-port", "br0", name)]
        run("ovs-vsctl", "add-br", "br0", *ports)
        yield
    finally:
        run("ovs-vsctl", "--if-exists", "del-br", "br0")
        run("systemctl", "stop", "openvswitch-switch")


def ping(space: str, address: str, count: int) -> None:
    run("ip", "netns", "exec", space, "ping", "-q", "-c", str(count), "-i", "0.2", "-W", "30", address)


def offloaded() -> list[str]:
    """The flows of IPv4 packets that Open vSwitch believes to be in the device."""
    flows = run("ovs-appctl", "dpctl/dump-flows", "-m", "type=offloaded").splitlines()
    return [flow for flow in flows if "offloaded:yes" in flow and "eth_type(0x0800)" in flow]


def ipv4(frames: list[bytes]) -> list[bytes]:
    at = {frame: 16 if frame[12:14] == b"\x81\x00" else 12 for frame in frames}
    return [frame for frame in frames if frame[at[frame] : at[frame] + 2] == IPV4.to_bytes(2, "big")]


def check_silent(nic: Nic, space: str, address: str) -> None:
    """Once there is a flow for each direction, no IPv4 packet is seen on a near netdev."""

    def flows() -> bool:
        with suppress(CommandError):  # a first packet may be lost while the bridge learns
            ping(space, address, 2)
        return len(offloaded()) >= 2

    until(flows, "flows in the device", seconds=300)
    ends = {name: End(device) for name, device in nic.nears().items()}
    arrivals(ends)
    ping(space, address, 20)
    seen = {name: ipv4(frames) for name, frames in arrivals(ends).items()}
    for end in ends.values():
        end.socket.close()
    assert not any(seen.values()), (seen, offloaded())


def test_between_vfs(nic: Nic) -> None:
    with bridge(nic):
        check_silent(nic, "left", "10.9.0.2")
        assert int(nic.knob("table_used")) >= 2
    assert nic.knob("table_used") == "0"


def test_to_the_wire_with_a_vlan(nic: Nic) -> None:
    run("ip", "-n", "wire", "link", "add", "link", nic.wire, "name", "vlan7", "type", "vlan", "id", "7")
    run("ip", "-n", "wire", "address", "add", "10.9.0.7/24", "dev", "vlan7")
    run("ip", "-n", "wire", "link", "set", "vlan7", "up")
    with bridge(nic):
        run("ovs-vsctl", "set", "port", nic.near("pf0vf0"), "tag=7")
        check_silent(nic, "left", "10.9.0.7")
        text = "\n".join(offloaded())
        assert "push_vlan(vid=7" in text, text
        assert "pop_vlan" in text, text
