"""Every disagreement is found and named; what agrees, is busy or is somebody else's is not."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest

from attachd.audit import auditor
from attachd.audit.findings import Finding, FindingCode
from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    GuestDisk,
    GuestState,
    OperationKind,
    OperationState,
    Target,
    Volume,
)
from tests.unit.bench import Bench, in_both_styles


def codes(bench: Bench) -> list[str]:
    return sorted(str(finding.code) for finding in bench.auditor.audit())


def only(bench: Bench) -> Finding:
    (finding,) = bench.auditor.audit()
    return finding


def test_four_worlds_that_agree(bench: Bench, guest: str, volume: str) -> None:
    assert bench.auditor.audit() == ()
    bench.guests.destroy(guest)  # a stopped guest has no live disk, and needs none
    assert bench.auditor.audit() == ()
    bench.detach("web", "data")
    assert bench.auditor.audit() == ()


@in_both_styles
def test_cinder_is_asked_once_for_each_attachment_in_order(
    bench: Bench, guest: str, volume: str
) -> None:
    before = len(bench.cinder.calls)
    assert bench.auditor.audit() == ()
    assert [call.verb for call in bench.cinder.calls[before:]] == ["get_volume"]


def test_the_guests_are_asked_once_for_all_attachments(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.cinder.add_volume(name="second")
    bench.attach("web", "second")
    before = len(bench.guests.calls)
    assert bench.auditor.audit() == ()
    assert [call.method for call in bench.guests.calls[before:]] == ["all"]


def test_a_finding_says_what_each_world_says_and_what_to_do(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.drop_disk(guest, "vda", live=True)
    finding = only(bench)
    (record,) = bench.journal.live_attachments()
    assert finding.code is FindingCode.DISK_GONE
    assert "live" in finding.brief
    assert finding.resolution.endswith(f": attachctl detach web {volume}")
    assert (finding.attachment_id, finding.volume_id) == (record.attachment_id, volume)
    assert (finding.guest_id, finding.guest_name) == (guest, "web")
    assert finding.says == {
        World.JOURNAL: f"attached, {record.host_path}",
        World.CINDER: "volume in-use, attachment attached",
        World.HOST: record.wwn,
        World.GUEST: f"running: vda is {record.host_path}",
    }


def _delete_attachment(bench: Bench, _guest: str, volume: str) -> None:
    (attachment,) = bench.cinder.list_attachments(volume)
    bench.cinder.rules.delete(attachment.attachment_id, by_service=True)


def _delete_volume(bench: Bench, guest: str, volume: str) -> None:
    _delete_attachment(bench, guest, volume)
    bench.cinder.rules.volumes.pop(volume)


def _undefine(bench: Bench, guest: str, _volume: str) -> None:
    bench.guests.destroy(guest)
    bench.guests.undefine(guest)


def _another_disk(bench: Bench, guest: str, volume: str) -> None:
    bench.guests.put_disk(
        guest, GuestDisk(target="vda", bus="virtio", serial=volume, source="/dev/sdq"), config=False
    )


def _record(bench: Bench, volume: str) -> AttachmentRecord:
    (record,) = (r for r in bench.journal.live_attachments() if r.volume_id == volume)
    return record


def _target(bench: Bench, volume: str) -> Target:
    record = _record(bench, volume)
    assert record.connection is not None
    return record.connection.targets[0]


CHANGES: dict[str, tuple[Callable[[Bench, str, str], object], list[str]]] = {
    "the attachment deleted in Cinder": (
        _delete_attachment,
        ["attachment-gone"],
    ),
    "the volume reset to available": (
        lambda b, _g, v: setattr(b.cinder.rules.volume(v), "status", "available"),
        ["volume-status-differs"],
    ),
    "the volume deleted": (
        _delete_volume,
        ["attachment-gone", "volume-gone"],
    ),
    "the attachment never completed": (
        lambda b, _g, v: setattr(b.cinder.rules.attachments_of(v)[0], "status", "attaching"),
        ["attachment-status-differs"],
    ),
    "the session logged out": (lambda b, _g, _v: b.host.reboot(), ["device-gone"]),
    "another LUN behind the same number": (
        lambda b, _g, v: b.host.export(_target(b, v), wwn="3600140500000000000000000000000ff"),
        ["wrong-device"],
    ),
    "the disk taken out of the live XML": (
        lambda b, g, _v: b.guests.drop_disk(g, "vda", live=True),
        ["disk-gone"],
    ),
    "the disk taken out of both": (
        lambda b, g, _v: b.guests.drop_disk(g, "vda", live=True, config=True),
        ["disk-gone", "disk-gone"],
    ),
    "the disk is another device": (_another_disk, ["disk-source-differs"]),
    "the volume extended in Cinder": (
        lambda b, _g, v: b.cinder.rules.extend(v, 2),
        ["size-differs"],
    ),
    "the guest undefined": (
        _undefine,
        ["guest-gone"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_others_change_is_found(bench: Bench, guest: str, volume: str, change: str) -> None:
    act, expected = CHANGES[change]
    act(bench, guest, volume)
    assert codes(bench) == expected
    assert {finding.volume_id for finding in bench.auditor.audit()} == {volume}


@pytest.mark.parametrize("change", sorted(set(CHANGES) - {"another LUN behind the same number"}))
def test_the_commands_that_a_finding_tells_can_be_pasted(bench: Bench, change: str) -> None:
    name = "$(reboot); {volume}'s server"
    guest = bench.guests.add(name)
    volume = bench.cinder.add_volume(name="data")
    bench.attach(guest, volume)
    CHANGES[change][0](bench, guest, volume)
    for finding in bench.auditor.audit():
        words = shlex.split(finding.resolution.rpartition("attachctl ")[2])
        grown = finding.code is FindingCode.SIZE_DIFFERS
        assert words == (["extend", name, volume, "2"] if grown else ["detach", name, volume])
        if "openstack" in finding.resolution:
            assert f"volume set --state in-use {volume} &&" in finding.resolution


def test_a_disk_of_ours_that_the_journal_does_not_know(bench: Bench, guest: str) -> None:
    ours = GuestDisk(target="vdx", bus="virtio", serial="v", alias="ua-v", source="/dev/sdq")
    theirs = GuestDisk(target="vdy", bus="virtio", serial="w", alias="ua-else", source="/dev/sdr")
    bench.guests.put_disk(guest, ours)
    bench.guests.put_disk(guest, theirs)
    finding = only(bench)
    assert (finding.code, finding.volume_id) == (FindingCode.DISK_UNKNOWN, "v")
    assert "vdx" in finding.resolution


def test_a_session_that_a_detach_left(bench: Bench, guest: str, volume: str) -> None:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.detach("web", "data")
    bench.host.connect(volume, record.connection)
    finding = only(bench)
    assert (finding.code, finding.volume_id) == (FindingCode.SESSION_LEFT, volume)
    assert record.connection.targets[0].iqn in finding.brief


def test_a_session_of_somebody_else_is_none_of_ours(bench: Bench, guest: str, volume: str) -> None:
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    theirs = Target(portal="192.0.2.99:3260", iqn="iqn.2010-10.org.openstack:volume-nova", lun=0)
    other = type(record.connection)(protocol="iscsi", targets=(theirs,))
    bench.host.connect("nova", other)
    assert bench.auditor.audit() == ()


def test_a_session_of_a_volume_that_somebody_else_has_now_is_none_of_ours(
    bench: Bench, guest: str, volume: str
) -> None:
    """Nova attached it to one of its own guests, on this very host."""
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.detach("web", "data")
    bench.cinder.rules.create(volume, "novas-server")
    bench.host.connect(volume, record.connection)
    assert bench.auditor.audit() == ()
    bench.cinder.stop()
    assert codes(bench) == ["world-unreachable"]


@pytest.mark.parametrize("status", ["backing-up", "uploading", "downloading"])
def test_a_session_of_cinders_own_is_none_of_ours(
    bench: Bench, guest: str, volume: str, status: str
) -> None:
    """cinder-backup connects a volume by itself, and makes no attachment for it."""
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    bench.detach("web", "data")
    bench.host.connect(volume, record.connection)
    assert codes(bench) == ["session-left"]
    bench.cinder.rules.volume(volume).status = status
    assert bench.auditor.audit() == ()
    view = bench.rested(
        bench.engine.submit_own(
            OperationKind.DISCONNECT, guest_id=guest, volume_id=volume
        ).operation_id
    )
    assert view.state is OperationState.REFUSED
    assert len(bench.host.devices) == 1


@pytest.mark.parametrize("status", ["backing-up", "extending", "retyping", "uploading"])
def test_what_cinder_does_to_an_attached_volume_for_a_while(
    bench: Bench, guest: str, volume: str, status: str
) -> None:
    bench.cinder.rules.volume(volume).status = status
    assert bench.auditor.audit() == ()


def test_a_volume_attached_again_left_nothing(bench: Bench, guest: str, volume: str) -> None:
    bench.detach("web", "data")
    bench.attach("web", "data")
    assert bench.auditor.audit() == ()


# --- many: each world is asked for all of them together ----------------------------------------


@pytest.fixture
def many(bench: Bench, volume: str) -> str:
    """Seven volumes more, of another guest: as many as are asked for together."""
    beside = bench.guests.add("beside", ports=7)
    for number in range(7):
        bench.cinder.add_volume(name=f"beside-{number}")
        assert bench.attach("beside", f"beside-{number}").state is OperationState.DONE
    return beside


def questions(bench: Bench) -> tuple[list[str], list[str], list[str]]:
    """What the next audit asks of Cinder, of this host, and of libvirt."""
    cinder, host, guests = len(bench.cinder.calls), len(bench.host.calls), len(bench.guests.calls)
    bench.auditor.audit()
    return (
        [call.verb for call in bench.cinder.calls[cinder:]],
        [call.method for call in bench.host.calls[host:]],
        [call.method for call in bench.guests.calls[guests:]],
    )


@in_both_styles
def test_many_cost_no_more_questions_than_one(
    bench: Bench, guest: str, volume: str, many: str
) -> None:
    assert bench.auditor.audit() == ()
    assert questions(bench) == (["list_volumes"], ["look_at", "sessions"], ["all"])


@pytest.mark.parametrize("change", sorted(set(CHANGES) - {"the session logged out"}))
def test_what_others_change_is_found_among_many(
    bench: Bench, guest: str, volume: str, many: str, change: str
) -> None:
    act, expected = CHANGES[change]
    act(bench, guest, volume)
    assert codes(bench) == expected
    assert {finding.volume_id for finding in bench.auditor.audit()} == {volume}


def test_a_session_logged_out_is_found_among_many(
    bench: Bench, guest: str, volume: str, many: str
) -> None:
    bench.host.reboot()
    assert codes(bench) == ["device-gone"] * 8


def test_in_a_large_cloud_each_is_asked_for_by_itself(
    bench: Bench, guest: str, volume: str, many: str
) -> None:
    for number in range(16):
        other = bench.cinder.add_volume(name=f"other-{number}")
        bench.cinder.rules.volume(other).status = "in-use"
    assert questions(bench)[0] == ["list_volumes", *["get_volume"] * 8]
    for _ in range(20):
        assert questions(bench)[0] == ["get_volume"] * 8
    assert questions(bench)[0][0] == "list_volumes"  # it may help by now
    assert bench.auditor.audit() == ()


def test_a_cloud_that_lists_fewer_than_are_asked_for(
    bench: Bench, guest: str, volume: str, many: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cinder's osapi_max_limit."""
    for number in range(16):
        other = bench.cinder.add_volume(name=f"other-{number}")
        bench.cinder.rules.volume(other).status = "in-use"
    listing = bench.cinder.list_volumes

    def ten(*, status: str, limit: int) -> tuple[Volume, ...]:
        return listing(status=status, limit=min(limit, 10))

    monkeypatch.setattr(bench.cinder, "list_volumes", ten)
    assert questions(bench)[0][0] == "list_volumes"
    assert questions(bench)[0] == ["get_volume"] * 8


