#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: runtime
short_description: Install the library, the command and the boot unit on a node
version_added: 0.1.0
description:
  - Installs the library that the modules of this collection run on as C(/usr/lib/fastpath), the command C(fastpath),
    and the unit C(fastpath.service), which restores the node from C(/etc/fastpath) at boot.
  - The files come with the module itself; nothing is downloaded.
author:
  - The fastpath.node authors (@fastpath)
options:
  state:
    description: Whether they shall be there.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - fastpath.node.resource.attributes
"""

EXAMPLES = r"""
- name: Make the node independent of the controller
  fastpath.node.runtime:
    state: present
"""

RETURN = r"""
before:
  description: Digest of the library and the files that were there.
  returned: always
  type: dict
after:
  description: The same after the run, or in check mode as it would be.
  returned: always
  type: dict
steps:
  description: The steps that were taken, or in check mode would be, in their order.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fastpath.node.plugins.module_utils.answer import answer
from ansible_collections.fastpath.node.plugins.module_utils.cli import install


def main() -> None:
    states = ["present", "absent"]
    module = AnsibleModule(
        argument_spec={"state": {"type": "str", "choices": states, "default": "present"}},
        supports_check_mode=True,
    )
    present = module.params["state"] == "present"
    answer(module, lambda: install(present, check=module.check_mode))


if __name__ == "__main__":
    main()
