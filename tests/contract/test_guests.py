"""One suite for FakeGuests and for the real guest room.

The real half runs as root inside the lab's host (or wherever guest_stages.SURROUNDINGS point to):
``python -m pytest tests/contract/test_guests.py -m lab``.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.guest.calls import in_thread
from attachd.guest.disk_xml import disk_xml
from attachd.guest.domains import Layer
from attachd.model import Bus, DiskSpec, Guest, GuestState, Mode
from attachd.operations.ports import Guests
from tests.contract.guest_stages import (
    PATIENT_SECONDS,
    SOURCE_BYTES,
    SURROUNDINGS,
    FakeStage,
    IdleGuests,
    LibvirtStage,
    Stage,
    eventually,
)

ASKED_SECONDS = 3.0  # by then an unplug has reached the guest


@pytest.fixture(scope="module")
def idle_guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdleGuests]:
    if not SURROUNDINGS.kernel.exists():
        pytest.skip("runs inside the lab's host")
    directory = tmp_path_factory.mktemp("consoles")
    for outer in (directory, *directory.parents[:2]):
        outer.chmod(0o755)
    idle = IdleGuests(directory)
    yield idle
    idle.close()


@pytest.fixture
def libvirt_stage(tmp_path: Path, idle_guests: IdleGuests) -> Iterator[LibvirtStage]:
    # The guests' disks must be within reach of QEMU's user.
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    with LibvirtStage(tmp_path, idle_guests) as stage:
        yield stage
    left = [t.name for t in threading.enumerate() if t.name.startswith("libvirt-")]
    assert not left, f"threads left behind: {left}"


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.lab)])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "fake":
        return FakeStage()
    real: LibvirtStage = request.getfixturevalue("libvirt_stage")
    return real


def seen(guests: Guests, guest_id: str) -> Guest:
    guest = guests.get(guest_id)
    assert guest is not None
    return guest


def ids(guest: Guest) -> tuple[list[str | None], list[str | None]]:
    """The serials in the live and in the persistent XML."""
    return [d.serial for d in guest.live_disks], [d.serial for d in guest.config_disks]


def in_background(call: object, *args: object) -> Future[None]:
    assert callable(call)
    return in_thread(lambda: call(*args), name="background-of-a-test")


# --- looking ------------------------------------------------------------------------------


def test_a_guest_is_found_by_its_id_and_by_its_name(stage: Stage) -> None:
    guest_id = stage.new_guest(running=False)
    by_id = stage.guests.find(guest_id)
    by_name = stage.guests.find(by_id.name)
    assert by_id == by_name == seen(stage.guests, guest_id) == stage.guests.find(guest_id.upper())
    assert by_id.guest_id == guest_id
    assert by_id in stage.guests.all()
    stage.guests.check()


@pytest.mark.parametrize("reference", ["no-such-guest", str(uuid.uuid4()), "", "a\0b", "\udcff"])
def test_an_unknown_guest_is_refused(stage: Stage, reference: str) -> None:
    with pytest.raises(Refused) as caught:
        stage.guests.find(reference)
    assert caught.value.code == Code.GUEST_NOT_FOUND


def test_a_saved_guest_keeps_its_disks_until_it_goes_on(stage: Stage) -> None:
    guest_id = stage.new_guest()
    disk, another = stage.new_disk(), stage.new_disk("vdb")
    stage.guests.plug(guest_id, disk)
    assert seen(stage.guests, guest_id).saved_disks is None

    stage.save(guest_id)

    guest = seen(stage.guests, guest_id)
    assert (guest.state, ids(guest)) == (GuestState.SHUTOFF, ([], [disk.serial]))
    assert [(d.serial, d.source) for d in guest.saved_disks or ()] == [(disk.serial, disk.source)]
    assert guest in stage.guests.all()
    changes: tuple[Callable[[], None], ...] = (
        lambda: stage.guests.unplug(guest_id, disk.volume_id),
        lambda: stage.guests.plug(guest_id, another),
    )
    for change in changes:
        with pytest.raises(AttachdError) as caught:
            change()
        assert (caught.value.code, caught.value.touched) == (Code.GUEST_SAVED, False)
    assert seen(stage.guests, guest_id) == guest
    stage.guests.plug(guest_id, disk)  # it has it

    stage.start(guest_id)

    assert ids(seen(stage.guests, guest_id)) == ([disk.serial], [disk.serial])
    stage.guests.unplug(guest_id, disk.volume_id)
    assert seen(stage.guests, guest_id).disks == ()


def test_an_unknown_id_is_none(stage: Stage) -> None:
    assert stage.guests.get(str(uuid.uuid4())) is None


def test_states(stage: Stage) -> None:
    off = seen(stage.guests, stage.new_guest(running=False))
    assert (off.state, off.persistent, off.nova_owned) == (GuestState.SHUTOFF, True, False)
    assert off.free_slots == {Bus.VIRTIO: None, Bus.SCSI: None}
    guest_id = stage.new_guest(persistent=False, ports=2)
    transient = seen(stage.guests, guest_id)
    assert (transient.state, transient.persistent) == (GuestState.RUNNING, False)
    assert transient.free_slots[Bus.VIRTIO] == 2
    stage.pause(guest_id)
    assert seen(stage.guests, guest_id).state is GuestState.PAUSED


# --- plugging -----------------------------------------------------------------------------


def test_plug_and_unplug_a_running_guest(stage: Stage) -> None:
    guest_id = stage.new_guest()
    before = seen(stage.guests, guest_id)
    disk = stage.new_disk()
    removed: list[tuple[str, str]] = []
    stage.guests.on_disk_removed(lambda guest, alias: removed.append((guest, alias)))

    stage.guests.plug(guest_id, disk)

    guest = seen(stage.guests, guest_id)
    assert ids(guest) == ([disk.serial], [disk.serial])
    for shown in guest.disks:
        assert (shown.target, shown.bus, shown.alias) == (disk.target, "virtio", disk.alias)
        assert shown.source == disk.source
    assert (before.free_slots[Bus.VIRTIO], guest.free_slots[Bus.VIRTIO]) == (3, 2)

    stage.guests.unplug(guest_id, disk.volume_id)

    assert seen(stage.guests, guest_id) == before
    eventually("the listener is told", lambda: removed == [(guest_id, disk.alias)])


def test_a_shut_off_guest_changes_its_persistent_xml(stage: Stage) -> None:
    guest_id = stage.new_guest(running=False)
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    assert ids(seen(stage.guests, guest_id)) == ([], [disk.serial])
    stage.guests.unplug(guest_id, disk.volume_id)
    assert ids(seen(stage.guests, guest_id)) == ([], [])


def test_a_transient_guest_has_only_a_live_xml(stage: Stage) -> None:
    guest_id = stage.new_guest(persistent=False)
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    assert ids(seen(stage.guests, guest_id)) == ([disk.serial], [])
    stage.guests.unplug(guest_id, disk.volume_id)
    assert ids(seen(stage.guests, guest_id)) == ([], [])


def test_everything_may_be_done_twice(stage: Stage) -> None:
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    plugged = seen(stage.guests, guest_id)
    stage.guests.plug(guest_id, disk)
    assert seen(stage.guests, guest_id) == plugged
    stage.guests.unplug(guest_id, disk.volume_id)
    unplugged = seen(stage.guests, guest_id)
    stage.guests.unplug(guest_id, disk.volume_id)
    assert seen(stage.guests, guest_id) == unplugged


def test_plug_completes_the_missing_half(stage: Stage) -> None:
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    stage.drop_config(guest_id, disk)
    stage.guests.plug(guest_id, disk)
    assert ids(seen(stage.guests, guest_id)) == ([disk.serial], [disk.serial])


def test_only_the_one_disk_goes(stage: Stage) -> None:
    guest_id = stage.new_guest()
    goes, stays = stage.new_disk("vda"), stage.new_disk("vdb")
    stage.guests.plug(guest_id, goes)
    stage.guests.plug(guest_id, stays)
    stage.guests.unplug(guest_id, goes.volume_id)
    assert ids(seen(stage.guests, guest_id)) == ([stays.serial], [stays.serial])


def test_a_scsi_disk(stage: Stage) -> None:
    guest_id = stage.new_guest()
    disks = [stage.new_disk(name, bus=Bus.SCSI, mode=Mode.RO) for name in ("sda", "sdb")]
    for disk in disks:
        stage.guests.plug(guest_id, disk)
    guest = seen(stage.guests, guest_id)
    assert ids(guest) == ([d.serial for d in disks], [d.serial for d in disks])
    assert {d.bus for d in guest.disks} == {"scsi"}
    assert guest.free_slots[Bus.SCSI] == 254
    for disk in disks:
        stage.guests.unplug(guest_id, disk.volume_id)
    assert ids(seen(stage.guests, guest_id)) == ([], [])


def test_a_guest_without_free_ports(stage: Stage) -> None:
    guest_id = stage.new_guest(ports=1)
    first = stage.new_disk("vda")
    stage.guests.plug(guest_id, first)
    full = seen(stage.guests, guest_id)
    assert full.free_slots[Bus.VIRTIO] == 0
    refuses(stage, guest_id, stage.new_disk("vdb"))
    assert seen(stage.guests, guest_id) == full


def test_a_target_that_is_taken(stage: Stage) -> None:
    guest_id = stage.new_guest()
    stage.guests.plug(guest_id, stage.new_disk("vda"))
    before = seen(stage.guests, guest_id)
    refuses(stage, guest_id, stage.new_disk("vda"))
    assert seen(stage.guests, guest_id) == before


def test_the_same_volume_from_another_device(stage: Stage) -> None:
    guest_id = stage.new_guest(running=False)
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    refuses(stage, guest_id, replace(disk, source=stage.new_source()))


def refuses(stage: Stage, guest_id: str, disk: DiskSpec) -> None:
    with pytest.raises(AttachdError) as caught:
        stage.guests.plug(guest_id, disk)
    assert caught.value.code == Code.GUEST_REFUSED
    assert caught.value.problem.details
    assert not caught.value.touched


def test_plug_into_no_guest(stage: Stage) -> None:
    with pytest.raises(AttachdError) as caught:
        stage.guests.plug(str(uuid.uuid4()), stage.new_disk())
    assert caught.value.code == Code.GUEST_NOT_FOUND
    assert not caught.value.touched


def test_a_guests_end_is_told(stage: Stage) -> None:
    ended: list[str] = []
    stage.guests.on_stopped(ended.append)
    transient = stage.new_guest(persistent=False)
    stage.destroy(transient)
    eventually("its end is told", lambda: transient in ended)
    assert stage.guests.get(transient) is None


# --- a disk that grew ---------------------------------------------------------------------


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_a_live_guest_is_told_of_a_disk_that_grew(stage: Stage, paused: bool) -> None:
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    before = seen(stage.guests, guest_id)
    assert stage.seen_size(guest_id, disk) is None
    if paused:
        stage.pause(guest_id)
    stage.grow(disk, 2 * SOURCE_BYTES)
    for _ in range(2):
        stage.guests.resize(guest_id, disk.volume_id, 2 * SOURCE_BYTES)
        assert stage.seen_size(guest_id, disk) == 2 * SOURCE_BYTES
    if paused:
        stage.resume(guest_id)
    assert seen(stage.guests, guest_id) == before
    stage.guests.unplug(guest_id, disk.volume_id)


def test_who_does_not_run_needs_not_to_be_told(stage: Stage) -> None:
    guest_id = stage.new_guest(running=False)
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    before = seen(stage.guests, guest_id)
    stage.guests.resize(guest_id, disk.volume_id, 2 * SOURCE_BYTES)
    stage.guests.resize(str(uuid.uuid4()), disk.volume_id, 2 * SOURCE_BYTES)
    assert seen(stage.guests, guest_id) == before


def test_what_cannot_be_resized(stage: Stage) -> None:
    """A disk that isn't there, and one that QEMU opened read-only."""
    guest_id = stage.new_guest()
    disk = stage.new_disk(mode=Mode.RO)
    with pytest.raises(AttachdError) as caught:
        stage.guests.resize(guest_id, disk.volume_id, 2 * SOURCE_BYTES)
    assert (caught.value.code, caught.value.touched) == (Code.GUEST_REFUSED, False)
    stage.guests.plug(guest_id, disk)
    stage.grow(disk, 2 * SOURCE_BYTES)
    with pytest.raises(AttachdError) as caught:
        stage.guests.resize(guest_id, disk.volume_id, 2 * SOURCE_BYTES)
    assert caught.value.code == Code.GUEST_REFUSED
    stage.guests.unplug(guest_id, disk.volume_id)


