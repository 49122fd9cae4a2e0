#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: Tell what a node can do
version_added: 0.1.0
description:
  - Reports kernel features, interfaces that can be uplinks, loaded programs and versions. Changes nothing.
author:
  - The fastpath.node authors (@fastpath)
options: {}
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Ask
  fastpath.node.node_info:
  register: info

- name: Stop where the dataplane cannot run
  ansible.builtin.assert:
    that: info.node.unsupported | length == 0
    fail_msg: "{{ info.node.unsupported | join('; ') }}"
"""

RETURN = r"""
node:
  description: The node.
  returned: always
  type: dict
  contains:
    kernel:
      description: Release of the running kernel.
      type: str
    python:
      description: Version of the Python that ran the module.
      type: str
    libbpf:
      description: Version of libbpf, empty where there is none.
      type: str
    features:
      description: For each feature whether it is C(available), and the C(reason) where it is not.
      type: dict
    unsupported:
      description: Why the dataplane cannot run here. Empty where it can.
      type: list
      elements: str
    uplinks:
      description: Interfaces that can be uplinks, with name, index, mac, pci, mtu and up.
      type: list
      elements: dict
    programs:
      description: Generations of the dataplane programs that are loaded.
      type: list
      elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fastpath.node.plugins.module_utils.answer import answer
from ansible_collections.fastpath.node.plugins.module_utils.features import describe


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    answer(module, lambda: {"changed": False, "node": describe()})


if __name__ == "__main__":
    main()
