"""An attached volume grows in all worlds, or in none; and behind Cinder's part only forward."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attachd.engine.kill_points import all_names
from attachd.engine.views import OperationView
from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.model import GIB, AttachmentState, Mode, OperationKind, Target
from tests.unit.bench import PATIENCE, Bench

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # the deaths that are meant
)

MOMENTS = [name for name in all_names() if name.startswith("extend.")]
GROWS = MOMENTS.index("extend.cinder-extend.do.after-effect")
BEGUN = MOMENTS.index("extend.cinder-extend.do.after-intent")
BROKEN = AttachdError(Code.GUEST_REFUSED, "QEMU says no.", touched=True)


def lun(volume: str) -> Target:
    iqn = f"iqn.2010-10.org.openstack:volume-{volume}"
    return Target(portal="192.0.2.10:3260", iqn=iqn, lun=0)


@pytest.fixture
def web(bench: Bench) -> str:
    return bench.guests.add("web")


@pytest.fixture
def data(bench: Bench, web: str) -> str:
    """A volume of 1 GiB that is attached; its LUN grows with it."""
    assert web
    volume = bench.cinder.add_volume(name="data")
    bench.host.export(lun(volume), size_bytes=GIB)
    bench.cinder.rules.on_grown = lambda v, gib: bench.host.grow(lun(v), gib * GIB)
    assert bench.attach("web", "data").state == "done"
    return volume


def extend(bench: Bench, size_gib: int | None, guest: str = "web") -> OperationView:
    return bench.rested(bench.submit(OperationKind.EXTEND, guest, "data", size_gib=size_gib))


def ended(view: OperationView) -> tuple[str, str | None]:
    return str(view.state), str(view.problem.code) if view.problem else None


def sizes(bench: Bench, volume: str) -> tuple[int, int, int]:
    """In GiB: Cinder's, the host's device's, the record's."""
    (record,) = bench.journal.live_attachments()
    (device,) = bench.host.devices
    return bench.cinder.rules.volume(volume).size, device.size_bytes // GIB, record.size_gib


def assert_grown(bench: Bench, web: str, data: str, size_gib: int = 2) -> None:
    assert sizes(bench, data) == (size_gib, size_gib, size_gib)
    assert bench.guests.size_of(web, data) == size_gib * GIB
    bench.assert_attached(web, data)


def assert_untouched(bench: Bench, web: str, data: str) -> None:
    assert sizes(bench, data) == (1, 1, 1)
    assert bench.guests.size_of(web, data) is None
    bench.assert_attached(web, data)


# --- it grows --------------------------------------------------------------------------------


@pytest.mark.parametrize("paused", [False, True])
def test_a_live_guest_sees_the_new_size(bench: Bench, web: str, data: str, paused: bool) -> None:
    if paused:
        bench.guests.pause(web)
    view = extend(bench, 2)
    assert ended(view) == ("done", None)
    assert [step.name for step in view.steps] == [
        *("precheck", "cinder-extend", "host-extend", "resize", "remember")
    ]
    assert view.request.size_gib == 2
    assert_grown(bench, web, data)
    assert ended(extend(bench, 5)) == ("done", None)
    assert_grown(bench, web, data, 5)


@pytest.mark.parametrize("connected", [True, False], ids=["its device there", "taken off"])
def test_a_stopped_guest_learns_it_when_it_starts(
    bench: Bench, web: str, data: str, connected: bool
) -> None:
    bench.guests.destroy(web)
    if not connected:
        bench.host.has_lsscsi = False  # nothing is rescanned
        for view in bench.engine.disconnect(web):
            assert bench.rested(view.operation_id).state == "done"
    assert ended(extend(bench, 2)) == ("done", None)
    assert bench.guests.size_of(web, data) is None
    for view in bench.engine.reconnect(web):
        assert bench.rested(view.operation_id).state == "done"
    bench.guests.start_guest(web)
    assert sizes(bench, data) == (2, 2, 2)
    bench.assert_attached(web, data)


@pytest.mark.parametrize("size_gib", [2, None], ids=["asked for", "a repair's"])
def test_what_somebody_else_began_is_finished(
    bench: Bench, web: str, data: str, size_gib: int | None
) -> None:
    bench.cinder.rules.extend(data, 2)
    assert ended(extend(bench, size_gib)) == ("done", None)
    assert_grown(bench, web, data)
    assert [call.verb for call in bench.cinder.calls].count("extend") == (size_gib is not None)


def test_what_somebody_else_extends_meanwhile_is_handed_on_whole(
    bench: Bench, web: str, data: str
) -> None:
    bench.at["extend.host-extend.do.before-intent"] = lambda: bench.cinder.rules.extend(data, 7)
    assert ended(extend(bench, 2)) == ("done", None)
    assert_grown(bench, web, data, 7)


# --- refused, and nothing is touched ---------------------------------------------------------


@pytest.mark.parametrize("size_gib", [1, 2])
def test_no_larger_than_it_is(bench: Bench, web: str, data: str, size_gib: int) -> None:
    extend(bench, 2)
    view = extend(bench, size_gib)
    assert ended(view) == ("refused", "size-invalid")
    assert view.problem is not None
    assert "2 GiB already" in view.problem.brief
    assert_grown(bench, web, data)


def test_a_repair_of_what_is_well(bench: Bench, web: str, data: str) -> None:
    assert ended(extend(bench, None)) == ("refused", "worlds-agree")
    assert_untouched(bench, web, data)


def test_what_is_not_attached(bench: Bench, web: str) -> None:
    bench.cinder.add_volume(name="data")
    assert ended(extend(bench, 2)) == ("refused", "not-attached")
    assert ended(extend(bench, 2, guest="nobody")) == ("refused", "guest-not-found")


def test_what_is_fenced(bench: Bench, web: str, data: str) -> None:
    (record,) = bench.journal.live_attachments()
    bench.journal.reserve(replace(record, state=AttachmentState.NEEDS_ATTENTION))
    assert ended(extend(bench, 2)) == ("refused", "not-attached")


@pytest.mark.parametrize("status", ["extending", "retyping", "error_extending", "available"])
def test_a_volume_in_another_work(bench: Bench, web: str, data: str, status: str) -> None:
    bench.cinder.rules.volume(data).status = status
    assert ended(extend(bench, 2)) == ("refused", "volume-not-available")
    assert sizes(bench, data) == (1, 1, 1)


def test_a_full_quota_in_cinders_own_words(bench: Bench, web: str, data: str) -> None:
    bench.cinder.rules.quota_gib = 1
    view = extend(bench, 2)
    assert ended(view) == ("refused", "cinder-refused")
    assert view.problem is not None
    assert "quota is 1G" in view.problem.details
    assert_untouched(bench, web, data)


def test_no_room_for_it(bench: Bench, web: str, data: str) -> None:
    """Cinder accepts, and its scheduler finds none: the volume is as it was."""
    bench.cinder.rules.extend_ends = "no-room"
    assert ended(extend(bench, 2)) == ("refused", "cinder-refused")
    assert_untouched(bench, web, data)


def test_without_lsscsi(bench: Bench, web: str, data: str) -> None:
    """Before Cinder is asked: it could never shrink it again."""
    bench.host.has_lsscsi = False
    assert ended(extend(bench, 2)) == ("refused", "iscsi-unavailable")
    assert_untouched(bench, web, data)


def test_a_read_only_disk_of_a_live_guest(bench: Bench, web: str) -> None:
    volume = bench.cinder.add_volume(name="data")
    bench.attach("web", "data", mode=Mode.RO)
    assert ended(extend(bench, 2)) == ("refused", "guest-refused")
    bench.cinder.rules.extend(volume, 2)
    assert {finding.repair for finding in bench.auditor.audit()} == {None}
    bench.guests.destroy(web)
    assert ended(extend(bench, 3)) == ("done", None)


def test_a_disk_that_somebody_took_out(bench: Bench, web: str, data: str) -> None:
    bench.guests.drop_disk(web, "vda", live=True)
    assert ended(extend(bench, 2)) == ("refused", "worlds-disagree")


def test_a_session_that_somebody_ended(bench: Bench, web: str, data: str) -> None:
    bench.host.reboot()
    assert ended(extend(bench, 2)) == ("refused", "worlds-disagree")
    assert bench.cinder.rules.volume(data).size == 1


def test_an_attachment_that_somebody_deleted(bench: Bench, web: str, data: str) -> None:
    """Whoever has the volume now: it isn't ours to extend."""
    (attachment,) = bench.cinder.list_attachments(data)
    bench.cinder.rules.delete(attachment.attachment_id, by_service=True)
    bench.cinder.rules.volume(data).status = "in-use"
    assert ended(extend(bench, 2)) == ("refused", "worlds-disagree")