# --- unplugging ---------------------------------------------------------------------------


def test_unplug_from_no_guest_does_nothing(stage: Stage) -> None:
    stage.guests.unplug(str(uuid.uuid4()), str(uuid.uuid4()))


def test_a_disk_that_somebody_plugged_is_found_by_its_source_alone(stage: Stage) -> None:
    guest_id = stage.new_guest()
    disk = stage.new_disk("vdb", mode=Mode.RO)
    before = seen(stage.guests, guest_id)
    stage.plug_by_hand(guest_id, disk)
    plugged = seen(stage.guests, guest_id)
    for shown in (*plugged.live_disks, *plugged.config_disks):
        assert (shown.target, shown.serial, shown.source) == ("vdb", None, disk.source)
        assert shown.mode is Mode.RO
    assert [len(disks) for disks in plugged.documents.values()] == [1, 1]
    assert plugged.live_disks[0].alias

    stage.guests.unplug(guest_id, disk.volume_id)
    assert seen(stage.guests, guest_id) == plugged
    for _ in range(2):
        stage.guests.unplug(guest_id, disk.volume_id, source=disk.source)
        assert seen(stage.guests, guest_id) == before


def test_a_disk_that_somebody_plugged_stays_where_it_was_when_it_is_kept(stage: Stage) -> None:
    guests = stage.impatient()
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    stage.plug_by_hand(guest_id, disk, config=False)
    stage.pause(guest_id)
    with pytest.raises(AttachdError) as caught:
        guests.unplug(guest_id, disk.volume_id, source=disk.source)
    assert (caught.value.code, caught.value.touched) == (Code.UNPLUG_TIMEOUT, False)
    kept = seen(guests, guest_id)
    assert [len(disks) for disks in kept.documents.values()] == [1, 0]
    stage.resume(guest_id)
    eventually("the guest lets go", lambda: not seen(guests, guest_id).live_disks)


