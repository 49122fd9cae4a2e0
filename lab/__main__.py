# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry point of `python3 -m lab`."""

import sys

from lab.cli import main

sys.exit(main())
