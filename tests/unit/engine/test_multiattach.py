"""A multiattach volume on several guests of the host, and beside somebody else's."""

from __future__ import annotations

import threading

import pytest

from attachd.engine.kill_points import all_names
from attachd.errors import AttachdError, Code
from attachd.model import AttachFlow, AttachmentState, OperationKind, OperationState
from tests.unit.bench import PATIENCE, Bench

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # the deaths that are meant
)


@pytest.fixture
def web(bench: Bench) -> str:
    return bench.guests.add("web")


@pytest.fixture
def db(bench: Bench) -> str:
    return bench.guests.add("db")


@pytest.fixture
def volume(bench: Bench) -> str:
    return bench.cinder.add_volume(name="shared", multiattach=True)


@pytest.fixture
def both(bench: Bench, web: str, db: str, volume: str) -> None:
    for guest in ("web", "db"):
        view = bench.attach(guest, "shared")
        assert view.state is OperationState.DONE, view.problem


def has_it(bench: Bench, guest_id: str, volume: str) -> bool:
    guest = bench.guests.get(guest_id)
    assert guest is not None
    return any(disk.is_of(volume) for disk in guest.disks)


def assert_web_has_it_alone(bench: Bench, web: str, db: str, volume: str) -> None:
    assert not has_it(bench, db, volume)
    bench.assert_attached(web, volume)


@pytest.mark.usefixtures("both")
def test_two_guests_share_one_device(bench: Bench, web: str, db: str, volume: str) -> None:
    assert has_it(bench, web, volume)
    assert has_it(bench, db, volume)
    assert len(bench.host.devices) == 1
    assert {a.status for a in bench.cinder.list_attachments(volume)} == {"attached"}
    assert bench.guests.plugged[web, volume].shareable
    assert bench.guests.plugged[db, volume].shareable
    assert bench.auditor.audit() == ()


@pytest.mark.usefixtures("both")
def test_only_the_last_one_disconnects(bench: Bench, web: str, db: str, volume: str) -> None:
    assert bench.detach("db", "shared").state is OperationState.DONE
    assert_web_has_it_alone(bench, web, db, volume)
    assert bench.detach("web", "shared").state is OperationState.DONE
    bench.assert_nothing_left(web, volume)


@pytest.mark.usefixtures("both")
def test_both_detach_at_once(bench: Bench, web: str, db: str, volume: str) -> None:
    ids = [bench.submit(OperationKind.DETACH, guest, "shared") for guest in ("web", "db")]
    assert [bench.rested(each).state for each in ids] == [OperationState.DONE] * 2
    bench.assert_nothing_left(web, volume)
    assert not has_it(bench, db, volume)


def test_both_attach_at_once(bench: Bench, web: str, db: str, volume: str) -> None:
    ids = [bench.submit(OperationKind.ATTACH, guest, "shared") for guest in ("web", "db")]
    assert [bench.rested(each).state for each in ids] == [OperationState.DONE] * 2
    assert bench.auditor.audit() == ()


def test_beside_an_outside_user(bench: Bench, web: str, volume: str) -> None:
    outside = bench.cinder.create_attachment(volume, instance_id="theirs", prior_attachment_ids=())
    bench.cinder.update_attachment(outside.attachment_id, {"initiator": "iqn.else"})
    bench.cinder.complete_attachment(outside.attachment_id)
    assert bench.attach("web", "shared").state is OperationState.DONE
    assert bench.auditor.audit() == ()
    assert bench.detach("web", "shared").state is OperationState.DONE
    (left,) = bench.cinder.list_attachments(volume)
    assert left.attachment_id == outside.attachment_id
    assert bench.cinder.status(volume) == "in-use"
    assert bench.host.devices == ()


@pytest.mark.parametrize("status", ["reserved", "attaching", "detaching", "error"])
def test_while_somebody_else_is_at_it_an_attach_is_refused(
    bench: Bench, web: str, volume: str, status: str
) -> None:
    bench.cinder.rules.volume(volume).status = status
    view = bench.attach("web", "shared")
    assert view.state is OperationState.REFUSED
    assert view.problem is not None
    assert view.problem.code is Code.VOLUME_NOT_AVAILABLE


