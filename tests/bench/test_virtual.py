# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into a virtual machine to measure there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

from bench import build, virtual


def test_modules_run_from_the_copy_alone(tmp_path: Path) -> None:
    """As in a machine that has no repository, no compiler and no packages of Python's."""
    with tarfile.open(fileobj=BytesIO(virtual.archive({"job": b"true"}))) as archive:
        archive.extractall(tmp_path, filter="tar")
    assert (tmp_path / "job").read_text() == "true"
    program = "import json; from bench import netkit, verifier, build; print(json.dumps([str(build.load_generator())]))"
    environment = {"PATH": "/nowhere", "PYTHONPATH": f"{tmp_path}/build:{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (load,) = json.loads(done.stdout)
    assert load == str(tmp_path / "build/bench/load")
    assert os.access(load, os.X_OK)


def test_the_load_generator_counts_what_it_says() -> None:
    """On a real clock only that a method answers with a figure and a class can be told."""
    load, netns = str(build.load_generator()), "/proc/self/ns/net"
    for method in ("rr", "udp", "tcp", "connect", "send", "nops"):
        command = [load, method, netns, netns, "127.0.0.1", "5", str(max(os.sched_getaffinity(0)))]
        value, scheduling = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert float(value) > 0
        assert scheduling in ("fifo", "other")
