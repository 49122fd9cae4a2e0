# SPDX-License-Identifier: GPL-3.0-or-later
"""SR-IOV read from, and written to, trees of sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.fastpath.node.plugins.module_utils.kernel import sriov, uplinks

from . import trees
from .trees import tree

HANDLE = "pci/0000:3b:00.0"


def only(root: Path) -> sriov.Physical:
    (found,) = sriov.physical(str(root))
    return found


def test_mlx5_in_switchdev_mode(tmp_path: Path) -> None:
    made = tree(tmp_path, "mlx5_core", 3, representors="ens1npf0vf", vf_driver="mlx5_core")
    found = only(tmp_path)
    assert (found.handle, found.driver, found.total, found.count, found.autoprobe) == (HANDLE, "mlx5_core", 8, 3, True)
    assert found.uplink == sriov.Netdev("ens1np0", "p0", None, "")
    assert [found.representor(vf).name for vf in range(4)] == ["ens1npf0vf0", "ens1npf0vf1", "ens1npf0vf2", ""]
    assert found.vfs == {vf: sriov.Function(made.vfs[vf], "mlx5_core", "", (f"ens1v{vf}",)) for vf in range(3)}


def test_a_representor_that_comes_first_by_name_is_not_the_uplink(tmp_path: Path) -> None:
    """sriov-network-device-plugin#383: it was taken for the PF."""
    tree(tmp_path, "mlx5_core", 2, uplink="zz-uplink", representors="58609951635cbf")
    assert only(tmp_path).uplink.name == "zz-uplink"


def test_ice_and_igb_have_no_port_name_in_legacy_mode(tmp_path: Path) -> None:
    """Their ndo_get_phys_port_name comes with devlink ports, or not at all."""
    tree(tmp_path, "igb", 7, total=7, uplink="eno1", port="", vf_driver="igbvf")
    found = only(tmp_path)
    assert (found.uplink.name, found.total, found.vfs[6].driver) == ("eno1", 7, "igbvf")
    assert found.representor(0).name == ""


def test_vfs_that_have_not_appeared(tmp_path: Path) -> None:
    """sriov-network-operator#1015: numvfs is there before its virtfn links."""
    tree(tmp_path, "mlx5_core", 4, count=5)
    found = only(tmp_path)
    assert (found.count, sorted(found.vfs)) == (5, [0, 1, 2, 3])


def test_one_vf_without_the_others(tmp_path: Path) -> None:
    made = tree(tmp_path, "mlx5_core", 12, total=16, representors="r", vf_driver="mlx5_core")
    root = str(tmp_path)
    assert [sriov.representor(made.vfs[vf], root) for vf in (0, 11)] == ["r0", "r11"]
    assert [sriov.driver(pci, root) for pci in (made.vfs[11], "0000:99:00.0")] == ["mlx5_core", ""]
    assert sriov.representor("0000:99:00.0", root) == ""
    tree(tmp_path / "legacy", "mlx5_core", 1)
    assert sriov.representor(made.vfs[0], str(tmp_path / "legacy")) == ""


@pytest.mark.parametrize(
    ("pci", "offset", "stride", "found"),
    [
        ("0000:3b:00.0", 2, 1, ["0000:3b:00.2", "0000:3b:00.3", "0000:3b:01.1"]),  # mlx5
        ("0000:3b:00.1", 127, 1, ["0000:3b:10.0", "0000:3b:10.1", "0000:3b:10.7"]),
        ("0001:01:00.1", 384, 2, ["0001:02:10.1", "0001:02:10.3", "0001:02:11.7"]),  # igb, on the next bus
        ("0000:3b:00.0", 0, 0, ["", "", ""]),
    ],
)
def test_where_vfs_will_be(tmp_path: Path, pci: str, offset: int, stride: int, found: list[str]) -> None:
    made = tree(tmp_path, "mlx5_core", 0, pci=pci)
    (made.device / "sriov_offset").write_text(f"{offset}\n")
    (made.device / "sriov_stride").write_text(f"{stride}\n")
    assert [only(tmp_path).address(vf) for vf in (0, 1, 7)] == found


def test_where_vfs_are(tmp_path: Path) -> None:
    made = tree(tmp_path, "mlx5_core", 2)
    assert [only(tmp_path).address(vf) for vf in range(3)] == [made.vfs[0], made.vfs[1], ""]


