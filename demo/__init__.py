# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: bare nodes become a container network; what came of it is measured and shown."""
