# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs probe.py at all ends of a lab at once: one process per node, over ssh, and one outside."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from demo.matrix import FAMILIES, PROTOCOLS, Place, Probe, kind, places, task
from lab import Lab

_PROGRAM = Path(__file__).resolve().parent / "probe.py"
# The program comes first on standard input, as one JSON line; its own input follows.
_BOOTSTRAP = 'import json, sys; exec(compile(json.loads(sys.stdin.readline()), "probe.py", "exec"))'
_PYTHON = ("python3", "-I", "-B", "-c", _BOOTSTRAP)


class ProbeError(Exception):
    """An end could not be started or ended early."""


def measure(lab: Lab) -> list[Probe]:
    """Probe between all ends of the lab; raises ProbeError if an end did not take part."""
    everywhere = places(lab.topology)
    ends = dict.fromkeys(place.node for place in everywhere)
    with ExitStack() as stack, ThreadPoolExecutor(len(ends)) as pool:
        processes = [stack.enter_context(_process(_command(lab, node))) for node in ends]
        try:
            for process, node in zip(processes, ends, strict=True):
                _tell(process, _PROGRAM.read_text(), task(node, everywhere))
            for ready in pool.map(_listen, processes):
                assert ready == "ready"
            for process in processes:
                _tell(process, "go")
            found = [Probe(**item) for line in pool.map(_listen, processes) for item in json.loads(line)]
            for process in processes:
                process.communicate()
            return _complete(found, everywhere)
        finally:
            for process in processes:
                process.kill()


def _command(lab: Lab, node: str) -> list[str]:
    if not node:
        return lab.outside.command(_PYTHON)
    return ["ssh", "-F", str(lab.ssh_config_file), node, shlex.join(_PYTHON)]


def _process(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _tell(process: subprocess.Popen[str], *lines: object) -> None:
    assert process.stdin
    process.stdin.writelines(json.dumps(line) + "\n" for line in lines)
    process.stdin.flush()


def _listen(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    assert process.stderr
    line = process.stdout.readline().strip()
    if not line:
        raise ProbeError(f"{shlex.join(process.args)}: {process.stderr.read().strip()[-500:]}")  # type: ignore[arg-type]
    return line


def _complete(probes: list[Probe], everywhere: Sequence[Place]) -> list[Probe]:
    """What should have been measured was: a matrix must not pass because it is empty."""
    pairs = sum(kind(source, target) is not None for source in everywhere for target in everywhere)
    wanted = pairs * len(PROTOCOLS) * len(FAMILIES)
    if len(probes) != wanted:
        raise ProbeError(f"{len(probes)} probes instead of {wanted}")
    return probes
