"""What attachd does by itself: disconnect behind a guest's end, fence, restore."""

from __future__ import annotations

import threading
import time

import pytest

from attachd.engine.kill_points import all_names
from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.model import AttachmentState, OperationKind, Target
from tests.unit.bench import PATIENCE, RESUME_SECONDS, Bench, in_both_styles

ANOTHER = "3600140500000000000000000000000ff"

pytestmark = [
    in_both_styles,
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # the deaths that are meant
    ),
]


def ends(bench: Bench, verb: str, guest: str) -> list[tuple[str, str | None]]:
    """(state, code) of each operation that a hook's verb begins, at its rest."""
    views = [bench.rested(view.operation_id) for view in getattr(bench.engine, verb)(guest)]
    return [(str(view.state), str(view.problem.code) if view.problem else None) for view in views]


def run(bench: Bench, kind: OperationKind, guest: str, volume: str) -> tuple[str, str | None]:
    view = bench.rested(bench.submit(kind, guest, volume))
    return str(view.state), str(view.problem.code) if view.problem else None


def target_of(bench: Bench) -> Target:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    return record.connection.targets[0]


def give_up(bench: Bench, volume: str) -> None:
    """Somebody deletes the attachment in Cinder."""
    (attachment,) = bench.cinder.list_attachments(volume)
    bench.cinder.rules.delete(attachment.attachment_id, by_service=True)


def state(bench: Bench) -> AttachmentState:
    (record,) = bench.journal.live_attachments()
    return record.state


# --- disconnect ------------------------------------------------------------------------------


