from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from attachd.host.openers import claimed, openers


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A node of a device that doesn't exist."""
    return _node(tmp_path / "sdx", minor=199)


def _node(path: Path, *, minor: int) -> Path:
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(259, minor))
    except PermissionError:
        pytest.skip("device nodes can't be made here")
    return path


def _process(proc: Path, pid: int, name: str, *files: Path) -> None:
    descriptors = proc / str(pid) / "fd"
    descriptors.mkdir(parents=True)
    (proc / str(pid) / "comm").write_text(f"{name}\n")
    for number, file in enumerate(files):
        (descriptors / str(number)).symlink_to(file)


def test_processes_are_found_by_the_devices_number(tmp_path: Path, device: Path) -> None:
    proc = tmp_path / "proc"
    own_dev = _node(tmp_path / "node-in-a-namespace", minor=199)
    _process(proc, 10, "qemu-system-x86", tmp_path, own_dev)
    _process(proc, 11, "cat", _node(tmp_path / "sdy", minor=198))
    _process(proc, 12, "gone", tmp_path / "closed")
    (proc / "13").mkdir()
    (proc / "uptime").write_text("1")
    assert openers(device, proc=proc) == ["10 (qemu-system-x86)"]


def test_an_open_partition_is_the_disk_in_use(tmp_path: Path, device: Path) -> None:
    proc, sys_block = tmp_path / "proc", tmp_path / "sys"
    _process(proc, 10, "dd", _node(tmp_path / "sdx1", minor=200))
    partition = sys_block / "259:199" / "sdx1"
    partition.mkdir(parents=True)
    (partition / "partition").write_text("1\n")
    (partition / "dev").write_text("259:200\n")
    assert openers(device, proc=proc, sys_block=sys_block) == ["10 (dd)"]


def test_multipathd_lets_go_by_itself(tmp_path: Path, device: Path) -> None:
    proc = tmp_path / "proc"
    _process(proc, 10, "multipathd", device)
    assert openers(device, proc=proc) == []


def test_a_device_that_cannot_be_opened_is_claimed_by_nobody(device: Path) -> None:
    assert claimed(device) is False
