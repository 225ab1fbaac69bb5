"""Attach against worlds that keep their rules: the happy path, refusals, and every failure."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from attachd.engine.views import OperationView
from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.model import GuestDisk, GuestState, Mode, OperationKind, OperationState, Target
from tests.fakes.cinder import OLD_VERBS
from tests.unit.bench import PATIENCE, Bench, in_both_styles
from tests.unit.story.stories import deaths_are_meant

MEETING_SECONDS = 30.0
EVERY_STEP = [
    *("precheck", "reserve", "create", "update", "connect", "identify", "plug"),
    *("complete", "remember"),
]


@pytest.fixture
def guest(bench: Bench) -> str:
    return bench.guests.add("web")


@pytest.fixture
def volume(bench: Bench) -> str:
    return bench.cinder.add_volume(name="data", size=1)


@in_both_styles
def test_attach(bench: Bench, guest: str, volume: str) -> None:
    view = bench.attach("web", "data")
    assert view.state is OperationState.DONE, view.problem
    assert [step.name for step in view.steps] == EVERY_STEP
    assert {step.state for step in view.steps} == {"done"}
    bench.assert_attached(guest, volume)


@in_both_styles
def test_by_its_id_a_volume_and_its_attachments_are_asked_for_at_once(
    bench: Bench, guest: str, volume: str
) -> None:
    meeting = threading.Barrier(2)
    for verb in ("find_volume", "list_attachments"):
        bench.cinder.before_next(verb, lambda: meeting.wait(MEETING_SECONDS))
    assert bench.attach("web", volume).state is OperationState.DONE
    asked = [call.verb for call in bench.cinder.calls]
    assert (asked.count("find_volume"), asked.count("list_attachments")) == (1, 1)


def test_a_name_that_looks_like_an_id(bench: Bench, guest: str) -> None:
    """The attachments that count are those of the volume that has the name."""
    name = str(uuid.uuid4())
    bench.cinder.add_volume(name=name, multiattach=True)
    bench.guests.add("db")
    assert bench.attach("db", name).state is OperationState.DONE
    assert bench.attach("web", name).state is OperationState.DONE
    first, second = bench.journal.live_attachments()
    assert second.prior_attachment_ids == (first.attachment_id,)


@in_both_styles
def test_every_call_to_cinder_carries_the_operations_request_id(
    bench: Bench, guest: str, volume: str
) -> None:
    view = bench.attach("web", "data")
    assert {call.global_request_id for call in bench.cinder.calls} == {view.global_request_id}


@in_both_styles
def test_an_intent_is_journalled_before_each_effect(bench: Bench, guest: str, volume: str) -> None:
    seen: dict[str, list[str]] = {}

    def look(step: str) -> Callable[[], None]:
        def note() -> None:
            (operation,) = bench.engine.operations(open_only=True)
            seen[step] = [s.name for s in operation.steps if s.state == "running"]

        return note

    for step in ("create", "update", "complete"):
        bench.cinder.before_next(step, look(step))
    bench.host.before_next("connect", look("connect"))
    bench.attach("web", "data")
    assert seen == {step: [step] for step in ("create", "update", "connect", "complete")}


def test_a_stopped_guest_gets_the_disk_in_its_persistent_xml(bench: Bench, volume: str) -> None:
    guest = bench.guests.add("cold", state=GuestState.SHUTOFF)
    assert bench.attach("cold", "data").state is OperationState.DONE
    view = bench.guests.get(guest)
    assert view is not None
    assert (len(view.live_disks), len(view.config_disks)) == (0, 1)


def test_a_saved_guest_gets_nothing_until_it_goes_on(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.save(guest)
    refusal(bench, Code.GUEST_SAVED, "web", "data")
    bench.guests.start_guest(guest)
    assert bench.attach("web", "data").state is OperationState.DONE


def test_the_front_end_qos_limits_the_guests_disk(bench: Bench, guest: str) -> None:
    volume = bench.cinder.add_volume(name="slow", qos={"total_iops_sec": "100"})
    assert bench.attach("web", "slow").state is OperationState.DONE
    assert bench.guests.plugged[guest, volume].iotune == {"total_iops_sec": 100}


def test_a_limit_that_nobody_can_read_is_undone_and_keeps_nothing(bench: Bench, guest: str) -> None:
    volume = bench.cinder.add_volume(name="odd", qos={"total_iops_sec": "many"})
    view = bench.attach("web", "odd")
    assert view.state is OperationState.UNDONE
    assert view.problem is not None
    assert (view.problem.code, view.problem.details) == (Code.CINDER_REFUSED, "total_iops_sec")
    bench.assert_nothing_left(guest, volume)


def test_what_cinder_lets_be_read_only_is_read_only(bench: Bench, guest: str) -> None:
    volume = bench.cinder.add_volume(name="golden", read_only=True)
    view = bench.attach("web", "golden")
    assert view.attachment is not None
    assert view.attachment.mode is Mode.RO
    assert bench.guests.plugged[guest, volume].mode is Mode.RO


def test_a_transient_guest_has_it_until_its_end(bench: Bench, volume: str) -> None:
    bench.guests.add("passing", persistent=False)
    view = bench.attach("passing", "data")
    assert view.attachment is not None
    assert not view.attachment.persistent


# --- refused before anything was touched -----------------------------------------------------


def refusal(bench: Bench, code: Code, guest: str, volume: str, **options: object) -> None:
    calls_that_change = {"create", "update", "complete", "delete", *OLD_VERBS.values()}
    view = bench.attach(guest, volume, **options)
    assert view.state is OperationState.REFUSED
    assert view.problem is not None
    assert view.problem.code is code, view.problem
    assert not calls_that_change & {call.verb for call in bench.cinder.calls}
    assert not {"connect", "disconnect"} & {call.method for call in bench.host.calls}
    assert bench.journal.live_attachments() == ()


@in_both_styles
def test_refusals(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.add("novas", nova_owned=True)
    bench.guests.add("full", ports=0)
    bench.cinder.add_volume(name="twin")
    bench.cinder.add_volume(name="twin")
    bench.cinder.add_volume(name="secret", encrypted=True)
    bench.cinder.add_volume(name="used", status="in-use")
    bench.guests.put_disk(guest, GuestDisk(target="vdc", bus="virtio"))
    refusal(bench, Code.GUEST_NOT_FOUND, "nobody", "data")
    refusal(bench, Code.VOLUME_NOT_FOUND, "web", "nothing")
    refusal(bench, Code.VOLUME_AMBIGUOUS, "web", "twin")
    refusal(bench, Code.VOLUME_ENCRYPTED, "web", "secret")
    refusal(bench, Code.VOLUME_NOT_AVAILABLE, "web", "used")
    refusal(bench, Code.NOVA_OWNED, "novas", "data")
    refusal(bench, Code.NO_FREE_SLOT, "full", "data")
    refusal(bench, Code.DEVICE_NAME_INVALID, "web", "data", device="sdb")
    refusal(bench, Code.DEVICE_NAME_TAKEN, "web", "data", device="vdc")
    bench.guests.put_disk(guest, GuestDisk(target="vdx", bus="virtio", serial=volume))
    refusal(bench, Code.ALREADY_ATTACHED, "web", "data")
    bench.guests.drop_disk(guest, "vdx", live=True, config=True)
    bench.host.usable = False
    refusal(bench, Code.ISCSI_UNAVAILABLE, "web", "data")
    bench.cinder.stop()
    refusal(bench, Code.CINDER_UNAVAILABLE, "web", "data")
    bench.guests.go_away()
    refusal(bench, Code.LIBVIRT_UNAVAILABLE, "web", "data")


@in_both_styles
def test_novas_guest_may_be_overridden_and_never_lends_its_uuid(bench: Bench, volume: str) -> None:
    guest = bench.guests.add("novas", nova_owned=True)
    assert bench.attach("novas", "data", override_nova=True).state is OperationState.DONE
    (attachment,) = bench.cinder.list_attachments(volume)
    assert attachment.instance_id != guest


@in_both_styles
def test_a_second_attach_is_refused(bench: Bench, guest: str, volume: str) -> None:
    bench.attach("web", "data")
    view = bench.attach("web", "data")
    assert view.state is OperationState.REFUSED
    assert view.problem is not None
    assert view.problem.code is Code.ALREADY_ATTACHED
    bench.assert_attached(guest, volume)


def test_a_volume_that_another_guest_has_still_is_refused_whatever_cinder_says(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.attach("web", "data")
    bench.guests.add("db")
    (attachment,) = bench.cinder.list_attachments(volume)
    bench.cinder.delete_attachment(attachment.attachment_id)
    assert bench.cinder.status(volume) == "available"
    view = bench.attach("db", "data")
    assert view.state is OperationState.REFUSED
    assert view.problem is not None
    assert view.problem.code is Code.VOLUME_NOT_AVAILABLE
    assert bench.cinder.list_attachments(volume) == ()


def test_the_same_request_again_is_the_same_operation(
    bench: Bench, guest: str, volume: str
) -> None:
    first = bench.attach("web", "data", request_id="mine")
    again = bench.attach("web", "data", request_id="mine")
    assert again == first


# --- every step fails in every way, and is undone --------------------------------------------

DEFINITE = AttachdError(Code.CINDER_REFUSED, "no", touched=False)
PARTIAL = AttachdError(Code.INTERNAL_ERROR, "half done", touched=True)


@in_both_styles
@pytest.mark.parametrize("error", [DEFINITE, PARTIAL], ids=["untouched", "touched"])
@pytest.mark.parametrize("verb", ["create", "update", "complete"])
def test_cinder_fails(
    bench: Bench, guest: str, volume: str, verb: str, error: AttachdError
) -> None:
    bench.cinder.fail_next(verb, error)
    view = bench.attach("web", "data")
    assert view.state is OperationState.UNDONE
    assert view.problem == error.problem
    bench.assert_nothing_left(guest, volume)


@pytest.mark.parametrize("verb", ["create", "update", "complete"])
def test_cinders_answer_is_lost(bench: Bench, guest: str, volume: str, verb: str) -> None:
    bench.cinder.lose_answer_next(verb)
    view = bench.attach("web", "data")
    assert view.state is OperationState.UNDONE
    bench.assert_nothing_left(guest, volume)


def test_a_lost_create_takes_only_what_is_ours(bench: Bench, guest: str, volume: str) -> None:
    def someone_else_is_faster() -> None:
        # The same instance, as Cinder allows it: two attachments more than there were.
        bench.cinder.rules.create(volume, guest)

    row = bench.cinder.rules.volume(volume)
    row.multiattach = True
    bench.cinder.before_next("create", someone_else_is_faster)
    bench.cinder.lose_answer_next("create")
    view = bench.attach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    assert view.problem is not None
    assert view.problem.code is Code.WORLDS_DISAGREE
    assert "delete" not in {call.verb for call in bench.cinder.calls}


@in_both_styles
@pytest.mark.parametrize("after_effect", [False, True], ids=["in its place", "behind it"])
@pytest.mark.parametrize("method", ["connect", "identify"])
def test_the_host_fails(
    bench: Bench, guest: str, volume: str, method: str, after_effect: bool
) -> None:
    error = AttachdError(Code.CONNECT_FAILED, "no", touched=True)
    bench.host.fail_next(method, error, after_effect=after_effect)
    view = bench.attach("web", "data")
    assert view.state is OperationState.UNDONE
    assert view.problem == error.problem
    bench.assert_nothing_left(guest, volume)


@in_both_styles
@pytest.mark.parametrize("after", [False, True], ids=["in its place", "behind it"])
def test_the_plug_fails(bench: Bench, guest: str, volume: str, after: bool) -> None:
    error = AttachdError(Code.GUEST_REFUSED, "no", touched=True)
    bench.guests.fail_next("plug", error, after=after)
    view = bench.attach("web", "data")
    assert view.state is OperationState.UNDONE
    bench.assert_nothing_left(guest, volume)


def test_a_device_that_is_too_small(bench: Bench, guest: str, volume: str) -> None:
    def shrink() -> None:
        (attachment,) = bench.cinder.list_attachments(volume)
        full = bench.cinder.get_attachment(attachment.attachment_id)
        assert full is not None
        assert full.connection is not None
        bench.host.export(full.connection.targets[0], size_bytes=4096)

    bench.host.before_next("connect", shrink)
    view = bench.attach("web", "data")
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.UNDONE, Code.WRONG_DEVICE)
    bench.assert_nothing_left(guest, volume)


def test_a_device_that_another_guest_uses(bench: Bench, guest: str, volume: str) -> None:
    other = bench.guests.add("other")

    def someone_uses_it() -> None:
        (device,) = bench.host.devices
        scsi = f"/dev/disk/by-id/scsi-{device.wwn}"
        bench.guests.put_disk(other, GuestDisk(target="vdz", bus="virtio", source=scsi))

    bench.host.before_next("identify", someone_uses_it)
    view = bench.attach("web", "data")
    assert view.problem is not None
    assert view.problem.code is Code.WRONG_DEVICE
    assert "other" in view.problem.brief
    assert not bench.guests.find("web").disks


def test_a_lun_that_another_attachment_stands_on_is_never_touched(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.attach("web", "data")
    (record,) = bench.journal.live_attachments()
    second = bench.cinder.add_volume(name="second")
    assert record.connection is not None
    bench.cinder.before_next("get_attachment", lambda: None)
    target: Target = record.connection.targets[0]

    def same_lun() -> None:
        rules = bench.cinder.rules
        original = rules.update

        def update(attachment_id: str, connector: object) -> object:
            row = original(attachment_id, connector)  # type: ignore[arg-type]
            row.connection_info["target_iqn"] = target.iqn
            row.connection_info["target_lun"] = target.lun
            row.connection_info["target_portal"] = target.portal
            return row

        rules.update = update  # type: ignore[method-assign, assignment]

    bench.cinder.before_next("update", same_lun)
    connects = sum(call.method == "connect" for call in bench.host.calls)
    view = bench.attach("web", "second")
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.NEEDS_ATTENTION, Code.STILL_IN_USE)
    assert "wrong-device" in view.problem.details
    assert sum(call.method == "connect" for call in bench.host.calls) == connects
    assert "disconnect" not in {call.method for call in bench.host.calls}
    assert bench.cinder.status(volume) == "in-use"
    assert bench.cinder.status(second) == "attaching"


def somebody_logs_in(bench: Bench, volume: str, *, same: bool) -> None:
    """Before attachd connects it; not ``same``: another volume is behind the LUN."""
    (listed,) = bench.cinder.list_attachments(volume)
    attachment = bench.cinder.get_attachment(listed.attachment_id)
    assert attachment is not None
    assert attachment.connection is not None
    (target,) = attachment.connection.targets
    if not same:
        bench.host.export(target, size_bytes=7, chap=attachment.connection.chap)
    bench.host.connect(volume, attachment.connection)


def assert_somebodys_device_stays(bench: Bench, view: OperationView, volume: str) -> None:
    assert view.problem is not None
    assert (view.state, view.problem.code) == (OperationState.NEEDS_ATTENTION, Code.STILL_IN_USE)
    assert len(bench.host.devices) == 1
    assert "disconnect" not in {call.method for call in bench.host.calls}
    assert len(bench.cinder.list_attachments(volume)) == 1


@pytest.mark.parametrize("same", [False, True], ids=["another volume's", "its own"])
def test_a_device_that_somebody_else_had_brought(
    bench: Bench, guest: str, volume: str, same: bool
) -> None:
    """One that is proven to be the volume is used; any other stays as it was."""
    bench.at["attach.connect.do.after-intent"] = lambda: somebody_logs_in(bench, volume, same=same)
    view = bench.attach("web", "data")
    if same:
        assert view.state is OperationState.DONE
        bench.assert_attached(guest, volume)
        return
    assert_somebodys_device_stays(bench, view, volume)
    assert view.problem is not None
    assert "wrong-device" in view.problem.details


@deaths_are_meant
@pytest.mark.parametrize("moment", ["connect.do.after-effect", "identify.do.after-intent"])
def test_a_device_that_somebody_else_had_brought_stays_when_attachd_is_killed(
    bench: Bench, guest: str, volume: str, moment: str
) -> None:
    """Whose it is isn't known yet; who brought it must not be forgotten."""
    bench.host.before_next("wwns", lambda: somebody_logs_in(bench, volume, same=False))
    bench.kill_at = f"attach.{moment}"
    operation_id = bench.submit(OperationKind.ATTACH, "web", "data")
    assert bench.killed.wait(PATIENCE)
    assert bench.engine.stop(PATIENCE)
    bench.journal.close()
    bench.start()
    assert_somebodys_device_stays(bench, bench.rested(operation_id), volume)


