"""What another hand attached becomes attachd's once it is proven; what is released, another's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from attachd.engine.kill_points import all_names
from attachd.errors import Code
from attachd.model import (
    AttachmentState,
    Connection,
    GuestDisk,
    GuestState,
    Mode,
    OperationKind,
    OperationState,
)
from tests.unit.bench import PATIENCE, Bench

ADOPT = [name for name in all_names() if name.startswith("adopt.")]
RELEASE = [name for name in all_names() if name.startswith("release.")]
ANOTHER_WWN = "3600140500000000000000000000000ff"

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # the deaths that are meant
)


@pytest.fixture
def theirs(bench: Bench, guest: str) -> str:
    """A volume, data, that somebody attached to web without attachd."""
    volume_id = bench.cinder.add_volume(name="data")
    connect(bench, volume_id)
    plug(bench, guest)
    return volume_id


def connect(bench: Bench, volume_id: str, *, instance: str | None = None) -> str:
    """As python-brick-cinderclient-ext does; the attachment's id."""
    made = bench.cinder.rules.create(volume_id, instance)
    bench.cinder.rules.update(made.id, {"host": "fake-host"})
    bench.cinder.rules.complete(made.id)
    bench.host.connect(volume_id, connection_of(bench, volume_id))
    return made.id


def plug(bench: Bench, guest: str, *, config: bool = True, **changes: str) -> None:
    """As virsh attach-device does: with no serial and no alias."""
    disk = GuestDisk(target="vdc", bus="virtio", source=bench.host.devices[0].path)
    bench.guests.put_disk(guest, replace(disk, **changes), config=config)  # type: ignore[arg-type]


def connection_of(bench: Bench, volume_id: str) -> Connection:
    (listed,) = bench.cinder.list_attachments(volume_id)
    attachment = bench.cinder.get_attachment(listed.attachment_id)
    assert attachment is not None
    assert attachment.connection is not None
    return attachment.connection


def run(bench: Bench, kind: OperationKind, **options: object) -> tuple[str, str | None]:
    view = bench.rested(bench.submit(kind, "web", "data", **options))
    return str(view.state), str(view.problem.code) if view.problem else None


def adopt(bench: Bench) -> tuple[str, str | None]:
    return run(bench, OperationKind.ADOPT)


def release(bench: Bench) -> tuple[str, str | None]:
    return run(bench, OperationKind.RELEASE)


def worlds(bench: Bench, guest: str, volume: str) -> tuple[object, ...]:
    """All but the journal."""
    return (
        bench.cinder.status(volume),
        bench.cinder.list_attachments(volume),
        bench.host.devices,
        bench.host.logins,
        bench.guests.get(guest),
    )


def changes(bench: Bench) -> set[str]:
    """The verbs that arrived and may change a world."""
    verbs = {c.verb for c in bench.cinder.calls} | {c.method for c in bench.guests.calls}
    changing = {"create", "update", "complete", "delete", "begin_detaching", "plug", "unplug"}
    return (verbs & changing) | ({c.method for c in bench.host.calls} & {"disconnect"})


# --- adopt ------------------------------------------------------------------------------------


def test_another_hands_disk_is_adopted_and_detached(bench: Bench, guest: str, theirs: str) -> None:
    before = worlds(bench, guest, theirs)
    logins = len([call for call in bench.host.calls if call.method == "connect"])
    assert adopt(bench) == ("done", None)
    assert worlds(bench, guest, theirs) == before
    assert changes(bench) == set()
    assert len([call for call in bench.host.calls if call.method == "connect"]) == logins

    (record,) = bench.journal.live_attachments()
    (device,) = bench.host.devices
    (attachment,) = bench.cinder.list_attachments(theirs)
    assert (record.state, record.adopted, record.serial) == ("attached", True, None)
    assert record.attachment_id == attachment.attachment_id
    assert (record.host_path, record.wwn) == (device.path, device.wwn)
    assert (record.adopted_path, record.device, record.mode) == (device.path, "vdc", "rw")
    assert record.connection is not None
    assert record.connection.chap is None
    assert bench.auditor.audit() == ()
    assert adopt(bench) == ("refused", "already-attached")
    assert bench.attach("web", "data").problem is not None

    assert bench.detach("web", "data").state is OperationState.DONE
    bench.assert_nothing_left(guest, theirs)


