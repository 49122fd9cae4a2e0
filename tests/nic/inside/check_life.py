# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions are bound, unbound, reset, given to vfio and taken away, under traffic and with rules in the table."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.nic.inside.device import CommandError, End, Nic, arrivals, load, rule, run, switchdev, unload, until
from tests.nic.inside.frames import Frame


def redirect(ends: dict[str, End], one: str, other: str) -> None:
    rule(ends[one].name, "action", "mirred", "egress", "redirect", "dev", ends[other].name)


def test_unbound_and_bound_again() -> None:
    with switchdev(2) as (nic, ends):
        redirect(ends, "r0", "r1")
        frame = Frame().pack()
        nic.bind(1, None)
        ends["v0"].send(frame)
        assert arrivals(ends) == {}
        nic.bind(1, "fastpath_nic_vf")
        run("ip", "link", "set", nic.vf(1), "up")
        again = End(nic.vf(1))
        ends["v0"].send(frame)
        assert arrivals({"v1": again}) == {"v1": [frame]}
        again.socket.close()


def test_vfio_takes_a_vf() -> None:
    run("modprobe", "vfio-pci")
    nic = load()
    nic.set_vfs(2)
    nic.bind(0, "vfio-pci")
    group = (nic.sysfs / "virtfn0/iommu_group").resolve().name
    assert Path(f"/dev/vfio/{group}").exists()
    assert not (nic.sysfs / "virtfn0/net").exists()
    nic.bind(0, "fastpath_nic_vf")
    assert nic.vf(0)
    nic.set_vfs(0)


def test_a_reset_forgets_rules_if_it_is_told_to() -> None:
    with switchdev(3) as (nic, ends):
        redirect(ends, "r0", "r1")
        redirect(ends, "r2", "r1")
        frame = Frame().pack()
        flr = nic.sysfs / "virtfn0/reset"
        assert (nic.sysfs / "virtfn0/reset_method").read_text().split()[0] == "flr"
        flr.write_text("1")
        ends["v0"].send(frame)
        assert set(arrivals(ends)) == {"v1"}
        nic.knob("reset_forgets", 1)
        flr.write_text("1")
        ends["v0"].send(frame)
        ends["v2"].send(frame)
        assert arrivals(ends) == {"r0": [frame], "v1": [frame]}
        assert nic.knob("table_used") == "1"
        nic.knob("reset", 0)
        ends["v2"].send(frame)
        assert arrivals(ends) == {"r2": [frame]}
        assert nic.knob("table_used") == "0"
        run("tc", "filter", "del", "dev", ends["r0"].name, "ingress")
        redirect(ends, "r0", "r1")
        ends["v0"].send(frame)
        assert arrivals(ends) == {"v1": [frame]}


def test_the_pf_is_removed_and_found_again() -> None:
    nic = load()
    nic.set_vfs(2)
    nic.set_mode("switchdev")
    (nic.sysfs / "remove").write_text("1")
    assert not nic.sysfs.exists()
    Path("/sys/bus/pci/rescan").write_text("1")
    until((nic.sysfs / "net").exists, "the PF's netdev")
    assert nic.mode() == "legacy"
    nic.set_vfs(1)


def test_reload_goes_to_legacy() -> None:
    nic = load()
    nic.set_vfs(1)
    nic.set_mode("switchdev")
    run("ip", "link", "set", nic.wire, "up")
    run("devlink", "dev", "reload", nic.handle)
    assert nic.mode() == "legacy"
    assert set(nic.nears()) == {"p0"}
    run("ip", "link", "set", nic.uplink, "up")
    assert (nic.sysfs / "net" / nic.uplink / "carrier").read_text().strip() == "1"


def test_an_inactive_function_is_silent() -> None:
    with switchdev(2) as (nic, ends):
        run("devlink", "port", "function", "set", f"{nic.handle}/1", "state", "inactive")
        ends["v0"].send(Frame().pack())
        ends["r0"].send(Frame().pack())
        assert arrivals(ends) == {}
        run("devlink", "port", "function", "set", f"{nic.handle}/1", "state", "active")
        ends["v0"].send(Frame().pack())
        assert set(arrivals(ends)) == {"r0"}


