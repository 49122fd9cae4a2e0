# SPDX-License-Identifier: GPL-3.0-or-later
"""Real packets through the attached programs: what other kernels and tools make of them."""

from __future__ import annotations

import errno
import json
import platform
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import bpf
from tests.bpf import traffic
from tests.bpf.dataplane import OBJECT, Counters, Dataplane, config, difference
from tests.bpf.frames import FAMILIES, FLOWS, V4, V6, Family, from_container, from_wire
from tests.bpf.packets import mac
from tests.bpf.test_deliver import forwarded
from tests.bpf.topology import C1, C2, CONTAINERS, GATEWAY4, GATEWAY6, GATEWAY_MAC, UPLINK_MAC, WIRE_MAC, built
from tests.bpf.traffic import PMTUDISC_DO, PMTUDISC_DONT

both = pytest.mark.parametrize("family", FAMILIES, ids=str)
frames = pytest.mark.usefixtures("ethernet")


def ends(family: Family) -> dict[str, tuple[str, str]]:
    """(namespace, address) of everybody who talks."""
    return {
        "c1": ("c1", family.c1),
        "c2": ("c2", family.c2),
        "host": ("node", family.gateway),
        "far": ("wire", family.far),
    }


WAYS = [("c1", "c2"), ("c2", "c1"), ("c1", "far"), ("far", "c1"), ("c1", "host"), ("host", "c1")]
ways = pytest.mark.parametrize(("src", "dst"), WAYS)


# how the two containers are attached
KINDS = [("netkit", "netkit"), ("netkit-l3", "veth")] if bpf.has_netkit() else [("veth", "veth")]


@pytest.fixture(scope="session", params=KINDS, ids="+".join)
def real_plane(request: pytest.FixtureRequest) -> Iterator[Dataplane]:
    with built(request.param) as net:
        rodata = {"config": config(net.ifindex("fastpath0"))}
        with bpf.load(OBJECT.read_bytes(), rodata=rodata) as loaded:
            yield Dataplane(net, loaded)


@pytest.fixture
def live(real_plane: Dataplane) -> Iterator[Dataplane]:
    plane = real_plane
    plane.refill()
    with plane.attached():
        yield plane
    for container in CONTAINERS:  # forget the path MTUs that a test taught
        plane.net.ip(container.name, "route flush cache")
    for role in ("node", "wire"):
        plane.net.ip(role, "route flush cache")


@pytest.fixture
def ethernet(real_plane: Dataplane) -> None:
    """For tests of frames and neighbours."""
    if "netkit-l3" in real_plane.net.kinds.values():
        pytest.skip("in L3 mode there is no Ethernet")


@contextmanager
def counting(plane: Dataplane) -> Iterator[list[Counters]]:
    """A list that holds the difference at the end."""
    before = plane.counters()
    result: list[Counters] = []
    yield result
    time.sleep(0.05)
    result.append(difference(before, plane.counters()))


@contextmanager
def device_mtu(plane: Dataplane, role: str, device: str, mtu: int) -> Iterator[None]:
    plane.net.ip(role, f"link set {device} mtu {mtu}")
    try:
        yield
    finally:
        plane.net.ip(role, f"link set {device} mtu 1500")


def ping(plane: Dataplane, role: str, dst: str, *options: str) -> str:
    return plane.net.exec(role, "ping", "-c", "1", "-W", "2", *options, dst).stdout


@both
@ways
def test_ping(live: Dataplane, family: Family, src: str, dst: str) -> None:
    role, source = ends(family)[src]
    assert "1 received" in ping(live, role, ends(family)[dst][1], "-I", source)


@both
@pytest.mark.parametrize("src", ["c1", "far"])
def test_the_short_way_into_a_container(live: Dataplane, family: Family, src: str) -> None:
    """Its host end transmits none of it, only what its own IPv6 stack has to say."""

    def transmitted() -> int:
        shown = live.net.exec("node", "ip", "-j", "-s", "link", "show", "c2").stdout
        return int(json.loads(shown)[0]["stats64"]["tx"]["packets"])

    role, source = ends(family)[src]
    if live.net.kinds.get(role, "").startswith("netkit"):
        pytest.skip("what a container sends over netkit goes out of the other's host end")
    before = transmitted()
    with counting(live) as counted:
        assert "20 received" in ping(live, role, family.c2, "-I", source, "-c", "20", "-i", "0.01")
    assert counted[0].endpoints["c2"][0] == 20
    assert transmitted() < before + 10


