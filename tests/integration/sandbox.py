# SPDX-License-Identifier: GPL-3.0-or-later
"""A node made of namespaces: own network, own mounts, so own /sys/fs/bpf, /etc, /usr/lib/fastpath and /run/netns.

Its uplink `up0` leads to the namespace `fabric`. The machine sees none of it, and all of it goes with its last process.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fastpath.node.plugins.module_utils import run, versions
from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError
from ansible_collections.fastpath.node.plugins.module_utils.kernel import (
    bpf,
    clsact,
    datapath,
    hooks,
    netns,
    policy,
    rtnl,
)

UPLINK, FABRIC = "up0", "fabric"
DATAPLANE = {"uplinks": [{"name": UPLINK}], "prefixes": ["10.128.3.0/24", "fd00:128:3::/64"]}
FABRIC_ADDRESSES = ("192.0.2.1", "fd00:192::1")

_HOLD = f"""
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/etc/upper /run/etc/work /run/lib/upper /run/lib/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work etc /etc
mount -t overlay -o lowerdir=/usr/lib,upperdir=/run/lib/upper,workdir=/run/lib/work lib /usr/lib
mount -t sysfs sysfs /sys
mount -t bpf -o mode=700 bpf /sys/fs/bpf
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link set lo up
ip netns add {FABRIC}
ip netns exec {FABRIC} sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link add {UPLINK} type veth peer name eth0 netns {FABRIC}
ip addr add 192.0.2.2/24 dev {UPLINK}
ip addr add fd00:192::2/64 dev {UPLINK} nodad
ip link set {UPLINK} up
ip -n {FABRIC} addr add 192.0.2.1/24 dev eth0
ip -n {FABRIC} addr add fd00:192::1/64 dev eth0 nodad
ip -n {FABRIC} link set eth0 up
ip -n {FABRIC} route add 10.128.3.0/24 via 192.0.2.2
ip -n {FABRIC} route add fd00:128:3::/64 via fd00:192::2
until ip link show {UPLINK} | grep -q 'state UP' && ip -n {FABRIC} link show eth0 | grep -q 'state UP'
do sleep .01; done
echo ready
exec sleep infinity
"""

Result = dict[str, Any]


class Refused(Exception):
    """A run ended with an error; kind is its class's name."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


class Killed(Exception):
    """A signal ended the child."""


def attachment(number: int, **more: Any) -> dict[str, Any]:
    """The wish for container c<number>: 10.128.3.<10+number> and fd00:128:3::<10+number>."""
    return {
        "name": f"c{number}",
        "container": {"netns": f"/run/netns/c{number}"},
        "addresses": list(addresses(number)),
        **more,
    }


def addresses(number: int) -> tuple[str, str]:
    return f"10.128.3.{10 + number}/32", f"fd00:128:3::{10 + number}/128"


def ips(number: int) -> tuple[str, str]:
    first, second = addresses(number)
    return first.partition("/")[0], second.partition("/")[0]


def _as_it_is() -> None:
    """The library talks to this machine's kernel."""


@dataclass(frozen=True)
class Sandbox:
    """holder is the process that keeps the namespaces; object_file the dataplane's object.

    prepare runs before each call of the library: it may let the library see another kernel.
    """

    holder: int
    object_file: Path
    prepare: Callable[[], None] = _as_it_is

    # Running things in it

    def command(self, argv: Sequence[str], container: str | None = None) -> list[str]:
        inside = ["nsenter", f"--net=/run/netns/{container}"] if container else []
        return ["nsenter", f"--target={self.holder}", "--mount", "--net", "--wd=/", *inside, *argv]

    def run(self, *argv: str, container: str | None = None, check: bool = True) -> str:
        done = subprocess.run(self.command(argv, container), capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def succeeds(self, *argv: str, container: str | None = None) -> bool:
        return subprocess.run(self.command(argv, container), capture_output=True, check=False).returncode == 0

    def start(self, *argv: str, container: str | None = None) -> subprocess.Popen[str]:
        """A process that ends by itself."""
        return subprocess.Popen(self.command(argv, container), stdout=subprocess.PIPE, text=True)

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The function's result, run in a forked child in here; raises Refused or Killed."""

        def prepared() -> Any:
            self.prepare()
            return function(*arguments, **options)

        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _child(self.holder, writer, prepared)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        _pid, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGALRM):
            raise Killed
        assert answer, f"the child ended with status {status} and said nothing"
        kind, value = pickle.loads(answer)  # noqa: S301 - from our own child
        if kind:
            raise Refused(kind, value)
        return value

    # The library

    def dataplane(self, config: Mapping[str, Any] = DATAPLANE, state: str = "replaced", **options: Any) -> Result:
        options.setdefault("path", str(self.object_file))
        result: Result = self.call(run.run_dataplane, config, state, **options)
        return result

    def attachments(self, config: Sequence[Mapping[str, Any]], state: str = "merged", **options: Any) -> Result:
        result: Result = self.call(run.run_attachments, config, state, **options)
        return result

    def policies(self, config: Sequence[Any] = (), state: str = "overridden", **options: Any) -> Result:
        result: Result = self.call(run.run_policies, list(config), state, **options)
        return result

    def remove(self) -> None:
        self.attachments([], "deleted", allow_disruption=True)
        self.policies(state="deleted")
        self.dataplane({}, "deleted", allow_disruption=True)

    # The world around it

    def add_container(self, name: str) -> None:
        self.run("ip", "netns", "add", name)
        self.run(
            "sh",
            "-c",
            "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip link set lo up",
            container=name,
        )

    def end_container(self, name: str) -> None:
        """Its namespace goes, and some time later its links do."""
        self.run("ip", "netns", "del", name)
        there = f"ip -br link | grep -q -e '^{name}[ @]' -e '^fp-'"
        assert self.succeeds("sh", "-c", f"for try in $(seq 200); do {there} || exit 0; sleep .1; done; exit 1")

    def ping(self, source: str | None, *targets: str) -> None:
        """Every target answers, from a container or (None) the node; fabric is a container here too."""
        for target in targets:
            self.run("ping", "-c1", "-W10", target, container=source)

    def pins(self) -> list[str]:
        """All below /sys/fs/bpf/fastpath, relative."""
        found = self.run("sh", "-c", "cd /sys/fs/bpf && if test -e fastpath; then find fastpath -type f; fi")
        return sorted(found.split())

    def endpoints(self) -> dict[str, datapath.Endpoint]:
        found: dict[str, datapath.Endpoint] = self.call(datapath.endpoints)
        return found

    def snapshot(self) -> dict[str, Any]:
        """All that a run could change, comparable."""
        found: dict[str, Any] = self.call(_snapshot)
        return found


