#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: attachments
short_description: Attach containers to the node's dataplane
version_added: 0.1.0
description:
  - Gives each container a network interface with its addresses and routes, and makes the dataplane deliver to it.
  - The host end of an attachment is an interface with the name of the attachment.
  - Touches only what this collection has made. Existing interfaces of others are never changed.
  - Needs the dataplane, see M(fastpath.node.dataplane).
author:
  - The fastpath.node authors (@fastpath)
options:
  config:
    description: The attachments.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the attachment and of its host interface, at most 15 characters.
        type: str
        required: true
      container:
        description:
          - The container, named in exactly one way. It must be running, with a network namespace of its own.
          - Needed for an attachment that does not exist yet.
        type: dict
        suboptions:
          netns:
            description: Path of its network namespace, like V(/run/netns/web-1).
            type: path
          pid:
            description: A process of it.
            type: int
          podman:
            description: Its name in podman.
            type: str
      kind:
        description:
          - What connects the container to the host.
          - V(netkit) saves work on the way to the wire. It needs Linux 6.7; M(fastpath.node.node_info) tells.
          - V(vf) gives the container a virtual function of a NIC that is in switchdev mode; its representor is the host
            end, and keeps its name. The NIC is set up by M(fastpath.node.eswitch).
          - V(auto) takes V(netkit) where the node has it, else V(veth). What is attached already keeps its kind, but a
            virtual function is given back where V(vf) is not asked for.
          - Another kind than the present one moves a running container. Its addresses, routes, statistics and open
            connections stay. Sockets that are bound to the interface, and multicast memberships, do not.
          - To V(vf) or from it nothing is moved; the attachment is removed and made anew.
          - Counts as V(auto) where it is not given.
        type: str
        choices: [auto, veth, netkit, vf]
      mode:
        description:
          - The mode of O(config[].kind=netkit). V(l3) carries bare IP packets, without MAC addresses.
          - Counts as V(l2) where it is not given.
        type: str
        choices: [l2, l3]
      vf:
        description:
          - The PCI address of a virtual function for O(config[].kind=vf), or of a NIC any of whose functions will do.
          - Where it is not given, the first free one of the node, in order of their addresses. One that an attachment
            has stays with it.
          - Free is what its kernel driver has, with an interface that is on the node and down, and with a representor
            that is in no bridge.
        type: str
      interface:
        description: Name of the interface inside the container. Counts as V(eth0) where it is not given.
        type: str
      addresses:
        description:
          - Its addresses, each with the full prefix length, inside the node's prefixes.
          - A container can send only from them.
        type: list
        elements: str
      mtu:
        description:
          - MTU of both ends, from 1280 up to the smallest MTU of the uplinks.
          - Counts as the latter where it is not given.
        type: int
      mac:
        description:
          - MAC address of the container's end. Where it is not given it is derived from the name.
          - Not for O(config[].mode=l3), nor for O(config[].kind=vf), which has the MAC of its virtual function.
        type: str
      routes:
        description:
          - The routes inside the container.
          - Where none are given, a default route for each family of O(config[].addresses).
        type: list
        elements: dict
        suboptions:
          to:
            description: A prefix.
            type: str
            required: true
          via:
            description: A gateway. Where it is not given, the node's gateway.
            type: str
      namespace:
        description:
          - The namespace that M(fastpath.node.policies) sees it in. A name only, it separates nothing by itself.
          - Counts as V(default) where it is not given.
        type: str
      labels:
        description:
          - Its labels, by which M(fastpath.node.policies) select it. Values are texts.
          - A change is in force when the module returns, open connections included. The link is left alone.
        type: dict
      ports:
        description: Names of its ports, which M(fastpath.node.policies) may use.
        type: list
        elements: dict
        suboptions:
          name:
            description: The name, at most 15 of a-z, 0-9 and -.
            type: str
            required: true
          protocol:
            description: The protocol, V(TCP) where it is not given.
            type: str
            choices: [TCP, UDP, SCTP]
          port:
            description: The port.
            type: int
            required: true
  state:
    description:
      - With V(merged), what O(config) gives is changed; other attachments and options stay.
      - With V(replaced), the attachments in O(config) are exactly as given; others stay.
      - With V(overridden), the attachments in O(config) are all that there are; others of this collection are removed.
      - With V(deleted), the attachments named in O(config) are removed, without O(config) all of this collection's.
      - With V(gathered), nothing is changed and what is there is returned.
      - With V(rendered), nothing is changed and what O(config) would make of a bare node is returned.
    type: str
    choices: [merged, replaced, overridden, deleted, gathered, rendered]
    default: merged
  dataplane:
    description:
      - The config of M(fastpath.node.dataplane) that this node is going to have.
      - Used only in check mode and for O(state=rendered), to count on the prefixes and the MTU that there will be.
    type: dict
  eswitch:
    description:
      - The config of M(fastpath.node.eswitch) when a run of it that only checked, with
        O(fastpath.node.eswitch#module:state=overridden), would have changed something.
      - Used only in check mode and for O(state=rendered), to count on the virtual functions that there will be. Where
        the NIC does not tell their addresses before they are made, the module fails and says so.
    type: list
    elements: dict
  policies_epoch:
    description:
      - RV(fastpath.node.policies#module:epoch) of a run that only checked, when it would have changed something.
      - Used only in check mode, to predict what follows that change.
    type: int
extends_documentation_fragment:
  - fastpath.node.resource
  - fastpath.node.resource.attributes
seealso:
  - module: fastpath.node.dataplane
  - module: fastpath.node.policies
"""

EXAMPLES = r"""
- name: Attach two containers
  fastpath.node.attachments:
    config:
      - name: web-1
        container:
          podman: web-1
        addresses: [10.128.3.10/32, "fd00:128:3::10/128"]
        labels:
          app: web
      - name: db-1
        container:
          netns: /run/netns/db-1
        addresses: [10.128.3.11/32]
        mtu: 1400

- name: Move one of them to netkit while it serves
  fastpath.node.attachments:
    config:
      - name: web-1
        kind: netkit

- name: Give it a virtual function of a NIC
  fastpath.node.attachments:
    allow_disruption: true
    config:
      - name: web-1
        kind: vf
        vf: "0000:3b:00.0"

- name: Remove one of them
  fastpath.node.attachments:
    state: deleted
    allow_disruption: true
    config:
      - name: web-1

- name: Read what is attached
  fastpath.node.attachments:
    state: gathered
  register: attached
"""

RETURN = r"""
before:
  description: What was there, in the shape of O(config).
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
      description: Whether it disturbs the traffic of a running container.
      type: bool
flows:
  description: What became of open connections.
  returned: when policies were changed
  type: dict
  contains:
    revoked:
      description: How many were open and are denied now. No packet of them passes any more.
      type: int
    told:
      description: How many sockets of containers on this node got an error for that.
      type: int
gathered:
  description: What is there, in the shape of O(config).
  returned: for O(state=gathered)
  type: list
  elements: dict
rendered:
  description: What the config would make of a bare node.
  returned: for O(state=rendered)
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fastpath.node.plugins.module_utils.answer import answer
from ansible_collections.fastpath.node.plugins.module_utils.options import CONFIG_NEEDED, NAMED_PORTS, STATES
from ansible_collections.fastpath.node.plugins.module_utils.run import Ahead, given, run_attachments


def main() -> None:
    container = {"netns": {"type": "path"}, "pid": {"type": "int"}, "podman": {"type": "str"}}
    route = {"to": {"type": "str", "required": True}, "via": {"type": "str"}}
    config = {
        "name": {"type": "str", "required": True},
        "container": {"type": "dict", "options": container},
        "kind": {"type": "str", "choices": ["auto", "veth", "netkit", "vf"]},
        "mode": {"type": "str", "choices": ["l2", "l3"]},
        "vf": {"type": "str"},
        "interface": {"type": "str"},
        "addresses": {"type": "list", "elements": "str"},
        "mtu": {"type": "int"},
        "mac": {"type": "str"},
        "routes": {"type": "list", "elements": "dict", "options": route},
        "namespace": {"type": "str"},
        "labels": {"type": "dict"},
        "ports": NAMED_PORTS,
    }
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "list", "elements": "dict", "options": config},
            "state": STATES,
            "dataplane": {"type": "dict"},
            "eswitch": {"type": "list", "elements": "dict"},
            "policies_epoch": {"type": "int"},
            "allow_disruption": {"type": "bool", "default": False},
        },
        required_if=CONFIG_NEEDED,
        supports_check_mode=True,
    )
    options = module.params
    answer(
        module,
        lambda: run_attachments(
            given(options["config"] or []),
            options["state"],
            ahead=Ahead(options["dataplane"], options["eswitch"], options["policies_epoch"]),
            check=module.check_mode,
            allow_disruption=options["allow_disruption"],
        ),
    )


if __name__ == "__main__":
    main()