@both
def test_container_reaches_the_nodes_own_address(live: Dataplane, family: Family) -> None:
    assert "1 received" in ping(live, "c1", family.node)


@both
def test_wire_and_host_are_not_disturbed(live: Dataplane, family: Family) -> None:
    assert "1 received" in ping(live, "wire", family.node)
    assert "1 received" in ping(live, "node", family.far)


@both
@pytest.mark.parametrize("path", [("c1", "c2"), ("c1", "far"), ("far", "c2")])
def test_time_exceeded_is_understood(live: Dataplane, family: Family, path: tuple[str, str]) -> None:
    src, dst = (ends(family)[name] for name in path)
    error = traffic.provoke(live.net, src, dst[1], ttl=1)
    assert error == (errno.EHOSTUNREACH, *((11, 0) if family is V4 else (3, 0)), family.gateway)
    assert "Time to live exceeded" in ping(live, src[0], dst[1], "-I", src[1], "-t", "1") or family is V6


@both
def test_traceroute_has_one_hop_between_containers(live: Dataplane, family: Family) -> None:
    src, dst = ends(family)["c1"], ends(family)["c2"]
    hops = [traffic.provoke(live.net, src, dst[1], ttl=ttl)[1:] for ttl in (1, 2)]
    port_unreachable = (3, 3) if family is V4 else (1, 4)
    assert hops[1] == (*port_unreachable, family.c2)
    assert hops[0][2] == family.gateway


@both
@pytest.mark.parametrize("src", ["c1", "host"])
def test_no_endpoint_is_told_at_once(live: Dataplane, family: Family, src: str) -> None:
    error = traffic.provoke(live.net, ends(family)[src], family.lonely)
    offender = family.gateway if src == "c1" else family.lonely
    assert error == (errno.EHOSTUNREACH, *((3, 1) if family is V4 else (1, 3)), offender)


@both
@ways
@pytest.mark.parametrize("size", [1, 1400, 9000])
def test_datagrams_and_their_fragments(live: Dataplane, family: Family, src: str, dst: str, size: int) -> None:
    with counting(live) as counted:
        arrived = traffic.datagram_arrives(live.net, ends(family)[src], ends(family)[dst], size, PMTUDISC_DONT)
    assert arrived
    assert not set(counted[0].drops) - {"MULTICAST", "LINK_LOCAL"}  # what an idle IPv6 stack says


@both
@pytest.mark.parametrize("path", [("c1", "c2"), ("far", "c2"), ("host", "c2")])
@pytest.mark.parametrize("discover", [PMTUDISC_DO, PMTUDISC_DONT])
def test_mtu_of_a_container(live: Dataplane, family: Family, path: tuple[str, str], discover: int) -> None:
    """Whoever sends learns the smaller MTU, or has the packet fragmented."""
    src, dst = (ends(family)[name] for name in path)
    with live.published(C2, family.c2, mtu=1400), device_mtu(live, "c2", "eth0", 1400):
        if discover == PMTUDISC_DONT:
            assert traffic.datagram_arrives(live.net, src, dst, 1450, discover)
        sender, receiver = traffic.udp_pair(live.net, src, dst)
        with sender, receiver:
            traffic.set_discovery(sender, dst[1], PMTUDISC_DO)
            assert traffic.refused_as_too_long(sender, 1450)
            assert traffic.path_mtu(sender, dst[1]) == 1400


@both
@pytest.mark.parametrize("discover", [PMTUDISC_DO, PMTUDISC_DONT])
def test_mtu_of_the_wire(live: Dataplane, family: Family, discover: int) -> None:
    src, dst = ends(family)["c1"], ends(family)["far"]
    with device_mtu(live, "node", "up0", 1400):
        if discover == PMTUDISC_DONT:
            assert traffic.datagram_arrives(live.net, src, dst, 1450, discover)
            return
        sender, receiver = traffic.udp_pair(live.net, src, dst)
        with sender, receiver:
            traffic.set_discovery(sender, dst[1], PMTUDISC_DO)
            assert traffic.refused_as_too_long(sender, 1450)
            assert traffic.path_mtu(sender, dst[1]) == 1400


