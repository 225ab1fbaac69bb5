"""The device name in a guest's XML: vda, vdb ... for virtio, sda, sdb ... for scsi.

It is a key in the XML and a hint to the guest, no more: the guest names its disks as it likes, and
finds this one by its serial.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from attachd.errors import Code, Refused
from attachd.model import Bus

PREFIXES = {Bus.VIRTIO: "vd", Bus.SCSI: "sd"}

_LETTERS = 26
_LAST = _LETTERS + _LETTERS**2


def parse(text: str, bus: Bus) -> str:
    """A requested name, with or without /dev/, as the XML wants it. Refuses a malformed one."""
    name = text.removeprefix("/dev/")
    if not re.fullmatch(f"{PREFIXES[bus]}[a-z]{{1,2}}", name):
        raise Refused(
            Code.DEVICE_NAME_INVALID,
            f"{text!r} is no device name for a {bus} disk.",
            resolution=f"Use {PREFIXES[bus]} and one or two letters, as {PREFIXES[bus]}b, or none.",
        )
    return name


def first_free(taken: Collection[str], bus: Bus) -> str:
    """The first name that isn't taken. Refuses when there is none."""
    for number in range(_LAST):
        name = PREFIXES[bus] + _suffix(number)
        if name not in taken:
            return name
    raise Refused(
        Code.NO_FREE_SLOT,
        f"The guest has no free {bus} device name.",
        resolution="Detach a disk first.",
    )


def _suffix(number: int) -> str:
    high, low = divmod(number, _LETTERS)
    return (chr(ord("a") + high - 1) if high else "") + chr(ord("a") + low)
