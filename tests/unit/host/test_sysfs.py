from __future__ import annotations

import errno
import os
from pathlib import Path
from types import ModuleType

import pytest

from attachd.errors import Unreachable
from attachd.host import sysfs as sysfs_module
from attachd.host.sysfs import Sysfs
from tests.unit.host.tree import GIB, IQN, OTHER_WWN, WWN, Tree, designator, page_83, target


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def sysfs(tree: Tree) -> Sysfs:
    return Sysfs(root=tree.sys)


def test_a_host_that_never_saw_iscsi(sysfs: Sysfs) -> None:
    assert sysfs.sessions() == ()
    assert sysfs.lun_devices([target()]) == ()
    assert sysfs.device("sda") is None


def test_a_lun_is_found_by_portal_target_and_number(tree: Tree, sysfs: Sysfs) -> None:
    tree.session(1)
    tree.lun(1, 0, "sdb", wwn=OTHER_WWN)
    tree.lun(1, 1, "sda")
    tree.session(2, iqn="iqn.other")
    tree.lun(2, 1, "sdc")
    (device,) = sysfs.lun_devices([target(1)])
    assert (device.name, device.sid, device.lun) == ("sda", 1, 1)
    assert (device.path, device.wwn, device.size_bytes) == ("/dev/sda", WWN, GIB)


def test_local_disks_are_those_that_no_session_brought(tree: Tree, sysfs: Sysfs) -> None:
    tree.session(1)
    tree.lun(1, 0, "sdb")
    place = tree.sys / "devices/pci0000:00/ata1/host0/target0:0:0/0:0:0:0"
    (place / "block/sda").mkdir(parents=True)
    (place / "block/sda/size").write_text("2048\n")
    (place / "block/sda/device").symlink_to(place)
    (tree.sys / "block/sda").symlink_to(place / "block/sda")
    assert sysfs.local_disks() == {"sda"}


@pytest.mark.parametrize(
    ("told", "asked", "same"),
    [
        ("127.0.0.1:3260", "127.0.0.1:3260", True),
        ("127.0.0.1:3260", "127.0.0.1:3260,1", True),
        ("127.0.0.1:3260", "127.0.0.1:3261", False),
        ("127.0.0.1:3260", "127.0.0.2:3260", False),
        ("fe80::1:3260", "[fe80:0::1]:3260", True),
        ("Storage.example:3260", "storage.example:3260", True),
    ],
)
def test_portals_are_compared_by_meaning(
    tree: Tree, sysfs: Sysfs, told: str, asked: str, same: bool
) -> None:
    tree.session(1, portal=told)
    assert bool(sysfs.sessions_with([target(portal=asked)])) is same


def test_a_session_led_elsewhere_answers_to_both_portals(tree: Tree, sysfs: Sysfs) -> None:
    tree.session(1)
    (tree.connection(1) / "address").write_text("10.0.0.9\n")
    assert sysfs.sessions_with([target()])
    assert sysfs.sessions_with([target(portal="10.0.0.9:3260")])


def test_a_disk_that_is_no_scsi_lun(tree: Tree, sysfs: Sysfs) -> None:
    place = tree.sys / "devices/pci/virtio0/block/vda"
    place.mkdir(parents=True)
    (place / "size").write_text("8")
    (place / "device").symlink_to(place.parent.parent)
    (tree.sys / "block/vda").symlink_to(place)
    assert sysfs.device("vda") is None


def test_a_local_scsi_disk_has_no_session(tree: Tree, sysfs: Sysfs) -> None:
    place = tree.sys / "devices/pci/host0/target0:0:0/0:0:0:0"
    (place / "block/sda").mkdir(parents=True)
    (place / "block/sda/size").write_text("8")
    (place / "block/sda/device").symlink_to(place)
    (tree.sys / "block/sda").symlink_to(place / "block/sda")
    device = sysfs.device("sda")
    assert device is not None
    assert device.sid is None


@pytest.mark.parametrize("behind", [(os, "readlink"), (sysfs_module, "_text")])
def test_a_name_that_becomes_another_disks_while_it_is_read(
    tree: Tree, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch, behind: tuple[ModuleType, str]
) -> None:
    """What is told is of one disk: never the place of the one, and the WWN of the other."""
    tree.session(1)
    tree.lun(1, 0, "sda")
    tree.session(2, iqn="iqn.other")
    original = getattr(*behind)

    def exchanged(path: str) -> str:
        answer: str = original(path)
        monkeypatch.setattr(*behind, original)
        tree.remove_lun("sda")
        tree.lun(2, 0, "sda", wwn=OTHER_WWN)
        return answer

    monkeypatch.setattr(*behind, exchanged)
    device = sysfs.device("sda")
    assert device is None or (device.sid, device.wwn) == (1, None)
    device = sysfs.device("sda")
    assert device is not None
    assert (device.sid, device.wwn) == (2, OTHER_WWN)