def test_a_busy_volume(bench: Bench, web: str, data: str) -> None:
    with bench.host.held(bench.host.devices[0].path, by="lvm"):
        assert bench.detach("web", "data").state == "needs-attention"
    assert ended(extend(bench, 2)) == ("refused", "volume-busy")
    assert bench.cinder.rules.volume(data).size == 1


# --- behind Cinder's part only forward -------------------------------------------------------


def test_a_backend_that_failed(bench: Bench, web: str, data: str) -> None:
    bench.cinder.rules.extend_ends = "error"
    view = extend(bench, 2)
    assert ended(view) == ("needs-attention", "cinder-refused")
    bench.engine.resume(view.operation_id)
    assert ended(bench.rested(view.operation_id)) == ("needs-attention", "cinder-refused")
    bench.cinder.rules.volume(data).status = "in-use"  # as an operator
    bench.engine.resume(view.operation_id)
    assert ended(bench.rested(view.operation_id)) == ("undone", "cinder-refused")
    assert_untouched(bench, web, data)


def test_a_backend_that_takes_long(bench: Bench, web: str, data: str) -> None:
    bench.cinder.rules.extend_ends = ""
    view = extend(bench, 2)
    assert ended(view) == ("needs-attention", "deadline-exceeded")
    bench.cinder.rules.finish_extend(data, "grown")
    bench.until_closed()  # by itself
    assert_grown(bench, web, data)


