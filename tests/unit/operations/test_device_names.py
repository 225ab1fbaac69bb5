"""Device names: the bus's prefix, the first free one, and what is no name."""

from __future__ import annotations

import pytest

from attachd.errors import AttachdError, Code
from attachd.model import Bus
from attachd.operations import device_names


@pytest.mark.parametrize(
    ("text", "bus", "name"),
    [
        ("vdb", Bus.VIRTIO, "vdb"),
        ("/dev/vdb", Bus.VIRTIO, "vdb"),
        ("vdaa", Bus.VIRTIO, "vdaa"),
        ("sdc", Bus.SCSI, "sdc"),
    ],
)
def test_a_sound_name(text: str, bus: Bus, name: str) -> None:
    assert device_names.parse(text, bus) == name


@pytest.mark.parametrize(
    ("text", "bus"),
    [
        *[(t, Bus.VIRTIO) for t in ("", "vd", "vdA", "vd1", "vdaaa", "sdb", "/dev/", "../vdb")],
        *[(t, Bus.VIRTIO) for t in ("vdb\n", " vdb", "/dev//vdb", "/dev/disk/vdb", "vdß")],
        ("vdb", Bus.SCSI),
    ],
)
def test_what_is_no_name(text: str, bus: Bus) -> None:
    with pytest.raises(AttachdError) as excinfo:
        device_names.parse(text, bus)
    assert excinfo.value.code is Code.DEVICE_NAME_INVALID
    assert not excinfo.value.touched


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ((), "vda"),
        (("vda", "vdc"), "vdb"),
        (tuple(f"vd{chr(97 + n)}" for n in range(26)), "vdaa"),
    ],
)
def test_the_first_free_name(taken: tuple[str, ...], free: str) -> None:
    assert device_names.first_free(taken, Bus.VIRTIO) == free


def test_names_end_at_zz() -> None:
    taken: set[str] = set()
    for _ in range(26 + 26**2):
        taken.add(device_names.first_free(taken, Bus.SCSI))
    assert "sdzz" in taken
    with pytest.raises(AttachdError) as excinfo:
        device_names.first_free(taken, Bus.SCSI)
    assert excinfo.value.code is Code.NO_FREE_SLOT
