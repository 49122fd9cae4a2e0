# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements, side by side in one run: data path, programs, convergence."""