def test_an_answer_of_cinders_that_was_lost(bench: Bench, web: str, data: str) -> None:
    bench.cinder.lose_answer_next("extend")
    operation = bench.submit(OperationKind.EXTEND, "web", "data", size_gib=2)
    bench.until_closed()
    assert bench.engine.operation(operation).state == "done"
    assert_grown(bench, web, data)


def test_a_request_to_cinder_that_comes_late(bench: Bench, web: str, data: str) -> None:
    lost = Unreachable(Code.CINDER_UNAVAILABLE, "Lost.", world=World.CINDER, touched=True)
    bench.cinder.orphan_next("extend", lost)
    operation = bench.submit(OperationKind.EXTEND, "web", "data", size_gib=2)
    bench.until_closed()
    assert bench.engine.operation(operation).state == "done"
    assert_grown(bench, web, data)


@pytest.mark.parametrize("world", ["host", "guest"])
def test_what_fails_behind_cinder_is_resumed(bench: Bench, web: str, data: str, world: str) -> None:
    if world == "host":
        bench.host.fail_next("extend", AttachdError(Code.EXTEND_FAILED, "No."))
    else:
        bench.guests.fail_next("resize", BROKEN)
    view = extend(bench, 2)
    assert view.state == "needs-attention"
    assert view.problem is not None
    assert "may be left" not in view.problem.details
    (record,) = bench.journal.live_attachments()
    assert record.state is AttachmentState.ATTACHED  # it stands as it was
    assert [str(finding.code) for finding in bench.auditor.audit()] == ["operation-needs-attention"]
    (resumed,) = bench.repairer.repair()
    assert resumed.operation_id == view.operation_id
    assert ended(bench.rested(view.operation_id)) == ("done", None)
    assert_grown(bench, web, data)


def test_libvirt_that_comes_back_is_told(bench: Bench, web: str, data: str) -> None:
    bench.at["extend.resize.do.before-intent"] = bench.guests.go_away
    assert ended(extend(bench, 2)) == ("needs-attention", "libvirt-unavailable")
    bench.guests.come_back()
    bench.until_closed()
    assert_grown(bench, web, data)


def test_another_volumes_device_is_not_touched(bench: Bench, web: str, data: str) -> None:
    wwn = "3600140500000000000000000000000ff"
    bench.at["extend.host-extend.do.before-intent"] = lambda: (
        bench.host.export(lun(data), wwn=wwn) and None
    )
    assert ended(extend(bench, 2)) == ("needs-attention", "wrong-device")
    assert sizes(bench, data) == (2, 1, 1)
    assert bench.guests.size_of(web, data) is None
    # The watch keeps attachd from using it, although an extend is open.
    bench.repairer.fence(bench.auditor.audit())
    (fenced,) = [v for v in bench.engine.operations(open_only=False) if v.kind == "fence"]
    assert bench.rested(fenced.operation_id).state == "done"
    (record,) = bench.journal.live_attachments()
    assert record.state is AttachmentState.NEEDS_ATTENTION