def test_a_deaf_guest_keeps_its_disk_whole_and_may_let_go_late(stage: Stage) -> None:
    guests = stage.impatient()
    removed: list[tuple[str, str]] = []
    guests.on_disk_removed(lambda guest, alias: removed.append((guest, alias)))
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    guests.plug(guest_id, disk)
    stage.pause(guest_id)

    with pytest.raises(AttachdError) as caught:
        guests.unplug(guest_id, disk.volume_id)

    assert caught.value.code == Code.UNPLUG_TIMEOUT
    assert not caught.value.touched
    assert ids(seen(guests, guest_id)) == ([disk.serial], [disk.serial])
    assert removed == []

    stage.resume(guest_id)

    eventually("the guest lets go", lambda: removed == [(guest_id, disk.alias)])
    eventually("the XML shows it", lambda: not seen(guests, guest_id).live_disks)
    guests.unplug(guest_id, disk.volume_id)
    assert ids(seen(guests, guest_id)) == ([], [])


def test_a_disk_that_is_kept_is_made_whole(stage: Stage) -> None:
    guests = stage.impatient()
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    guests.plug(guest_id, disk)
    stage.drop_config(guest_id, disk)
    stage.pause(guest_id)
    with pytest.raises(AttachdError) as caught:
        guests.unplug(guest_id, disk.volume_id)
    assert (caught.value.code, caught.value.touched) == (Code.UNPLUG_TIMEOUT, False)
    guest = seen(guests, guest_id)
    assert ids(guest) == ([disk.serial], [disk.serial])
    assert {d.alias for d in guest.disks} == {disk.alias}