@pytest.mark.parametrize("name", ["identity path", "kernel path", "scsi path"])
@pytest.mark.parametrize("state", [GuestState.RUNNING, GuestState.SHUTOFF])
def test_the_disk_is_found_by_any_name_of_the_device(
    bench: Bench, name: str, state: GuestState
) -> None:
    guest = bench.guests.add("web", state=state)
    volume = bench.cinder.add_volume(name="data")
    connect(bench, volume, instance=guest)
    (device,) = bench.host.devices
    (kernel_path,) = bench.host.paths(connection_of(bench, volume))
    source = {
        "identity path": device.path,
        "kernel path": kernel_path,
        "scsi path": f"/dev/disk/by-id/scsi-{device.wwn}",
    }[name]
    disk = GuestDisk(target="sdq", bus="scsi", source=source, serial="mine", mode=Mode.RO)
    bench.guests.put_disk(guest, disk, live=state.live)
    bench.guests.put_disk(guest, GuestDisk(target="vda", bus="virtio", source="/dev/vg/root"))
    assert adopt(bench) == ("done", None)
    (record,) = bench.journal.live_attachments()
    assert (record.adopted_path, record.host_path) == (source, device.path)
    assert (record.device, record.bus, record.mode) == ("sdq", "scsi", "ro")
    assert record.serial == "mine"
    assert bench.auditor.audit() == ()
    assert bench.detach("web", "data").state is OperationState.DONE
    found = bench.guests.get(guest)
    assert found is not None
    assert {disk.target for disk in found.disks} == {"vda"}
    assert bench.host.devices == ()
    assert bench.cinder.status(volume) == "available"


def test_a_disk_of_the_live_xml_alone_stays_there_alone(bench: Bench, guest: str) -> None:
    """As virsh attach-device does it by default."""
    volume = bench.cinder.add_volume(name="data")
    connect(bench, volume)
    plug(bench, guest, config=False)
    assert adopt(bench) == ("done", None)
    assert bench.auditor.audit() == ()
    bench.guests.make_deaf(guest)
    assert bench.detach("web", "data").state is OperationState.UNDONE
    found = bench.guests.get(guest)
    assert found is not None
    assert found.config_disks == ()
    assert bench.auditor.audit() == ()
    bench.guests.hear(guest)
    while bench.journal.live_attachments():
        bench.until_closed()
    bench.until_closed()
    bench.assert_nothing_left(guest, volume)


def test_a_disk_of_the_live_xml_alone_goes_with_its_guest(bench: Bench, guest: str) -> None:
    volume = bench.cinder.add_volume(name="data")
    connect(bench, volume)
    plug(bench, guest, config=False)
    assert adopt(bench) == ("done", None)
    bench.guests.destroy(guest)
    (finding,) = bench.auditor.audit()
    assert (finding.code, finding.repair) == ("disk-gone", "clean-up")
    for view in bench.repairer.repair():
        assert bench.rested(view.operation_id).state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


def test_an_adopted_disk_that_somebody_takes_out_is_missed(
    bench: Bench, guest: str, theirs: str
) -> None:
    assert adopt(bench) == ("done", None)
    bench.guests.drop_disk(guest, "vdc", live=True, config=True)
    assert {finding.code for finding in bench.auditor.audit()} == {"disk-gone"}


def test_cinders_status_is_restored(bench: Bench, guest: str, theirs: str) -> None:
    assert adopt(bench) == ("done", None)
    bench.cinder.rules.volume(theirs).status = "available"
    (finding,) = bench.auditor.audit()
    assert finding.repair == "restore"
    for view in bench.repairer.repair():
        assert bench.rested(view.operation_id).state is OperationState.DONE
    assert bench.auditor.audit() == ()


