# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the benchmarks keep their results, and how they compile their own C."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "build" / "bench"
DATAPLANE = HERE.parent / "roles" / "runtime" / "files" / "fastpath.bpf.o"


def load_generator() -> Path:
    """The compiled load generator; static, so that it runs in any image."""
    return _compile("load.c", "load", ["cc", "-O2", "-static", "-Wall", "-Wextra"])


def driver() -> Path:
    """The compiled BPF object that feeds packets to a program under test."""
    return _program("drive")


def tries() -> Path:
    """The compiled BPF object that looks addresses up in tries."""
    return _program("tries")


def _program(name: str) -> Path:
    headers = f"/usr/include/{os.uname().machine}-linux-gnu"  # asm/types.h on Debian
    clang = [os.environ.get("CLANG", "clang"), "-target", "bpf", "-mcpu=v3", "-idirafter", headers]
    return _compile(f"{name}.bpf.c", f"{name}.bpf.o", [*clang, "-O2", "-g", "-Wall", "-c"])


def _compile(source: str, output: str, compiler: Sequence[str]) -> Path:
    """Compile unless the output is newer than its source and the dataplane's."""
    made, given = OUTPUT / output, HERE / source
    newest = max(part.stat().st_mtime for part in (given, *HERE.parent.glob("bpf/*.h")))
    if not made.exists() or made.stat().st_mtime < newest:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        subprocess.run([*compiler, str(given), "-o", str(made)], check=True)
    return made
