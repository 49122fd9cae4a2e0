# SPDX-License-Identifier: GPL-3.0-or-later
"""From nothing to VFs that talk to each other through rules, and back to nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.nic.inside.device import CommandError, End, Nic, arrivals, load, rule, rules, run, switchdev, unload, until
from tests.nic.inside.frames import Frame, mac


def test_pci_core_gives_vfs() -> None:
    nic = load(vfs=4)
    assert (nic.sysfs / "sriov_totalvfs").read_text().strip() == "4"
    with pytest.raises(OSError, match="out of range"):
        nic.set_vfs(5)
    nic.set_vfs(3)
    with pytest.raises(OSError, match="busy"):
        nic.set_vfs(2)
    assert sorted(path.name for path in nic.sysfs.glob("virtfn*")) == ["virtfn0", "virtfn1", "virtfn2"]
    assert len({nic.vf(number) for number in range(3)}) == 3
    nic.set_vfs(0)
    assert not list(nic.sysfs.glob("virtfn*"))


def test_representors_come_and_go_with_the_mode() -> None:
    nic = load()
    nic.set_vfs(2)
    assert nic.mode() == "legacy"
    nic.set_mode("switchdev")
    nears = nic.nears()
    assert set(nears) == {"p0", "pf0vf0", "pf0vf1"}
    assert len({(nic.sysfs / "net" / name / "phys_switch_id").read_text() for name in nears.values()}) == 1
    nic.set_vfs(0)
    assert [path.name for path in (nic.sysfs / "net").iterdir()] == [nic.uplink]
    nic.set_vfs(3)
    assert nic.near("pf0vf2")
    nic.set_mode("legacy")
    assert [path.name for path in (nic.sysfs / "net").iterdir()] == [nic.uplink]
    with pytest.raises(OSError, match="not supported"):
        (nic.sysfs / "net" / nic.uplink / "phys_switch_id").read_text()


def test_a_miss_goes_to_the_representor() -> None:
    with switchdev(2) as (_nic, ends):
        frame = Frame().pack()
        for far, near in (("v0", "r0"), ("v1", "r1"), ("w0", "p0")):
            ends[far].send(frame)
            assert arrivals(ends) == {near: [frame]}
            ends[near].send(frame)
            assert arrivals(ends) == {far: [frame]}


def test_vf_to_vf_by_rules_passes_the_host_by() -> None:
    with switchdev(2) as (_nic, ends):
        rule(ends["r0"].name, "action", "mirred", "egress", "redirect", "dev", ends["r1"].name)
        frame = Frame().pack()
        for _round in range(5):
            ends["v0"].send(frame)
        assert arrivals(ends) == {"v1": [frame] * 5}
        (options,) = rules(ends["r0"].name)
        assert (options["in_hw"], options["skip_sw"], options["in_hw_count"]) == (True, True, 1)
        stats = options["actions"][0]["stats"]
        assert (stats["hw_packets"], stats["hw_bytes"]) == (5, 5 * len(frame))
        assert stats["packets"] == 5


def test_legacy_mode_switches_by_mac() -> None:
    nic = load()
    nic.set_vfs(2)
    names = {"w0": nic.wire, "p0": nic.uplink, "v0": nic.vf(0), "v1": nic.vf(1)}
    for name in names.values():
        run("ip", "link", "set", name, "up")
    macs = {end: bytes.fromhex((Path("/sys/class/net") / name / "address").read_text().replace(":", ""))
            for end, name in names.items()}  # fmt: skip
    ends = {end: End(name) for end, name in names.items()}

    def send(sender: str, dst: bytes) -> set[str]:
        ends[sender].send(Frame(dst_mac=dst, src_mac=macs[sender]).pack())
        return set(arrivals(ends))

    assert send("v0", macs["v1"]) == {"v1"}
    assert send("v0", macs["p0"]) == {"p0"}
    assert send("v0", mac(99)) == {"w0"}
    assert send("w0", macs["v0"]) == {"v0"}
    assert send("w0", mac(99)) == set()
    assert send("p0", macs["v1"]) == {"v1"}
    assert send("v1", b"\xff" * 6) == {"w0", "p0", "v0"}
    ends["v0"].send(Frame(dst_mac=macs["v1"], src_mac=mac(98)).pack())
    assert arrivals(ends) == {}, "a spoofed source"
    run("ip", "link", "set", names["p0"], "vf", "0", "spoofchk", "off")
    ends["v0"].send(Frame(dst_mac=macs["v1"], src_mac=mac(98)).pack())
    assert set(arrivals(ends)) == {"v1"}
    run("ip", "link", "set", names["p0"], "vf", "0", "vlan", "7")
    ends["v0"].send(Frame(dst_mac=mac(99)).pack())
    assert arrivals(ends) == {"w0": [Frame(dst_mac=mac(99), tags=((0, 7),)).pack()]}


def test_rules_need_switchdev_and_hold_the_mode() -> None:
    with switchdev(1) as (nic, ends):
        rule(ends["p0"].name, "action", "drop")
        with pytest.raises(CommandError, match="rules in the table"):
            nic.set_mode("legacy")
        with pytest.raises(CommandError):
            run("ethtool", "-K", ends["p0"].name, "hw-tc-offload", "off")
        run("tc", "filter", "del", "dev", ends["p0"].name, "ingress")
        nic.set_mode("legacy")
        with pytest.raises(CommandError, match="switchdev"):
            rule(ends["p0"].name, "action", "drop")


def traffic(nic: Nic, seconds: float) -> subprocess.Popen[bytes]:
    """Ping floods between two VFs in name spaces of their own."""
    for number in (0, 1):
        space, device = f"n{number}", nic.vf(number)
        run("ip", "netns", "add", space)
        run("ip", "link", "set", device, "netns", space)
        run("ip", "-n", space, "address", "add", f"10.9.0.{number + 1}/24", "dev", device)
        run("ip", "-n", space, "link", "set", device, "up")
    command = ["ip", "netns", "exec", "n0", "ping", "-f", "-q", "-w", str(int(seconds)), "10.9.0.2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end_traffic() -> None:
    for number in (0, 1):
        run("ip", "netns", "del", f"n{number}")


def test_module_goes_under_traffic() -> None:
    with switchdev(2) as (nic, ends):
        for one, other in (("r0", "r1"), ("r1", "r0")):
            rule(ends[one].name, "action", "mirred", "egress", "redirect", "dev", ends[other].name)
        for end in ends.values():
            end.socket.close()
        with traffic(nic, 20) as ping:
            assert int(nic.knob("table_used")) == 2
            until(lambda: rules(ends["r0"].name)[0]["actions"][0]["stats"]["hw_packets"] > 10, "some hits")
            unload()
            ping.kill()
        end_traffic()
    assert not Path("/sys/bus/pci/devices/0001:01:00.0").exists()
