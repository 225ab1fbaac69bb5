"""Would the host's LVM look at a volume of a guest's? LVM's own rules (lvm.conf(5)). Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from itertools import product

from attachd.vitals import LvmScan

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_WWN = "6001405deadbeefdeadbeefdeadbeef0"
"""Some volume's, which no filter names on purpose."""


def scanned_device(scan: LvmScan, *, mapped: bool) -> str | None:
    """A device of an attached volume that LVM would scan; None: it scans none of them.

    Its name isn't known before it is there: any of sda to sdzz that isn't a disk of the host's own.
    ``mapped``: also a multipath map. Raises ValueError where a pattern can't be read.
    """
    if scan.devices_file:
        return None
    letters = string.ascii_lowercase
    names = (f"sd{''.join(each)}" for length in (1, 2) for each in product(letters, repeat=length))
    devices = [_names_of_disk(name) for name in names if name not in scan.local_disks]
    if mapped:
        devices.append(_names_of_map())
    return next((names[0] for names in devices if accepts(scan.global_filter, names)), None)


def accepts(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Is a device with these names accepted?

    The first pattern that a name matches decides on that name; one name that is accepted is
    enough. A device of which no name matches anything is accepted, too.
    """
    rules = [_rule(pattern) for pattern in patterns]
    verdicts = [
        next((accepting for accepting, regex in rules if regex.search(name)), None)
        for name in names
    ]
    return True in verdicts or False not in verdicts


def _rule(pattern: str) -> tuple[bool, re.Pattern[str]]:
    """``a|regex|`` or ``r|regex|``, with any delimiter."""
    kind, opening, rest = pattern[:1], pattern[1:2], pattern[2:]
    if kind not in ("a", "r") or not rest.endswith(_CLOSING.get(opening, opening) or "?"):
        raise ValueError(f"not a pattern of LVM's: {pattern!r}")
    try:
        return kind == "a", re.compile(rest[:-1])
    except re.error as exc:
        raise ValueError(f"not a pattern of LVM's: {pattern!r}: {exc}") from exc


def _names_of_disk(name: str) -> tuple[str, ...]:
    """As udev names a disk that iSCSI brought."""
    portal = "ip-192.0.2.1:3260-iscsi-iqn.2010-10.org.openstack:volume-1-lun-1"
    return (
        f"/dev/{name}",
        f"/dev/disk/by-id/scsi-3{_WWN}",
        f"/dev/disk/by-id/wwn-0x{_WWN}",
        f"/dev/disk/by-path/{portal}",
    )


def _names_of_map() -> tuple[str, ...]:
    return (
        "/dev/mapper/mpathz",
        "/dev/dm-99",
        f"/dev/disk/by-id/dm-name-3{_WWN}",
        f"/dev/disk/by-id/dm-uuid-mpath-3{_WWN}",
        f"/dev/disk/by-id/wwn-0x{_WWN}",
    )