# --- what is attached ------------------------------------------------------------------------


def test_the_attachments_of_a_guest_are_listed_by_any_of_its_names(
    bench: Bench, guest: str, volume: str
) -> None:
    assert bench.engine.attachments(guest="web") == ()
    bench.attach("web", "data")
    bench.guests.add("other")
    for name in ("web", guest, guest.upper()):
        (record,) = bench.engine.attachments(guest=name)
        assert record.volume_id == volume
    assert bench.engine.attachments(guest="other") == ()
    with pytest.raises(Refused) as caught:
        bench.engine.attachments(guest="nobody")
    assert caught.value.code is Code.GUEST_NOT_FOUND


def test_the_attachments_come_page_by_page(bench: Bench) -> None:
    names = ["a", "b", "c"]
    for name in names:
        bench.guests.add(name)
        bench.cinder.add_volume(name=f"of-{name}")
        bench.attach(name, f"of-{name}")
    every = bench.engine.attachments(guest=None)
    assert [record.guest_name for record in every] == names
    assert bench.engine.attachments(guest=None, limit=2) == every[:2]
    for record_id in (every[1].record_id, every[1].attachment_id):
        assert bench.engine.attachments(guest=None, after=record_id) == every[2:]
    bench.detach("b", "of-b")  # its place is known all the same
    assert bench.engine.attachments(guest=None, after=every[1].record_id) == every[2:]
    with pytest.raises(Refused) as caught:
        bench.engine.attachments(guest=None, after="nobody")
    assert caught.value.code is Code.ATTACHMENT_NOT_FOUND


