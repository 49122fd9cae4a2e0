# SPDX-License-Identifier: GPL-3.0-or-later
"""devlink and VFs of an interface, as bytes: what drivers answer (by hand, from the kernel's headers), what we ask."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.errors import FastpathError, Unsupported
from ansible_collections.fastpath.node.plugins.module_utils.eswitch.attributes import Attributes
from ansible_collections.fastpath.node.plugins.module_utils.kernel import devlink, genl, rtnl, vflinks
from ansible_collections.fastpath.node.plugins.module_utils.kernel.devlink import Eswitch, Port

FAMILY = 21
GET, PORT_GET, PORT_SET, ESWITCH_GET, ESWITCH_SET, PARAM_GET, PARAM_SET, INFO_GET = 1, 5, 6, 29, 30, 38, 39, 51
HANDLE = "pci/0000:3b:00.0"


def a(kind: int, payload: bytes | str) -> bytes:
    data = payload.encode() + b"\0" if isinstance(payload, str) else payload
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


WHO = a(1, "pci") + a(2, "0000:3b:00.0")


def param(name: str, kind: int, *values: tuple[int, bytes | None]) -> bytes:
    """values: (cmode, data); data None is a flag that is not set."""
    several = b"".join(a(85, (b"" if data is None else a(86, data)) + a(87, bytes([cmode]))) for cmode, data in values)
    return WHO + a(80, a(81, name) + a(83, bytes([kind])) + a(84, several))


def port(index: int, flavour: int, ifindex: int, rest: bytes = b"") -> bytes:
    return (
        WHO
        + a(3, struct.pack("=I", index))
        + a(6, struct.pack("=I", ifindex))
        + a(77, struct.pack("=H", flavour))
        + rest
    )


class Kernel:
    """Answers by command; an int is an errno. asked: the requests that change something, without the handle."""

    def __init__(self, answers: dict[int, list[bytes] | int]) -> None:
        self.answers = answers
        self.asked: list[tuple[int, bytes]] = []

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def get(self, kind: int, body: bytes) -> bytes:
        if kind == 16:
            assert body == struct.pack("=BBH", 3, 1, 0) + a(2, "devlink")
            return bytes(4) + a(1, struct.pack("=H", FAMILY)) + a(2, "devlink")
        return next(self.dump(kind, body))

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        assert kind == FAMILY
        found = self.answers.get(body[0], errno.EOPNOTSUPP)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        return iter([bytes(4) + one for one in found])

    def request(self, kind: int, flags: int, body: bytes) -> None:
        assert (kind, flags) == (FAMILY, 0)
        assert body[4 : 4 + len(WHO)] == WHO
        self.asked.append((body[0], body[4 + len(WHO) :]))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A mlx5 in switchdev mode with two VFs: Documentation/networking/devlink/mlx5.rst, devlink-port.rst."""
    mac = a(145, a(1, bytes.fromhex("020000000007")))
    made = Kernel(
        {
            GET: [WHO],
            INFO_GET: [WHO + a(98, "mlx5_core") + a(99, "MT2141X") + a(100, a(103, "fw.psid") + a(104, "MT_0"))],
            ESWITCH_GET: [WHO + a(25, struct.pack("=H", 1)) + a(26, bytes([1])) + a(62, bytes([1]))],
            PORT_GET: [
                port(65535, 0, 3),
                port(1, 4, 4, a(127, struct.pack("=H", 0)) + a(128, struct.pack("=H", 0)) + mac),
                port(2, 4, 0, a(127, struct.pack("=H", 0)) + a(128, struct.pack("=H", 1)) + a(145, a(1, bytes(6)))),
            ],
            PARAM_GET: [
                param("flow_steering_mode", 5, (0, b"smfs\0")),
                param("enable_roce", 6, (1, b"")),
                param("esw_multiport", 6, (0, None)),
                param("fdb_large_groups", 3, (1, struct.pack("=I", 15)), (0, struct.pack("=I", 16))),
            ],
        }
    )
    monkeypatch.setattr(rtnl, "Netlink", lambda _protocol=0: made)
    return made


def test_an_instance(kernel: Kernel) -> None:
    (found,) = devlink.instances().values()
    assert (found.handle, found.driver, found.serial) == (HANDLE, "mlx5_core", "MT2141X")
    assert found.eswitch == Eswitch("switchdev", "link", "basic")
    assert found.params == {"flow_steering_mode": "smfs", "esw_multiport": False, "fdb_large_groups": 16}
    assert found.ports == (
        Port(65535, "physical", 3, None, ""), Port(1, "pcivf", 4, 0, "02:00:00:00:00:07"), Port(2, "pcivf", 0, 1, ""),
    )  # fmt: skip


def test_drivers_that_have_less(kernel: Kernel) -> None:
    """ice has no inline and encap mode, igb no eswitch; some have neither ports, parameters nor info."""
    kernel.answers = {GET: [WHO], ESWITCH_GET: [WHO + a(25, struct.pack("=H", 0))]}
    (found,) = devlink.instances().values()
    assert (found.eswitch, found.params, found.ports, found.driver) == (Eswitch("legacy", None, None), {}, (), "")
    kernel.answers = {GET: [WHO]}
    assert devlink.instances()[HANDLE].eswitch is None


def test_errors_of_reading_are_not_swallowed(kernel: Kernel) -> None:
    kernel.answers[ESWITCH_GET] = errno.EPERM
    with pytest.raises(PermissionError):
        devlink.instances()


def test_a_kernel_without_devlink(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_self: object, _kind: int, _body: bytes) -> bytes:
        raise OSError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(rtnl.Netlink, "get", absent)
    assert devlink.instances() == {}
    with pytest.raises(Unsupported, match="devlink"):
        genl.Family("devlink")


