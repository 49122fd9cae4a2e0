#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: dataplane
short_description: Install the eBPF dataplane on a node
version_added: 0.1.0
description:
  - Loads the dataplane programs, attaches them to the uplinks and to the router device C(fastpath0),
    and adds the routes by which containers are reached.
  - Packets that are not for a container of this node pass untouched.
  - Another version of the object, or another config, replaces the running programs without a gap in forwarding.
  - A new version is tested on sample packets before it serves, and watched for a moment after it does. If either goes
    wrong, the version before serves again and the module fails. The version before stays loaded until the next upgrade.
author:
  - The fastpath.node authors (@fastpath)
options:
  config:
    description: The dataplane of this node.
    type: dict
    suboptions:
      uplinks:
        description: The physical ports that lead to the other nodes. Each is named in exactly one way.
        type: list
        elements: dict
        suboptions:
          pci:
            description: PCI address, like V(0000:3b:00.0). The most stable name.
            type: str
          mac:
            description: MAC address.
            type: str
          name:
            description: Interface name, where nothing better exists.
            type: str
      prefixes:
        description:
          - The prefixes of this node's containers.
          - The first host address of the first prefix of each family is the gateway of the containers.
        type: list
        elements: str
      routing:
        description:
          - How other nodes are reached.
          - With V(fabric) the node's own routes, usually its default gateway, know the prefixes of all nodes.
          - With V(direct) the nodes are neighbours, and O(config.routes) lists the prefixes of the others.
          - Counts as V(fabric) where it is not given.
        type: str
        choices: [fabric, direct]
      routes:
        description: Prefixes of other nodes, for O(config.routing=direct).
        type: list
        elements: dict
        suboptions:
          to:
            description: A prefix.
            type: str
            required: true
          via:
            description: The address of the node that has it.
            type: str
            required: true
  state:
    description:
      - With V(merged), what O(config) gives is changed and the rest stays.
      - With V(replaced), the dataplane is exactly O(config).
      - With V(rolled_back), the programs are those that ran before the last upgrade, and O(config) is not used. What is
        replaced stays loaded, so that the way forward again is as short. A second time nothing is changed.
      - With V(deleted), the dataplane is removed; attachments must be removed before.
      - With V(gathered), nothing is changed and what is there is returned.
      - With V(rendered), nothing is changed and what O(config) would make of a bare node is returned.
    type: str
    choices: [merged, replaced, rolled_back, deleted, gathered, rendered]
    default: merged
  object:
    description: The compiled programs on the node. The role runtime puts them there.
    type: path
    default: /usr/lib/fastpath/fastpath.bpf.o
  object_checksum:
    description:
      - SHA-1 of the object that is going to be there.
      - Used only in check mode, where the copy has not been made.
    type: str
    default: ""
  eswitch:
    description:
      - The config of M(fastpath.node.eswitch) when a run of it that only checked, with
        O(fastpath.node.eswitch#module:state=overridden), would have changed something.
      - Used only in check mode and for O(state=rendered), to count on the names, MTUs and bonds that uplinks will have.
    type: list
    elements: dict
extends_documentation_fragment:
  - fastpath.node.resource
  - fastpath.node.resource.attributes
seealso:
  - module: fastpath.node.attachments
  - module: fastpath.node.node_info
"""

EXAMPLES = r"""
- name: Make this node a router for its containers
  fastpath.node.dataplane:
    config:
      uplinks:
        - pci: "0000:3b:00.0"
      prefixes:
        - 10.128.3.0/24
        - fd00:128:3::/64

- name: Nodes that are neighbours, without a fabric that knows the prefixes
  fastpath.node.dataplane:
    state: replaced
    config:
      uplinks:
        - name: eth1
      prefixes:
        - 10.128.3.0/24
      routing: direct
      routes:
        - to: 10.128.4.0/24
          via: 192.0.2.14

- name: Go back to the programs that ran before the last upgrade
  fastpath.node.dataplane:
    state: rolled_back
"""

RETURN = r"""
before:
  description: What was there, in the shape of O(config).
  returned: for all states but gathered and rendered
  type: dict
after:
  description: What is there after the run, or in check mode would be.
  returned: for all states but gathered and rendered
  type: dict
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
gathered:
  description: What is there, in the shape of O(config).
  returned: for O(state=gathered)
  type: dict
rendered:
  description: What the config would make of a bare node.
  returned: for O(state=rendered)
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fastpath.node.plugins.module_utils.answer import answer
from ansible_collections.fastpath.node.plugins.module_utils.run import given, run_dataplane


def main() -> None:
    uplink = {"pci": {"type": "str"}, "mac": {"type": "str"}, "name": {"type": "str"}}
    route = {"to": {"type": "str", "required": True}, "via": {"type": "str", "required": True}}
    config = {
        "uplinks": {"type": "list", "elements": "dict", "options": uplink},
        "prefixes": {"type": "list", "elements": "str"},
        "routing": {"type": "str", "choices": ["fabric", "direct"]},
        "routes": {"type": "list", "elements": "dict", "options": route},
    }
    states = ["merged", "replaced", "rolled_back", "deleted", "gathered", "rendered"]
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict", "options": config},
            "state": {"type": "str", "choices": states, "default": "merged"},
            "object": {"type": "path", "default": "/usr/lib/fastpath/fastpath.bpf.o"},
            "object_checksum": {"type": "str", "default": ""},
            "eswitch": {"type": "list", "elements": "dict"},
            "allow_disruption": {"type": "bool", "default": False},
        },
        required_if=[("state", state, ["config"]) for state in ("merged", "replaced", "rendered")],
        supports_check_mode=True,
    )
    options = module.params
    answer(
        module,
        lambda: run_dataplane(
            given(options["config"] or {}),
            options["state"],
            path=options["object"],
            checksum=options["object_checksum"],
            nics=options["eswitch"],
            check=module.check_mode,
            allow_disruption=options["allow_disruption"],
        ),
    )


if __name__ == "__main__":
    main()