# --- what is refused --------------------------------------------------------------------------


def give_another(bench: Bench, guest: str, volume: str) -> None:
    bench.cinder.rules.volume(volume).multiattach = True
    made = bench.cinder.rules.create(volume, "another")
    bench.cinder.rules.volume(volume).status = "in-use"
    assert made.volume_id == volume


def delete(bench: Bench, guest: str, volume: str) -> None:
    (attachment,) = bench.cinder.list_attachments(volume)
    bench.cinder.rules.delete(attachment.attachment_id, by_service=True)


def row_says(**columns: object) -> Callable[[Bench, str, str], None]:
    def change(bench: Bench, guest: str, volume: str) -> None:
        (row,) = bench.cinder.rules.attachments_of(volume)
        for name, value in columns.items():
            setattr(row, name, value)

    return change


def volume_says(**columns: object) -> Callable[[Bench, str, str], None]:
    def change(bench: Bench, guest: str, volume: str) -> None:
        for name, value in columns.items():
            setattr(bench.cinder.rules.volume(volume), name, value)

    return change


def disks(*sources: str | None, **fields: str) -> Callable[[Bench, str, str], None]:
    """The guest's disks, in both XMLs; None: the volume's device."""

    def change(bench: Bench, guest: str, volume: str) -> None:
        bench.guests.drop_disk(guest, "vdc", live=True, config=True)
        own = bench.host.devices[0].path
        for number, source in enumerate(sources):
            disk = GuestDisk(target=f"vd{'pqr'[number]}", bus="virtio", source=source or own)
            named = {name: text.format(volume=volume) for name, text in fields.items()}
            bench.guests.put_disk(guest, replace(disk, **named))  # type: ignore[arg-type]

    return change


def device_says(**options: object) -> Callable[[Bench, str, str], None]:
    def change(bench: Bench, guest: str, volume: str) -> None:
        (target,) = connection_of(bench, volume).targets
        bench.host.export(target, **options)  # type: ignore[arg-type]

    return change


def other_guest(bench: Bench, guest: str, volume: str) -> None:
    other = bench.guests.add("other", state=GuestState.SHUTOFF)
    (kernel_path,) = bench.host.paths(connection_of(bench, volume))
    disk = GuestDisk(target="vda", bus="virtio", source=kernel_path)
    bench.guests.put_disk(other, disk, live=False)


def second_session(bench: Bench, guest: str, volume: str) -> None:
    """Two devices lead to the LUN: which one the guest has is anybody's guess."""
    connection = connection_of(bench, volume)
    bench.host._log_in(connection.targets[0], connection.chap)


def nova(bench: Bench, guest: str, volume: str) -> None:
    bench.guests._domains[guest].nova_owned = True