def test_a_list_that_lacks_most_for_once_is_asked_for_again(
    bench: Bench, guest: str, volume: str, many: str
) -> None:
    """A backup of them all, for one: Cinder has shown whatever is in use."""
    live = bench.journal.live_attachments()
    kept = [bench.cinder.rules.volume(record.volume_id) for record in live]
    for row in kept[1:]:
        row.status = "backing-up"
    assert questions(bench)[0][:1] == ["list_volumes"]
    for row in kept[1:]:
        row.status = "in-use"
    assert questions(bench)[0] == ["list_volumes"]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Refused(Code.CINDER_REFUSED, "It shows this user some volumes only."), []),  # for a while
        (
            Unreachable(Code.CINDER_UNAVAILABLE, "Not now.", world=World.CINDER, touched=False),
            ["list_volumes"],
        ),
    ],
)
def test_where_cinder_lists_none_each_is_asked_for_by_itself(
    bench: Bench, guest: str, volume: str, many: str, error: AttachdError, again: list[str]
) -> None:
    bench.cinder.fail_next("list_volumes", error)
    assert questions(bench)[0] == ["list_volumes", *["get_volume"] * 8]
    assert bench.auditor.audit() == ()
    assert questions(bench)[0][:1] == (again or ["get_volume"])


def test_where_not_all_devices_answer_together_each_is_asked_by_itself(
    bench: Bench, guest: str, volume: str, many: str
) -> None:
    error = Unreachable(Code.ISCSI_UNAVAILABLE, "Not now.", world=World.HOST, touched=False)
    bench.host.fail_next("look_at", error)
    assert questions(bench)[1] == ["look_at", *["wwns", "sizes"] * 8, "sessions"]
    bench.host.withdraw(_target(bench, volume))
    (silent,) = bench.auditor.audit()
    assert (silent.code, silent.volume_id) == (FindingCode.WORLD_UNREACHABLE, volume)
    asked = questions(bench)[1]
    assert asked == ["look_at", "wwns", "sessions"]


