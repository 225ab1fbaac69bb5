"""Which processes hold a block device open, and is it claimed by the kernel (mount, dm, swap)?

Run as a program by the privileged helper, since only root may look into other processes: one
argument, the device; one JSON object. It imports the standard library alone and changes nothing.

Devices are compared by number, not by name: QEMU has a /dev of its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
SYS_BLOCK = Path("/sys/dev/block")
# It watches every path device, and lets go of one that is deleted.
HARMLESS = frozenset({"multipathd"})


def claimed(device: Path) -> bool:
    """Does the kernel itself hold it? A device that can't be opened at all is claimed by none."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
    except OSError as exc:
        return exc.errno == errno.EBUSY
    return False


def openers(device: Path, *, proc: Path = PROC, sys_block: Path = SYS_BLOCK) -> list[str]:
    """``pid (name)`` of each process that has it, or a partition of it, open."""
    numbers = _numbers(device.stat().st_rdev, sys_block)
    return [
        f"{process.name} ({name})"
        for process in sorted(proc.iterdir())
        if process.name.isdigit()
        and (name := _name(process)) not in HARMLESS
        and any(opened in numbers for opened in _block_devices(process))
    ]


def _numbers(disk: int, sys_block: Path) -> set[int]:
    """A disk's number and its partitions'."""
    place = sys_block / f"{os.major(disk)}:{os.minor(disk)}"
    numbers = {disk}
    for partition in place.glob("*/partition"):
        major, _, minor = partition.with_name("dev").read_text().partition(":")
        numbers.add(os.makedev(int(major), int(minor)))
    return numbers


def _block_devices(process: Path) -> Iterator[int]:
    """The numbers of the block devices that a process has open; none when it just ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = descriptor.stat()
                if stat.S_ISBLK(status.st_mode):
                    yield status.st_rdev


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main() -> None:
    """Print what is known of the device in argv."""
    device = Path(sys.argv[1])
    json.dump({"claimed": claimed(device), "openers": openers(device)}, sys.stdout)


if __name__ == "__main__":
    main()