# --- an undo that fails ----------------------------------------------------------------------


def test_the_guest_does_not_let_go_so_the_host_stays_connected(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.cinder.fail_next("complete", PARTIAL)
    bench.cinder.before_next("complete", lambda: bench.guests.make_deaf(guest))
    view = bench.attach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    assert view.problem is not None
    assert view.problem.code is Code.UNPLUG_TIMEOUT
    assert "half done" in view.problem.details
    (session,) = bench.host.logins
    (left,) = (line for line in view.problem.details.splitlines() if "may be left" in line)
    for name in ("disk vda of guest web", volume, bench.host.devices[0].path, session[1]):
        assert name in left
    assert len(bench.host.devices) == 1
    (attachment,) = bench.cinder.list_attachments(volume)
    assert attachment.status == "attaching"
    (record,) = bench.journal.live_attachments()
    assert record.state == "needs-attention"

    busy = bench.detach("web", "data")
    assert busy.problem is not None
    assert (busy.state, busy.problem.code) == (OperationState.REFUSED, Code.VOLUME_BUSY)

    bench.guests.hear(guest)
    wait_until_closed(bench)
    assert bench.engine.operation(view.operation_id).state is OperationState.UNDONE
    bench.assert_nothing_left(guest, volume)


@in_both_styles
def test_cinder_stays_away_during_the_undo_and_it_goes_on_when_it_is_back(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.host.before_next("connect", bench.cinder.stop)
    bench.host.fail_next("connect", AttachdError(Code.CONNECT_FAILED, "no"))
    view = bench.attach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    assert view.problem is not None
    assert "goes on by itself" in view.problem.resolution
    bench.cinder.start()
    wait_until_closed(bench)
    assert bench.engine.operation(view.operation_id).state is OperationState.UNDONE
    bench.assert_nothing_left(guest, volume)


@in_both_styles
def test_libvirt_goes_before_the_plug_leaves_us(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.fail_next(
        "plug",
        Unreachable(Code.LIBVIRT_UNAVAILABLE, "gone", world=World.GUEST, touched=False),
    )
    view = bench.attach("web", "data")
    assert view.state is OperationState.UNDONE
    bench.assert_nothing_left(guest, volume)


@in_both_styles
def test_what_needed_attention_is_resumed_by_hand(bench: Bench, guest: str, volume: str) -> None:
    with ExitStack() as holder:
        bench.cinder.before_next(
            "complete",
            lambda: holder.enter_context(bench.host.held(bench.host.devices[0].path, by="lvm")),
        )
        bench.cinder.fail_next("complete", PARTIAL)
        view = bench.attach("web", "data")
        assert view.problem is not None
        assert (view.state, view.problem.code) == ("needs-attention", Code.STILL_IN_USE)
        assert f"attachctl operation resume {view.operation_id}" in view.problem.resolution
        bench.engine.resume(view.operation_id)
        assert bench.rested(view.operation_id).state == "needs-attention"  # it is held still
    bench.engine.resume(view.operation_id)
    assert bench.rested(view.operation_id).state == "undone"
    bench.assert_nothing_left(guest, volume)
    assert bench.engine.resume(view.operation_id).state == "undone"  # its end stays its end
    with pytest.raises(Refused) as caught:
        bench.engine.resume("none")
    assert caught.value.code is Code.OPERATION_NOT_FOUND


@in_both_styles
@pytest.mark.parametrize("plugged", [False, True], ids=["not plugged", "plugged"])
def test_libvirt_dies_in_the_plug_and_comes_back(
    bench: Bench, guest: str, volume: str, plugged: bool
) -> None:
    lost = Unreachable(Code.LIBVIRT_UNAVAILABLE, "gone", world=World.GUEST, touched=True)
    bench.guests.fail_next("plug", lost, after=plugged)
    bench.guests.fail_next("unplug", lost)
    view = bench.attach("web", "data")
    assert view.state is OperationState.NEEDS_ATTENTION
    assert len(bench.host.devices) == 1
    bench.guests.come_back()
    wait_until_closed(bench)
    # An undo was begun, so it goes back whatever the guest holds.
    assert bench.engine.operation(view.operation_id).state is OperationState.UNDONE
    bench.assert_nothing_left(guest, volume)


def wait_until_closed(bench: Bench) -> None:
    for row in bench.journal.operations():
        while bench.journal.operation(row.operation_id).state.open:
            bench.engine.wait(row.operation_id, after=10**6, timeout=0.05)


# --- many at once ----------------------------------------------------------------------------


def test_one_busy_guest_does_not_hold_up_the_others(bench: Bench) -> None:
    for number in range(12):
        bench.cinder.add_volume(name=f"v{number}")
    bench.guests.add("busy", ports=12)
    bench.guests.add("free", ports=12)
    operations = [bench.submit(OperationKind.ATTACH, "busy", f"v{number}") for number in range(11)]
    assert bench.attach("free", "v11").state is OperationState.DONE
    views = [bench.rested(operation) for operation in operations]
    assert {view.state for view in views} == {OperationState.DONE}, [v.problem for v in views]
    devices = [r.device for r in bench.journal.live_attachments() if r.guest_name == "busy"]
    assert len(set(devices)) == 11


@in_both_styles
def test_the_same_attach_twice_at_once(bench: Bench, guest: str, volume: str) -> None:
    operations = [bench.submit(OperationKind.ATTACH, "web", "data") for _ in range(5)]
    states = sorted(bench.rested(operation).state for operation in operations)
    assert states == ["done", *["refused"] * 4]
    bench.assert_attached(guest, volume)