def test_what_all_said_together_is_not_told_unless_it_says_so_by_itself(
    bench: Bench, guest: str, volume: str, many: str
) -> None:
    """Another hand was at work on it just then, and is through."""
    wwn, target = _record(bench, volume).wwn, _target(bench, volume)
    assert wwn is not None
    around(
        bench.host,
        "look_at",
        before=lambda: bench.host.export(target, wwn="3600140500000000000000000000000ff"),
        after=lambda: bench.host.export(target, wwn=wwn),
    )
    status = bench.cinder.rules.volume(volume)
    around(
        bench.cinder,
        "list_volumes",
        before=lambda: setattr(status, "status", "maintenance"),
        after=lambda: setattr(status, "status", "in-use"),
    )
    assert bench.auditor.audit() == ()


# --- what can't be seen, and what is on its way ------------------------------------------------


def test_a_world_out_of_reach_is_a_finding_and_the_others_are_compared(
    bench: Bench, guest: str, volume: str
) -> None:
    bench.guests.drop_disk(guest, "vda", live=True)
    bench.cinder.stop()
    unreachable, gone = bench.auditor.audit()
    assert unreachable.code is FindingCode.WORLD_UNREACHABLE
    assert unreachable.says == {World.CINDER: "cinder-unavailable"}
    assert gone.code is FindingCode.DISK_GONE
    assert gone.says[World.CINDER] == "unknown"
    bench.guests.go_away()
    assert codes(bench) == ["world-unreachable", "world-unreachable"]


