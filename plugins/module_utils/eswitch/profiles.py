# SPDX-License-Identifier: GPL-3.0-or-later
"""What the drivers of NICs with VFs want: the order of a change, and what must hold before what. Data, with sources.

A source is a file of the kernel's tree, or an issue as project#number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LEGACY, SWITCHDEV = "legacy", "switchdev"
KERNEL, VFIO = "kernel", "vfio-pci"  # what a VF is bound to: the driver that the kernel has for it, or this one

# What the PF's driver enforces on a VF, by the names of the config.
MAC, VLAN, TRUST, SPOOFCHECK, MIN_RATE, MAX_RATE = "mac", "vlan", "trust", "spoofcheck", "min_rate", "max_rate"
ATTRIBUTES = (MAC, VLAN, TRUST, SPOOFCHECK, MIN_RATE, MAX_RATE)

ACTIVE_BACKUP, LACP, XOR = "active-backup", "802.3ad", "balance-xor"
LAG_MODES = (ACTIVE_BACKUP, LACP, XOR)

# The phases of a change. Each does nothing where nothing differs.
UP = "up"  # bring up the PF's interface
UNBIND = "unbind"  # take the VFs from their drivers
LEAVE = "leave"  # take the uplink out of its LAG
TO_LEGACY = "to legacy"  # leave switchdev for the time of the change
NO_VFS = "no vfs"  # remove the VFs
PARAMS = "params"  # devlink parameters
VFS = "vfs"  # make the VFs
MODE = "mode"  # the mode that is wanted
SETTINGS = "settings"  # inline and encap mode, hw-tc-offload, MTU
SETUP = "attributes"  # attributes of VFs, before a driver reads them
NAMES = "names"  # names of interfaces
JOIN = "join"  # put the uplink into its LAG, or bring it up where it has left one for good
BIND = "bind"  # give the VFs to their drivers
# The NICs of a LAG go through these parts together: all have done one before one of them begins with the next.
PARTS = ((UP, UNBIND), (LEAVE,), (TO_LEGACY, NO_VFS, PARAMS, VFS, MODE, SETTINGS, SETUP, NAMES), (JOIN,), (BIND,))


@dataclass(frozen=True)
class LagRules:
    """When a driver lets each VF use all uplinks of a bond (VF LAG); where they are broken the bond is only a bond.

    modes: of the bond. most: uplinks in it. all_switchdev: each NIC is in switchdev mode, else one of them. one_card:
    they are functions of one PCI device. vfs_free: no driver holds a VF of any of them while an uplink comes or goes.
    off: flags of the driver (ethtool --show-priv-flags) that are off.
    """

    modes: tuple[str, ...]
    most: int
    all_switchdev: bool
    one_card: bool
    vfs_free: bool
    off: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Profile:
    """How a driver wants to be treated.

    order: the phases. vfs_in: the mode in which the number of VFs is changed, "" for any.
    mode_without_vfs: the mode changes only while there are none. up_for_vfs: the PF is up while their number changes.
    free_for_mode: the uplink is in no bridge or bond while the mode changes.
    legacy_params: parameters that are set in legacy mode and without VFs.
    attributes: by mode, what the driver takes for a VF. binds: its VFs are PCI devices that drivers take.
    lag: its rules for VF LAG, None where it has none.
    disturbs: the phases in which the uplink's traffic stops for a moment.
    sources: what is said -> where it comes from.
    """

    name: str
    drivers: tuple[str, ...]
    order: tuple[str, ...]
    attributes: Mapping[str, frozenset[str]]
    sources: Mapping[str, str]
    vfs_in: str = ""
    mode_without_vfs: bool = False
    up_for_vfs: bool = False
    free_for_mode: bool = False
    legacy_params: frozenset[str] = frozenset()
    binds: bool = True
    disturbs: frozenset[str] = frozenset()
    lag: LagRules | None = None


_ALL = frozenset(ATTRIBUTES)
# VFs first, without drivers; then the mode.
_VFS_FIRST = (UP, UNBIND, LEAVE, TO_LEGACY, NO_VFS, PARAMS, VFS, MODE, SETTINGS, SETUP, NAMES, JOIN, BIND)
# The mode first, while nobody is there whom it could disturb.
_MODE_FIRST = (UP, UNBIND, LEAVE, NO_VFS, MODE, PARAMS, VFS, SETTINGS, SETUP, NAMES, JOIN, BIND)

MLX5 = Profile(
    name="mlx5",
    drivers=("mlx5_core",),
    order=_VFS_FIRST,
    attributes={LEGACY: _ALL, SWITCHDEV: frozenset([MAC, MIN_RATE, MAX_RATE])},
    vfs_in=LEGACY,
    free_for_mode=True,
    legacy_params=frozenset(["flow_steering_mode"]),
    disturbs=frozenset([TO_LEGACY, MODE]),
    lag=LagRules(LAG_MODES, most=4, all_switchdev=True, one_card=False, vfs_free=True),
    sources={
        "order": "sriov-network-operator#1015, #1019; one-deploy#214: all VFs unbound, then the mode, then bound again",
        "attributes": "mlx5/core/esw/legacy.c: vlan, spoofchk and trust are EOPNOTSUPP outside legacy mode",
        "vfs_in": "mlx5/core/sriov.c before 5.8 leaves switchdev when VFs go; sriov-network-operator does it in legacy",
        "legacy_params": "mlx5/core/fs_core.c mlx5_fs_mode_validate: EOPNOTSUPP in switchdev mode",
        "free_for_mode": "sriov-network-operator#1048 takes it out of bridges first, #202 has bonds come later",
        "disturbs": "netplan#439: the uplink loses its link while the mode changes",
        "lag": "mlx5/core/lag/lag.c: mlx5_handle_changeupper_event (modes, all ports of the card and only these), "
        "mlx5_lag_check_prereq (with VFs all in switchdev mode), mlx5_activate_lag (all VFs unbound before it is made "
        "or ends); so sriov-network-operator#202 binds VFs after the bond is there",
    },
)

ICE = Profile(
    name="ice",
    drivers=("ice",),
    order=_MODE_FIRST,
    attributes={LEGACY: _ALL, SWITCHDEV: _ALL - {TRUST}},
    mode_without_vfs=True,
    lag=LagRules(
        (ACTIVE_BACKUP,), most=2, all_switchdev=False, one_card=True, vfs_free=False, off=frozenset(["fw-lldp-agent"])
    ),
    sources={
        "order": "sriov-network-operator#757: the mode, then VFs",
        "attributes": "intel/ice/ice_sriov.c ice_set_vf_trust: EOPNOTSUPP in switchdev mode",
        "mode_without_vfs": "intel/ice/ice_eswitch.c ice_eswitch_mode_set: EOPNOTSUPP while there are VFs",
        "lag": "intel/ice/ice_lag.c: ice_lag_chk_comp (mode, two ports of one PCI device, DCB alike, no LLDP agent in "
        "the firmware), ice_lag_changeupper_event (the first one in is in switchdev mode, and was when it came)",
    },
)

BNXT = Profile(
    name="bnxt",
    drivers=("bnxt_en",),
    order=_VFS_FIRST,
    attributes={LEGACY: _ALL, SWITCHDEV: _ALL},
    vfs_in=LEGACY,
    up_for_vfs=True,
    disturbs=frozenset([TO_LEGACY, MODE]),
    sources={
        "order": "broadcom/bnxt/bnxt_vfr.c before 6.4: EPERM for switchdev while there are no VFs",
        "attributes": "broadcom/bnxt/bnxt_sriov.c: what sets a VF does not look at the mode",
        "vfs_in": "broadcom/bnxt/bnxt_vfr.c before 6.4: representors and the mode go with the VFs",
        "up_for_vfs": "systemd#40739; broadcom/bnxt/bnxt_sriov.c: with the PF down it makes none and reports success",
        "disturbs": "broadcom/bnxt/bnxt_vfr.c bnxt_vf_reps_destroy: closes and opens the PF",
    },
)

IGB = Profile(
    name="igb",
    drivers=("igb",),
    order=_MODE_FIRST,
    attributes={LEGACY: frozenset([MAC, VLAN, TRUST, SPOOFCHECK]), SWITCHDEV: frozenset()},
    disturbs=frozenset([NO_VFS, VFS]),
    sources={
        "order": "drivers/pci/iov.c: the number of VFs goes to 0 before it changes; igb has no modes",
        "attributes": "intel/igb/igb_main.c igb_ndo_set_vf_bw: EOPNOTSUPP on all but the 82576",
        "disturbs": "intel/igb/igb_main.c igb_sriov_reinit: closes and opens the PF",
    },
)

NETDEVSIM = Profile(
    name="netdevsim",
    drivers=("netdevsim",),
    order=_VFS_FIRST,
    attributes={LEGACY: _ALL, SWITCHDEV: _ALL - {MIN_RATE, MAX_RATE}},
    vfs_in=LEGACY,
    binds=False,
    sources={
        "order": "netdevsim/dev.c: the mode changes at any time",
        "attributes": "netdevsim/netdev.c nsim_set_vf_rate: EOPNOTSUPP in switchdev mode",
        "vfs_in": "netdevsim/dev.c nsim_drv_configure_vfs: a number goes to 0 before it changes; 0 leaves switchdev",
        "binds": "netdevsim/bus.c: VFs are numbers, no devices",
    },
)

CAUTIOUS = Profile(
    name="cautious",
    drivers=(),
    order=_MODE_FIRST,
    attributes={LEGACY: _ALL, SWITCHDEV: frozenset([MAC])},
    mode_without_vfs=True,
    up_for_vfs=True,
    free_for_mode=True,
    disturbs=frozenset([NO_VFS, VFS, MODE]),
    sources={
        "order": "what asks least of a driver: the mode changes while there are no VFs",
        "attributes": "a MAC is what every driver takes",
        "mode_without_vfs": "what asks least of a driver",
        "up_for_vfs": "nobody is known who wants the PF down",
        "free_for_mode": "what asks least of a driver",
        "disturbs": "nothing is known, so everything may",
    },
)

PROFILES = (MLX5, ICE, BNXT, IGB, NETDEVSIM)


def profile(driver: str) -> Profile:
    """The profile of a PF's driver; a cautious one for a driver that is not known."""
    return next((one for one in PROFILES if driver in one.drivers), CAUTIOUS)