def test_a_guest_that_answers_late_is_waited_for(stage: Stage) -> None:
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    stage.pause(guest_id)
    unplug = in_background(stage.guests.unplug, guest_id, disk.volume_id)
    time.sleep(ASKED_SECONDS)
    assert not unplug.done()
    stage.resume(guest_id)
    unplug.result(PATIENT_SECONDS)
    assert ids(seen(stage.guests, guest_id)) == ([], [])


@pytest.mark.parametrize("persistent", [True, False])
def test_a_guest_that_is_destroyed_meanwhile(stage: Stage, persistent: bool) -> None:
    guest_id = stage.new_guest(persistent=persistent)
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    stage.pause(guest_id)
    unplug = in_background(stage.guests.unplug, guest_id, disk.volume_id)
    time.sleep(ASKED_SECONDS)
    stage.destroy(guest_id)
    unplug.result(PATIENT_SECONDS)
    guest = stage.guests.get(guest_id)
    assert (guest is not None) == persistent
    assert guest is None or ids(guest) == ([], [])


def test_guests_are_changed_side_by_side(stage: Stage) -> None:
    guest_ids = [stage.new_guest() for _ in range(2)]
    disks = [stage.new_disk() for _ in guest_ids]
    stage.pause(guest_ids[0])
    with ThreadPoolExecutor() as pool:
        list(pool.map(stage.guests.plug, guest_ids, disks))
        slow = pool.submit(stage.guests.unplug, guest_ids[0], disks[0].volume_id)
        pool.submit(stage.guests.unplug, guest_ids[1], disks[1].volume_id).result(PATIENT_SECONDS)
        assert not slow.done()
        stage.resume(guest_ids[0])
        slow.result(PATIENT_SECONDS)


