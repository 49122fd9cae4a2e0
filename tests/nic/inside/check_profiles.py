# SPDX-License-Identifier: GPL-3.0-or-later
"""Each profile refuses what its driver refuses, with the driver's error and words."""

from __future__ import annotations

import pytest

from tests.nic.inside.device import CommandError, load, run


def test_mlx5() -> None:
    nic = load(profile="mlx5")
    assert "driver: mlx5_core" in run("ethtool", "-i", nic.uplink)
    steering = ("devlink", "dev", "param", "set", nic.handle, "name", "flow_steering_mode", "cmode", "runtime", "value")
    run(*steering, "smfs")
    nic.set_vfs(2)
    with pytest.raises(CommandError, match="Failed setting eswitch to offloads"):
        nic.set_mode("switchdev")
    for number in (0, 1):
        nic.bind(number, None)
    nic.set_mode("switchdev")
    with pytest.raises(CommandError, match="fs mode is not supported when eswitch offloads enabled"):
        run(*steering, "dmfs")
    for number in (0, 1):
        nic.bind(number, "fastpath_nic_vf")
    rule = ("tc", "filter", "add", "dev", nic.near("pf0vf0"), "ingress", "flower", "skip_sw", "action", "drop")
    run("tc", "qdisc", "add", "dev", nic.near("pf0vf0"), "clsact")
    run(*rule)
    with pytest.raises(CommandError, match="E-Switch is busy"):
        nic.set_mode("legacy")
    run("tc", "qdisc", "del", "dev", nic.near("pf0vf0"), "clsact")
    with pytest.raises(CommandError, match="Failed setting eswitch to legacy"):
        nic.set_mode("legacy")
    for number in (0, 1):
        nic.bind(number, None)
    nic.set_mode("legacy")


def test_ice() -> None:
    nic = load(profile="ice")
    nic.set_vfs(1)
    with pytest.raises(CommandError, match="only if there is no VFs created"):
        nic.set_mode("switchdev")
    nic.set_vfs(0)
    nic.set_mode("switchdev")
    nic.set_vfs(1)
    assert nic.near("pf0vf0")
    with pytest.raises(CommandError, match="only if there is no VFs created"):
        nic.set_mode("legacy")
    assert "flow_steering_mode" not in run("devlink", "dev", "param", "show")


def test_bnxt() -> None:
    nic = load(profile="bnxt")
    nic.set_vfs(2)
    assert (nic.sysfs / "sriov_numvfs").read_text().strip() == "0", "refused without an error, as the driver does"
    with pytest.raises(CommandError, match="Enable VFs before"):
        nic.set_mode("switchdev")
    run("ip", "link", "set", nic.uplink, "up")
    nic.set_vfs(2)
    nic.set_mode("switchdev")
    with pytest.raises(CommandError, match="already in this"):
        nic.set_mode("switchdev")
