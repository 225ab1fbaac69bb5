"""A guest's devices come back before it starts; libvirt isn't asked, and nothing is waited for."""

from __future__ import annotations

import pytest

from attachd.engine.kill_points import all_names
from attachd.errors import Code, Unreachable, World
from attachd.model import AttachmentState, OperationState, Target
from tests.unit.bench import PATIENCE, Bench, in_both_styles

pytestmark = in_both_styles

MOMENTS = [name for name in all_names() if name.startswith("reconnect.")]


def reconnect(bench: Bench, guest: str) -> list[tuple[str, str | None]]:
    """(state, code) of each operation, at its rest."""
    views = [bench.rested(view.operation_id) for view in bench.engine.reconnect(guest)]
    return [(str(view.state), str(view.problem.code) if view.problem else None) for view in views]


def target_of(bench: Bench) -> Target:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    return record.connection.targets[0]


def test_after_a_reboot_the_device_is_there_again(bench: Bench, guest: str, volume: str) -> None:
    bench.host.reboot()
    bench.guests.go_away()  # libvirt starts later, and holds the guest while its hook runs
    assert reconnect(bench, guest) == [("done", None)]
    bench.guests.come_back()
    bench.assert_attached(guest, volume)


def test_every_volume_of_that_guest_and_of_no_other(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.add("other")
    for name in ("second", "third"):
        bench.cinder.add_volume(name=name)
    bench.attach("web", "second")
    bench.attach("other", "third")
    bench.host.reboot()
    assert reconnect(bench, "web") == [("done", None)] * 2
    assert len(bench.host.devices) == 2
    assert reconnect(bench, "nobody") == []


def test_what_is_there_stays_as_it_is_and_needs_no_cinder(
    bench: Bench, guest: str, volume: str
) -> None:
    before = bench.host.devices
    bench.cinder.stop()
    assert reconnect(bench, guest) == [("done", None)]
    assert bench.host.devices == before


def test_another_volume_behind_the_lun_is_not_left_for_the_guest(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.host.reboot()
    bench.host.export(target_of(bench), wwn="3600140500000000000000000000000ff")
    assert reconnect(bench, guest) == [("undone", "wrong-device")]
    assert bench.host.devices == ()
    assert bench.host.logins == frozenset()


def test_another_volumes_device_that_is_there_is_left_alone(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.host.export(target_of(bench), wwn="3600140500000000000000000000000ff")
    before = bench.host.devices
    assert reconnect(bench, guest) == [("refused", "wrong-device")]
    assert bench.host.devices == before


@pytest.mark.parametrize("gone", [False, True], ids=["Cinder is away", "it has no attachment"])
def test_without_cinder_nothing_is_connected(
    bench: Bench, guest: str, volume: str, gone: bool
) -> None:
    bench.host.reboot()
    if gone:
        (attachment,) = bench.cinder.list_attachments(volume)
        bench.cinder.rules.delete(attachment.attachment_id, by_service=True)
    else:
        bench.cinder.stop()
    ((state, code),) = reconnect(bench, guest)
    expected = ("undone", "worlds-disagree") if gone else ("refused", "cinder-unavailable")
    assert (state, code) == expected
    assert bench.host.devices == ()


def test_a_detach_that_waits_for_cinder_keeps_no_guest_from_starting(
    bench: Bench, guest: str, volume: str
) -> None:
    """The device was proven gone: nothing is there that the guest could start with."""
    bench.at["detach.delete.do.after-intent"] = bench.cinder.stop
    view = bench.detach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    (record,) = bench.journal.live_attachments()
    assert record.state is AttachmentState.NEEDS_ATTENTION
    assert reconnect(bench, guest) == []

    assert record.connection is not None
    bench.host.connect(volume, record.connection)  # open-iscsi did, at boot
    assert reconnect(bench, guest) != []
    bench.host.fail_next(
        "present", Unreachable(Code.ISCSI_UNAVAILABLE, "no", world=World.HOST, touched=False)
    )
    assert reconnect(bench, guest) != []


def test_a_volume_that_was_never_exported_keeps_no_guest_from_starting(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.cinder.add_volume(name="second")
    bench.cinder.before_next("create", bench.cinder.stop)
    bench.attach("web", "second")
    (half,) = [r for r in bench.journal.live_attachments() if r.volume_id != volume]
    assert (half.state, half.connection) == (AttachmentState.NEEDS_ATTENTION, None)
    assert reconnect(bench, guest) == [("done", None)]  # of the other one


def test_it_does_not_wait_for_an_attach_to_the_same_guest(
    bench: Bench, guest: str, volume: str
) -> None:
    """That one may wait for libvirt, which waits for its hook, which waits for this one."""
    bench.cinder.add_volume(name="second")
    ends: list[list[tuple[str, str | None]]] = []
    bench.cinder.before_next("complete", lambda: ends.append(reconnect(bench, guest)))
    assert bench.attach("web", "second").state is OperationState.DONE
    assert ends == [[("done", None)]]


def test_it_needs_none_of_the_workers_places(bench: Bench, guest: str, volume: str) -> None:
    taken = [bench.engine._places.acquire(timeout=PATIENCE) for _ in range(bench.workers)]
    assert all(taken)
    assert reconnect(bench, guest) == [("done", None)]
    for _ in taken:
        bench.engine._places.release()


def test_a_volume_that_is_being_detached_is_refused(bench: Bench, guest: str, volume: str) -> None:
    ends: list[list[tuple[str, str | None]]] = []

    def meanwhile() -> None:
        (record,) = bench.journal.live_attachments()
        assert record.state == "detaching"
        ends.append(reconnect(bench, guest))

    bench.cinder.before_next("delete", meanwhile)
    assert bench.detach("web", "data").state is OperationState.DONE
    assert ends == [[]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_reconnect_is_killed(bench: Bench, guest: str, volume: str, moment: str) -> None:
    bench.host.reboot()
    if ".undo." in moment:
        bench.host.export(target_of(bench), wwn="3600140500000000000000000000000ff")
    bench.kill_at = moment
    (view,) = bench.engine.reconnect(guest)
    assert bench.killed.wait(PATIENCE), f"it never came to {moment}"
    bench.recover()
    end = bench.engine.operation(view.operation_id)
    if ".undo." in moment:
        assert end.problem is not None
        assert (end.state, end.problem.code) == ("undone", Code.WRONG_DEVICE)
        # Nobody knows any more who brought another volume's device: it isn't ours to take away.
        assert len(bench.host.devices) == ("intent" in moment)
    else:
        assert end.state == "done"
        bench.assert_attached(guest, volume)