def test_one_silent_device_does_not_hide_the_others(bench: Bench, guest: str, volume: str) -> None:
    silent = _target(bench, volume)
    second = bench.cinder.add_volume(name="second")
    bench.attach("web", "second")
    bench.host.withdraw(silent)
    bench.cinder.rules.volume(second).status = "available"
    found = {finding.volume_id: finding for finding in bench.auditor.audit()}
    assert found[volume].code is FindingCode.WORLD_UNREACHABLE
    assert found[second].code is FindingCode.VOLUME_STATUS_DIFFERS
    assert found[second].says[World.HOST] != "unknown"


def test_what_an_operation_is_at_work_on_is_left_out(bench: Bench, guest: str) -> None:
    bench.cinder.add_volume(name="data")
    seen: list[tuple[Finding, ...]] = []
    for verb in ("update", "complete"):
        bench.cinder.before_next(verb, lambda: seen.append(bench.auditor.audit()))
    bench.attach("web", "data")
    bench.cinder.before_next("delete", lambda: seen.append(bench.auditor.audit()))
    bench.detach("web", "data")
    assert seen == [(), (), ()]


@pytest.mark.parametrize("question", ["all", "sessions", "look_at", "list_volumes"])
def test_what_comes_and_goes_while_the_audit_asks_is_no_finding(
    bench: Bench, guest: str, volume: str, many: str, question: str
) -> None:
    second = bench.cinder.add_volume(name="second")
    bench.attach("web", "second")
    bench.detach("web", "second")
    bench.cinder.add_volume(name="kept")
    bench.attach("web", "kept")

    def meanwhile() -> None:
        bench.attach("web", "second")
        bench.detach("web", "data")

    world = {"all": bench.guests, "list_volumes": bench.cinder}.get(question, bench.host)
    around(world, question, before=meanwhile)
    assert bench.auditor.audit() == ()
    around(world, question, after=lambda: bench.detach("web", "second"))
    assert bench.auditor.audit() == ()
    around(world, question, after=lambda: bench.attach("web", "second"))
    assert bench.auditor.audit() == ()
    bench.detach("web", "second")
    assert bench.cinder.status(second) == "available"


