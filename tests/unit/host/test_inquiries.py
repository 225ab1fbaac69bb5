"""The program that asks many disks for their page 0x83, before a kernel that minds the rules."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from attachd.host import inquiries
from attachd.host.inquiries import page, read
from tests.unit.host.tree import designator, page_83

NAA = page_83(designator(bytes.fromhex("6001405aaaabbbbccccddddeeeeffff0")))
CHECK_CONDITION = 2
NO_CONNECT = 1
PATIENCE = 60.0


class SgIoHeader(ctypes.Structure):
    """struct sg_io_hdr of <scsi/sg.h>."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class Kernel:
    """SG_IO as the kernel and a disk do it; ``answer`` is what the disk has."""

    def __init__(self, answer: bytes = NAA, **statuses: int) -> None:
        self.answer = answer
        self.statuses = statuses

    def ioctl(self, _descriptor: int, request: int, argument: object, mutate: bool) -> int:
        assert request == 0x2285
        assert mutate
        header = SgIoHeader.from_buffer(argument)  # type: ignore[arg-type]
        assert header.interface_id == ord("S")
        assert header.dxfer_direction == -3
        assert 0 < header.timeout < inquiries._MILLISECONDS * 2
        assert header.iovec_count == header.flags == 0
        command = ctypes.string_at(header.cmdp, header.cmd_len)
        opcode, evpd, code = command[:3]
        assert (len(command), opcode, evpd, code, command[5]) == (6, 0x12, 1, 0x83, 0)
        room = int.from_bytes(command[3:5], "big")
        assert room == header.dxfer_len
        told = self.answer[:room]
        ctypes.memmove(header.dxferp, told, len(told))
        header.resid, header.duration = room - len(told), 3
        for name, value in self.statuses.items():
            setattr(header, name, value)
        return 0


def _answering(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)


@pytest.fixture
def disk(tmp_path: Path) -> str:
    path = tmp_path / "sda"
    path.touch()
    return str(path)


def test_the_header_is_as_large_as_the_kernels() -> None:
    assert struct.calcsize(inquiries._HEADER) == ctypes.sizeof(SgIoHeader)


@pytest.mark.parametrize(
    "answer", [NAA, page_83(*[designator(bytes.fromhex("00" * 60), kind=1)] * 9, designator(b"x"))]
)
def test_the_page_is_told_whole(monkeypatch: pytest.MonkeyPatch, disk: str, answer: bytes) -> None:
    _answering(monkeypatch, Kernel(answer))
    assert page(disk) == answer


@pytest.mark.parametrize(
    "kernel",
    [
        Kernel(status=CHECK_CONDITION, masked_status=1, sb_len_wr=18, driver_status=8),
        Kernel(host_status=NO_CONNECT),
        Kernel(driver_status=6),
        Kernel(bytes([0, 0x80]) + NAA[2:]),
        Kernel(b""),
    ],
    ids=["check-condition", "no-connect", "timed-out", "another-page", "nothing"],
)
def test_what_is_no_such_answer_is_none(
    monkeypatch: pytest.MonkeyPatch, disk: str, kernel: Kernel
) -> None:
    _answering(monkeypatch, kernel)
    assert page(disk) is None


# The program as the helper runs it, but for the kernel: a disk's name says what becomes of it.
PROGRAM = """
import os, time
from attachd.host import inquiries

def inquire(descriptor):
    disk = os.readlink(f"/proc/self/fd/{descriptor}")
    name = os.path.basename(disk)
    if name.startswith(("stuck", "slow")):
        with open(disk, "w") as asker:
            asker.write(str(os.getpid()))
        time.sleep(3600 if name == "stuck" else 0.5)
    if not name.startswith("good"):
        raise TimeoutError
    return bytes.fromhex("NAA")

inquiries._inquire = inquire
inquiries.main(seconds=SECONDS)
"""
ALL_REAPED = """
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    raise AssertionError("an asker's time isn't counted")
"""


def _answers(disks: Sequence[Path], *, seconds: float, behind: str = "") -> dict[str, bytes]:
    program = (PROGRAM + behind).replace("NAA", NAA.hex()).replace("SECONDS", str(seconds))
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, disks)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stderr == ""
    return read(done.stdout)


def _disks(directory: Path, *names: str) -> list[Path]:
    for name in names:
        (directory / name).touch()
    return [directory / name for name in names]


@pytest.mark.parametrize("number", [1, 8, 9, 200])
def test_those_that_answer_are_told(tmp_path: Path, number: int) -> None:
    good = _disks(tmp_path, *(f"good-{n}" for n in range(number)))
    silent = _disks(tmp_path, "silent")
    told = _answers([*silent, tmp_path / "gone", *good], seconds=PATIENCE, behind=ALL_REAPED)
    assert told == {str(each): NAA for each in good}


def test_one_that_is_stuck_takes_nobody_elses_answer_away(tmp_path: Path) -> None:
    """Not even the helper waits for it, which waits for whoever holds the program's output."""
    good = _disks(tmp_path, *(f"good-{n}" for n in range(30)))
    stuck = _disks(tmp_path, "stuck")
    told = _answers([*good[:2], *stuck, *good[2:]], seconds=5.0)
    os.kill(int(stuck[0].read_text()), signal.SIGKILL)
    assert len(told) > len(good) / 2
    assert set(told) <= {str(each) for each in good}


def test_nobody_asks_on_when_the_time_is_over(tmp_path: Path) -> None:
    """A detach would take them for somebody who uses the device."""
    slow = _disks(tmp_path, *(f"slow-{n}" for n in range(200)))
    assert _answers(slow, seconds=1.0) == {}
    askers = {int(text) for text in (each.read_text() for each in slow) if text}
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{asker}").exists() for asker in askers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    asked = [each for each in slow if each.read_text()]
    assert 0 < len(asked) < len(slow) / 2


def test_it_runs_by_itself() -> None:
    """As the helper runs it; /dev/null is no disk."""
    command = [sys.executable, "-I", "-S", inquiries.__file__, "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (read(done.stdout), done.stderr) == ({}, "")


@pytest.mark.parametrize("answer", ["00", "xy /dev/sda", "0 /dev/sda"])
def test_what_it_never_prints(answer: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(answer)
