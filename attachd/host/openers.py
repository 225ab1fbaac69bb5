"""Which processes hold a block device open, and is it claimed by the kernel (mount, dm, swap)?

Run as a program by the privileged helper, since only root may look into other processes: one
argument, the device; its answer is for :func:`read`. It changes nothing, and imports next to
nothing: most of its time would be Python's start.

Devices are compared by number, not by name: QEMU has a /dev of its own.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

TYPE_CHECKING = False  # typing's own is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = "/proc"
SYS_BLOCK = "/sys/dev/block"
# It watches every path device, and lets go of one that is deleted.
HARMLESS = frozenset({"multipathd"})

_CLAIMED, _UNCLAIMED = "claimed", "unclaimed"
_BETWEEN = "\0"  # the one character that no process's name has


def claimed(device: str) -> bool:
    """Does the kernel itself hold it? A device that can't be opened at all is claimed by none."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
    except OSError as exc:
        return exc.errno == errno.EBUSY
    return False


def openers(device: str, *, proc: str = PROC, sys_block: str = SYS_BLOCK) -> list[str]:
    """``pid (name)`` of each process that has it, or a partition of it, open."""
    numbers = _numbers(os.stat(device).st_rdev, sys_block)
    processes = sorted((entry for entry in os.listdir(proc) if entry.isdigit()), key=int)
    holding = (
        (pid, _name(f"{proc}/{pid}"))
        for pid in processes
        if any(opened in numbers for opened in _block_devices(f"{proc}/{pid}"))
    )
    return [f"{pid} ({name})" for pid, name in holding if name not in HARMLESS]


def _numbers(disk: int, sys_block: str) -> set[int]:
    """A disk's number and its partitions'."""
    place = f"{sys_block}/{os.major(disk)}:{os.minor(disk)}"
    numbers = {disk}
    for name in _entries(place):
        if os.path.exists(f"{place}/{name}/partition"):
            major, _, minor = _text(f"{place}/{name}/dev").partition(":")
            numbers.add(os.makedev(int(major), int(minor)))
    return numbers


def _block_devices(process: str) -> Iterator[int]:
    """The numbers of the block devices that a process has open; none when it just ended."""
    for descriptor in _entries(f"{process}/fd"):
        try:
            status = os.stat(f"{process}/fd/{descriptor}")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat.S_ISBLK(status.st_mode):
            yield status.st_rdev


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _name(process: str) -> str:
    try:
        return _text(f"{process}/comm")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _text(file: str) -> str:
    """Whatever bytes a name is made of, it can be told."""
    with open(file, encoding="ascii", errors="backslashreplace") as opened:
        return opened.read().strip()


def read(answer: str) -> tuple[bool, list[str]]:
    """What the program printed: :func:`claimed`, and :func:`openers`. Raises ValueError."""
    first, *found = answer.split(_BETWEEN)
    if first not in (_CLAIMED, _UNCLAIMED):
        raise ValueError(f"no answer about a device: {answer!r}")
    return first == _CLAIMED, found


def main() -> None:
    """Print what is known of the device in argv."""
    device = sys.argv[1]
    first = _CLAIMED if claimed(device) else _UNCLAIMED
    sys.stdout.write(_BETWEEN.join([first, *openers(device)]))


if __name__ == "__main__":
    main()
