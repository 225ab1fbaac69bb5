"""Detach against worlds that keep their rules: forward once the guest let go, else back."""

from __future__ import annotations

import pytest

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.model import OperationKind, OperationState
from tests.unit.bench import PATIENCE, Bench, in_both_styles
from tests.unit.engine.test_attach import wait_until_closed

pytestmark = in_both_styles


@pytest.fixture
def volume(bench: Bench) -> str:
    return bench.cinder.add_volume(name="data", size=1)


@pytest.fixture
def guest(bench: Bench, volume: str) -> str:
    guest = bench.guests.add("web")
    assert bench.attach("web", "data").state is OperationState.DONE
    return guest


def test_detach(bench: Bench, guest: str, volume: str) -> None:
    view = bench.detach("web", "data")
    assert view.state is OperationState.DONE, view.problem
    names = [step.name for step in view.steps]
    assert names == ["precheck", "begin", "unplug", "disconnect", "prove", "delete", "remember"]
    bench.assert_nothing_left(guest, volume)


def test_a_detach_of_what_is_not_attached(bench: Bench, guest: str) -> None:
    bench.cinder.add_volume(name="other")
    view = bench.detach("web", "other")
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.REFUSED, Code.NOT_ATTACHED)


def test_a_guest_that_is_gone_can_still_be_detached_from(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.undefine(guest)
    bench.guests.destroy(guest)
    assert bench.detach("web", "data").state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


def test_a_saved_guest_keeps_its_disk_until_it_goes_on(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.save(guest)
    view = bench.detach("web", "data")
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.REFUSED, Code.GUEST_SAVED)
    assert bench.cinder.status(volume) == "in-use"

    bench.guests.start_guest(guest)
    assert bench.detach("web", "data").state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


def test_a_guest_that_is_saved_on_the_way_keeps_its_disk(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.cinder.before_next("begin_detaching", lambda: bench.guests.save(guest))
    view = bench.detach("web", "data")
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.UNDONE, Code.GUEST_SAVED)
    bench.guests.start_guest(guest)
    bench.assert_attached(guest, volume)


def test_a_guest_that_ignores_the_unplug_and_obeys_late(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.make_deaf(guest)
    view = bench.detach("web", "data")
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.UNDONE, Code.UNPLUG_TIMEOUT)
    bench.assert_attached(guest, volume)
    (record,) = bench.journal.live_attachments()
    assert record.unplug_pending

    bench.guests.hear(guest)
    while bench.journal.live_attachments():
        wait_until_closed(bench)
    wait_until_closed(bench)
    bench.assert_nothing_left(guest, volume)


def test_a_late_unplug_is_noticed_after_a_restart_too(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.make_deaf(guest)
    bench.detach("web", "data")
    bench.stop()
    bench.guests.hear(guest)  # nobody listens
    bench.start()
    while bench.journal.live_attachments():
        wait_until_closed(bench)
    wait_until_closed(bench)
    bench.assert_nothing_left(guest, volume)


def test_cinder_is_asked_once_before_it_is_told(bench: Bench, guest: str, volume: str) -> None:
    before = len(bench.cinder.calls)
    bench.detach("web", volume)
    verbs = [call.verb for call in bench.cinder.calls[before:]]
    assert verbs[:2] == ["get_volume", "begin_detaching"]


def test_a_refused_begin_changes_nothing(bench: Bench, guest: str, volume: str) -> None:
    bench.cinder.fail_next(
        "begin_detaching", AttachdError(Code.CINDER_REFUSED, "no", touched=False)
    )
    view = bench.detach("web", "data")
    assert view.state is OperationState.REFUSED
    bench.assert_attached(guest, volume)


def test_a_begin_whose_answer_is_lost_is_rolled_back(bench: Bench, guest: str, volume: str) -> None:
    bench.cinder.lose_answer_next("begin_detaching")
    assert bench.detach("web", "data").state is OperationState.UNDONE
    bench.assert_attached(guest, volume)


GONE = Unreachable(Code.LIBVIRT_UNAVAILABLE, "gone", world=World.GUEST, touched=True)


def test_libvirt_dies_in_the_unplug_before_the_guest_let_go(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.fail_next("unplug", GONE)
    bench.at["detach.unplug.do.after-intent"] = lambda: bench.guests.fail_next("get", GONE)
    view = bench.detach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    assert bench.cinder.status(volume) == "detaching"
    wait_until_closed(bench)
    assert bench.engine.operation(view.operation_id).state is OperationState.UNDONE
    bench.assert_attached(guest, volume)

    # It may have been asked, as far as anyone can know; when it obeys late, the detach goes on.
    bench.guests.drop_disk(guest, "vda", live=True)
    while bench.journal.live_attachments():
        wait_until_closed(bench)
    wait_until_closed(bench)
    bench.assert_nothing_left(guest, volume)


def test_a_guest_that_was_never_asked_is_not_waited_for(
    bench: Bench, guest: str, volume: str
) -> None:
    never_left = Unreachable(Code.LIBVIRT_UNAVAILABLE, "no", world=World.GUEST, touched=False)
    bench.guests.fail_next("unplug", never_left)
    assert bench.detach("web", "data").state is OperationState.UNDONE
    (record,) = bench.journal.live_attachments()
    assert not record.unplug_pending


def test_a_guest_that_had_let_go_before_its_unplug_was_refused(
    bench: Bench, guest: str, volume: str
) -> None:
    """The live disk is gone and libvirt won't touch the rest: there is no way back from that."""
    bench.guests.drop_disk(guest, "vda", live=True)
    busy = AttachdError(Code.GUEST_REFUSED, "libvirt is busy", touched=False)
    bench.guests.fail_next("unplug", busy)
    view = bench.detach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    assert bench.cinder.status(volume) == "detaching"
    bench.engine.resume(view.operation_id)
    assert bench.rested(view.operation_id).state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


def test_a_name_that_another_guest_has_now(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.rename(guest, "web-old")
    bench.guests.add("web")
    view = bench.detach("web", "data")
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.REFUSED, Code.NOT_ATTACHED)
    bench.assert_attached(guest, volume)
    assert bench.detach("web-old", "data").state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


def test_an_operation_that_ended_meanwhile_is_not_begun_again(
    bench: Bench, guest: str, volume: str
) -> None:
    """The resumer may have read it as open just before its end."""
    view = bench.detach("web", "data")
    assert view.state is OperationState.DONE
    bench.engine._launch(view.operation_id)
    assert bench.engine.operation(view.operation_id) == view


def test_what_waits_for_somebody_is_not_begun_again_unasked(
    bench: Bench, guest: str, volume: str
) -> None:
    """The resumer may have read it as running just before its rest."""
    bench.host.fail_next("disconnect", AttachdError(Code.STILL_IN_USE, "Held.", touched=False))
    view = bench.detach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    bench.engine._resumer._go_on(view.operation_id)
    assert view.operation_id not in bench.engine._threads
    assert bench.engine.operation(view.operation_id) == view
    bench.engine.resume(view.operation_id)
    assert bench.rested(view.operation_id).state is OperationState.DONE


def test_a_repeated_request_does_not_resume_what_rests(
    bench: Bench, guest: str, volume: str
) -> None:
    (device,) = bench.host.devices
    with bench.host.held(device.path):
        view = bench.detach("web", "data")
        assert view.state is OperationState.NEEDS_ATTENTION
        request = view.request
        again = bench.engine.submit(request)
        assert again == view
    bench.stop()
    bench.start()
    wait_until_closed(bench)


def test_libvirt_dies_in_the_unplug_after_the_guest_let_go(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.fail_next("unplug", GONE, after=True)
    view = bench.detach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    wait_until_closed(bench)
    assert bench.engine.operation(view.operation_id).state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize("method", ["disconnect", "present"])
def test_behind_the_pivot_the_host_is_waited_for(
    bench: Bench, guest: str, volume: str, method: str
) -> None:
    bench.host.fail_next(method)
    view = bench.detach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    wait_until_closed(bench)
    assert bench.engine.operation(view.operation_id).state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


def test_a_held_device_stays_and_so_does_the_attachment(
    bench: Bench, guest: str, volume: str
) -> None:
    (device,) = bench.host.devices
    with bench.host.held(device.path):
        view = bench.detach("web", "data")
        assert view.problem is not None
        assert (view.state, view.problem.code) == (
            OperationState.NEEDS_ATTENTION,
            Code.STILL_IN_USE,
        )
        assert len(bench.cinder.list_attachments(volume)) == 1
        assert "delete" not in {call.verb for call in bench.cinder.calls}
    bench.stop()
    bench.start()
    wait_until_closed(bench)
    assert bench.engine.operation(view.operation_id).state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


def test_a_delete_that_cinder_loses(bench: Bench, guest: str, volume: str) -> None:
    bench.cinder.lose_answer_next("delete")
    view = bench.detach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    wait_until_closed(bench)
    bench.assert_nothing_left(guest, volume)


def test_cinder_stays_away_when_the_guest_has_let_go_already(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.fail_next("unplug", GONE, after=True)
    view = bench.detach("web", "data")
    bench.cinder.stop()
    assert view.state is OperationState.NEEDS_ATTENTION
    bench.cinder.start()
    wait_until_closed(bench)
    assert bench.engine.operation(view.operation_id).state is OperationState.DONE
    bench.assert_nothing_left(guest, volume)


# --- what is somebody else's by now -------------------------------------------------------------


def give_away(bench: Bench, volume: str) -> None:
    """Nobody has it as far as Cinder knows, and then somebody else."""
    for attachment in bench.cinder.list_attachments(volume):
        bench.cinder.rules.delete(attachment.attachment_id, by_service=True)
    theirs = bench.cinder.rules.create(volume, "theirs")
    bench.cinder.rules.update(theirs.id, {})
    bench.cinder.rules.complete(theirs.id)
    assert bench.cinder.status(volume) == "in-use"


def test_the_volumes_status_is_somebody_elses_by_now(bench: Bench, guest: str, volume: str) -> None:
    give_away(bench, volume)
    assert bench.detach("web", "data").state is OperationState.DONE
    assert bench.cinder.status(volume) == "in-use"
    assert len(bench.cinder.list_attachments(volume)) == 1
    assert bench.host.devices == ()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_volumes_status_is_somebody_elses_behind_a_crash(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.kill_at = "detach.delete.do.after-effect"
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    assert bench.killed.wait(PATIENCE)
    give_away(bench, volume)
    bench.recover()
    assert bench.engine.operation(operation).state is OperationState.DONE
    assert bench.cinder.status(volume) == "in-use"


def test_somebody_elses_detach_is_not_rolled_back(bench: Bench, guest: str, volume: str) -> None:
    give_away(bench, volume)
    bench.cinder.begin_detaching(volume)
    bench.guests.make_deaf(guest)
    assert bench.detach("web", "data").state is OperationState.UNDONE
    assert bench.cinder.status(volume) == "detaching"
    (record,) = bench.journal.live_attachments()
    assert record.state == "needs-attention", "Cinder gave it up: it stays fenced"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_roll_back_that_was_done_leaves_no_attention_behind(
    bench: Bench, guest: str, volume: str
) -> None:
    """libvirt is away when attachd starts again, as it is at the host's boot."""
    bench.guests.make_deaf(guest)
    bench.kill_at = "detach.begin.undo.after-outcome"
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    assert bench.killed.wait(PATIENCE)
    bench.guests.go_away()
    assert bench.engine.stop(PATIENCE)
    bench.journal.close()
    bench.start()
    assert bench.rested(operation).state is OperationState.NEEDS_ATTENTION
    bench.guests.come_back()
    bench.until_closed()
    assert bench.engine.operation(operation).state is OperationState.UNDONE
    bench.assert_attached(guest, volume)


def test_a_request_that_ended_with_its_qemu_is_not_waited_for(
    bench: Bench, guest: str, volume: str
) -> None:
    """The guest that was asked to let go is off; the one that starts then never was."""
    bench.guests.make_deaf(guest)
    assert bench.detach("web", "data").state is OperationState.UNDONE
    bench.guests.destroy(guest)
    for view in bench.engine.disconnect(guest):
        bench.rested(view.operation_id)
    (begun,) = bench.engine.reconnect(guest)
    assert bench.rested(begun.operation_id).state is OperationState.DONE
    (record,) = bench.journal.live_attachments()
    assert not record.unplug_pending


def test_the_guard_of_a_shared_target_spans_the_deletion(bench: Bench) -> None:
    bench.guests.add("other")
    bench.cinder.add_volume(name="shared", shared_targets=True)
    bench.attach("other", "shared")
    guarded: list[set[str]] = []
    bench.cinder.before_next("delete", lambda: guarded.append(set(bench.host.guarded)))
    assert bench.detach("other", "shared").state is OperationState.DONE
    assert [len(services) for services in guarded] == [1]
    assert bench.host.guarded == set()
