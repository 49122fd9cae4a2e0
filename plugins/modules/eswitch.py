#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: eswitch
short_description: Set up NICs with virtual functions
version_added: 0.1.0
description:
  - Gives a NIC its virtual functions (VFs), and sets the mode of its eswitch, what is enforced on each VF, the driver
    of each VF, and names of interfaces.
  - The order of the steps is the one that the NIC's driver wants. A driver that is not known gets the most careful one.
  - Waits until all VFs and representors have appeared. When a step fails, the NIC goes back to what it was.
  - What O(config) does not name of a NIC stays as it is. What it does not name of a VF is a default, a MAC address that
    is always the same, no VLAN, no trust, spoof check, no rate. A VF that stays in use keeps what it has.
  - A NIC that the SSH connection comes in by is touched only with O(confirm_timeout) where that could cut it. Without
    it the module fails before anything is changed, and says so.
  - NICs that O(config) does not name, and that the node does not keep from an earlier run, are never changed.
author:
  - The fastpath.node authors (@fastpath)
options:
  config:
    description: The NICs, each once.
    type: list
    elements: dict
    suboptions:
      device:
        description: The NIC, named in exactly one way. It must be one NIC only.
        type: dict
        required: true
        suboptions:
          pci:
            description: PCI address, like V(0000:3b:00.0).
            type: str
          mac:
            description: Permanent MAC address.
            type: str
          serial:
            description: Serial number, as C(devlink dev info) shows it.
            type: str
          driver:
            description: Driver, for a node that has one such NIC.
            type: str
          switch_id:
            description: The C(phys_switch_id) of its eswitch, for a NIC that is in switchdev mode already.
            type: str
      mode:
        description: Mode of the eswitch.
        type: str
        choices: [legacy, switchdev]
      vfs:
        description: Number of VFs.
        type: int
      inline_mode:
        description: How much of the headers a VF hands to the NIC for switching.
        type: str
        choices: [none, link, network, transport]
      encap_mode:
        description: Whether the eswitch encapsulates.
        type: str
        choices: [none, basic]
      hw_tc_offload:
        description: Whether the uplink takes rules of tc into hardware.
        type: bool
      mtu:
        description: MTU of the uplink.
        type: int
      params:
        description: Parameters of C(devlink dev param) that can be set at run time, like C(flow_steering_mode).
        type: dict
      vf_driver:
        description:
          - The driver of all VFs whose O(config[].vf[].driver) is not given. V(kernel) is the one that the kernel has.
          - V(vfio-pci) must be loaded, the role P(fastpath.node.switchdev#role) does that.
        type: str
        choices: [kernel, vfio-pci]
      vf:
        description: What differs from the defaults, by VF. What a driver does not have in a mode is refused.
        type: list
        elements: dict
        suboptions:
          index:
            description: Number of the VF, from 0.
            type: int
            required: true
          driver:
            description: Its driver.
            type: str
            choices: [kernel, vfio-pci]
          mac:
            description: MAC address. A driver reads it when it is bound.
            type: str
          vlan:
            description: VLAN, V(0) for none.
            type: int
          trust:
            description: Whether it may change its MAC address and see what is for others.
            type: bool
          spoofcheck:
            description: Whether it can send only from its MAC address.
            type: bool
          min_rate:
            description: Guaranteed rate in Mbit/s, V(0) for none.
            type: int
          max_rate:
            description: Highest rate in Mbit/s, V(0) for none.
            type: int
      names:
        description: Stable names of interfaces, by rules for udev.
        type: dict
        suboptions:
          uplink:
            description: Name of the NIC's own interface.
            type: str
          representors:
            description: What comes before the number of a VF in the name of its representor.
            type: str
      lag:
        description:
          - The bond that the NIC's uplink is in, for VF LAG, where each VF uses all uplinks of the bond. NICs that name
            the same bond are its members. Without it the NIC is in no bond that this module has made.
          - The module makes the bond, with O(config[].mtu) of its members. Addresses come from whoever manages the
            node's other interfaces. A bond that others have made is never touched, and its name is refused.
          - With V(mlx5_core) all members have O(config[].mode=switchdev), with V(ice) one of them, and the driver's
            flag C(fw-lldp-agent) is off on both. Other drivers are refused.
        type: dict
        suboptions:
          name:
            description: Name of the bond.
            type: str
            required: true
          mode:
            description:
              - Mode of the bond. V(802.3ad) is LACP, at the fast rate; it and V(balance-xor) choose the uplink by
                addresses and ports.
              - Which modes there are depends on the driver.
            type: str
            choices: [active-backup, 802.3ad, balance-xor]
            required: true
  state:
    description:
      - With V(merged), what O(config) gives is changed; other options and NICs stay.
      - With V(replaced), the NICs in O(config) are as given; others stay.
      - With V(overridden), the same, and NICs of earlier runs that O(config) does not name lose their VFs and go to
        legacy mode.
      - With V(deleted), the NICs named in O(config) lose their VFs and go to legacy mode, without O(config) those of
        earlier runs.
      - With V(gathered), nothing is changed and what is there is returned, as a config that leads back to it.
      - With V(rendered), nothing is changed and what O(config) would make of NICs without VFs is returned.
    type: str
    choices: [merged, replaced, overridden, deleted, gathered, rendered]
    default: merged
  confirm_timeout:
    description:
      - Seconds from the end of the run within which C(fastpath confirm) must be run on the node, over a new connection,
        when a step may cut the SSH connection. Otherwise the node takes back all that the run has done, by itself.
      - A reboot before that takes it back too. Until then other changes of NICs are refused.
      - The run goes on when the connection is lost. The role P(fastpath.node.switchdev#role) waits and confirms.
      - Needs what the role P(fastpath.node.runtime#role) installs.
      - Without it such steps are refused.
    type: int
extends_documentation_fragment:
  - fastpath.node.resource
  - fastpath.node.resource.attributes
"""

EXAMPLES = r"""
- name: Eight VFs and an eswitch that takes rules
  fastpath.node.eswitch:
    config:
      - device:
          pci: "0000:3b:00.0"
        mode: switchdev
        vfs: 8
        hw_tc_offload: true
        params:
          flow_steering_mode: smfs
        names:
          uplink: pf0
          representors: pf0r

- name: VFs that stay on the net when one of two cables is pulled
  fastpath.node.eswitch:
    state: replaced
    config:
      - {device: {pci: "0000:3b:00.0"}, mode: switchdev, vfs: 8, lag: {name: bond0, mode: 802.3ad}}
      - {device: {pci: "0000:3b:00.1"}, mode: switchdev, vfs: 0, lag: {name: bond0, mode: 802.3ad}}

- name: VFs for virtual machines, one of them in a VLAN
  fastpath.node.eswitch:
    state: replaced
    config:
      - device:
          mac: "02:aa:00:00:00:01"
        mode: legacy
        vfs: 4
        vf_driver: vfio-pci
        vf:
          - index: 0
            vlan: 7

- name: Read what is there
  fastpath.node.eswitch:
    state: gathered
  register: nics
"""

RETURN = r"""
before:
  description: What was there, in the shape of O(config), of what the run is about.
  returned: for all states but gathered and rendered
  type: list
  elements: dict
after:
  description: What is there after the run, or in check mode would be.
  returned: for all states but gathered and rendered
  type: list
  elements: dict
steps:
  description: The steps that were taken, or in check mode would be, in their order.
  returned: for all states but gathered
  type: list
  elements: dict
  contains:
    action:
      description: What the step does.
      type: str
    reason:
      description: Why it is needed.
      type: str
    disruptive:
      description: Whether it disturbs traffic, of who has a VF or of the uplink.
      type: bool
unconfirmed:
  description: Whether the node takes the change back unless it is confirmed, see O(confirm_timeout).
  returned: for all states but gathered and rendered
  type: bool
gathered:
  description: All NICs that can have VFs, in the shape of O(config).
  returned: for O(state=gathered)
  type: list
  elements: dict
rendered:
  description: What the config would make of NICs without VFs.
  returned: for O(state=rendered)
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fastpath.node.plugins.module_utils.answer import answer
from ansible_collections.fastpath.node.plugins.module_utils.options import CONFIG_NEEDED, STATES
from ansible_collections.fastpath.node.plugins.module_utils.run import given, run_eswitch


def main() -> None:
    device = {name: {"type": "str"} for name in ("pci", "mac", "serial", "driver", "switch_id")}
    drivers = ["kernel", "vfio-pci"]
    vf = {
        "index": {"type": "int", "required": True},
        "driver": {"type": "str", "choices": drivers},
        "mac": {"type": "str"},
        "vlan": {"type": "int"},
        "trust": {"type": "bool"},
        "spoofcheck": {"type": "bool"},
        "min_rate": {"type": "int"},
        "max_rate": {"type": "int"},
    }
    names = {"uplink": {"type": "str"}, "representors": {"type": "str"}}
    lag = {
        "name": {"type": "str", "required": True},
        "mode": {"type": "str", "choices": ["active-backup", "802.3ad", "balance-xor"], "required": True},
    }
    config = {
        "device": {"type": "dict", "required": True, "options": device},
        "mode": {"type": "str", "choices": ["legacy", "switchdev"]},
        "vfs": {"type": "int"},
        "inline_mode": {"type": "str", "choices": ["none", "link", "network", "transport"]},
        "encap_mode": {"type": "str", "choices": ["none", "basic"]},
        "hw_tc_offload": {"type": "bool"},
        "mtu": {"type": "int"},
        "params": {"type": "dict"},
        "vf_driver": {"type": "str", "choices": drivers},
        "vf": {"type": "list", "elements": "dict", "options": vf},
        "names": {"type": "dict", "options": names},
        "lag": {"type": "dict", "options": lag},
    }
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "list", "elements": "dict", "options": config},
            "state": STATES,
            "allow_disruption": {"type": "bool", "default": False},
            "confirm_timeout": {"type": "int"},
        },
        required_if=CONFIG_NEEDED,
        supports_check_mode=True,
    )
    options = module.params
    answer(
        module,
        lambda: run_eswitch(
            given(options["config"] or []),
            options["state"],
            check=module.check_mode,
            allow_disruption=options["allow_disruption"],
            confirm_timeout=options["confirm_timeout"] or 0,
        ),
    )


if __name__ == "__main__":
    main()
