"""A fresh INQUIRY of VPD page 0x83 from many SCSI disks, by one process.

Run as a program by the privileged helper, since only root may open a disk: its arguments are the
devices; its answer is for :func:`read`. It changes nothing, and imports next to nothing. udev's
scsi_id answers the same for one device, at the price of a process each.

A device that doesn't answer within its time, or not with that page, is left out; so is what hasn't
been asked when the time of all is over. Where a session has just broken the kernel may keep an
asker for minutes, unkillable: that is why others ask, and this process doesn't wait for them.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import struct
import sys
import time

PAGE = 0x83
_BYTES = 1024  # twice that, in hexadecimal, and a path go through a pipe in one piece
_SENSE_BYTES = 32
_MILLISECONDS = 5_000  # for each device
_SECONDS = 20.0  # for all of them
_ASKERS = 4
_SHARE = 8  # devices that are worth another asker
# The kernel's <scsi/sg.h>.
_SG_IO = 0x2285
_FROM_DEVICE = -3
_HEADER = "@iiBBHIPPPIIiPBBBBHHiII0P"
_STATUSES = slice(-9, -3)  # status, masked, message's, sense's length, host's, driver's
_INQUIRY = 0x12
_VITAL_PRODUCT_DATA = 1


def page(device: str) -> bytes | None:
    """The page as the device itself has it now; None: it gave no such answer."""
    descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _inquire(descriptor)
    finally:
        os.close(descriptor)


def _inquire(descriptor: int) -> bytes | None:
    command = array.array("B", [_INQUIRY, _VITAL_PRODUCT_DATA, PAGE, *_BYTES.to_bytes(2, "big"), 0])
    answer, sense = array.array("B", bytes(_BYTES)), array.array("B", bytes(_SENSE_BYTES))
    header = array.array("B", _header(command, answer, sense))
    fcntl.ioctl(descriptor, _SG_IO, header, True)
    if any(struct.unpack(_HEADER, header)[_STATUSES]):
        return None
    told = answer.tobytes()
    return told[: 4 + int.from_bytes(told[2:4], "big")] if told[1] == PAGE else None


def _header(command: array.array[int], answer: array.array[int], sense: array.array[int]) -> bytes:
    where = (each.buffer_info()[0] for each in (answer, command, sense))
    return struct.pack(
        _HEADER,
        *(ord("S"), _FROM_DEVICE, len(command), len(sense), 0, len(answer)),
        *where,
        *(_MILLISECONDS, 0, 0, 0),
        *(0,) * 9,
    )


def read(answer: str) -> dict[str, bytes]:
    """What the program printed: the page of each device that answered. Raises ValueError."""
    lines = (line.split(" ", 1) for line in answer.splitlines())
    return {device: bytes.fromhex(told) for told, device in lines}


def _ask(devices: list[str], answers: int, deadline: float) -> None:
    """A process of its own, which holds nothing open that somebody waits for."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    for device in devices:
        if time.monotonic() > deadline:
            return
        try:
            told = page(device)
        except OSError:
            continue
        if told is not None:
            os.write(answers, f"{told.hex()} {device}\n".encode())


def _begin(devices: list[str], deadline: float) -> tuple[int, list[int]]:
    """Where the askers answer, which ends when all of them have; and their process ids."""
    answers, theirs = os.pipe()
    number = min(_ASKERS, -(-len(devices) // _SHARE))
    askers = []
    for each in range(number):
        asker = os.fork()
        if asker == 0:
            try:
                os.close(answers)  # else a full pipe would keep it when nobody reads any more
                _ask(devices[each::number], theirs, deadline)
            finally:
                os._exit(0)
        askers.append(asker)
    os.close(theirs)
    return answers, askers


def main(seconds: float = _SECONDS) -> None:
    """Print the pages of the devices in argv, as far as they could be had in so many seconds."""
    deadline = time.monotonic() + seconds
    answers, askers = _begin(sys.argv[1:], deadline)
    waiting = os.WNOHANG
    while select.select([answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
        told = os.read(answers, select.PIPE_BUF)
        if not told:
            waiting = 0  # all of them are at their end
            break
        sys.stdout.write(told.decode())
    for asker in askers:
        os.waitpid(asker, waiting)  # what they took of a processor counts as this process's


if __name__ == "__main__":
    main()