def test_kernel_fragments_what_may_be_fragmented(live: Dataplane) -> None:
    """The first datagram arrives already: nobody had to learn anything."""
    with device_mtu(live, "node", "up0", 1400):
        sender, receiver = traffic.udp_pair(live.net, ends(V4)["c1"], ends(V4)["far"])
        with sender, receiver:
            traffic.set_discovery(sender, V4.far, PMTUDISC_DONT)
            sender.send(bytes(1450))
            assert receiver.recv(2000) == bytes(1450)


@both
@ways
def test_tcp(live: Dataplane, family: Family, src: str, dst: str) -> None:
    with counting(live) as counted:
        assert traffic.tcp_transfer(live.net, ends(family)[src], ends(family)[dst])
    assert not set(counted[0].drops) - {"MULTICAST", "LINK_LOCAL"}


@both
@pytest.mark.parametrize("path", [("c1", "c2"), ("far", "c1"), ("c1", "far")])
def test_tcp_without_offloads(live: Dataplane, family: Family, path: tuple[str, str]) -> None:
    """Checksums are then in the packets, and a wrong one is noticed."""
    devices = [("c1", "eth0"), ("c2", "eth0"), ("wire", "w0"), ("node", "c1"), ("node", "c2"), ("node", "up0")]
    for role, device in devices:
        live.net.exec(role, "ethtool", "-K", device, "tx", "off", "rx", "off", "gso", "off", "tso", "off", "gro", "off")
    try:
        src, dst = (ends(family)[name] for name in path)
        assert traffic.tcp_transfer(live.net, src, dst, 2_000_000)
    finally:
        for role, device in devices:
            live.net.exec(role, "ethtool", "-K", device, "tx", "on", "rx", "on", "gso", "on", "tso", "on", "gro", "off")


@both
@pytest.mark.parametrize("src", ["c1", "far", "host"])
def test_tcp_learns_a_smaller_mtu(live: Dataplane, family: Family, src: str) -> None:
    """With GSO packets that are many segments long; the receiver's own MSS would allow more."""
    source, dst = ends(family)[src], ends(family)["c2"]
    with live.published(C2, family.c2, mtu=1400):
        assert traffic.tcp_transfer(live.net, source, dst)


@both
def test_tcp_over_a_smaller_wire(live: Dataplane, family: Family) -> None:
    with device_mtu(live, "node", "up0", 1400):
        assert traffic.tcp_transfer(live.net, ends(family)["c1"], ends(family)["far"])


@both
@ways
def test_big_tcp(live: Dataplane, family: Family, src: str, dst: str) -> None:
    """GSO packets of up to 180 kB, longer than their headers can say. Of IPv4 from Linux 6.3 on."""
    least = 65_536 if family is V6 or tuple(map(int, platform.release().split(".")[:2])) >= (6, 3) else 30_000
    devices = [("c1", "eth0"), ("c2", "eth0"), ("wire", "w0")]
    devices += [("node", name) for name in ("c1", "c2", "up0", "fastpath0", "fastpath1")]
    for role, device in devices:
        live.net.gso_limit(role, device, 180_000)
    try:
        with counting(live) as counted:
            assert traffic.tcp_transfer(live.net, ends(family)[src], ends(family)[dst], 40_000_000)
        assert not set(counted[0].drops) - {"MULTICAST", "LINK_LOCAL"}
        rows = counted[0].endpoints.values()
        sizes = [row[column + 1] / row[column] for row in rows for column in (0, 2) if row[column]]
        assert max(sizes) > least
    finally:
        for role, device in devices:
            live.net.gso_limit(role, device, 65_536)


@frames
def test_spoofed_packets_go_nowhere(live: Dataplane) -> None:
    for family in FAMILIES:
        with traffic.sniffer(live.net, "c2", "eth0") as ears, counting(live) as counted:
            for src in (family.far, family.gateway, family.lonely):
                traffic.send_frame(live.net, "c1", "eth0", from_container(family).with_(src=src).frame())
            assert not traffic.heard(ears, lambda frame: frame[6:12] == mac(GATEWAY_MAC) and b"\x0f\xa0" in frame)
        assert counted[0].drops["SPOOFED"] == 3


@frames
def test_what_arrives_is_what_was_sent(live: Dataplane) -> None:
    for family in FAMILIES:
        for hook, role, device in (("from_container", "c1", "eth0"), ("from_wire", "wire", "w0")):
            frame = FLOWS[hook](family).frame()
            with traffic.sniffer(live.net, "c2", "eth0") as ears:
                traffic.send_frame(live.net, role, device, frame)
                got = traffic.heard(ears, lambda seen: seen[:6] == mac(C2.mac) and b"\x0f\xa0\x0f\xa1" in seen)
            assert got == [forwarded(frame)]