REFUSALS: dict[str, tuple[Callable[[Bench, str, str], object], Code]] = {
    "Nova's guest": (nova, Code.NOVA_OWNED),
    "no attachment": (delete, Code.WORLDS_DISAGREE),
    "several attachments": (give_another, Code.WORLDS_DISAGREE),
    "not complete": (row_says(status="attaching"), Code.WORLDS_DISAGREE),
    "never connected": (row_says(connection_info={}), Code.WORLDS_DISAGREE),
    "another instance's": (row_says(instance="another"), Code.WORLDS_DISAGREE),
    "available": (volume_says(status="available"), Code.WORLDS_DISAGREE),
    "encrypted": (volume_says(encrypted=True), Code.VOLUME_ENCRYPTED),
    "no device": (lambda bench, *_: bench.host.reboot(), Code.WORLDS_DISAGREE),
    "two devices": (second_session, Code.WORLDS_DISAGREE),
    "another WWN by now": (device_says(wwn=ANOTHER_WWN), Code.WRONG_DEVICE),
    "too small": (volume_says(size=2048), Code.WRONG_DEVICE),
    "no disk": (disks("/dev/vg/data"), Code.NOT_ATTACHED),
    "two disks": (disks(None, None), Code.WORLDS_DISAGREE),
    "our serial, another device": (
        disks("/dev/disk/by-id/wwn-0x1", serial="{volume}"),
        Code.WRONG_DEVICE,
    ),
    "a bus without hot-plug": (disks(None, bus="sata"), Code.BUS_UNSUPPORTED),
    "another guest's, too": (other_guest, Code.WRONG_DEVICE),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_when_in_doubt_it_is_refused(bench: Bench, guest: str, theirs: str, why: str) -> None:
    doubt, code = REFUSALS[why]
    doubt(bench, guest, theirs)
    before = worlds(bench, guest, theirs)
    options = {"override_nova": True} if code is Code.NOVA_OWNED else {}
    assert run(bench, OperationKind.ADOPT, **options) == ("refused", str(code))
    assert worlds(bench, guest, theirs) == before
    assert changes(bench) == set()
    assert bench.journal.live_attachments() == ()
    assert bench.auditor.audit() == ()


def test_a_disk_that_comes_with_the_next_start_only(bench: Bench, guest: str, theirs: str) -> None:
    bench.guests.drop_disk(guest, "vdc", live=True)
    assert adopt(bench) == ("refused", "not-attached")


def test_the_xmls_must_agree(bench: Bench, guest: str, theirs: str) -> None:
    bench.guests.drop_disk(guest, "vdc", config=True)
    twin = GuestDisk(target="vdd", bus="virtio", source=bench.host.devices[0].path)
    bench.guests.put_disk(guest, twin, live=False)
    assert adopt(bench) == ("refused", "worlds-disagree")


def test_a_volume_that_attachd_attached_to_another_guest(bench: Bench, guest: str) -> None:
    bench.guests.add("other")
    bench.cinder.add_volume(name="data")
    assert bench.attach("other", "data").state is OperationState.DONE
    plug(bench, guest)
    assert adopt(bench) == ("refused", "volume-not-available")


def test_a_lun_that_another_record_stands_on(bench: Bench, guest: str, theirs: str) -> None:
    assert adopt(bench) == ("done", None)
    (record,) = bench.journal.live_attachments()
    bench.journal.reserve(replace(record, volume_id="another", attachment_id="another"))
    assert adopt(bench) == ("refused", "wrong-device")


def test_the_disks_name_belongs_to_another_record(bench: Bench, guest: str, theirs: str) -> None:
    """Of a disk that somebody took out behind attachd's back."""
    bench.cinder.add_volume(name="other")
    assert bench.attach("web", "other", device="vdq").state is OperationState.DONE
    bench.guests.drop_disk(guest, "vdq", live=True, config=True)
    bench.guests.drop_disk(guest, "vdc", live=True, config=True)
    own = next(
        d for d in bench.host.devices if d.path != bench.journal.live_attachments()[0].host_path
    )
    bench.guests.put_disk(guest, GuestDisk(target="vdq", bus="virtio", source=own.path))
    assert adopt(bench) == ("refused", "device-name-taken")


@pytest.mark.parametrize("world", ["cinder", "host", "guests"])
def test_a_world_that_cannot_be_asked(bench: Bench, guest: str, theirs: str, world: str) -> None:
    away = {
        "cinder": lambda: bench.cinder.fail_next("get_attachment"),
        "host": lambda: bench.host.fail_next("wwns"),
        "guests": lambda: bench.host.before_next("wwns", bench.guests.go_away),
    }
    away[world]()
    state, code = adopt(bench)
    assert state == "refused"
    assert code is not None
    assert code.endswith("-unavailable")
    assert bench.journal.live_attachments() == ()
    bench.guests.come_back()
    assert adopt(bench) == ("done", None)


def test_it_holds_its_guest_and_its_volume(bench: Bench, guest: str, theirs: str) -> None:
    met: list[tuple[str, str | None]] = []
    bench.cinder.before_next("list_attachments", lambda: met.append(adopt(bench)))
    assert adopt(bench) == ("done", None)
    assert met == [("refused", "volume-busy")]


# --- around its guest's start -----------------------------------------------------------------


def test_its_device_comes_back_before_its_guest_starts(
    bench: Bench, guest: str, theirs: str
) -> None:
    assert adopt(bench) == ("done", None)
    bench.guests.destroy(guest)
    for view in bench.engine.disconnect(guest):
        assert bench.rested(view.operation_id).state is OperationState.DONE
    assert bench.host.devices == ()
    (begun,) = bench.engine.reconnect(guest)
    assert bench.rested(begun.operation_id).state is OperationState.DONE
    bench.guests.start_guest(guest)
    assert bench.auditor.audit() == ()


def test_a_kernel_name_that_is_another_device_by_now_is_not_left_for_its_guest(
    bench: Bench, guest: str
) -> None:
    volume = bench.cinder.add_volume(name="data")
    connect(bench, volume)
    (kernel_path,) = bench.host.paths(connection_of(bench, volume))
    plug(bench, guest, source=kernel_path)
    assert adopt(bench) == ("done", None)
    bench.guests.destroy(guest)
    bench.host.reboot()
    other = bench.cinder.add_volume(name="other")
    connect(bench, other)
    assert bench.host.paths(connection_of(bench, other)) == (kernel_path,)
    (begun,) = bench.engine.reconnect(guest)
    view = bench.rested(begun.operation_id)
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.UNDONE, Code.WRONG_DEVICE)