# --- libvirt away -------------------------------------------------------------------------


def test_libvirt_is_away_and_comes_back(stage: Stage) -> None:
    guest_id = stage.new_guest(running=False)
    disk = stage.new_disk()
    came_back = threading.Event()
    stage.guests.check()
    stage.guests.on_reachable(came_back.set)
    stage.take_libvirt_away()
    for call in (
        stage.guests.check,
        lambda: stage.guests.find(guest_id),
        lambda: stage.guests.get(guest_id),
        stage.guests.all,
        lambda: stage.guests.plug(guest_id, disk),
        lambda: stage.guests.unplug(guest_id, disk.volume_id),
    ):
        with pytest.raises(Unreachable) as caught:
            call()
        assert (caught.value.code, caught.value.touched) == (Code.LIBVIRT_UNAVAILABLE, False)
        assert caught.value.world is World.GUEST
    assert not came_back.is_set()
    stage.bring_libvirt_back()
    assert came_back.wait(PATIENT_SECONDS)
    assert ids(seen(stage.guests, guest_id)) == ([], [])


# --- what only a real libvirt does --------------------------------------------------------


@pytest.mark.lab
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_libvirtd_restarts_in_the_middle_of_an_unplug(
    libvirt_stage: LibvirtStage, end: str
) -> None:
    stage = libvirt_stage
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    stage.pause(guest_id)
    unplug = in_background(stage.guests.unplug, guest_id, disk.volume_id)
    time.sleep(ASKED_SECONDS)
    if end == "stop":
        stage.take_libvirt_away()
    else:
        stage.control("kill")
    time.sleep(ASKED_SECONDS)
    assert not unplug.done()
    stage.bring_libvirt_back()
    stage.resume(guest_id)
    unplug.result(PATIENT_SECONDS)
    assert ids(seen(stage.guests, guest_id)) == ([], [])


@pytest.mark.lab
def test_libvirtd_hangs(libvirt_stage: LibvirtStage) -> None:
    stage = libvirt_stage
    guest_id = stage.new_guest(running=False)
    disk = stage.new_disk()
    stage.guests.check()
    stage.control("hang")
    try:
        with pytest.raises(Unreachable) as caught:
            stage.guests.plug(guest_id, disk)
        assert not caught.value.touched
    finally:
        stage.control("wake")
    eventually("libvirt answers again", lambda: _answers(stage.guests))
    assert ids(seen(stage.guests, guest_id)) == ([], [])
    stage.guests.plug(guest_id, disk)


