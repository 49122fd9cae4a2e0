# SPDX-License-Identifier: GPL-3.0-or-later
"""Other versions of the dataplane's object: the same source with some words replaced, compiled once and kept.

usage: python3 -m tests.integration.variants schema|broken|sick     print where one of them is
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "bpf"
OBJECTS = REPOSITORY / "build/test-objects"

Edit = tuple[str, str, str]  # file, what is there once, what comes in its place

# A member more in the middle of what a flow is, and of what a container may: this library cannot write these.
FLOW: Edit = ("abi.h", "\t__u32 seen;  /* bpf_ktime", "\t__u32 taste;\n\t__u32 seen;  /* bpf_ktime")
SUBJECT: Edit = ("abi.h", "\tstruct fp_row row; /* for what", "\t__u32 taste;\n\tstruct fp_row row; /* for what")
# A map of each kind in another form: members and counters in the middle, a wider member, one more counter, more room.
SCHEMA: tuple[Edit, ...] = (
    ("abi.h", "\t__u32 slot;    /* row", "\t__u32 colour;\n\t__u64 slot;    /* row"),
    ("abi.h", "\tfp_counter rx_bytes;", "\tfp_counter rx_fragments;\n\tfp_counter rx_bytes;"),
    ("abi.h", "\tFP_DROP_MAX,", "\tFP_DROP_TASTE,\n\tFP_DROP_MAX,"),
    ("abi.h", "\t__u64 credit_ns;", "\t__u64 taken;\n\t__u64 credit_ns;"),
    ("abi.h", "#define FP_MAX_MOVES 64 ", "#define FP_MAX_MOVES 128 "),
)
BROKEN: dict[str, tuple[Edit, ...]] = {
    "in the name of": (
        ("fastpath.bpf.c", "return from && sent_as(ctx, from, packet->eth->h_source) ? from : NULL;", "return from;"),
    ),
    "from the wire to 10.128.3.11: the verdict is pass, not redirect": (
        ("fastpath.bpf.c", "return deliver(ctx, packet, to, FP_HOOK_FROM_WIRE);", "return PASS;"),
    ),
    "the packet lacks 3f at byte 22": (("forward.h", "\t\tip->ttl--;\n", ""),),
    "the packet lacks 3f at byte 21": (("forward.h", "\t\tpacket->ip6->hop_limit--;\n", ""),),
    "asks for 10.128.3.1: the packet lacks": (("arp.h", "frame->operation = bpf_htons(ARP_REPLY);", ""),),
    "10.128.3.11 asks in a foreign name: the verdict is redirect": (("arp.h", "return !from ||", "return from &&"),),
}
# What no sample shows: packets of some length.
SICK: tuple[Edit, ...] = (
    ("parse.h", "packet->len >= packet->header && packet->len <= room;", "packet->len < 200 && packet->len <= room;"),
)


def build() -> None:
    """Compile all of them, for a machine that cannot."""
    policies = {"flow": [(FLOW,)], "subject": [(SUBJECT,)]}
    schemas = {"schema": [SCHEMA, (*SCHEMA, FLOW)], "sick": [SICK, (*SICK, *SCHEMA)]}
    others = {"broken": BROKEN.values(), **schemas, **policies}
    for name, versions in others.items():
        for edits in versions:
            variant(name, edits)


def variant(name: str, edits: tuple[Edit, ...]) -> Path:
    """The object; a machine without a compiler may have got it."""
    files = {path.name: path.read_text(encoding="ascii") for path in sorted(SOURCE.glob("*.[ch]"))}
    for file, old, new in edits:
        assert files[file].count(old) == 1, f"{old!r} is not once in {file}"
        files[file] = files[file].replace(old, new)
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:12]
    target = OBJECTS / f"{name}-{digest}.o"
    if not target.exists():
        OBJECTS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=OBJECTS) as folder:
            for file, text in files.items():
                Path(folder, file).write_text(text, encoding="ascii")
            include = f"/usr/include/{platform.machine()}-linux-gnu"
            options = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-idirafter", include)
            subprocess.run(["clang", *options, "-c", "fastpath.bpf.c", "-o", "object.o"], cwd=folder, check=True)
            subprocess.run(["llvm-strip", "-g", "object.o"], cwd=folder, check=True)
            shutil.move(Path(folder, "object.o"), target)
    return target


if __name__ == "__main__":
    print(variant(sys.argv[1], {"schema": SCHEMA, "broken": next(iter(BROKEN.values())), "sick": SICK}[sys.argv[1]]))
