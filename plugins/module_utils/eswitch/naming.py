# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of uplinks and representors, and what others keep off, as rules for udev. Pure.

A representor lies below the PCI device of its PF (kernel 5.8), so the port's name tells them apart
(nic-configuration-operator#474), and no script runs that could lose a race (sriov-network-operator#29).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Before 80-net-setup-link, which keeps a name given. NAME:= is final: for set-name, which cloud-init writes for each
# NIC, netplan makes a 99-netplan-*.rules that goes by the MAC address alone.
PATH = "/etc/udev/rules.d/70-fastpath.rules"
_HEADER = "# Written by fastpath: interfaces of NICs in /etc/fastpath/eswitch.json. Changes are overwritten.\n"
# NetworkManager takes rules off representors (openshift/enhancements#296), and asks for addresses on VFs. The second
# mark is for systemd-networkd and for rules after those of others: the role switchdev brings the files that match it.
_KEEP_OFF = ', ENV{NM_UNMANAGED}="1", ENV{FASTPATH_UNMANAGED}="1"'
# Not only ACTION=="add": each event makes the marks anew, and a new name is an event.
_THERE = 'SUBSYSTEM=="net", ACTION!="remove"'
# A VF knows its PF by a link; the PF's uevent file tells the address.
_PF_OF_VF = f'{_THERE}, TEST=="device/physfn", IMPORT{{file}}="$sys$devpath/device/physfn/uevent"\n'


@dataclass(frozen=True)
class Names:
    """uplink: of the PF's interface; representors: what comes before a VF's number. "" leaves them as they are.

    bonded: the uplink is in a LAG of ours, out of which others may take what they manage (systemd.network KeepMaster=).
    """

    uplink: str = ""
    representors: str = ""
    bonded: bool = False

    def representor(self, vf: int) -> str:
        return f"{self.representors}{vf}" if self.representors else ""


def rules(wished: Mapping[str, tuple[Names, int]]) -> str:
    """The rules file. wished: PCI address -> names, number of VFs; without any the file is ""."""
    lines = [line for pci in sorted(wished) for line in _device(pci, *wished[pci])]
    return _HEADER + _PF_OF_VF + "".join(lines) if lines else ""


def _device(pci: str, names: Names, vfs: int) -> Iterable[str]:
    match = f'SUBSYSTEM=="net", ACTION=="add", KERNELS=="{pci}"'
    for port in ('ATTR{phys_port_name}=="p[0-9]*"', 'ATTR{phys_port_name}==""', 'TEST!="phys_port_name"'):
        if names.uplink:
            yield f'{match}, {port}, NAME:="{names.uplink}"\n'
        if names.bonded:
            yield f'{_THERE}, KERNELS=="{pci}", {port}{_KEEP_OFF}\n'
    yield f'{_THERE}, KERNELS=="{pci}", ATTR{{phys_port_name}}=="pf*vf*"{_KEEP_OFF}\n'
    yield f'{_THERE}, TEST=="device/physfn", ENV{{PCI_SLOT_NAME}}=="{pci}"{_KEEP_OFF}\n'
    if names.representors:
        for vf in range(vfs):
            yield f'{match}, ATTR{{phys_port_name}}=="pf*vf{vf}", NAME:="{names.representor(vf)}"\n'
