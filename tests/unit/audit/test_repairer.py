"""What is safe to do about a finding is done, and nothing else: no running guest loses its disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from attachd.audit.findings import Repair
from attachd.audit.repairer import Repairer
from attachd.errors import Code
from attachd.model import GIB, AttachmentState, GuestDisk, OperationKind, OperationState
from tests.unit.audit.test_audit import CHANGES
from tests.unit.bench import PATIENCE, Bench

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # the deaths that are meant
)

Change = Callable[[Bench, str, str], object]


def advised(bench: Bench) -> set[Repair | None]:
    return {finding.repair for finding in bench.auditor.audit()}


def repair(bench: Bench) -> list[tuple[str, str]]:
    """(kind, state) of each operation, at its rest."""
    views = [bench.rested(view.operation_id) for view in bench.repairer.repair()]
    return [(str(view.kind), str(view.state)) for view in views]


RUNNING: dict[str, Repair | None] = {
    "the attachment deleted in Cinder": Repair.FENCE,
    "the volume reset to available": Repair.RESTORE,
    "the volume deleted": Repair.FENCE,
    "the attachment never completed": Repair.RESTORE,
    "the session logged out": None,
    "another LUN behind the same number": Repair.FENCE,
    "the disk taken out of the live XML": None,
    "the disk taken out of both": Repair.CLEAN_UP,
    "the disk is another device": None,
    "the volume extended in Cinder": Repair.EXTEND,
    "the guest undefined": Repair.CLEAN_UP,
}


def test_every_change_is_judged() -> None:
    assert set(RUNNING) == set(CHANGES)


@pytest.mark.parametrize("change", RUNNING)
def test_what_is_safe_with_a_running_guest(
    bench: Bench, guest: str, volume: str, change: str
) -> None:
    CHANGES[change][0](bench, guest, volume)
    before = bench.guests.get(guest)
    assert advised(bench) == {RUNNING[change]}
    ended = repair(bench)
    wanted = RUNNING[change]
    assert ended == ([(str(wanted), "done")] if wanted else [])
    if wanted in (Repair.RESTORE, Repair.EXTEND):
        bench.assert_attached(guest, volume)
    elif wanted is Repair.CLEAN_UP:
        assert bench.auditor.audit() == ()
        assert bench.host.devices == ()
    else:  # an operator decides
        assert bench.guests.get(guest) == before
        assert advised(bench) == {None}


@pytest.mark.parametrize("change", ["the attachment deleted in Cinder", "the volume deleted"])
def test_a_stopped_guest_loses_what_it_could_not_start_with(
    bench: Bench, guest: str, volume: str, change: str
) -> None:
    bench.guests.destroy(guest)
    CHANGES[change][0](bench, guest, volume)
    assert repair(bench) == [("clean-up", "done")]
    assert bench.host.devices == ()
    assert bench.auditor.audit() == ()


@pytest.mark.parametrize("status", ["error", "detaching", "downloading"])
def test_a_status_that_somebody_set_with_a_meaning_is_left(
    bench: Bench, guest: str, volume: str, status: str
) -> None:
    bench.cinder.rules.volume(volume).status = status
    assert advised(bench) == {None}


def test_what_a_world_out_of_reach_may_say_is_waited_for(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.cinder.rules.volume(volume).status = "available"
    bench.guests.go_away()
    assert advised(bench) == {None}
    assert repair(bench) == []


def test_an_operation_that_stopped_is_resumed(bench: Bench, guest: str, volume: str) -> None:
    with bench.host.held(bench.host.devices[0].path, by="lvm"):
        view = bench.rested(bench.submit(OperationKind.DETACH, "web", "data"))
    assert view.state == "needs-attention"
    assert repair(bench) == [("detach", "done")]
    bench.assert_nothing_left(guest, volume)


def test_a_session_that_was_left_is_taken_away(bench: Bench, guest: str, volume: str) -> None:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.detach("web", "data")
    bench.host.connect(volume, record.connection)
    assert advised(bench) == {Repair.DISCONNECT}
    assert repair(bench) == [("disconnect", "done")]
    bench.assert_nothing_left(guest, volume)


def test_what_an_undone_attach_left_late_is_taken_away(bench: Bench, guest: str) -> None:
    """Its record is kept for as long as something of it could turn up."""
    volume = bench.cinder.add_volume(name="data")
    bench.cinder.fail_next("complete", times=2)
    assert bench.attach("web", "data").state == "undone"
    (record,) = bench.journal.detached_attachments()
    assert record.connection is not None
    bench.host.connect(volume, record.connection)
    assert repair(bench) == [("disconnect", "done")]
    bench.assert_nothing_left(guest, volume)


def test_what_was_fenced_and_is_well_again_is_used_again(
    bench: Bench, guest: str, volume: str
) -> None:
    (record,) = bench.journal.live_attachments()
    bench.journal.reserve(
        type(record)(**{**vars(record), "state": AttachmentState.NEEDS_ATTENTION})
    )
    assert repair(bench) == [("restore", "done")]
    bench.assert_attached(guest, volume)


def test_fencing_alone_touches_nothing_else(bench: Bench, guest: str, volume: str) -> None:
    second = bench.cinder.add_volume(name="second")
    bench.attach("web", "second")
    bench.cinder.rules.volume(second).status = "available"
    CHANGES["the attachment deleted in Cinder"][0](bench, guest, volume)
    bench.repairer.fence(bench.auditor.audit())
    views = bench.engine.operations(open_only=False)
    ended = [bench.rested(view.operation_id) for view in views]
    assert [str(view.kind) for view in ended] == ["fence", "attach", "attach"]
    assert bench.cinder.status(second) == "available"
    states = {record.volume_id: record.state for record in bench.journal.live_attachments()}
    assert states == {volume: "needs-attention", second: "attached"}


def test_what_another_guest_uses_is_left(bench: Bench, guest: str, volume: str) -> None:
    """The guest was undefined and defined anew, perhaps: its XML still names the device."""
    (record,) = bench.journal.live_attachments()
    CHANGES["the guest undefined"][0](bench, guest, volume)
    other = bench.guests.add("clone")
    bench.guests.put_disk(other, GuestDisk(target="vda", bus="virtio", source=record.host_path))
    assert advised(bench) == {None}


def test_a_guest_that_starts_before_its_clean_up_keeps_its_disk(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.destroy(guest)
    CHANGES["the attachment deleted in Cinder"][0](bench, guest, volume)
    found = bench.auditor.audit()
    bench.guests.start_guest(guest)
    repairer = Repairer(audit=lambda: found, engine=bench.engine)
    ended = [bench.rested(view.operation_id) for view in repairer.repair()]
    assert [(str(v.kind), str(v.state)) for v in ended] == [("clean-up", "refused")]
    now = bench.guests.get(guest)
    assert now is not None
    assert now.live_disks


@pytest.mark.parametrize("resumed", [False, True], ids=["at once", "behind a crash"])
def test_a_guest_that_starts_in_its_clean_up_keeps_its_disk(
    bench: Bench, guest: str, volume: str, resumed: bool
) -> None:
    bench.guests.destroy(guest)
    (attachment,) = bench.cinder.list_attachments(volume)
    bench.cinder.rules.delete(attachment.attachment_id, by_service=True)
    moment = "clean-up.begin.do.before-intent" if resumed else "clean-up.unplug.do.before-intent"
    if resumed:
        bench.kill_at = moment
    else:
        bench.at[moment] = lambda: bench.guests.start_guest(guest)
    (begun,) = bench.repairer.repair()
    if resumed:
        assert bench.killed.wait(PATIENCE)
        bench.guests.start_guest(guest)
        bench.recover()
    ended = bench.rested(begun.operation_id)
    assert ended.state is OperationState.UNDONE
    assert ended.problem is not None
    assert ended.problem.code is Code.STILL_IN_USE
    found = bench.guests.get(guest)
    assert found is not None
    assert found.live_disks != ()


def test_a_device_that_was_not_rescanned_is(bench: Bench, guest: str, volume: str) -> None:
    """Cinder and the journal agree, and the host's kernel is behind."""
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.cinder.rules.extend(volume, 2)
    bench.journal.reserve(replace(record, size_bytes=2 * GIB))
    assert bench.auditor.audit() == ()
    bench.cinder.rules.volume(volume).size = 2048
    bench.journal.reserve(replace(record, size_bytes=2048 * GIB))
    bench.host.grow(record.connection.targets[0], 2048 * GIB)
    assert advised(bench) == {Repair.EXTEND}
    assert repair(bench) == [("extend", "done")]
    bench.assert_attached(guest, volume)


def test_a_status_is_mended_before_the_size(bench: Bench, guest: str, volume: str) -> None:
    bench.cinder.rules.extend(volume, 2)
    bench.cinder.rules.volume(volume).status = "available"
    assert repair(bench) == [("restore", "done")]
    assert repair(bench) == [("extend", "done")]
    bench.assert_attached(guest, volume)


def test_a_volume_that_is_being_extended_is_waited_for(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.cinder.rules.extend_ends = ""
    bench.cinder.rules.extend(volume, 2)
    assert bench.auditor.audit() == ()
    bench.cinder.rules.finish_extend(volume, "grown")
    assert advised(bench) == {Repair.EXTEND}