@both
@pytest.mark.parametrize("way", [("from_container", "c1", "eth0"), ("from_wire", "wire", "w0")])
@frames
def test_headers_that_are_not_where_programs_can_see_them(
    live: Dataplane, family: Family, way: tuple[str, str, str]
) -> None:
    hook, role, device = way
    devices = [("c1", "eth0"), ("c2", "eth0"), ("wire", "w0"), ("node", "c1"), ("node", "c2"), ("node", "up0")]
    frame = FLOWS[hook](family).with_(size=6000).frame()
    with ExitStack() as mtus, live.published(C2, family.c2, mtu=9000):
        for end in devices:
            mtus.enter_context(device_mtu(live, *end, 9000))
        with traffic.sniffer(live.net, "c2", "eth0") as ears:
            traffic.send_scattered(live.net, role, device, frame)
            got = traffic.heard(ears, lambda seen: seen[:6] == mac(C2.mac) and len(seen) == len(frame))
            assert got == [forwarded(frame)]


@frames
def test_vlan_tags(live: Dataplane) -> None:
    """The kernel takes a tag out of the frame before a program sees it; it must be noticed all the same."""
    for tag in (b"\x81\x00\x00\x05", b"\x88\xa8\x00\x05"):
        for role, device, frame in (
            ("c1", "eth0", from_container(V4).frame()),
            ("wire", "w0", from_wire(V4).frame()),
        ):
            with traffic.sniffer(live.net, "c2", "eth0") as ears, counting(live) as counted:
                traffic.send_frame(live.net, role, device, frame[:12] + tag + frame[12:])
                assert not traffic.heard(ears, lambda seen, end=frame[-64:]: seen.endswith(end))  # type: ignore[misc]
            assert counted[0].drops.get("VLAN", 0) == (1 if role == "c1" else 0)


@frames
def test_parts_of_an_ip_header(live: Dataplane) -> None:
    """Frames too short for BPF_PROG_TEST_RUN."""
    for family in FAMILIES:
        frame = from_container(family).frame()
        sizes = range(14, 14 + family.header)
        with counting(live) as counted:
            for size in sizes:
                traffic.send_frame(live.net, "c1", "eth0", frame[:size])
        assert counted[0].drops["MALFORMED"] == len(sizes)
        frame = from_wire(family).frame()
        with counting(live) as counted:
            for size in sizes:
                traffic.send_frame(live.net, "wire", "w0", frame[:size])
        assert counted[0].hooks["FROM_WIRE"] >= len(sizes)
        assert not set(counted[0].drops) - {"MULTICAST", "LINK_LOCAL"}


@frames
def test_duplicate_address_detection(live: Dataplane) -> None:
    """An own address passes, one that somebody else has does not."""
    live.net.sysctl("c1", ipv6__conf__eth0__accept_dad="1")
    own = "fd00:128:3::31"
    try:
        with live.published(C1, own):
            live.net.ip("c1", f"address add {own}/128 dev eth0", f"address add {C2.v6}/128 dev eth0")
            deadline = time.monotonic() + 5
            while " tentative" in (shown := live.net.exec("c1", "ip", "-6", "address", "show", "dev", "eth0").stdout):
                if "dadfailed tentative" in shown and shown.count("tentative") == 1:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.1)
        lines = {line.split()[1]: line for line in shown.splitlines() if "inet6" in line}
        assert "tentative" not in lines[f"{own}/128"]
        assert "dadfailed" in lines[f"{C2.v6}/128"]
    finally:
        live.net.sysctl("c1", ipv6__conf__eth0__accept_dad="0")
        live.net.exec("c1", "ip", "address", "del", f"{own}/128", "dev", "eth0")
        live.net.exec("c1", "ip", "address", "del", f"{C2.v6}/128", "dev", "eth0")


@both
@frames
def test_neighbours_know_the_gateway(live: Dataplane, family: Family) -> None:
    live.net.exec("c1", "ip", "neigh", "flush", "dev", "eth0")
    assert "1 received" in ping(live, "c1", family.c2)
    gateway = GATEWAY4 if family is V4 else GATEWAY6
    shown = live.net.exec("c1", "ip", "neigh", "show", gateway).stdout
    assert GATEWAY_MAC in shown