@pytest.mark.parametrize(
    ("change", "command", "body"),
    [
        (lambda: devlink.set_mode(HANDLE, "switchdev"), ESWITCH_SET, a(25, struct.pack("=H", 1))),
        (lambda: devlink.set_mode(HANDLE, "legacy"), ESWITCH_SET, a(25, struct.pack("=H", 0))),
        (lambda: devlink.set_inline(HANDLE, "transport"), ESWITCH_SET, a(26, bytes([3]))),
        (lambda: devlink.set_encap(HANDLE, "none"), ESWITCH_SET, a(62, bytes([0]))),
        (
            lambda: devlink.set_port_mac(HANDLE, 2, "02:00:00:00:00:07"), PORT_SET,
            a(3, struct.pack("=I", 2)) + a(145 | 0x8000, a(1, bytes.fromhex("020000000007"))),
        ),
    ],
)  # fmt: skip
def test_changes(kernel: Kernel, change: Any, command: int, body: bytes) -> None:
    change()
    assert kernel.asked == [(command, body)]


@pytest.mark.parametrize(
    ("answer", "value", "kind", "data"),
    [
        (param("x", 5, (0, b"dmfs\0")), "smfs", 5, a(86, "smfs")),
        (param("x", 3, (0, bytes(4))), 7, 3, a(86, struct.pack("=I", 7))),
        (param("x", 1, (0, bytes(1))), 7, 1, a(86, bytes([7]))),
        (param("x", 6, (0, None)), True, 6, a(86, b"")),
        (param("x", 6, (0, b"")), False, 6, b""),
    ],
)
def test_parameters_are_written_as_their_type(
    kernel: Kernel, answer: bytes, value: devlink.Value, kind: int, data: bytes
) -> None:
    kernel.answers[PARAM_GET] = [answer]
    devlink.set_param(HANDLE, "x", value)
    assert kernel.asked == [(PARAM_SET, a(81, "x") + a(83, bytes([kind])) + a(87, b"\0") + data)]


def test_a_parameter_that_is_not_there(kernel: Kernel) -> None:
    kernel.answers[PARAM_GET] = errno.EINVAL
    with pytest.raises(FastpathError, match=r"parameter x of pci/0000:3b:00\.0"):
        devlink.set_param(HANDLE, "x", 1)


# VFs of an interface: linux/if_link.h


class Link:
    """Answers RTM_GETLINK, keeps RTM_SETLINK."""

    def __init__(self, *vfs: bytes) -> None:
        self.asked: list[bytes] = []
        self.answer = bytes(16) + a(1, b"\2\0\0\0\0\1") + a(21, struct.pack("=I", len(vfs)))
        self.answer += a(22, b"".join(a(1, vf) for vf in vfs)) + a(36, b"\xaa\xbb") + a(38, "p0")

    def get(self, kind: int, body: bytes) -> bytes:
        assert kind == 18
        assert body[16:] == a(29, struct.pack("=I", 9))
        return self.answer

    def request(self, kind: int, flags: int, body: bytes) -> None:
        assert (kind, flags, body[4:8]) == (19, 0, struct.pack("=i", 5))
        self.asked.append(body[16:])


def vf(number: int, mac: bytes, vlan: int, spoof: int, trust: int, rates: tuple[int, int]) -> bytes:
    return (
        a(1, struct.pack("=I32s", number, mac)) + a(2, struct.pack("=III", number, vlan, 0))
        + a(6, struct.pack("=III", number, *rates)) + a(4, struct.pack("=II", number, spoof))
        + a(9, struct.pack("=II", number, trust))
    )  # fmt: skip


def test_vfs_are_read() -> None:
    link: Any = Link(vf(0, bytes(6), 0, 1, 0, (0, 0)), vf(1, b"\2\0\0\0\0\7", 9, 0xFFFFFFFF, 0xFFFFFFFF, (10, 20)))
    found = vflinks.read(link, 5)
    assert (found.mac, found.switch_id, found.port) == ("02:00:00:00:00:01", "aabb", "p0")
    assert found.vfs == {
        0: Attributes(None, 0, False, True, 0, 0),
        1: Attributes("02:00:00:00:00:07", 9, None, None, 10, 20),
    }


def test_the_permanent_mac_wins() -> None:
    link: Any = Link()
    link.answer += a(54, b"\2\0\0\0\0\x2a")
    assert vflinks.read(link, 5).mac == "02:00:00:00:00:2a"


def test_vfs_are_changed_in_one_request() -> None:
    link: Any = Link(vf(0, bytes(6), 0, 1, 0, (5, 6)), vf(1, bytes(6), 0, 1, 0, (0, 0)))
    vflinks.write(link, 5, {
        1: Attributes("02:00:00:00:00:07", 9, True, False), 0: Attributes(max_rate=100),
    })  # fmt: skip
    first = a(1 | 0x8000, a(6, struct.pack("=III", 0, 5, 100)))
    second = a(1 | 0x8000, (
        a(1, struct.pack("=I32s", 1, b"\2\0\0\0\0\7")) + a(2, struct.pack("=III", 1, 9, 0))
        + a(4, struct.pack("=II", 1, 0)) + a(9, struct.pack("=II", 1, 1))
    ))  # fmt: skip
    assert link.asked == [a(22 | 0x8000, first + second)]


def test_one_rate_leaves_the_other() -> None:
    """The kernel takes both in one request."""
    for given, rates in ((Attributes(min_rate=1), (1, 6)), (Attributes(max_rate=0), (5, 0))):
        link: Any = Link(vf(0, bytes(6), 0, 1, 0, (5, 6)))
        vflinks.write(link, 5, {0: given})
        assert link.asked == [a(22 | 0x8000, a(1 | 0x8000, a(6, struct.pack("=III", 0, *rates))))]