def test_an_adopted_disk_grows_though_it_has_no_serial(
    bench: Bench, guest: str, theirs: str
) -> None:
    adopt(bench)
    view = bench.rested(bench.submit(OperationKind.EXTEND, "web", "data", size_gib=2))
    assert view.state is OperationState.DONE, view.problem
    assert bench.guests.size_of(guest, theirs) is not None, "QEMU was told"


def test_another_hosts_attachment_is_not_adopted(bench: Bench, guest: str, theirs: str) -> None:
    """The guest was migrated, perhaps: a session and a definition stayed here."""
    (row,) = bench.cinder.rules.attachments_of(theirs)
    row.connector = {"host": "another-host"}
    assert adopt(bench) == ("refused", "worlds-disagree")


# --- release ----------------------------------------------------------------------------------


def test_what_is_released_stays_as_it_is_and_is_adopted_back(
    bench: Bench, guest: str, volume: str
) -> None:
    before = worlds(bench, guest, volume)
    calls = len(bench.host.calls)
    assert release(bench) == ("done", None)
    assert worlds(bench, guest, volume) == before
    assert len(bench.host.calls) == calls
    assert bench.journal.live_attachments() == ()
    assert bench.auditor.audit() == ()
    assert bench.engine.reconnect(guest) == bench.engine.disconnect(guest) == ()
    (view,) = (v for v in bench.engine.operations(open_only=False) if v.kind == "release")
    assert view.attachment is not None
    assert view.attachment.state is AttachmentState.RELEASED
    assert release(bench) == ("refused", "not-attached")
    assert run(bench, OperationKind.DETACH) == ("refused", "not-attached")
    assert run(bench, OperationKind.ATTACH) == ("refused", "already-attached")

    assert adopt(bench) == ("done", None)
    bench.assert_attached(guest, volume)
    (record,) = bench.journal.live_attachments()
    assert (record.adopted, record.serial) == (True, volume)
    assert bench.engine.attachment(record.attachment_id or "") == record
    assert bench.detach("web", "data").state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


def test_what_was_released_is_left_alone_whatever_becomes_of_it(
    bench: Bench, guest: str, volume: str
) -> None:
    """Also where the same volume was attached and detached before: that session isn't ours."""
    assert bench.detach("web", "data").state is OperationState.DONE
    assert bench.attach("web", "data").state is OperationState.DONE
    assert release(bench) == ("done", None)
    delete(bench, guest, volume)
    assert bench.auditor.audit() == ()
    assert run(bench, OperationKind.DISCONNECT)[1] == "not-attached"
    asked = bench.submit(OperationKind.DISCONNECT, guest, volume)
    assert bench.rested(asked).state is OperationState.REFUSED
    assert len(bench.host.devices) == 1
    bench.guests.destroy(guest)
    bench.guests.undefine(guest)
    assert bench.auditor.audit() == ()