def test_a_next_hop_that_moves_is_found_again(live: Dataplane) -> None:
    """The kernel keeps asking whether the neighbour is still there, though all packets are ours."""
    live.net.sysctl(
        "node",
        ipv4__neigh__up0__base_reachable_time_ms="500",
        ipv4__neigh__up0__delay_first_probe_time="1",
        ipv4__neigh__up0__retrans_time_ms="100",
    )
    live.net.ip("node", "neigh flush dev up0")  # its timer still runs by the old settings
    sender, receiver = traffic.udp_pair(live.net, ends(V4)["c1"], ends(V4)["far"])
    moved = "0e:00:00:00:03:03"
    try:
        with sender, receiver:
            receiver.settimeout(0.1)
            sender.send(b"before")
            assert receiver.recv(100) == b"before"
            live.net.ip("wire", f"link set w0 address {moved}")
            deadline, arrived = time.monotonic() + 15, False
            while not arrived and time.monotonic() < deadline:
                sender.send(b"after")
                try:
                    arrived = receiver.recv(100) == b"after"
                except TimeoutError:
                    continue
            assert arrived
    finally:
        live.net.ip("wire", f"link set w0 address {WIRE_MAC}")
        live.net.exec("node", "ip", "neigh", "flush", "dev", "up0")


@frames
def test_a_container_without_its_interface(live: Dataplane) -> None:
    """The endpoint is still there, its host end is not up: the kernel drops, nobody else gets it."""
    live.net.ip("c2", "link set eth0 down")
    try:
        with traffic.sniffer(live.net, "node", "up0") as ears:
            traffic.send_frame(live.net, "c1", "eth0", from_container(V4).frame())
            traffic.send_frame(live.net, "wire", "w0", from_wire(V4).frame())
            heard = traffic.heard(ears, lambda seen: seen[:6] != mac(UPLINK_MAC) and b"\x0f\xa0\x0f\xa1" in seen)
        assert heard == []
    finally:
        live.net.ip("c2", "link set eth0 up")
        live.net.ip("c2", f"route replace default via {GATEWAY4} dev eth0 onlink")
        live.net.ip("c2", f"address replace {C2.v6}/128 dev eth0 nodad")
        live.net.ip("c2", f"route replace ::/0 via {GATEWAY6} dev eth0 onlink")


def test_nobody_needed_global_forwarding(live: Dataplane) -> None:
    for family in ("ipv4", "ipv6"):
        shown = live.net.exec(
            "node", "sysctl", "-n", f"net.{family}.conf.all.forwarding", f"net.{family}.conf.up0.forwarding"
        )
        assert shown.stdout.split() == ["0", "0"]
    assert socket.has_ipv6


def test_other_kinds_than_veth() -> None:
    if not bpf.has_netkit():
        pytest.skip("this kernel has no netkit: run tests/bpf/test_forwarding.py on one from 6.7")


@both
@frames
def test_what_is_being_sent_is_delivered_too(live: Dataplane, family: Family) -> None:
    """Behind a netkit a program sees packets as at the egress of a device, where bpf_redirect_peer drops them."""
    frame = from_container(family).frame()
    with live.hooked("c1", "from_netkit", bpf.TCX_EGRESS), traffic.sniffer(live.net, "c2", "eth0") as ears:
        traffic.send_frame(live.net, "node", "c1", frame)
        got = traffic.heard(ears, lambda seen: seen[:6] == mac(C2.mac) and b"\x0f\xa0\x0f\xa1" in seen)
    assert got == [forwarded(frame)]


@both
@frames
def test_what_a_raw_socket_says_of_a_frame_is_not_believed(live: Dataplane, family: Family) -> None:
    """Over veth the kernel looks into the frame, over netkit it goes by what the sender says."""
    frame = from_container(family).frame()
    with traffic.sniffer(live.net, "c2", "eth0") as ears, counting(live) as counted:
        traffic.send_frame(live.net, "c1", "eth0", frame, protocol=0x88B5)
        got = traffic.heard(ears, lambda seen: seen[:6] == mac(C2.mac) and b"\x0f\xa0\x0f\xa1" in seen)
    if live.net.kinds["c1"] == "netkit":
        assert (got, counted[0].drops["MALFORMED"]) == ([], 1)
    else:
        assert got == [forwarded(frame)]
