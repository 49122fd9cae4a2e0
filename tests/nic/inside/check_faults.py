# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong with real devices, when it is asked for."""

from __future__ import annotations

import time

import pytest

from tests.nic.inside.device import CommandError, Nic, load, run, until


def netdevs(nic: Nic, count: int) -> list[bool]:
    """For each VF, if it has a netdev."""
    return [any((nic.sysfs / f"virtfn{number}/net").glob("*")) for number in range(count)]


def test_one_of_five_vfs_is_missing() -> None:
    nic = load()
    nic.knob("vf_missing", 3)
    nic.set_vfs(5)
    assert netdevs(nic, 5) == [True, True, False, True, True]
    assert not (nic.sysfs / "virtfn2/driver").exists()
    nic.set_mode("switchdev")
    assert nic.near("pf0vf2")
    nic.knob("vf_missing", 0)
    nic.bind(2, "fastpath_nic_vf")
    assert netdevs(nic, 5) == [True] * 5


def test_netdevs_of_vfs_come_late() -> None:
    nic = load()
    nic.knob("vf_delay_ms", 300_000)
    nic.set_vfs(2)
    assert netdevs(nic, 2) == [False, False]
    assert (nic.sysfs / "virtfn0/driver").exists()
    (nic.sysfs / "virtfn0/reset").write_text("1")
    nic.knob("vf_delay_ms", 100)
    nic.bind(0, None)
    nic.bind(0, "fastpath_nic_vf")
    until(lambda: netdevs(nic, 2) == [True, False], "the netdev")


def test_a_vf_is_slow_to_unbind() -> None:
    nic = load()
    nic.set_vfs(1)
    nic.knob("unbind_ms", 2000)
    began = time.monotonic()
    nic.bind(0, None)
    assert time.monotonic() - began >= 2, "a lower bound: it slept"
    nic.knob("unbind_ms", 0)


def test_representors_come_late() -> None:
    nic = load()
    nic.set_vfs(2)
    nic.knob("representor_delay_ms", 300_000)
    nic.set_mode("switchdev")
    assert set(nic.nears()) == {"p0"}
    nic.set_mode("legacy")
    nic.knob("representor_delay_ms", 100)
    nic.set_mode("switchdev")
    until(lambda: len(nic.nears()) == 3, "the representors")


def test_the_mode_change_fails() -> None:
    nic = load()
    nic.set_vfs(1)
    nic.knob("fail_mode", 2)
    nic.set_mode("switchdev")
    with pytest.raises(CommandError, match="firmware failed to change the mode"):
        nic.set_mode("legacy")
    assert nic.mode() == "switchdev"
    nic.set_mode("legacy")


def test_representors_stay() -> None:
    nic = load()
    nic.set_vfs(2)
    nic.set_mode("switchdev")
    representor = nic.near("pf0vf0")
    nic.knob("stale_representors", 1)
    nic.set_mode("legacy")
    assert nic.near("pf0vf0") == representor
    nic.set_vfs(0)
    nic.set_vfs(1)
    nic.set_mode("switchdev")
    assert nic.near("pf0vf0") == representor
    nic.set_mode("legacy")
    run("devlink", "dev", "reload", nic.handle)
    assert set(nic.nears()) == {"p0"}


def test_the_uplink_is_renamed_in_switchdev_mode() -> None:
    nic = load()
    nic.set_mode("switchdev")
    identity = (nic.sysfs / "net" / nic.uplink / "phys_switch_id").read_text()
    run("ip", "link", "set", nic.uplink, "name", "renamed0")
    assert (nic.sysfs / "net/renamed0/phys_switch_id").read_text() == identity