def test_a_session_that_is_left_behind_a_later_detach_is_found_again(
    bench: Bench, guest: str, volume: str
) -> None:
    assert release(bench) == ("done", None)
    assert adopt(bench) == ("done", None)
    connection = connection_of(bench, volume)
    assert bench.detach("web", "data").state is OperationState.DONE
    bench.host.connect(volume, connection)
    (finding,) = bench.auditor.audit()
    assert finding.code == "session-left"
    plug(bench, guest, alias=f"ua-{volume}", serial=volume)
    assert {found.code for found in bench.auditor.audit()} == {"session-left", "disk-unknown"}


def test_one_that_needs_attention_is_released(bench: Bench, guest: str, volume: str) -> None:
    (record,) = bench.journal.live_attachments()
    bench.journal.reserve(replace(record, state=AttachmentState.NEEDS_ATTENTION))
    assert release(bench) == ("done", None)
    assert bench.auditor.audit() == ()


def test_release_by_ids_needs_no_world(bench: Bench, guest: str, volume: str) -> None:
    bench.cinder.stop()
    bench.host.stop()
    bench.guests.go_away()
    view = bench.rested(bench.submit(OperationKind.RELEASE, guest, volume))
    assert view.state is OperationState.DONE
    assert bench.journal.live_attachments() == ()


def test_an_open_operation_keeps_it(bench: Bench, guest: str, volume: str) -> None:
    with bench.host.held(bench.host.devices[0].path):
        view = bench.detach("web", "data")
        assert view.state is OperationState.NEEDS_ATTENTION
        assert release(bench) == ("refused", "volume-busy")
        assert adopt(bench) == ("refused", "volume-busy")
    bench.engine.resume(view.operation_id)
    assert bench.rested(view.operation_id).state is OperationState.DONE


def test_a_guest_that_may_yet_let_go_keeps_it(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.make_deaf(guest)
    assert bench.detach("web", "data").state is OperationState.UNDONE
    assert release(bench) == ("refused", "guest-busy")


def test_what_was_never_attached(bench: Bench, guest: str) -> None:
    bench.cinder.add_volume(name="data")
    assert release(bench) == ("refused", "not-attached")


# --- killed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ADOPT)
@pytest.mark.parametrize("meanwhile", ["nothing happens", "the device goes"])
def test_an_adoption_is_killed(
    bench: Bench, guest: str, theirs: str, moment: str, meanwhile: str
) -> None:
    """It leaves nothing, or the finished record; then the proofs are taken anew, or were."""
    before = worlds(bench, guest, theirs)
    bench.kill_at = moment
    operation = bench.submit(OperationKind.ADOPT, "web", "data")
    assert bench.killed.wait(PATIENCE), f"it never came to {moment}"
    remembered = bench.journal.live_attachments() != ()
    assert remembered == (moment in ADOPT[ADOPT.index("adopt.remember.do.after-effect") :])
    if meanwhile == "the device goes":
        bench.host.reboot()
        before = worlds(bench, guest, theirs)
    bench.recover()
    state = bench.engine.operation(operation).state
    done = meanwhile == "nothing happens" or remembered
    assert state in ({"done"} if done else {"refused", "undone"})
    assert [record.state for record in bench.journal.live_attachments()] == ["attached"] * done
    assert worlds(bench, guest, theirs) == before


@pytest.mark.parametrize("moment", RELEASE)
def test_a_release_is_killed(bench: Bench, guest: str, volume: str, moment: str) -> None:
    before = worlds(bench, guest, volume)
    bench.kill_at = moment
    operation = bench.submit(OperationKind.RELEASE, "web", "data")
    assert bench.killed.wait(PATIENCE), f"it never came to {moment}"
    bench.recover()
    assert bench.engine.operation(operation).state is OperationState.DONE
    assert bench.journal.live_attachments() == ()
    assert worlds(bench, guest, volume) == before
    assert bench.auditor.audit() == ()
