"""LVM's own rules of accepting and rejecting, and which of a volume's names they meet."""

from __future__ import annotations

import pytest

from attachd.doctor.lvm_filter import accepts, scanned_device
from attachd.vitals import LvmScan

NAMES = ("/dev/sdq", "/dev/disk/by-id/wwn-0x6001", "/dev/disk/by-path/ip-192.0.2.1-iscsi-x")


@pytest.mark.parametrize(
    ("patterns", "accepted"),
    [
        ([], True),
        (["a|.*|"], True),
        (["r|.*|"], False),
        (["a|^/dev/vdb$|", "r|.*|"], False),
        (["a#^/dev/vda#", "r#.*#"], False),
        (["a/vda/", "r/.*/"], False),
        (["a[vda]", "r{.*}"], False),
        (["r(.*)"], False),
        # The first pattern that a name matches decides.
        (["r|.*|", "a|/dev/sdq|"], False),
        (["a|/dev/sdq|", "r|.*|"], True),
        # One name that is accepted is enough, whatever the others come to.
        (["r|^/dev/sd|", "a|/dev/disk/by-id/|", "r|.*|"], True),
        # Names that match nothing say nothing.
        (["r|/dev/disk/by-path/.*iscsi|"], False),
        (["a|^/dev/nvme|"], True),
    ],
)
def test_what_is_accepted(patterns: list[str], accepted: bool) -> None:
    assert accepts(patterns, NAMES) is accepted


@pytest.mark.parametrize("pattern", ["", "x|.*|", "a|.*", "a", "a|[|", "r|(|"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a pattern"):
        accepts([pattern], NAMES)


def scan(*patterns: str, devices_file: bool = False, local: str = "") -> LvmScan:
    return LvmScan(
        global_filter=patterns, devices_file=devices_file, local_disks=frozenset(local.split())
    )


@pytest.mark.parametrize(
    ("scanned", "mapped", "device"),
    [
        (scan("a|.*|"), False, "/dev/sda"),
        (scan("a|.*|", local="sda sdb"), False, "/dev/sdc"),
        (scan("a|.*|", devices_file=True), True, None),
        (scan("a|^/dev/sda$|", "r|.*|", local="sda"), False, None),
        (scan("a|^/dev/sda|", "r|.*|", local="sda"), False, "/dev/sdaa"),
        (scan("a|^/dev/sda$|", "r|.*|"), False, "/dev/sda"),
        (scan("a|^/dev/sd[a-d]$|", "r|.*|", local="sda"), False, "/dev/sdb"),
        (scan("a|/dev/disk/by-id/wwn|", "r|.*|"), False, "/dev/sda"),
        (scan("a|/dev/disk/by-path/pci|", "r|.*|"), False, None),
        (scan("r|^/dev/sd|"), False, None),
        (scan("r|^/dev/sd|", "r|/dev/disk/|"), True, None),
        (scan("r|^/dev/sd|", "a|mpath|", "r|.*|"), True, "/dev/mapper/mpathz"),
        (scan("r|^/dev/sd|", "a|mpath|", "r|.*|"), False, None),
    ],
)
def test_which_device_would_be_scanned(scanned: LvmScan, mapped: bool, device: str | None) -> None:
    assert scanned_device(scanned, mapped=mapped) == device