def test_the_old_style_takes_none_that_is_in_use(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    bench.cinder.configure(AttachFlow.VOLUME_ACTIONS)
    assert bench.attach("web", "shared").state is OperationState.DONE
    view = bench.attach("db", "shared")
    assert view.state is OperationState.REFUSED
    assert view.problem is not None
    assert view.problem.code is Code.VOLUME_NOT_AVAILABLE


def test_one_guest_has_it_once(bench: Bench, web: str, volume: str) -> None:
    bench.attach("web", "shared")
    view = bench.attach("web", "shared")
    assert view.problem is not None
    assert view.problem.code is Code.ALREADY_ATTACHED


@pytest.mark.parametrize("verb", ["create", "update", "complete"])
def test_a_failed_second_attach_leaves_the_first_alone(
    bench: Bench, web: str, db: str, volume: str, verb: str
) -> None:
    bench.attach("web", "shared")
    bench.cinder.fail_next(verb, AttachdError(Code.CINDER_REFUSED, "No."))
    assert bench.attach("db", "shared").state is OperationState.UNDONE
    assert_web_has_it_alone(bench, web, db, volume)


POINTS = [name for name in all_names() if name.partition(".")[0] in ("attach", "detach")]


@pytest.mark.parametrize("moment", [name for name in POINTS if ".do." in name])
def test_killed_beside_another_guest(
    bench: Bench, web: str, db: str, volume: str, moment: str
) -> None:
    """The second attach, or the first detach, dies at each moment: the other keeps its disk."""
    bench.attach("web", "shared")
    attaching = moment.startswith("attach.")
    if not attaching:
        bench.attach("db", "shared")
    bench.kill_at = moment
    kind = OperationKind.ATTACH if attaching else OperationKind.DETACH
    bench.submit(kind, "db", "shared")
    assert bench.killed.wait(30)
    bench.recover()
    assert has_it(bench, web, volume)
    assert len(bench.host.devices) == 1
    assert bench.auditor.audit() == ()
    if has_it(bench, db, volume):
        assert bench.detach("db", "shared").state is OperationState.DONE
    assert_web_has_it_alone(bench, web, db, volume)


@pytest.mark.usefixtures("both")
def test_where_cinder_gave_the_others_attachment_up_that_one_goes_first(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    """Ours is the last that keeps the export: the other's device would become a stranger's."""
    (theirs,) = (r for r in bench.journal.live_attachments() if r.guest_id == db)
    assert theirs.attachment_id is not None
    bench.cinder.rules.delete(theirs.attachment_id, by_service=True)
    view = bench.detach("web", "shared")
    assert view.state is OperationState.REFUSED
    assert view.problem is not None
    assert view.problem.code is Code.STILL_IN_USE
    assert has_it(bench, web, volume)
    assert bench.detach("db", "shared").state is OperationState.DONE
    assert bench.detach("web", "shared").state is OperationState.DONE
    bench.assert_nothing_left(web, volume)


@pytest.mark.usefixtures("both")
def test_where_cinder_gave_both_up_both_can_go(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    for record in bench.journal.live_attachments():
        bench.cinder.rules.delete(record.attachment_id or "", by_service=True)
    assert bench.detach("web", "shared").state is OperationState.DONE
    assert bench.detach("db", "shared").state is OperationState.DONE
    bench.assert_nothing_left(web, volume)


@pytest.mark.usefixtures("both")
def test_a_guests_end_takes_nothing_off_the_other(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    bench.guests.destroy(db)
    (view,) = bench.engine.disconnect(db)
    assert bench.rested(view.operation_id).state is OperationState.REFUSED
    assert len(bench.host.devices) == 1


@pytest.mark.usefixtures("both")
def test_the_fencing_of_one_leaves_the_others_device(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    (theirs,) = (r for r in bench.journal.live_attachments() if r.guest_id == db)
    bench.cinder.rules.delete(theirs.attachment_id or "", by_service=True)
    bench.guests.destroy(db)
    view = bench.rested(bench.submit(OperationKind.FENCE, db, volume))
    assert view.state is OperationState.DONE
    states = {r.guest_id: r.state for r in bench.journal.live_attachments()}
    assert states == {db: AttachmentState.NEEDS_ATTENTION, web: AttachmentState.ATTACHED}
    assert len(bench.host.devices) == 1


@pytest.mark.usefixtures("both")
def test_behind_a_dropped_disk_the_clean_up_leaves_the_other_guest_alone(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    bench.guests.drop_disk(db, "vda", live=True, config=True)
    bench.guests.drop_disk(db, "vdb", live=True, config=True)
    codes = {(f.code, f.repair) for f in bench.auditor.audit()}
    assert {str(repair) for _, repair in codes} == {"clean-up"}
    for view in bench.repairer.repair():
        assert bench.rested(view.operation_id).state is OperationState.DONE
    assert_web_has_it_alone(bench, web, db, volume)


def test_an_operation_of_another_guest_is_waited_for_only_where_the_volume_is_shared(
    bench: Bench, web: str, db: str
) -> None:
    bench.cinder.add_volume(name="single")
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(30)

    bench.cinder.before_next("create", hold)
    first = bench.submit(OperationKind.ATTACH, "web", "single")
    assert begun.wait(30)
    view = bench.rested(bench.submit(OperationKind.ATTACH, "db", "single"))
    go_on.set()
    assert view.problem is not None
    assert view.problem.code is Code.VOLUME_BUSY
    assert bench.rested(first).state is OperationState.DONE


# --- beside what attachd doesn't know, and beside what rests --------------------------------------


def refused_with(bench: Bench, kind: OperationKind, guest: str) -> Code | None:
    view = bench.rested(bench.submit(kind, guest, "shared"))
    assert view.state is OperationState.REFUSED, view.problem
    return view.problem.code if view.problem else None


def test_a_stranger_on_this_very_host_is_not_joined(bench: Bench, web: str, volume: str) -> None:
    """Whose session it is could nobody tell afterwards."""
    outside = bench.cinder.create_attachment(volume, instance_id="novas", prior_attachment_ids=())
    theirs = bench.cinder.update_attachment(outside.attachment_id, bench.host.properties)
    bench.cinder.complete_attachment(outside.attachment_id)
    assert theirs.connection is not None
    bench.host.connect(volume, theirs.connection)
    assert refused_with(bench, OperationKind.ATTACH, "web") is Code.VOLUME_NOT_AVAILABLE
    assert len(bench.cinder.list_attachments(volume)) == 1


@pytest.mark.usefixtures("both")
def test_one_of_several_is_not_released(bench: Bench, web: str, db: str, volume: str) -> None:
    assert refused_with(bench, OperationKind.RELEASE, "web") is Code.STILL_IN_USE
    assert bench.detach("db", "shared").state is OperationState.DONE
    view = bench.rested(bench.submit(OperationKind.RELEASE, "web", "shared"))
    assert view.state is OperationState.DONE
    assert refused_with(bench, OperationKind.ATTACH, "db") is Code.VOLUME_NOT_AVAILABLE
    view = bench.rested(bench.submit(OperationKind.ADOPT, "web", "shared"))
    assert view.state is OperationState.DONE, view.problem
    assert bench.detach("web", "shared").state is OperationState.DONE
    bench.assert_nothing_left(web, volume)


def test_both_styles_are_not_mixed(bench: Bench, web: str, db: str, volume: str) -> None:
    """Cinder's LVM driver can't count an old-style attachment: the new one's end shuts it out."""
    bench.cinder.configure(AttachFlow.VOLUME_ACTIONS)
    assert bench.attach("web", "shared").state is OperationState.DONE
    bench.cinder.configure(AttachFlow.ATTACHMENTS)
    assert refused_with(bench, OperationKind.ATTACH, "db") is Code.VOLUME_NOT_AVAILABLE


@pytest.fixture
def stuck(bench: Bench, both: None, db: str, volume: str) -> None:
    """The detach of one of two needs attention: its guest let go, and Cinder refuses."""
    error = AttachdError(Code.CINDER_REFUSED, "No.")
    bench.cinder.fail_next("delete", error)
    assert bench.detach("db", "shared").state is OperationState.NEEDS_ATTENTION


@pytest.mark.usefixtures("stuck")
def test_beside_one_that_is_stuck_the_other_is_watched_and_fenced(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    (ours,) = (r for r in bench.journal.live_attachments() if r.guest_id == web)
    bench.cinder.rules.delete(ours.attachment_id or "", by_service=True)
    found = {(str(f.code), f.guest_id) for f in bench.auditor.audit()}
    assert ("attachment-gone", web) in found
    view = bench.rested(bench.submit(OperationKind.FENCE, web, volume))
    assert view.state is OperationState.DONE, view.problem


@pytest.mark.usefixtures("stuck")
def test_beside_one_that_is_stuck_the_other_can_go(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    """Cinder lets nobody begin while the volume is detaching; an operator resets it."""
    bench.cinder.rules.volume(volume).status = "in-use"
    assert bench.detach("web", "shared").state is OperationState.DONE
    (open_one,) = bench.engine.operations(open_only=True)
    bench.engine.resume(open_one.operation_id)
    bench.until_closed()
    bench.assert_nothing_left(web, volume)
    assert not has_it(bench, db, volume)


@pytest.mark.usefixtures("both")
def test_the_last_of_two_fenced_ones_leaves_no_device(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    for record in bench.journal.live_attachments():
        bench.cinder.rules.delete(record.attachment_id or "", by_service=True)
    for guest in (web, db):
        bench.guests.destroy(guest)
        view = bench.rested(bench.submit(OperationKind.FENCE, guest, volume))
        assert view.state is OperationState.DONE, view.problem
    assert bench.host.devices == ()


def test_a_wrong_device_that_the_second_attach_brought_goes_with_it(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    bench.attach("web", "shared")
    bench.guests.destroy(web)
    (view,) = bench.engine.disconnect(web)
    assert bench.rested(view.operation_id).state is OperationState.DONE
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.host.export(record.connection.targets[0], wwn="3600140500000000000000000000000ff")
    view = bench.attach("db", "shared")
    assert view.state is OperationState.UNDONE, view.problem
    assert view.problem is not None
    assert view.problem.code is Code.WRONG_DEVICE
    assert bench.host.devices == ()
    assert len(bench.cinder.list_attachments(volume)) == 1


@pytest.mark.usefixtures("stuck")
def test_two_that_are_left_open_do_not_wait_for_each_other_for_ever(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    """One needs attention; the other's daemon is killed in it."""
    bench.cinder.rules.volume(volume).status = "in-use"
    bench.kill_at = "detach.disconnect.do.after-intent"
    bench.submit(OperationKind.DETACH, "web", "shared")
    assert bench.killed.wait(30)
    assert bench.engine.stop(PATIENCE)
    bench.journal.close()
    bench.start()
    for view in bench.engine.operations(open_only=True):
        bench.engine.resume(view.operation_id)
    bench.until_closed()
    bench.assert_nothing_left(web, volume)
    assert not has_it(bench, db, volume)


# --- an undo beside another guest -----------------------------------------------------------------


def gone_in_cinder(bench: Bench, guest_id: str) -> None:
    (record,) = (r for r in bench.journal.live_attachments() if r.guest_id == guest_id)
    bench.cinder.rules.delete(record.attachment_id or "", by_service=True)


def resumed(bench: Bench) -> None:
    (open_one,) = bench.engine.operations(open_only=True)
    bench.engine.resume(open_one.operation_id)
    bench.until_closed()


def test_beside_one_that_cinder_gave_up_nothing_is_attached(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    bench.attach("web", "shared")
    gone_in_cinder(bench, web)
    bench.cinder.rules.volume(volume).status = "available"
    assert refused_with(bench, OperationKind.ATTACH, "db") is Code.STILL_IN_USE
    assert bench.cinder.list_attachments(volume) == ()


def test_an_undo_never_takes_the_export_away_under_another_guest(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    """While the second attach was under way Cinder gave the first one's attachment up."""
    bench.attach("web", "shared")
    bench.cinder.before_next("complete", lambda: gone_in_cinder(bench, web))
    bench.cinder.fail_next("complete", AttachdError(Code.CINDER_REFUSED, "No."))
    view = bench.attach("db", "shared")
    assert view.state is OperationState.NEEDS_ATTENTION
    assert len(bench.cinder.list_attachments(volume)) == 1
    assert has_it(bench, web, volume)
    assert bench.detach("web", "shared").state is OperationState.DONE
    resumed(bench)
    bench.assert_nothing_left(db, volume)
    assert not has_it(bench, web, volume)


def test_an_undo_that_is_stuck_takes_the_device_once_the_other_guest_has_gone(
    bench: Bench, web: str, db: str, volume: str
) -> None:
    bench.attach("web", "shared")
    bench.cinder.fail_next("complete", AttachdError(Code.CINDER_REFUSED, "No."))
    bench.cinder.fail_next("delete", AttachdError(Code.CINDER_REFUSED, "No."))
    assert bench.attach("db", "shared").state is OperationState.NEEDS_ATTENTION
    bench.cinder.rules.volume(volume).status = "in-use"
    bench.cinder.rules.volume(volume).attach_status = "attached"
    assert bench.detach("web", "shared").state is OperationState.DONE
    assert len(bench.host.devices) == 1
    resumed(bench)
    bench.assert_nothing_left(db, volume)
    assert not has_it(bench, web, volume)
