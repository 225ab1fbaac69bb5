"""What must be seen before a step that can't be taken back; and that not seeing is not proof."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.model import Bus, Connection, DiskSpec, GuestDisk, GuestState, HostDevice, Mode, Target
from attachd.operations import proofs
from tests.fakes.guests import FakeGuests
from tests.fakes.host import FakeHost
from tests.unit.records import a_record

TARGET = Target(portal="192.0.2.1:3260", iqn="iqn.test:one", lun=1)
CONNECTION = Connection(protocol="iscsi", targets=(TARGET,))
WWN = "36001405aaaaaaaaaaaaaaaaaaaaaaaaaa"
DEVICE = HostDevice(path=f"/dev/disk/by-id/wwn-0x{WWN[1:]}", wwn=WWN, size_bytes=1)
NAMES = frozenset({DEVICE.path, "/dev/sdb"})


def raises(code: Code, act: Callable[[], object]) -> AttachdError:
    with pytest.raises(AttachdError) as excinfo:
        act()
    assert excinfo.value.code is code
    return excinfo.value


def test_a_guest_is_clear_when_neither_xml_has_the_disk() -> None:
    guests = FakeGuests()
    guest = guests.add("web")
    record = a_record(guest_id=guest)
    proofs.prove_guest_clear(guests, record)
    for live, config in ((True, False), (False, True)):
        disk = GuestDisk(target="vdb", bus="virtio", alias="ua-volume-1")
        guests.put_disk(guest, disk, live=live, config=config)
        raises(Code.STILL_IN_USE, lambda: proofs.prove_guest_clear(guests, record))
        guests.drop_disk(guest, "vdb", live=True, config=True)


def test_a_guest_that_libvirt_does_not_know_is_clear() -> None:
    proofs.prove_guest_clear(FakeGuests(), a_record(guest_id="gone"))


def test_a_guest_that_cannot_be_looked_at_is_not_clear() -> None:
    guests = FakeGuests()
    guests.go_away()
    with pytest.raises(Unreachable):
        proofs.prove_guest_clear(guests, a_record())


def test_a_host_is_clear_when_nothing_of_the_lun_is_there() -> None:
    host = FakeHost()
    record = a_record(connection=CONNECTION)
    proofs.prove_host_clear(host, record)
    host.connect("volume-1", CONNECTION)
    raises(Code.STILL_IN_USE, lambda: proofs.prove_host_clear(host, record))
    host.disconnect("volume-1", CONNECTION, expected_wwn=None)
    proofs.prove_host_clear(host, record)


@pytest.mark.parametrize("shared", [None, True])
def test_a_session_that_others_may_share_is_no_trace_of_a_volume(shared: bool | None) -> None:
    """Another LUN of the target is coming or going: it has no device just now."""
    host = FakeHost()
    (target,) = CONNECTION.targets
    host.log_in_without_a_scan(target)
    proofs.prove_host_clear(host, a_record(connection=CONNECTION, shared_targets=shared))
    alone = a_record(connection=CONNECTION, shared_targets=False)
    raises(Code.STILL_IN_USE, lambda: proofs.prove_host_clear(host, alone))


def test_a_host_that_cannot_be_looked_at_is_not_clear() -> None:
    host = FakeHost()
    host.fail_next(
        "present", Unreachable(Code.ISCSI_UNAVAILABLE, "no", world=World.HOST, touched=False)
    )
    with pytest.raises(Unreachable):
        proofs.prove_host_clear(host, a_record(connection=CONNECTION))


def test_a_lun_of_another_attachment_is_refused_before_anything_is_touched() -> None:
    record = a_record()
    proofs.prove_unclaimed(CONNECTION, record, [record])
    other = a_record(record_id="other", connection=CONNECTION)
    error = raises(
        Code.WRONG_DEVICE, lambda: proofs.prove_unclaimed(CONNECTION, record, [record, other])
    )
    assert not error.touched


@pytest.mark.parametrize("source", sorted(NAMES))
def test_a_device_that_a_guest_uses_by_any_of_its_names(source: str) -> None:
    guests = FakeGuests()
    guest = guests.add("other")
    guests.put_disk(guest, GuestDisk(target="vdx", bus="virtio", source=source))
    raises(
        Code.WRONG_DEVICE,
        lambda: proofs.prove_unshared(
            DEVICE, a_record(), names=NAMES, attachments=(), guests=guests.all()
        ),
    )


def test_a_device_that_a_saved_guest_will_use() -> None:
    guests = FakeGuests()
    guest = guests.add("other")
    guests.put_disk(guest, GuestDisk(target="vdx", bus="virtio", source=DEVICE.path), config=False)
    guests.save(guest)
    raises(
        Code.WRONG_DEVICE,
        lambda: proofs.prove_unshared(
            DEVICE, a_record(), names=NAMES, attachments=(), guests=guests.all()
        ),
    )


def test_a_saved_guest_holds_the_disks_of_its_save_image() -> None:
    guests = FakeGuests()
    guest = guests.add("web")
    guests.put_disk(guest, GuestDisk(target="vdb", bus="virtio", serial="volume-1"), config=False)
    guests.save(guest)
    assert proofs.guest_holds(guests.find("web"), a_record())


def test_a_device_whose_wwn_another_attachment_has() -> None:
    other = a_record(record_id="other", volume_id="volume-2", wwn=WWN)
    raises(
        Code.WRONG_DEVICE,
        lambda: proofs.prove_unshared(
            DEVICE, a_record(), names=NAMES, attachments=[other], guests=()
        ),
    )


def test_our_own_disk_is_no_stranger() -> None:
    guests = FakeGuests()
    guest = guests.add("web")
    spec = DiskSpec(
        volume_id="volume-1", source=DEVICE.path, target="vdb", bus=Bus.VIRTIO, mode=Mode.RW
    )
    guests.plug(guest, spec)
    record = a_record(guest_id=guest, wwn=WWN)
    proofs.prove_unshared(DEVICE, record, names=NAMES, attachments=[record], guests=guests.all())


@pytest.mark.parametrize(
    ("state", "live", "config", "holds"),
    [
        (GuestState.RUNNING, True, False, True),
        (GuestState.RUNNING, False, True, False),
        (GuestState.SHUTOFF, False, True, True),
        (GuestState.SHUTOFF, False, False, False),
    ],
)
def test_a_guest_holds_a_disk_where_it_would_use_it(
    state: GuestState, live: bool, config: bool, holds: bool
) -> None:
    guests = FakeGuests()
    guest = guests.add("web", state=state)
    disk = GuestDisk(target="vdb", bus="virtio", serial="volume-1")
    guests.put_disk(guest, disk, live=live, config=config)
    assert proofs.guest_holds(guests.find("web"), a_record()) is holds