# --- one that rests keeps nobody off ---------------------------------------------------------


def resting(bench: Bench) -> str:
    bench.guests.fail_next("resize", BROKEN)
    view = extend(bench, 2)
    assert view.state == "needs-attention"
    return view.operation_id


def test_its_guest_stops_and_starts(bench: Bench, web: str, data: str) -> None:
    operation = resting(bench)
    bench.guests.destroy(web)
    for verb in (bench.engine.disconnect, bench.engine.reconnect):
        for view in verb(web):
            assert ended(bench.rested(view.operation_id)) == ("done", None)
    bench.guests.start_guest(web)
    bench.engine.resume(operation)
    assert ended(bench.rested(operation)) == ("done", None)
    assert_grown(bench, web, data)


def test_its_volume_is_detached_and_nothing_is_left_to_do(
    bench: Bench, web: str, data: str
) -> None:
    operation = resting(bench)
    assert bench.detach("web", "data").state == "done"
    bench.engine.resume(operation)
    assert ended(bench.rested(operation)) == ("done", None)
    bench.assert_nothing_left(web, data)
    assert [call.verb for call in bench.cinder.calls].count("extend") == 1


def test_another_extend_does_its_work(bench: Bench, web: str, data: str) -> None:
    operation = resting(bench)
    assert ended(extend(bench, 3)) == ("done", None)
    bench.engine.resume(operation)
    assert ended(bench.rested(operation)) == ("done", None)
    assert_grown(bench, web, data, 3)


def test_while_it_works_nobody_else_does(bench: Bench, web: str, data: str) -> None:
    found: list[tuple[str, str | None]] = []
    bench.at["extend.host-extend.do.before-intent"] = lambda: found.append(
        ended(bench.detach("web", "data"))
    )
    assert ended(extend(bench, 2)) == ("done", None)
    assert found == [("refused", "volume-busy")]
    assert_grown(bench, web, data)


# --- killed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
def test_it_is_killed(bench: Bench, web: str, data: str, moment: str) -> None:
    bench.kill_at = moment
    operation = bench.submit(OperationKind.EXTEND, "web", "data", size_gib=2)
    assert bench.killed.wait(PATIENCE)
    bench.recover()
    if BEGUN <= MOMENTS.index(moment) < GROWS:  # Cinder was never asked
        assert ended(bench.engine.operation(operation)) == ("undone", "interrupted")
        assert_untouched(bench, web, data)
    else:
        assert ended(bench.engine.operation(operation)) == ("done", None)
        assert_grown(bench, web, data)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_repair_is_killed(bench: Bench, web: str, data: str, moment: str) -> None:
    bench.cinder.rules.extend(data, 2)
    bench.kill_at = moment
    (begun,) = bench.repairer.repair()
    assert bench.killed.wait(PATIENCE)
    bench.recover()
    assert ended(bench.engine.operation(begun.operation_id)) == ("done", None)
    assert_grown(bench, web, data)


def test_it_is_killed_while_the_backend_works(bench: Bench, web: str, data: str) -> None:
    bench.cinder.rules.extend_ends = ""
    bench.kill_at = "extend.cinder-extend.do.before-intent"
    bench.submit(OperationKind.EXTEND, "web", "data", size_gib=2)
    assert bench.killed.wait(PATIENCE)
    assert bench.engine.stop(PATIENCE)
    bench.journal.close()
    bench.start()
    (operation,) = bench.journal.operations(open_only=True)
    assert bench.rested(operation.operation_id).state == "needs-attention"
    bench.cinder.rules.finish_extend(data, "grown")
    bench.until_closed()
    assert_grown(bench, web, data)


def test_an_extend_that_rests_ends_behind_a_release(bench: Bench, web: str, data: str) -> None:
    bench.host.fail_next("extend", AttachdError(Code.EXTEND_FAILED, "Not now."))
    resting = extend(bench, 2)
    assert ended(resting) == ("needs-attention", "extend-failed")
    assert bench.rested(bench.submit(OperationKind.RELEASE, "web", "data")).state == "done"
    bench.engine.resume(resting.operation_id)
    bench.until_closed()
    assert ended(bench.rested(resting.operation_id)) == ("done", None)