def _child(holder: int, pipe: int, work: Callable[[], Any]) -> None:
    """The rest of the child's life: enter, work, answer, end without any of pytest's clean-up."""
    answer: tuple[str, Any]
    try:
        _enter(holder)
        answer = "", work()
    except (FastpathError, OSError) as error:
        answer = type(error).__name__, str(error)
    except BaseException as error:  # noqa: BLE001 - the parent reports it
        answer = f"crash: {type(error).__name__}", traceback.format_exc()
    try:
        with os.fdopen(pipe, "wb") as file:
            pickle.dump(answer, file)
        sys.stdout.flush()
    finally:
        os._exit(0)


def _enter(holder: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptors = [os.open(f"/proc/{holder}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net")]
    for descriptor in descriptors:
        if libc.setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)
    os.chdir("/")


def _snapshot() -> dict[str, Any]:
    """Flat, so that a difference is short to read."""
    spaces = {"node": "/proc/self/ns/net", **{path.name: str(path) for path in Path("/run/netns").iterdir()}}
    found: dict[str, Any] = {}
    for name, path in spaces.items():
        with netns.entered(path):
            found |= {f"{name} {key}": value for key, value in _network().items()}
    found |= {f"pin {path}": True for path in Path("/sys/fs/bpf/fastpath").rglob("*")}
    found |= {f"file {path}": path.read_text() for path in Path("/etc/fastpath").glob("*")}
    found |= {f"there is {path}": path.exists() for path in map(Path, ("/etc/fastpath", versions.OBJECTS))}
    found["objects"] = versions.kept()
    if datapath.MAPS.is_dir():
        found["endpoints"] = datapath.endpoints()
        found["hooks"] = hooks.read()
        found["policies"] = policy.read()
    return found


def _network() -> dict[str, Any]:
    names = ("forwarding", "rp_filter", "addr_gen_mode", "accept_ra", "arp_ignore")
    sysctls = [path for family in ("ipv4", "ipv6") for path in Path(f"/proc/sys/net/{family}/conf").glob("*/*")]
    links = _ip("-d", "addr")
    for link in links:  # the kernel sets the carrier of a veth some time later
        del link["operstate"]
        link["flags"] = "UP" in link["flags"]
    return {
        **{f"link {link['ifname']}": link for link in links},
        **{f"programs {link['ifname']}": _programs(link["ifindex"]) for link in links},
        "routes": _ip("-4", "route", "show", "table", "all") + _ip("-6", "route", "show", "table", "all"),
        **{str(path): path.read_text().strip() for path in sysctls if path.name in names},
    }


def _ip(*words: str) -> list[dict[str, Any]]:
    out = subprocess.run(["ip", "-j", *words], capture_output=True, text=True, check=True).stdout
    rows: list[dict[str, Any]] = json.loads(out or "[]")
    return rows


def _programs(ifindex: int) -> list[list[int]]:
    directions = (bpf.TCX_INGRESS, bpf.TCX_EGRESS)
    if bpf.has_tcx():
        return [bpf.query(ifindex, direction) for direction in directions]
    with rtnl.Netlink() as netlink:
        return [[one.prog_id for one in clsact.filters(netlink, ifindex, direction)] for direction in directions]


@contextmanager
def sandbox(object_file: Path, containers: int) -> Iterator[Sandbox]:
    """A node with containers c1, c2 ..., and on the machine not a trace of it."""
    hold = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-euc", _HOLD]
    with subprocess.Popen(hold, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            node = Sandbox(holder.pid, object_file)
            for number in range(1, containers + 1):
                node.add_container(f"c{number}")
            yield node
        finally:
            holder.kill()


def predicted(node: Sandbox, resource: str, config: Any, state: str, **options: Any) -> Result:
    """Check, then run: the same steps and the same end; check changed nothing; a second run has no steps."""
    converge = getattr(node, resource)
    before = node.snapshot()
    check: Result = converge(config, state, check=True, **options)
    after = node.snapshot()
    assert after == before, {key: (before.get(key), after.get(key)) for key in before if before[key] != after.get(key)}
    real: Result = converge(config, state, **options)
    assert (check["steps"], check["before"], check["after"]) == (real["steps"], real["before"], real["after"])
    assert check["diff"] == real["diff"]
    again = converge(config, state, **options)
    assert (again["changed"], again["steps"], again["before"]) == (False, [], real["after"])
    gathered = converge({} if resource == "dataplane" else [], "gathered")
    assert gathered == {"changed": False, "gathered": real["after"]}
    return real
