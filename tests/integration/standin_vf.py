# SPDX-License-Identifier: GPL-3.0-or-later
"""A NIC in switchdev mode that is three pairs of veth, for kernels without one: all but what a driver and the end of a
namespace do, which tests/nic has.

An end is known by the length of its queue, which a veth does not use: 700 + n of VF n's representor, 800 + n of the VF.
"""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.fastpath.node.plugins.module_utils.kernel import links, rtnl, sriov
from ansible_collections.fastpath.node.plugins.module_utils.kernel.sriov import Function, Netdev, Physical
from ansible_collections.fastpath.node.plugins.module_utils.resources import eswitch_node
from ansible_collections.fastpath.node.plugins.module_utils.resources.eswitch_state import Device, Lag

NIC = "0000:3b:00.0"
VFS = tuple(f"0000:3b:00.{number + 2}" for number in range(3))
REPRESENTOR, VF = 700, 800
_TXQLEN = 13  # IFLA_TXQLEN

# What makes it, for `ip -batch`.
MADE = tuple(
    f"link add rep{n} address 02:00:00:00:70:0{n} txqueuelen {REPRESENTOR + n} type veth"
    f" peer name vf{n} address 02:00:00:00:80:0{n} txqueuelen {VF + n}"
    for n in range(len(VFS))
)


WISHED = {"device": {"pci": NIC}, "mode": "switchdev", "vfs": len(VFS)}


class _Nics:
    """What eswitch finds before the NIC has any VF."""

    def devices(self) -> dict[str, Device]:
        return {f"pci/{NIC}": Device(f"pci/{NIC}", "mlx5_core", uplink="pf0", total_vfs=len(VFS), switchable=True)}

    def lags(self) -> dict[str, Lag]:
        return {}

    def taken(self) -> frozenset[str]:
        return frozenset()

    def rules(self) -> str:
        return ""

    def document(self) -> None:
        return None

    def unconfirmed(self) -> bool:
        return False


def pretend_before() -> None:
    """The same, before there are VFs."""

    def physical(sys: str = sriov.SYS) -> tuple[Physical, ...]:
        return (Physical(f"pci/{NIC}", "mlx5_core", len(VFS), 0, True, {}, (), offset=2, stride=1),)

    sriov.physical = physical
    vars(eswitch_node).update(Node=_Nics)


def pretend() -> None:
    """Until this process ends, the library finds the NIC."""
    read = links._link

    def _link(payload: bytes) -> links.Link:
        found = read(payload)
        length = int.from_bytes(rtnl.attrs(payload[links._IFINFO.size :]).get(_TXQLEN, b"\0"), "little")
        if REPRESENTOR <= length < REPRESENTOR + len(VFS):
            return replace(found, kind="", peer_index=0, peer_nsid=None, parent=NIC)
        if VF <= length < VF + len(VFS):
            return replace(found, kind="", peer_index=0, peer_nsid=None, parent=VFS[length - VF])
        return found

    def physical(sys: str = sriov.SYS) -> tuple[Physical, ...]:
        with rtnl.Netlink() as netlink:
            present = links.links(netlink).values()
        behind = {pci: tuple(link.name for link in present if link.parent == pci) for pci in VFS}
        vfs = {number: Function(pci, "veth", "", behind[pci]) for number, pci in enumerate(VFS)}
        near = tuple(Netdev(f"rep{number}", f"pf0vf{number}", number, "") for number in vfs)
        return (Physical(f"pci/{NIC}", "veth", len(VFS), len(VFS), True, vfs, near),)

    def driver(pci: str, sys: str = sriov.SYS) -> str:
        return "veth"

    def representor(pci: str, sys: str = sriov.SYS) -> str:
        return f"rep{VFS.index(pci)}"

    links._link, sriov.physical, sriov.driver, sriov.representor = _link, physical, driver, representor
