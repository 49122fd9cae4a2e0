# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules of this collection that converge a resource say in the same words."""

from __future__ import annotations


class ModuleDocFragment:
    """The default part has the common options, `attributes` what every such module supports."""

    DOCUMENTATION = r"""
options:
  allow_disruption:
    description:
      - Go on with steps that disturb the traffic of running containers.
      - Without it the module fails before anything is changed, and names them.
    type: bool
    default: false
"""

    ATTRIBUTES = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: The steps that are returned are those that the real run takes.
  diff_mode:
    support: full
    description: The diff shows the steps and the config before and after.
"""