def _answers(guests: Guests) -> bool:
    try:
        guests.check()
    except Unreachable:
        return False
    return True


@pytest.mark.lab
def test_a_disk_without_our_alias_is_found_by_its_serial(libvirt_stage: LibvirtStage) -> None:
    stage = libvirt_stage
    volume_id, source = str(uuid.uuid4()), stage.new_source()
    xml = f"""
        <disk type='block' device='disk'>
          <source dev='{source}'/><target dev='vda' bus='virtio'/><serial>{volume_id}</serial>
        </disk>"""
    guest_id = stage.new_guest(devices=xml)
    assert ids(seen(stage.guests, guest_id)) == ([volume_id], [volume_id])
    stage.guests.unplug(guest_id, volume_id)
    assert ids(seen(stage.guests, guest_id)) == ([], [])


@pytest.mark.lab
def test_the_xml_that_libvirt_made_of_ours(libvirt_stage: LibvirtStage) -> None:
    stage = libvirt_stage
    guest_id = stage.new_guest(running=False)
    disk = replace(stage.new_disk("sda", bus=Bus.SCSI, mode=Mode.RO), discard=True)
    stage.guests.plug(guest_id, disk)
    xml = stage.xml(guest_id)
    assert "model='virtio-scsi'" in xml
    assert "cache='none'" in xml
    assert "io='native'" in xml
    assert "discard='unmap'" in xml
    assert "<readonly/>" in xml
    assert f"<source dev='{disk.source}'/>" in xml
    assert "<address type='drive' controller='0' bus='0' target='0' unit='0'/>" in xml


@pytest.mark.lab
def test_waiting_ends_with_the_room(libvirt_stage: LibvirtStage) -> None:
    stage = libvirt_stage
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    stage.guests.plug(guest_id, disk)
    stage.pause(guest_id)
    unplug = in_background(stage.guests.unplug, guest_id, disk.volume_id)
    time.sleep(ASKED_SECONDS)
    stage.guests.stop()
    with pytest.raises(Unreachable) as caught:
        unplug.result(PATIENT_SECONDS)
    assert caught.value.touched


@pytest.mark.lab
def test_a_call_that_was_given_up_never_finishes_behind_an_unplug(
    libvirt_stage: LibvirtStage,
) -> None:
    stage = libvirt_stage
    guests = stage.expecting_answers()
    hangs, lives = stage.new_guest(), stage.new_guest()
    disk, other = stage.new_disk(), stage.new_disk()
    with stage.frozen(hangs):
        with pytest.raises(Unreachable) as caught:
            guests.plug(hangs, disk)
        assert caught.value.touched
        guests.plug(lives, other)  # nobody else is held up
        unplug = in_background(guests.unplug, hangs, disk.volume_id)
        time.sleep(ASKED_SECONDS)
        assert not unplug.done()
    unplug.result(PATIENT_SECONDS)
    # By one who waits: the guest has some of the emulated processor's time to catch up with.
    assert ids(seen(stage.guests, hangs)) == ([], [])


@pytest.mark.lab
def test_an_orphaned_attach_of_a_dead_process_is_waited_for(libvirt_stage: LibvirtStage) -> None:
    stage = libvirt_stage
    guest_id = stage.new_guest()
    disk = stage.new_disk()
    # libvirt waits 30 s for the guest before it shows one of its XMLs: each is a call by itself.
    others = stage.expecting_answers(within=45.0)

    def attach() -> None:
        with stage.domain(guest_id) as domain:
            domain.attachDeviceFlags(disk_xml(disk), int(Layer.LIVE | Layer.CONFIG))

    with stage.frozen(guest_id):
        orphan = in_background(attach)
        time.sleep(ASKED_SECONDS)
        assert guest_id in {guest.guest_id for guest in others.all()}
        assert ids(seen(others, guest_id)) == ([], [])
        unplug = in_background(stage.guests.unplug, guest_id, disk.volume_id)
        time.sleep(ASKED_SECONDS)
        assert not unplug.done()
    orphan.result(PATIENT_SECONDS)
    unplug.result(PATIENT_SECONDS)
    assert ids(seen(stage.guests, guest_id)) == ([], [])
