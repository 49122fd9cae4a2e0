#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: policies
short_description: Restrict who may talk to whom
version_added: 0.1.0
description:
  - Puts Kubernetes NetworkPolicy documents in force for the containers of this node, in the dataplane's programs.
    Documents for Kubernetes work as they are.
  - Labels, namespace and named ports of a container are those of its attachment, see M(fastpath.node.attachments).
  - All policies change at once, no packet sees half of a change. Open connections that are denied from then on are cut;
    the module returns when that is so, and tells how many in RV(flows).
  - Traffic between a container and its own node is always allowed, and so is what belongs to an allowed connection.
  - To cut connections is what a policy is for, so it is not among the disruptions that have to be allowed.
  - Needs the dataplane, see M(fastpath.node.dataplane).
author:
  - The fastpath.node authors (@fastpath)
options:
  config:
    description:
      - Policy documents, C(kind) V(NetworkPolicy) of V(networking.k8s.io/v1) or V(FastpathPolicy) of
        V(fastpath.node/v1). Lists of documents, also C(kind) V(List), may be among them, and empty documents.
      - A V(FastpathPolicy) is a NetworkPolicy with more in its C(spec). With C(log) what it decides is reported, with
        C(audit) it is not enforced but counted, with C(priority), from 0 on, its rules come before all policies without
        one and each has an C(action), V(allow) or V(deny). Its C(ports) take C(protocol) V(ICMP) and V(ICMPv6) with
        C(type) and C(code).
    type: list
    elements: raw
  endpoints:
    description:
      - Containers of other nodes, which this node cannot know. Where it is not given they stay as they are.
      - An address that is attached to this node is left out.
    type: list
    elements: dict
    suboptions:
      name:
        description: A name of its own, like V(server-2/web-1).
        type: str
        required: true
      addresses:
        description: Its addresses.
        type: list
        elements: str
        required: true
      namespace:
        description: Its namespace, V(default) where it is not given.
        type: str
      labels:
        description: Its labels.
        type: dict
      ports:
        description: Names of its ports.
        type: list
        elements: dict
        suboptions:
          name:
            description: The name.
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
  namespaces:
    description:
      - The labels of namespaces, by name. Where it is not given they stay as they are.
      - Each namespace also has its name as the label C(kubernetes.io/metadata.name).
    type: dict
  state:
    description:
      - With V(merged) and V(replaced), each policy in O(config) takes the place of the one with its kind, namespace and
        name, and others stay. With V(merged), O(endpoints) and O(namespaces) that are not named stay as well.
      - With V(overridden), the policies in O(config) are all that there are.
      - With V(deleted), the policies in O(config) are removed, of which only kind and metadata are looked at; without
        O(config) all. Without any policy everything is allowed.
      - With V(gathered), nothing is changed and the policies in force are returned.
      - With V(rendered), nothing is changed or looked up in the kernel, and the compiled tables of O(config) are
        returned, as if all O(endpoints) and attachments were on one node.
    type: str
    choices: [merged, replaced, overridden, deleted, gathered, rendered]
    default: merged
  dataplane:
    description:
      - The config of M(fastpath.node.dataplane) that this node is going to have.
      - Used only in check mode, on a node that has no dataplane yet or an older one.
    type: dict
extends_documentation_fragment:
  - fastpath.node.resource.attributes
seealso:
  - module: fastpath.node.attachments
  - module: fastpath.node.dataplane
"""

EXAMPLES = r"""
- name: Put the policies of a file in force
  fastpath.node.policies:
    state: overridden
    config: "{{ lookup('ansible.builtin.file', 'policies.yml') | from_yaml_all | list }}"
    endpoints:
      - name: server-2/web-1
        addresses: [10.128.2.10/32]
        labels:
          app: web

- name: Let only the front end reach the web servers
  fastpath.node.policies:
    config:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata:
          name: web
        spec:
          podSelector:
            matchLabels:
              app: web
          ingress:
            - from:
                - podSelector:
                    matchLabels:
                      app: front
              ports:
                - port: 443

- name: Cut off an address, whatever other policies say
  fastpath.node.policies:
    config:
      - apiVersion: fastpath.node/v1
        kind: FastpathPolicy
        metadata:
          name: quarantine
        spec:
          priority: 0
          log: true
          ingress:
            - action: deny
              from:
                - ipBlock:
                    cidr: 198.51.100.7/32

- name: Remove a policy
  fastpath.node.policies:
    state: deleted
    config:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata:
          name: web
"""

RETURN = r"""
before:
  description: The policies that were in force, in the shape of O(config).
  returned: for all states but gathered and rendered
  type: list
  elements: dict
after:
  description: The policies that are in force after the run, or in check mode would be.
  returned: for all states but gathered and rendered
  type: list
  elements: dict
steps:
  description: The steps that were taken, or in check mode would be, in their order.
  returned: for all states but gathered and rendered
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
      description: Always false.
      type: bool
epoch:
  description: A number that each change of the policies raises. V(0) where there are none.
  returned: for all states but gathered and rendered
  type: int
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
  description: The policies in force, in the shape of O(config).
  returned: for O(state=gathered)
  type: list
  elements: dict
rendered:
  description: Whom the policies and their rules select, and the compiled tables.
  returned: for O(state=rendered)
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fastpath.node.plugins.module_utils.answer import answer
from ansible_collections.fastpath.node.plugins.module_utils.options import CONFIG_NEEDED, NAMED_PORTS, STATES
from ansible_collections.fastpath.node.plugins.module_utils.run import given, run_policies


def main() -> None:
    endpoint = {
        "name": {"type": "str", "required": True},
        "addresses": {"type": "list", "elements": "str", "required": True},
        "namespace": {"type": "str"},
        "labels": {"type": "dict"},
        "ports": NAMED_PORTS,
    }
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "list", "elements": "raw"},
            "endpoints": {"type": "list", "elements": "dict", "options": endpoint},
            "namespaces": {"type": "dict"},
            "state": STATES,
            "dataplane": {"type": "dict"},
        },
        required_if=CONFIG_NEEDED,
        supports_check_mode=True,
    )
    options = module.params
    answer(
        module,
        lambda: run_policies(
            options["config"] or [],  # as it is: in a policy "nothing" and "not given" are not always the same
            options["state"],
            endpoints=given(options["endpoints"]),
            namespaces=options["namespaces"],
            assume=options["dataplane"],
            check=module.check_mode,
        ),
    )


if __name__ == "__main__":
    main()