@pytest.mark.parametrize("question", ["get", "wwns", "get_volume"])
def test_an_operation_that_comes_behind_a_single_question_is_no_finding(
    bench: Bench, guest: str, volume: str, question: str
) -> None:
    """What differed is asked for by itself; what an operation changes meanwhile differs, too."""
    world = {"get": bench.guests, "get_volume": bench.cinder}.get(question, bench.host)
    bench.cinder.rules.extend(volume, 2)
    assert codes(bench) == ["size-differs"]
    around(world, question, before=lambda: bench.detach("web", "data"))
    assert bench.auditor.audit() == ()


def around(
    world: object,
    method: str,
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Something happens once, just before or just behind a look."""
    original = getattr(world, method)

    def look(*given: object, **named: object) -> object:
        setattr(world, method, original)
        before()
        seen = original(*given, **named)
        after()
        return seen

    setattr(world, method, look)


def test_a_record_that_no_operation_is_at_work_on(bench: Bench, guest: str, volume: str) -> None:
    (record,) = bench.journal.live_attachments()
    bench.journal.reserve(replace(record, state=AttachmentState.NEEDS_ATTENTION))
    assert codes(bench) == ["attachment-needs-attention"]
    bench.detach("web", "data")
    assert bench.auditor.audit() == ()


@pytest.mark.parametrize("change", ["the attachment deleted in Cinder", "the volume deleted"])
def test_what_cinder_gave_up_is_taken_off_by_a_detach(
    bench: Bench, guest: str, volume: str, change: str
) -> None:
    """As the finding's resolution says: the guest must not keep somebody else's device."""
    CHANGES[change][0](bench, guest, volume)
    assert all("attachctl detach" in finding.resolution for finding in bench.auditor.audit())
    assert bench.detach(guest, volume).state == "done"
    assert bench.host.devices == ()
    assert bench.auditor.audit() == ()


def test_what_cinder_gave_up_is_taken_off_although_its_target_is_gone(
    bench: Bench, guest: str, volume: str
) -> None:
    """As LIO does: the target goes with the attachment, and the device never answers again."""
    CHANGES["the attachment deleted in Cinder"][0](bench, guest, volume)
    bench.host.withdraw(_target(bench, volume))
    assert bench.detach(guest, volume).state == "done"
    assert bench.host.devices == ()
    assert bench.auditor.audit() == ()


def test_a_device_that_does_not_answer_now_is_kept_while_cinder_has_its_attachment(
    bench: Bench, guest: str, volume: str
) -> None:
    target = _target(bench, volume)
    bench.host.withdraw(target)
    assert bench.detach(guest, volume).state == "needs-attention"
    assert len(bench.host.devices) == 1
    bench.host.export(target)
    for row in bench.journal.operations(open_only=True):
        while bench.journal.operation(row.operation_id).state.open:
            bench.engine.wait(row.operation_id, after=10**6, timeout=0.05)
    bench.assert_nothing_left(guest, volume)


def test_a_guest_that_keeps_what_cinder_gave_up(bench: Bench, guest: str, volume: str) -> None:
    CHANGES["the volume deleted"][0](bench, guest, volume)
    bench.guests.make_deaf(guest)
    assert bench.detach(guest, volume).state == "undone"
    assert codes(bench) == ["attachment-gone", "attachment-needs-attention", "volume-gone"]
    bench.guests.hear(guest)
    while bench.journal.live_attachments():
        bench.until_closed()
    bench.until_closed()
    assert bench.auditor.audit() == ()


def test_an_operation_that_needs_attention(bench: Bench, guest: str, volume: str) -> None:
    with bench.host.held(bench.host.devices[0].path, by="lvm"):
        view = bench.rested(bench.submit(OperationKind.DETACH, "web", "data"))
        finding = only(bench)
    assert (finding.code, finding.operation_id) == (
        FindingCode.OPERATION_NEEDS_ATTENTION,
        view.operation_id,
    )
    assert "still-in-use" in finding.brief
    assert "attachctl operation resume" in finding.resolution


def test_what_is_left_on_a_session_that_another_volume_uses(bench: Bench, guest: str) -> None:
    """Behind one target: one LUN is attached, the other was."""
    bench.cinder.add_volume(name="more")
    volume = bench.cinder.add_volume(name="data")
    bench.attach("web", "more")
    (record,) = bench.journal.live_attachments()
    assert record.connection is not None
    (target,) = record.connection.targets
    bench.detach("web", "more")
    bench.attach("web", "data")
    own = _target(bench, volume)
    shared = replace(target, iqn=own.iqn, portal=own.portal, lun=own.lun + 1)
    left = replace(
        record,
        record_id="left",
        state=AttachmentState.DETACHED,
        connection=replace(record.connection, targets=(shared,)),
    )
    bench.journal.reserve(left)
    assert bench.auditor.audit() == ()
    bench.host.export(shared, wwn=record.wwn)
    bench.host.connect(record.volume_id, left.connection or record.connection)
    assert codes(bench) == ["session-left"]
    bench.host.export(shared, wwn="3600140500000000000000000000000ff")
    assert bench.auditor.audit() == (), "another volume has that number by now"


def test_a_guest_that_was_made_transient_meanwhile_is_gone_at_its_end(bench: Bench) -> None:
    guest = bench.guests.add("brief")
    bench.cinder.add_volume(name="data")
    bench.attach("brief", "data")
    bench.guests.undefine(guest)
    assert bench.auditor.audit() == ()
    bench.guests.destroy(guest)
    assert codes(bench) == ["guest-gone"]
    assert GuestState.SHUTOFF not in {g.state for g in bench.guests.all()}


# --- one at a time, and not for ever -----------------------------------------------------------


def test_one_audit_at_a_time(
    bench: Bench, guest: str, volume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor, "TURN_SECONDS", 0.05)

    def another() -> None:
        with pytest.raises(Refused) as caught:
            bench.auditor.audit()
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        asked.append(True)

    asked: list[bool] = []
    around(bench.guests, "all", before=another)
    assert bench.auditor.audit() == ()
    assert asked == [True]
    assert bench.auditor.audit() == ()


def test_a_stopping_daemon_audits_no_further(bench: Bench, guest: str, volume: str) -> None:
    around(bench.guests, "all", after=bench.auditor.stop)
    with pytest.raises(Refused) as caught:
        bench.auditor.audit()
    assert caught.value.code is Code.SHUTTING_DOWN
