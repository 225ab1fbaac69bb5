from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from attachd.host import openers as module
from attachd.host.openers import claimed, main, openers, read


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
    assert openers(str(device), proc=str(proc)) == ["10 (qemu-system-x86)"]


def test_an_open_partition_is_the_disk_in_use(tmp_path: Path, device: Path) -> None:
    proc, sys_block = tmp_path / "proc", tmp_path / "sys"
    _process(proc, 10, "dd", _node(tmp_path / "sdx1", minor=200))
    partition = sys_block / "259:199" / "sdx1"
    partition.mkdir(parents=True)
    (partition / "partition").write_text("1\n")
    (partition / "dev").write_text("259:200\n")
    assert openers(str(device), proc=str(proc), sys_block=str(sys_block)) == ["10 (dd)"]


def test_multipathd_lets_go_by_itself(tmp_path: Path, device: Path) -> None:
    proc = tmp_path / "proc"
    _process(proc, 10, "multipathd", device)
    assert openers(str(device), proc=str(proc)) == []


def test_a_device_that_cannot_be_opened_is_claimed_by_nobody(device: Path) -> None:
    assert claimed(str(device)) is False


def test_what_it_prints_can_be_read(
    device: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["openers", str(device)])
    for kernel, processes in ((False, []), (True, ["1 (a)", "2 (b)"])):
        monkeypatch.setattr(module, "claimed", lambda _, kernel=kernel: kernel)
        monkeypatch.setattr(module, "openers", lambda _, processes=processes: processes)
        main()
        assert read(capsys.readouterr().out) == (kernel, processes)


@pytest.mark.parametrize("answer", ["", "Traceback", "[]"])
def test_anything_else_is_no_answer(answer: str) -> None:
    with pytest.raises(ValueError, match="no answer"):
        read(answer)


def test_a_name_of_any_bytes_can_be_told(tmp_path: Path, device: Path) -> None:
    proc = tmp_path / "proc"
    _process(proc, 10, "", device)
    (proc / "10/comm").write_bytes(b"\xff\n")
    assert openers(str(device), proc=str(proc)) == ["10 (\\xff)"]


def test_it_imports_next_to_nothing() -> None:
    """Most of its time would be that, several times a detach."""
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", module.__file__, "/dev/null"],
        capture_output=True,
        text=True,
        check=False,  # only root may look into other processes
    )
    slow = ("json", "pathlib", "typing", "re", "contextlib")
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert "stat" in imported
    assert imported.isdisjoint(slow)