def test_a_guest_that_ended_leaves_no_session_and_gets_it_back(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.destroy(guest)
    bench.guests.go_away()  # libvirt's hook may wait for it
    assert ends(bench, "disconnect", guest) == [("done", None)]
    assert bench.host.devices == ()
    assert bench.host.logins == frozenset()
    bench.guests.come_back()
    assert bench.auditor.audit() == ()
    assert ends(bench, "reconnect", guest) == [("done", None)]
    bench.guests.start_guest(guest)
    bench.assert_attached(guest, volume)


def test_what_somebody_holds_stays(bench: Bench, guest: str, volume: str) -> None:
    with bench.host.held(bench.host.devices[0].path):
        assert ends(bench, "disconnect", guest) == [("refused", "still-in-use")]
    bench.assert_attached(guest, volume)


def test_another_volumes_device_is_not_touched(bench: Bench, guest: str, volume: str) -> None:
    bench.host.export(target_of(bench), wwn=ANOTHER)
    before = bench.host.devices
    assert ends(bench, "disconnect", guest) == [("refused", "wrong-device")]
    assert bench.host.devices == before


def test_a_guest_that_starts_again_before_its_disconnect_keeps_its_device(
    bench: Bench, guest: str, volume: str
) -> None:
    """The start's reconnect was asked for behind it: QEMU may be about to open the device."""
    asked: list[str] = []
    original = bench.journal.superseded

    def meanwhile(operation_id: str, volume_id: str) -> bool:
        asked.extend(view.operation_id for view in bench.engine.reconnect(guest))
        return original(operation_id, volume_id)

    bench.journal.superseded = meanwhile  # type: ignore[method-assign]
    assert ends(bench, "disconnect", guest) == [("refused", "volume-busy")]
    assert bench.rested(asked[0]).state == "done"
    assert len(bench.host.devices) == 1


@pytest.mark.parametrize("kind", [OperationKind.DETACH, OperationKind.RECONNECT])
def test_what_is_asked_for_while_it_disconnects_waits_for_its_end(
    bench: Bench, guest: str, volume: str, kind: OperationKind
) -> None:
    bench.guests.destroy(guest)
    begun, go_on = threading.Event(), threading.Event()
    original = bench.host.disconnect

    def slow(*args: object, **options: object) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        original(*args, **options)  # type: ignore[arg-type]

    bench.host.disconnect = slow  # type: ignore[method-assign]
    (first,) = bench.engine.disconnect(guest)
    assert begun.wait(PATIENCE)
    second = bench.submit(kind, guest, volume)
    time.sleep(0.3)
    assert not bench.engine.operation(second).state.resting
    go_on.set()
    assert bench.rested(first.operation_id).state == "done"
    assert bench.rested(second).state == "done"
    if kind is OperationKind.DETACH:
        bench.assert_nothing_left(guest, volume)
    else:
        assert len(bench.host.devices) == 1


def test_a_session_that_a_detach_left_is_taken_away(bench: Bench, guest: str, volume: str) -> None:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.detach("web", "data")
    bench.host.connect(volume, record.connection)
    assert run(bench, OperationKind.DISCONNECT, guest, volume) == ("done", None)
    bench.assert_nothing_left(guest, volume)


def test_a_session_of_a_volume_that_somebody_else_has_stays(
    bench: Bench, guest: str, volume: str
) -> None:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.detach("web", "data")
    bench.host.connect(volume, record.connection)
    bench.cinder.rules.create(volume, "novas-server")
    assert run(bench, OperationKind.DISCONNECT, guest, volume) == (
        "refused",
        "volume-not-available",
    )
    assert len(bench.host.devices) == 1


# --- fence -----------------------------------------------------------------------------------


def test_a_fenced_device_is_taken_off_and_never_comes_back(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.destroy(guest)
    give_up(bench, volume)
    assert run(bench, OperationKind.FENCE, guest, volume) == ("done", None)
    assert state(bench) == "needs-attention"
    assert bench.host.devices == ()
    bench.host.connect(volume, bench.journal.live_attachments()[0].connection)  # type: ignore[arg-type]
    assert ends(bench, "reconnect", guest) == [("done", None)]  # a disconnect: it is fenced
    assert bench.host.devices == ()
    assert bench.detach(guest, volume).state == "done"
    assert bench.auditor.audit() == ()


def test_a_running_guest_keeps_its_device_until_someone_detaches_it(
    bench: Bench, guest: str, volume: str
) -> None:
    give_up(bench, volume)
    with bench.host.held(bench.host.devices[0].path):
        assert run(bench, OperationKind.FENCE, guest, volume) == ("done", None)
    assert state(bench) == "needs-attention"
    assert len(bench.host.devices) == 1


def test_another_volumes_device_is_fenced_and_not_touched(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.host.export(target_of(bench), wwn=ANOTHER)
    before = bench.host.devices
    assert run(bench, OperationKind.FENCE, guest, volume) == ("done", None)
    assert state(bench) == "needs-attention"
    assert bench.host.devices == before
    assert ends(bench, "reconnect", guest) == [("refused", "wrong-device")]


def test_a_fence_outlives_a_detach_that_is_rolled_back(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.host.export(target_of(bench), wwn=ANOTHER)
    assert run(bench, OperationKind.FENCE, guest, volume) == ("done", None)
    bench.guests.make_deaf(guest)
    assert bench.detach(guest, volume).state == "undone"
    assert state(bench) == "needs-attention"


def test_what_is_well_is_not_fenced(bench: Bench, guest: str, volume: str) -> None:
    assert run(bench, OperationKind.FENCE, guest, volume) == ("refused", "worlds-agree")
    bench.cinder.stop()
    assert run(bench, OperationKind.FENCE, guest, volume) == ("refused", "cinder-unavailable")
    bench.cinder.start()
    bench.assert_attached(guest, volume)


def test_a_start_with_a_device_that_cinder_gave_up(bench: Bench, guest: str, volume: str) -> None:
    """Before the watch has seen it: open-iscsi's own session is there, and must not be used."""
    bench.guests.destroy(guest)
    give_up(bench, volume)
    assert ends(bench, "reconnect", guest) == [("undone", "worlds-disagree")]
    assert state(bench) == "needs-attention"
    assert bench.host.devices == ()
    assert bench.host.logins == frozenset()


# --- restore ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["available", "reserved", "attaching"])
def test_cinder_is_told_again_that_it_is_attached(
    bench: Bench, guest: str, volume: str, status: str
) -> None:
    bench.cinder.rules.volume(volume).status = status
    assert run(bench, OperationKind.RESTORE, guest, volume) == ("done", None)
    bench.assert_attached(guest, volume)


@pytest.mark.parametrize(
    "change", ["deleted", "error", "another device", "no disk", "somebody else has it, too"]
)
def test_it_is_not_where_another_world_disagrees(
    bench: Bench, guest: str, volume: str, change: str
) -> None:
    bench.cinder.rules.volume(volume).status = "available"
    if change == "deleted":
        give_up(bench, volume)
    elif change == "error":
        bench.cinder.rules.volume(volume).status = "error"
    elif change == "another device":
        bench.host.export(target_of(bench), wwn=ANOTHER)
    elif change == "no disk":
        bench.guests.drop_disk(guest, "vda", live=True)
    else:
        bench.cinder.rules.create(volume, "novas-server")
    before = bench.cinder.status(volume)
    assert run(bench, OperationKind.RESTORE, guest, volume) == ("refused", "worlds-disagree")
    assert bench.cinder.status(volume) == before


# --- killed at any moment --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OperationKind.DISCONNECT, OperationKind.FENCE])
def test_it_is_killed(bench: Bench, guest: str, volume: str, kind: OperationKind) -> None:
    bench.guests.destroy(guest)
    for moment in (name for name in all_names() if name.startswith(f"{kind}.")):
        if kind is OperationKind.FENCE and bench.cinder.list_attachments(volume):
            give_up(bench, volume)
        bench.kill_at, bench.killed = moment, threading.Event()
        operation = bench.submit(kind, guest, volume)
        assert bench.killed.wait(PATIENCE), f"it never came to {moment}"
        bench.recover()
        assert bench.engine.operation(operation).state == "done", moment
        assert bench.host.devices == (), moment
        (record,) = bench.journal.live_attachments()
        assert record.state == ("needs-attention" if kind is OperationKind.FENCE else "attached")
        bench.journal.reserve(type(record)(**{**vars(record), "state": AttachmentState.ATTACHED}))
        assert record.connection is not None
        bench.host.connect(volume, record.connection)


@pytest.mark.parametrize("moment", [n for n in all_names() if n.startswith("restore.")])
def test_a_restore_is_killed(bench: Bench, guest: str, volume: str, moment: str) -> None:
    bench.cinder.rules.volume(volume).status = "available"
    bench.kill_at = moment
    operation = bench.submit(OperationKind.RESTORE, guest, volume)
    assert bench.killed.wait(PATIENCE)
    bench.recover()
    assert bench.engine.operation(operation).state == "done"
    bench.assert_attached(guest, volume)


# --- what goes wrong with it says nothing against the attachment ------------------------------


def die_in(bench: Bench, moment: str, kind: OperationKind, guest: str, volume: str) -> str:
    """The operation's id; the daemon is down then."""
    bench.kill_at, bench.killed = moment, threading.Event()
    operation = bench.submit(kind, guest, volume)
    assert bench.killed.wait(PATIENCE)
    assert bench.engine.stop(PATIENCE)
    bench.journal.close()
    return operation


def test_a_disconnect_that_fails_leaves_the_attachment_as_it_is(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.destroy(guest)
    slow = Unreachable(Code.DEADLINE_EXCEEDED, "Slow.", world=World.HOST, touched=True)
    bench.host.fail_next("disconnect", slow, after_effect=True)
    assert ends(bench, "disconnect", guest) == [("undone", "deadline-exceeded")]
    assert state(bench) == "attached"
    assert ends(bench, "reconnect", guest) == [("done", None)]
    assert len(bench.host.devices) == 1


def test_a_session_that_could_not_be_taken_away_leaves_the_volume_free(
    bench: Bench, guest: str, volume: str
) -> None:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.detach("web", "data")
    bench.cinder.add_volume(name="other")
    bench.attach("web", "other")  # has the device's name now
    bench.host.connect(volume, record.connection)
    bench.host.fail_next("disconnect", AttachdError(Code.DISCONNECT_FAILED, "No."))
    ended = run(bench, OperationKind.DISCONNECT, guest, volume)
    assert ended == ("undone", "disconnect-failed")
    assert [r.volume_name for r in bench.journal.live_attachments()] == ["other"]
    assert bench.engine.operations(open_only=True) == ()


def test_a_disconnect_was_killed_and_its_guest_runs_since(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.destroy(guest)
    moment = "disconnect.disconnect.do.after-intent"
    operation = die_in(bench, moment, OperationKind.DISCONNECT, guest, volume)
    bench.guests.start_guest(guest)
    with bench.host.held(bench.host.devices[0].path):
        bench.start()
        assert not bench.rested(operation).state.open
        bench.assert_attached(guest, volume)


def test_a_disconnect_was_killed_and_given_to_somebody_else_since(
    bench: Bench, guest: str, volume: str
) -> None:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.detach("web", "data")
    bench.host.connect(volume, record.connection)
    moment = "disconnect.disconnect.do.before-intent"
    operation = die_in(bench, moment, OperationKind.DISCONNECT, guest, volume)
    bench.cinder.rules.create(volume, "novas-server")
    bench.start()
    assert bench.rested(operation).state == "refused"
    assert len(bench.host.devices) == 1


def test_the_backends_guard_is_not_waited_for(bench: Bench, guest: str) -> None:
    """Who has it may wait for libvirt, which waits for its hook, which waits for this."""
    bench.cinder.add_volume(name="data", shared_targets=True)
    bench.attach("web", "data")
    (record,) = bench.journal.live_attachments()
    with bench.host.guard(
        shared_targets=record.shared_targets, service_uuid=record.service_uuid
    ) as _:
        assert ends(bench, "disconnect", guest) == [("refused", "deadline-exceeded")]
    assert len(bench.host.devices) == 1


def test_a_start_behind_its_guard_is_seen(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.destroy(guest)
    asked: list[str] = []
    bench.host.before_next(
        "guard", lambda: asked.extend(v.operation_id for v in bench.engine.reconnect(guest))
    )
    assert ends(bench, "disconnect", guest) == [("refused", "volume-busy")]
    assert bench.rested(asked[0]).state == "done"
    assert len(bench.host.devices) == 1


@pytest.mark.parametrize("moment", ["connect.do.after-intent", "identify.do.after-intent"])
def test_a_reconnect_was_killed_while_the_device_was_there_and_cinder_away(
    bench: Bench, guest: str, volume: str, moment: str
) -> None:
    bench.guests.destroy(guest)
    bench.cinder.stop()
    operation = die_in(bench, f"reconnect.{moment}", OperationKind.RECONNECT, guest, volume)
    bench.start()
    assert bench.rested(operation).state == "done"
    assert len(bench.host.devices) == 1


def test_a_device_that_cinder_gave_up_and_somebody_holds_can_be_detached(
    bench: Bench, guest: str, volume: str
) -> None:
    give_up(bench, volume)
    with bench.host.held(bench.host.devices[0].path):
        assert ends(bench, "reconnect", guest) == [("undone", "worlds-disagree")]
        assert state(bench) == "needs-attention"
    assert bench.detach(guest, volume).state == "done"
    assert bench.auditor.audit() == ()


def test_a_restore_that_can_not_be_ended_frees_the_volume(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.cinder.rules.volume(volume).status = "available"
    moment = "restore.complete.do.after-intent"
    operation = die_in(bench, moment, OperationKind.RESTORE, guest, volume)
    give_up(bench, volume)
    bench.start()
    assert not bench.rested(operation).state.open
    assert bench.detach(guest, volume).state == "done"


def test_a_restore_looks_again_when_it_is_resumed(bench: Bench, guest: str, volume: str) -> None:
    bench.cinder.rules.volume(volume).status = "available"
    moment = "restore.complete.do.before-intent"
    operation = die_in(bench, moment, OperationKind.RESTORE, guest, volume)
    bench.cinder.rules.create(volume, "novas-server")
    bench.start()
    assert bench.rested(operation).state == "refused"
    assert bench.cinder.status(volume) == "reserved"


def test_a_volume_that_is_gone_is_fenced_once(bench: Bench, guest: str, volume: str) -> None:
    bench.cinder.rules.volumes.pop(volume)
    for _ in range(3):
        bench.repairer.fence(bench.auditor.audit())
        for view in bench.engine.operations(open_only=True):
            bench.rested(view.operation_id)
    kinds = [str(view.kind) for view in bench.engine.operations(open_only=False)]
    assert kinds == ["fence", "attach"]
    assert state(bench) == "needs-attention"


# --- a transient guest's end -------------------------------------------------------------------


@pytest.fixture
def passing(bench: Bench) -> tuple[str, str]:
    """A transient guest with a volume."""
    ids = bench.guests.add("passing", persistent=False), bench.cinder.add_volume(name="its")
    assert bench.attach("passing", "its").state == "done"
    return ids


def cleaned_up(bench: Bench, guest: str, volume: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while bench.journal.live_attachments():
        assert time.monotonic() < deadline, bench.engine.operations(open_only=False)[0]
        time.sleep(0.02)
    bench.until_closed()
    bench.assert_nothing_left(guest, volume)
    kinds = [view.kind for view in bench.engine.operations(open_only=False)]
    assert kinds[0] == OperationKind.CLEAN_UP


def test_behind_a_transient_guests_end_its_volume_is_taken_off(
    bench: Bench, passing: tuple[str, str]
) -> None:
    bench.guests.destroy(passing[0])
    cleaned_up(bench, *passing)


def test_a_transient_guest_that_ends_beside_a_dead_daemon_is_noticed_at_its_start(
    bench: Bench, passing: tuple[str, str]
) -> None:
    bench.stop()
    bench.guests.destroy(passing[0])
    bench.start()
    cleaned_up(bench, *passing)


def test_a_transient_guest_that_cannot_be_looked_at_keeps_its_volume(
    bench: Bench, passing: tuple[str, str]
) -> None:
    bench.guests.go_away()
    bench.guests.destroy(passing[0])
    time.sleep(3 * RESUME_SECONDS)
    assert state(bench) is AttachmentState.ATTACHED
    bench.guests.come_back()
    cleaned_up(bench, *passing)


def test_a_persistent_guests_end_takes_nothing_off(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.destroy(guest)
    time.sleep(3 * RESUME_SECONDS)
    assert state(bench) is AttachmentState.ATTACHED
