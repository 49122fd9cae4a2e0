# SPDX-License-Identifier: GPL-3.0-or-later
"""The table as devices have it: it fills up, fails, takes its time, tells its counters late, refuses with a reason."""

from __future__ import annotations

import time

import pytest

from tests.nic.inside.device import CommandError, Nic, arrivals, rule, rules, run, switchdev
from tests.nic.inside.frames import Frame


def to(name: str) -> tuple[str, ...]:
    return ("action", "mirred", "egress", "redirect", "dev", name)


def counted(device: str) -> int:
    """Packets of the one rule that the device has counted."""
    (options,) = rules(device)
    return int(options["actions"][-1]["stats"].get("hw_packets", 0))


def unused(device: str) -> int:
    """Seconds since the one rule was hit."""
    (options,) = rules(device)
    return int(options["actions"][-1]["last_used"])


def test_a_full_table_refuses() -> None:
    with switchdev(1) as (nic, ends):
        nic.knob("table_size", 2)
        device = ends["r0"].name
        for number in (1, 2):
            rule(device, "dst_mac", f"02:00:00:00:00:0{number}", "action", "drop")
        with pytest.raises(CommandError, match="table is full"):
            rule(device, "dst_mac", "02:00:00:00:00:03", "action", "drop")
        rule(device, "dst_mac", "02:00:00:00:00:04", "action", "drop", flags="")
        assert [options.get("in_hw", False) for options in rules(device)] == [True, True, False]
        run("tc", "filter", "del", "dev", device, "ingress")
        assert nic.knob("table_used") == "0"
        rule(device, "dst_mac", "02:00:00:00:00:03", "action", "drop")


def test_the_nth_insert_fails() -> None:
    with switchdev(1) as (nic, ends):
        nic.knob("fail_insert", 2)
        device = ends["r0"].name
        rule(device, "dst_mac", "02:00:00:00:00:01", "action", "drop")
        with pytest.raises(CommandError, match="failed to insert"):
            rule(device, "dst_mac", "02:00:00:00:00:02", "action", "drop")
        rule(device, "dst_mac", "02:00:00:00:00:02", "action", "drop")
        assert nic.knob("table_used") == "2"


def test_insert_and_delete_take_their_time() -> None:
    with switchdev(1) as (nic, ends):
        nic.knob("insert_us", 500_000)
        nic.knob("delete_us", 500_000)
        began = time.monotonic()
        rule(ends["r0"].name, "action", "drop")
        assert time.monotonic() - began >= 0.5, "a lower bound: it slept"
        began = time.monotonic()
        run("tc", "filter", "del", "dev", ends["r0"].name, "ingress")
        assert time.monotonic() - began >= 0.5, "a lower bound: it slept"


def test_counters_lag() -> None:
    with switchdev(2) as (nic, ends):
        device = ends["r0"].name
        rule(device, *to(ends["r1"].name))
        nic.knob("counter_lag_ms", 60_000)
        ends["v0"].send(Frame().pack())
        assert len(arrivals(ends)["v1"]) == 1
        assert counted(device) == 0
        nic.knob("counter_lag_ms", 1)
        time.sleep(0.2)
        assert counted(device) == 1
        nic.knob("counter_lag_ms", 0)
        ends["v0"].send(Frame().pack())
        assert counted(device) == 2


def test_last_used_is_that_of_the_device() -> None:
    with switchdev(2) as (_nic, ends):
        device = ends["r0"].name
        rule(device, *to(ends["r1"].name))
        time.sleep(2.1)
        assert unused(device) >= 2
        ends["v0"].send(Frame().pack())
        assert unused(device) < 2


def test_where_a_rule_is() -> None:
    with switchdev(2) as (_nic, ends):
        device = ends["r0"].name
        rule(device, "action", "drop", preference=1, flags="skip_hw")
        rule(device, *to(ends["r1"].name), preference=2, flags="")
        in_software, in_both = rules(device)
        assert (in_software.get("in_hw", False), in_both["in_hw"]) == (False, True)
        ends["v0"].send(Frame().pack())
        assert set(arrivals(ends)) == {"v1"}, "the device does not know the rule of the software"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("enc_key_id", "7", "action", "drop"), "cannot match one of these keys"),
        (("action", "skbedit", "mark", "1"), "cannot do one of these actions"),
        (
            ("action", "pedit", "ex", "munge", "ip", "tos", "set", "4", "pipe", "action", "drop"),
            "Only MACs and the TTL",
        ),
        (("action", "mirred", "egress", "redirect", "dev", "lo"), "not a port of this device"),
        (("action", "goto", "chain", "2"), "Only from chain 0 to chain 1"),
    ],
)
def test_refusals(words: tuple[str, ...], reason: str) -> None:
    with switchdev(1) as (_nic, ends):
        with pytest.raises(CommandError, match=reason):
            rule(ends["r0"].name, *words, protocol="ip")
        with pytest.raises(CommandError, match="Only the chains 0 and 1"):
            rule(ends["r0"].name, "action", "drop", preference=3, flags="skip_sw", chain=2)
        run("ethtool", "-K", ends["r0"].name, "hw-tc-offload", "off")
        with pytest.raises(CommandError, match="disabled"):
            rule(ends["r0"].name, "action", "drop")


def test_a_rule_is_replaced_in_place() -> None:
    with switchdev(3) as (nic, ends):
        device = ends["r0"].name
        head = ("filter", "replace", "dev", device, "ingress", "prio", "1", "handle", "1", "protocol", "all", "flower")
        for output in ("r1", "r2"):
            run("tc", *head, "skip_sw", *to(ends[output].name))
            ends["v0"].send(Frame().pack())
            assert set(arrivals(ends)) == {"v" + output[1]}
        assert nic.knob("table_used") == "1"


SIZES = (10, 1_000, 100_000)
HITS = 50


def looked_up(nic: Nic) -> tuple[int, int]:
    """Lookups so far, and the hashes that they took."""
    lookups, probes, _ns = nic.knob("lookups").split()
    return int(lookups), int(probes)


def test_a_hit_costs_a_hash_for_each_mask_however_many_rules_there_are(largest: int) -> None:
    with switchdev(2) as (nic, ends):
        device, frame = ends["r0"].name, Frame(dst="10.200.0.1").pack()
        rule(device, "src_ip", "10.99.0.0/16", "action", "drop", preference=1, protocol="ip")
        rule(device, "dst_mac", "02:00:00:00:00:99", "action", "drop", preference=2, protocol="ip")
        rule(device, "dst_ip", "10.200.0.1", *to(ends["r1"].name), preference=3, protocol="ip")
        rule(device, "action", "drop", preference=4, protocol="ip")
        there = 4
        for size in (size for size in SIZES if size <= largest):
            lines = [
                f"filter add dev {device} ingress protocol ip prio 3 flower skip_sw "
                f"dst_ip 10.{number >> 16}.{number >> 8 & 255}.{number & 255} action drop"
                for number in range(there, size)
            ]
            run("tc", "-batch", "-", stdin="\n".join(lines))
            there = size
            assert nic.knob("table_used") == str(size)
            lookups, probes = looked_up(nic)
            for _hit in range(HITS):
                ends["v0"].send(frame)
            assert arrivals(ends) == {"v1": [frame] * HITS}
            # The fourth mask has only rules of a worse priority than the hit.
            assert looked_up(nic) == (lookups + HITS, probes + 3 * HITS)