def test_bnxt_on_vfio(tmp_path: Path) -> None:
    made = tree(tmp_path, "bnxt_en", 2, vf_driver="vfio-pci")
    (made.function(1) / "driver_override").write_text("vfio-pci\n")
    assert [(vf.driver, vf.override, vf.netdevs) for vf in only(tmp_path).vfs.values()] == [
        ("vfio-pci", "", ()), ("vfio-pci", "vfio-pci", ()),
    ]  # fmt: skip


def test_vfs_and_nics_without_any_are_no_pfs(tmp_path: Path) -> None:
    """A VF has no sriov files; a PF whose firmware has none switched on has 0 in sriov_totalvfs."""
    tree(tmp_path / "a", "mlx5_core", 2)
    assert len(sriov.physical(str(tmp_path / "a"))) == 1
    tree(tmp_path / "b", "mlx5_core", 0, total=0)
    assert sriov.physical(str(tmp_path / "b")) == ()
    assert sriov.physical(str(tmp_path / "c")) == ()


def test_netdevsim(tmp_path: Path) -> None:
    trees.simulated(tmp_path, 2, representors=True)
    found = only(tmp_path)
    assert (found.handle, found.driver, found.count, found.vfs) == ("netdevsim/netdevsim1", "netdevsim", 2, {})
    assert (found.uplink.name, found.representor(1).name) == ("eni1np1", "eni1npf0vf1")


def test_ports_of_other_controllers_and_subfunctions(tmp_path: Path) -> None:
    tree(tmp_path, "mlx5_core", 1, uplink="zz", representors="r")
    port = tmp_path / "class/net/r0/phys_port_name"
    for text, vf in (("c1pf0vf12", 12), ("pf1vf0", 0), ("pf0sf3", None), ("pf0", None)):
        port.write_text(f"{text}\n")
        assert [one.vf for one in only(tmp_path).netdevs if one.name == "r0"] == [vf]
        assert only(tmp_path).uplink.name == "zz"


def test_only_the_uplink_is_named_by_its_pci_address(tmp_path: Path) -> None:
    tree(tmp_path, "mlx5_core", 2, representors="r")
    assert [uplinks._pci(name, str(tmp_path)) for name in ("ens1np0", "r0", "r1")] == ["0000:3b:00.0", "", ""]
    tree(tmp_path / "legacy", "ice", 0, port="")
    assert uplinks._pci("ens1np0", str(tmp_path / "legacy")) == "0000:3b:00.0"


def test_bridges_and_bonds(tmp_path: Path) -> None:
    made = tree(tmp_path, "mlx5_core", 1, representors="r")
    trees.join(made, "ens1np0", "bond0")
    trees.join(made, "bond0", "br0")
    assert (only(tmp_path).uplink.master, only(tmp_path).representor(0).master) == ("bond0", "")
    assert sriov.carried(["br0"], str(tmp_path)) == {"br0", "bond0", "ens1np0"}
    assert sriov.carried([], str(tmp_path)) == frozenset()


def test_what_is_written_where(tmp_path: Path) -> None:
    made = tree(tmp_path, "mlx5_core", 2, vf_driver="mlx5_core")
    root, device, vf = str(tmp_path), f"bus/pci/devices/{made.pci}", made.vfs[1]
    sriov.set_count(HANDLE, 4, root)
    sriov.set_autoprobe(HANDLE, False, root)
    assert (made.written(device, "sriov_numvfs"), made.written(device, "sriov_drivers_autoprobe")) == ("4\n", "0\n")
    sriov.unbind(vf, root)
    assert made.written("bus/pci/drivers/mlx5_core/unbind") == vf
    sriov.bind(vf, "mlx5_core", root)
    assert made.written("bus/pci/devices", vf, "driver_override").startswith("mlx5_core")
    assert made.written("bus/pci/drivers_probe") == vf


def test_a_driver_that_does_not_take_a_vf_is_told(tmp_path: Path) -> None:
    made = tree(tmp_path, "mlx5_core", 1)
    with pytest.raises(OSError, match=r"vfio-pci did not take 0000:3b:02\.0: is it loaded"):
        sriov.bind(made.vfs[0], "vfio-pci", str(tmp_path))
    with pytest.raises(OSError, match="no driver took"):
        sriov.bind(made.vfs[0], "", str(tmp_path))


def test_a_vf_that_has_gone_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, "mlx5_core", 0)
    with pytest.raises(FileNotFoundError):
        sriov.unbind("0000:3b:02.0", str(tmp_path))