def test_a_mac_is_the_vfs_from_the_next_bind_on() -> None:
    nic = load()
    nic.set_vfs(1)
    nic.set_mode("switchdev")
    run("devlink", "port", "function", "set", f"{nic.handle}/1", "hw_addr", "02:00:00:00:00:77")
    nic.bind(0, None)
    nic.bind(0, "fastpath_nic_vf")
    assert (Path("/sys/class/net") / nic.vf(0) / "address").read_text().strip() == "02:00:00:00:00:77"


def test_two_devices_of_64_vfs() -> None:
    one = load(nics=2, vfs=64)
    other = Nic("0002:01:00.0")
    for nic in (one, other):
        nic.set_vfs(64)
        nic.set_mode("switchdev")
        assert len(nic.nears()) == 65
    ids = {(nic.sysfs / "net" / nic.uplink / "phys_switch_id").read_text() for nic in (one, other)}
    assert len(ids) == 2


@contextmanager
def sending(ends: dict[str, End], senders: list[str]) -> Iterator[None]:
    """Frames from these ends all the time, until the end; errors of netdevs that go away are what one expects."""
    over = threading.Event()

    def send() -> None:
        frame = Frame().pack()
        while not over.is_set():
            for sender in senders:
                with suppress(OSError):
                    ends[sender].send(frame)
            time.sleep(0.002)  # else it has the one CPU and Python's lock, and the churn waits for it

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_churn_under_traffic(rounds: int, seed: int) -> None:
    """All that can happen to a device, in any order; only the kernel's log and the way back to nothing are judged."""
    with switchdev(4) as (nic, ends):
        source = random.Random(seed)
        with sending(ends, ["v0", "v1", "w0", "r0"]):
            for _round in range(rounds):
                _shake(source, nic)
            unload()
    assert not nic.sysfs.exists()


def _shake(source: random.Random, nic: Nic) -> None:
    number = source.randrange(4)
    with suppress(CommandError, OSError, LookupError, StopIteration):
        match source.choice(["rules", "rules", "flush", "bind", "unbind", "flr", "reset", "mode", "vfs", "down"]):
            case "rules":
                _some_rules(source, nic, number)
            case "flush":
                run("tc", "filter", "del", "dev", nic.near(f"pf0vf{number}"), "ingress")
            case "bind":
                nic.bind(number, "fastpath_nic_vf")
                run("ip", "link", "set", nic.vf(number), "up")
            case "unbind":
                nic.bind(number, None)
            case "flr":
                (nic.sysfs / f"virtfn{number}/reset").write_text("1")
            case "reset":
                nic.knob("reset_forgets", source.choice([0, 1]))
                nic.knob("reset", source.randrange(5))
            case "mode":
                nic.set_mode(source.choice(["legacy", "switchdev"]))
            case "vfs":
                nic.set_vfs(0)
                nic.set_vfs(4)
                nic.set_mode("switchdev")
            case "down":
                run("ip", "link", "set", nic.near(f"pf0vf{number}"), source.choice(["up", "down"]))


def _some_rules(source: random.Random, nic: Nic, number: int) -> None:
    nears = nic.nears()
    device = nears[f"pf0vf{number}"]
    with suppress(CommandError):
        run("tc", "qdisc", "add", "dev", device, "clsact")
    outputs = [name for name in nears.values() if name != device]
    lines = [
        f"filter add dev {device} ingress prio {source.choice([1, 2])} protocol all flower skip_sw "
        f"src_mac 02:00:00:00:00:{source.randrange(9):02} action mirred egress redirect dev {source.choice(outputs)}"
        for _round in range(20)
    ]
    run("tc", "-force", "-batch", "-", stdin="\n".join(lines))