def test_a_device_without_page_83(tree: Tree, sysfs: Sysfs) -> None:
    tree.session(1)
    tree.lun(1, 0, "sda", wwn=None)
    device = sysfs.device("sda")
    assert device is not None
    assert device.wwn is None


def test_devices_by_wwn(tree: Tree, sysfs: Sysfs) -> None:
    tree.session(1)
    tree.lun(1, 0, "sda")
    place = tree.lun(1, 1, "sdb", wwn=OTHER_WWN)
    assert [device.name for device in sysfs.devices_with(WWN)] == ["sda"]
    (place / "vpd_pg83").write_bytes(page_83(designator(bytes.fromhex(WWN[1:]))))
    assert [device.name for device in sysfs.devices_with(WWN)] == ["sda", "sdb"]


def test_holders_of_the_disk_and_of_its_partitions(tree: Tree, sysfs: Sysfs) -> None:
    tree.session(1)
    block = tree.lun(1, 0, "sda") / "block/sda"
    assert sysfs.holders("sda") == ()
    (block / "sda1/holders/dm-3").mkdir(parents=True)
    (block / "holders/dm-7").mkdir()
    assert sysfs.holders("sda") == ("dm-7", "dm-3")


def test_a_session_that_goes_while_it_is_read(tree: Tree, sysfs: Sysfs) -> None:
    tree.session(1)
    (tree.sys / "class/iscsi_session/session1/targetname").unlink()
    assert sysfs.sessions() == ()


def test_what_cannot_be_read_is_not_taken_for_gone(tree: Tree, sysfs: Sysfs) -> None:
    tree.session(1)
    name = tree.sys / "class/iscsi_session/session1/targetname"
    name.unlink()
    name.mkdir()  # EISDIR, for root too
    with pytest.raises(Unreachable) as caught:
        sysfs.sessions()
    assert not caught.value.touched
    assert IQN not in str(caught.value)


def test_a_path_of_a_map_that_cannot_be_looked_at_is_not_taken_for_gone(
    tree: Tree, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.session(1)
    for name in ("sda", "sdb"):
        tree.lun(1, int(name == "sdb"), name)
    tree.map("dm-0", "sda", "sdb")
    found = sysfs.map("dm-0")
    assert found is not None
    assert found.devices == {"sda", "sdb"}
    stat = os.stat

    def failing(path: str, **_: object) -> os.stat_result:
        if str(path).endswith("slaves/sda"):
            raise OSError(errno.EIO, "Input/output error")
        return stat(path)

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(Unreachable):
        sysfs.map("dm-0")


def test_one_volumes_devices_cost_little_among_many_sessions(
    tree: Tree, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each other session its name is read, and nothing else."""
    read, names = sysfs_module._bytes, sysfs_module._names
    reads: list[str] = []
    listed: list[str] = []

    def noting_read(path: str) -> bytes:
        reads.append(path)
        return read(path)

    def noting_names(directory: str) -> list[str]:
        listed.append(directory)
        return names(directory)

    monkeypatch.setattr(sysfs_module, "_bytes", noting_read)
    monkeypatch.setattr(sysfs_module, "_names", noting_names)
    tree.session(1)
    tree.lun(1, 0, "sda")

    def costs() -> tuple[int, int]:
        reads.clear()
        listed.clear()
        assert [device.name for device in sysfs.lun_devices([target()])] == ["sda"]
        return len(reads), len(listed)

    alone = costs()
    for number in range(2, 42):
        tree.session(number, iqn=f"{IQN}-{number}")
        tree.lun(number, 0, f"sd-{number}", wwn=OTHER_WWN)
    assert costs() == (alone[0] + 40, alone[1])


def test_each_luns_devices_by_one_look_at_the_sessions(
    tree: Tree, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, third = f"{IQN}-2", f"{IQN}-3"
    for sid, iqn in ((1, IQN), (2, second), (3, third)):
        tree.session(sid, iqn=iqn)
    tree.lun(1, 0, "sda")
    tree.lun(1, 1, "sdb")
    tree.lun(2, 0, "sdc")
    tree.session(4, iqn=second, portal="127.0.0.2:3260")
    tree.lun(4, 0, "sdd")
    wanted = [
        [target()],
        [target(lun=1), target(lun=2)],
        [target(iqn=second), target(iqn=second, portal="127.0.0.2:3260")],
        [target(iqn=third)],
        [],
    ]
    names, read = list[str](), sysfs_module._text

    def noting(path: str) -> str:
        names.append(path)
        return read(path)

    monkeypatch.setattr(sysfs_module, "_text", noting)
    found = sysfs.each_luns_devices(wanted)
    assert [[each.name for each in devices] for devices in found] == [
        ["sda"],
        ["sdb"],
        ["sdc", "sdd"],
        [],
        [],
    ]
    assert len([name for name in names if name.endswith("targetname")]) == 4
    assert found == tuple(map(sysfs.lun_devices, wanted))
