"""The journal on a real file: what it promises. Bad files and disks: test_bad_files.py."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from attachd import trace
from attachd.errors import AttachdError, Code, Problem, World
from attachd.journal.ballast import Ballast
from attachd.journal.journal import Journal
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    Chap,
    Connection,
    OperationKind,
    OperationState,
    Request,
    Target,
)
from attachd.saga.history import Entry, Happening
from tests.unit.records import a_record

REQUEST = Request(kind=OperationKind.ATTACH, guest="g1", volume="v1", request_id="r1")


def code_of(excinfo: pytest.ExceptionInfo[AttachdError]) -> Code:
    return excinfo.value.code


def test_the_file_is_the_daemons_alone(journal: Journal, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_comes_before_an_effect_is_on_the_disk_at_its_return(journal: Journal) -> None:
    """What else is written waits for no disk, and is taken along by the next that does."""
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    journal.accept("o1", REQUEST)
    assert waits_for_the_disk(journal)
    for happening in Happening:
        journal.append("o1", Entry(happening=happening, step="create"), reason="next")
        durable = happening in (Happening.DO_INTENT, Happening.UNDO_INTENT)
        assert waits_for_the_disk(journal) is durable, happening
    for soon_followed in (
        partial(journal.start, "o1"),
        partial(journal.reserve, a_record(record_id="r1", operation_id="o1")),
        partial(journal.claim, "o1", guest_id="g", guest_name="g", volume_id="v", volume_name="v"),
    ):
        soon_followed()
        assert not waits_for_the_disk(journal), soon_followed
    for final in (
        partial(journal.rest, "o1", OperationState.NEEDS_ATTENTION),
        partial(journal.accept_again, "o1"),
        partial(journal.forget, "r1"),
    ):
        journal.start("o1")
        final()
        assert waits_for_the_disk(journal), final


def test_a_refused_write_leaves_the_next_one_durable(journal: Journal) -> None:
    journal.accept("o1", REQUEST)
    journal.reserve(a_record(record_id="r1", operation_id="o1"))
    with pytest.raises(AttachdError):
        journal.reserve(a_record(record_id="r2", operation_id="o1"))
    journal.append("o1", Entry(happening=Happening.DO_INTENT, step="create"), reason="next")
    assert waits_for_the_disk(journal)


def waits_for_the_disk(journal: Journal) -> bool:
    """Did the last commit? In write-ahead mode FULL (2) does, NORMAL doesn't."""
    return bool(journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2)


def test_what_was_asked_for_is_read_as_it_was_written(journal: Journal) -> None:
    extend = replace(REQUEST, kind=OperationKind.EXTEND, request_id="r2", size_gib=2)
    for number, request in enumerate((REQUEST, extend)):
        journal.accept(f"o{number}", request)
        assert journal.operation(f"o{number}").request == request


@pytest.mark.parametrize("kind", OperationKind)
def test_only_an_extend_that_rests_keeps_nobody_off(journal: Journal, kind: OperationKind) -> None:
    names: dict[str, Any] = {
        "guest_id": "g",
        "guest_name": "g",
        "volume_id": "v",
        "volume_name": "v",
    }
    journal.accept("o1", replace(REQUEST, kind=kind))
    journal.accept("o2", replace(REQUEST, request_id="r2"))
    assert journal.claim("o1", **names) is None
    assert journal.claim("o2", **names) == journal.operation("o1")
    journal.rest("o1", OperationState.NEEDS_ATTENTION)
    yields = kind is OperationKind.EXTEND
    assert journal.claim("o2", **names) == (None if yields else journal.operation("o1"))


def test_what_was_written_is_there_after_reopening(journal: Journal, path: Path) -> None:
    problem = Problem(code=Code.CONNECT_FAILED, brief="no", details="d", resolution="r")
    journal.accept("o1", REQUEST)
    journal.append("o1", Entry(happening=Happening.DO_INTENT, step="reserve"), reason="next")
    record = a_record(operation_id="o1")
    journal.append(
        "o1",
        Entry(happening=Happening.DO_FAILED, step="reserve"),
        reason="why",
        problem=problem,
        record=record,
    )
    journal.rest("o1", OperationState.NEEDS_ATTENTION, problem=problem, waiting_for=World.GUEST)
    journal.close()

    again = Journal(path=path, boot_id="boot-2")
    row = again.operation("o1")
    assert (row.request, row.state, row.problem) == (
        REQUEST,
        OperationState.NEEDS_ATTENTION,
        problem,
    )
    assert row.waiting_for is World.GUEST
    assert row.record_id == record.record_id
    intent, outcome = again.events("o1")
    assert (intent.seq, outcome.seq) == (1, 2)
    assert (outcome.entry.happening, outcome.reason, outcome.problem, outcome.boot_id) == (
        Happening.DO_FAILED,
        "why",
        problem,
        "boot-1",
    )
    read = again.record(record.record_id)
    assert replace(read, created_at="", updated_at="") == record
    again.close()


def test_the_same_request_gets_the_first_ones_operation(journal: Journal) -> None:
    assert journal.accept("o1", REQUEST).operation_id == "o1"
    assert journal.accept("o2", REQUEST).operation_id == "o1"
    with pytest.raises(AttachdError) as excinfo:
        journal.accept("o3", replace(REQUEST, volume="v2"))
    assert code_of(excinfo) is Code.REQUEST_ID_REUSED


def test_only_one_open_operation_marks_a_volume(journal: Journal) -> None:
    names: dict[str, Any] = {
        "guest_id": "g",
        "guest_name": "g",
        "volume_id": "v",
        "volume_name": "v",
    }
    journal.accept("o1", REQUEST)
    journal.accept("o2", replace(REQUEST, request_id="r2"))
    assert journal.claim("o1", **names) is None
    holder = journal.claim("o2", **names)
    assert holder is not None
    assert holder.operation_id == "o1"
    journal.rest("o1", OperationState.NEEDS_ATTENTION)
    assert journal.claim("o2", **names) is not None, "needs-attention keeps its mark"
    journal.rest("o1", OperationState.UNDONE)
    assert journal.claim("o2", **names) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"volume_id": "other"}, Code.DEVICE_NAME_TAKEN),
        ({"device": "vdz"}, Code.ALREADY_ATTACHED),
    ],
)
def test_a_live_record_holds_its_device_name_and_its_volume(
    journal: Journal, change: dict[str, str], expected: Code
) -> None:
    journal.accept("o1", REQUEST)
    journal.accept("o2", replace(REQUEST, request_id="r2"))
    journal.reserve(a_record(operation_id="o1"))
    with pytest.raises(AttachdError) as excinfo:
        journal.reserve(a_record(operation_id="o2", record_id="record-2", **change))
    assert code_of(excinfo) is expected
    assert not excinfo.value.touched
    assert len(journal.live_attachments()) == 1


def test_a_detached_record_holds_nothing(journal: Journal) -> None:
    journal.accept("o1", REQUEST)
    journal.reserve(a_record(operation_id="o1", state=AttachmentState.DETACHED))
    journal.reserve(a_record(operation_id="o1", record_id="record-2"))
    assert [r.record_id for r in journal.live_attachments()] == ["record-2"]


def test_a_forgotten_record_is_gone_and_forgetting_twice_is_fine(journal: Journal) -> None:
    journal.accept("o1", REQUEST)
    journal.reserve(a_record(operation_id="o1"))
    journal.forget("record-1")
    journal.forget("record-1")
    assert journal.live_attachments() == ()
    assert journal.operation("o1").record_id is None


def test_no_secret_reaches_the_file(journal: Journal, path: Path) -> None:
    chap = Chap(username="user", password="s3cr3t-of-chap")
    connection = Connection(
        protocol="iscsi",
        targets=(Target(portal="127.0.0.1:3260", iqn="iqn.x", lun=1),),
        chap=chap,
        discovery_chap=chap,
    )
    journal.accept("o1", REQUEST)
    journal.reserve(a_record(operation_id="o1", connection=connection))
    assert journal.record("record-1").connection == connection.without_secrets()
    journal.close()
    for file in path.parent.iterdir():
        assert b"s3cr3t-of-chap" not in file.read_bytes(), file


@pytest.mark.parametrize("name", ["operation", "attachment", "record"])
def test_what_is_not_there_is_named(journal: Journal, name: str) -> None:
    with pytest.raises(AttachdError, match="nothing-like-it") as excinfo:
        getattr(journal, name)("nothing-like-it")
    assert code_of(excinfo) in (Code.OPERATION_NOT_FOUND, Code.ATTACHMENT_NOT_FOUND)


def test_the_ballast_is_allocated_not_only_declared(tmp_path: Path) -> None:
    file = tmp_path / "ballast"
    ballast = Ballast(path=file, size=1024 * 1024)
    ballast.secure()
    assert file.stat().st_blocks * 512 >= 1024 * 1024
    assert ballast.give_up()
    assert not ballast.give_up()
    assert file.stat().st_blocks == 0


@pytest.mark.parametrize("jump", [-400, 400], ids="{:+} days".format)
def test_order_is_the_order_of_what_happened_whatever_the_clock_says(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    def write(number: int) -> None:
        journal.accept(f"o{number}", replace(REQUEST, request_id=f"r{number}"))
        journal.reserve(
            a_record(
                operation_id=f"o{number}",
                record_id=f"record-{number}",
                attachment_id="a",
                state=AttachmentState.DETACHED,
            )
        )

    write(1)
    there = datetime.now(UTC) + timedelta(days=jump)
    monkeypatch.setattr("attachd.journal.journal.utc_now", there.isoformat)
    write(2)
    monkeypatch.undo()
    write(3)
    assert [row.operation_id for row in journal.operations()] == ["o3", "o2", "o1"]
    assert [row.operation_id for row in journal.operations(open_only=True)] == ["o3", "o2", "o1"]
    assert [row.operation_id for row in journal.operations(before="o3", limit=1)] == ["o2"]
    detached = [record.record_id for record in journal.detached_attachments()]
    assert detached == ["record-1", "record-2", "record-3"]
    assert journal.attachment("a").record_id == "record-3"


def test_an_events_age_counts_from_it_or_from_this_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier process asked for it may have asked again, until it died."""
    clock = [1000.0]
    monkeypatch.setattr(trace, "now", lambda: clock[0])
    journal = Journal(path=path, boot_id="boot-1")
    journal.accept("o1", REQUEST)
    clock[0] = 1010.0
    journal.append("o1", Entry(happening=Happening.DO_INTENT, step="create"), reason="next")
    (event,) = journal.events("o1")
    clock[0] = 1017.0
    assert (journal.is_own(event), journal.age(event)) == (True, 7)
    journal.close()
    successor = Journal(path=path, boot_id="boot-1")
    clock[0] = 1020.0
    assert (successor.is_own(event), successor.age(event)) == (False, 3)
    successor.close()
    clock[0] = 5.0
    rebooted = Journal(path=path, boot_id="boot-2")
    clock[0] = 12.0
    assert (rebooted.is_own(event), rebooted.age(event)) == (False, 7)
    rebooted.close()


def test_what_rests_keeps_no_other_guest_off_a_shareable_volume(journal: Journal) -> None:
    names: dict[str, Any] = {"guest_name": "g", "volume_id": "v", "volume_name": "v"}
    journal.accept("o1", REQUEST)
    journal.accept("o2", replace(REQUEST, request_id="r2"))
    journal.start("o1")
    assert journal.claim("o1", guest_id="g1", **names, shareable=True) is None
    assert journal.claim("o2", guest_id="g2", **names, shareable=True) is not None, "it runs"
    journal.rest("o1", OperationState.NEEDS_ATTENTION)
    assert journal.claim("o2", guest_id="g1", **names, shareable=True) is not None, "its own guest"
    assert journal.claim("o2", guest_id="g2", **names, shareable=False) is not None
    assert journal.claim("o2", guest_id="g2", **names, shareable=True) is None


def test_one_that_was_resumed_waits_for_another_guests_and_not_they_for_each_other(
    journal: Journal,
) -> None:
    names: dict[str, Any] = {"guest_name": "g", "volume_id": "v", "volume_name": "v"}
    for name in ("o1", "o2"):
        journal.accept(name, replace(REQUEST, request_id=name))
        journal.start(name)
        assert journal.claim(name, guest_id=f"of-{name}", **names, shareable=True) is None
        if name == "o1":
            journal.rest(name, OperationState.NEEDS_ATTENTION)
    journal.accept_again("o1")
    # The daemon was killed in o2: both take again what they had claimed.
    assert journal.claim("o1", guest_id="of-o1", **names, shareable=True) is not None
    assert journal.claim("o2", guest_id="of-o2", **names, shareable=True) is None
    assert journal.claim("o2", guest_id="of-o1", **names, shareable=True) is not None, "its own"


def test_calls_are_kept_with_each_line_and_at_rest(journal: Journal) -> None:
    """A daemon that is killed keeps those of the steps that it had behind it."""
    exchange = trace.Exchange(method="PUT", url="/attachments/a", body={"a": 1}, status=409)
    first = trace.Call(
        library=trace.Library.CINDER,
        name="PUT /attachments/a",
        started=1.0,
        ended=2.0,
        outcome="HTTP 409",
        exchange=exchange,
    )
    second = trace.Call(library=trace.Library.LIBVIRT, name="lookup", started=3.0, ended=4.0)
    journal.accept("o1", REQUEST)
    entry = Entry(happening=Happening.DO_FAILED, step="update")
    journal.append("o1", entry, reason="No.", calls=[first])
    assert journal.calls("o1") == (first,)
    journal.rest("o1", OperationState.UNDONE, calls=[second])
    assert journal.calls("o1") == (first, second)
    assert journal.snapshot("o1", exchanges=True)[-1] == (first, second)
    assert journal.snapshot("o1", exchanges=False)[-1] == (replace(first, exchange=None), second)


def test_a_deep_answer_is_kept(journal: Journal) -> None:
    """As deep as JSON is read: what Cinder answers must not stop an operation."""
    deep: Any = "the end"
    for _ in range(400):
        deep = {"in": deep}
    exchange = trace.Exchange(method="GET", url="/volumes/v", answer=deep)
    call = trace.Call(
        library=trace.Library.CINDER, name="GET", started=1.0, ended=2.0, exchange=exchange
    )
    journal.accept("o1", REQUEST)
    journal.rest("o1", OperationState.DONE, calls=[call])
    assert journal.calls("o1") == (call,)


def test_only_the_latest_keep_what_was_said_to_cinder(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.journal.journal.KEPT_EXCHANGES", 2)
    exchange = trace.Exchange(method="GET", url="/volumes/v")
    call = trace.Call(
        library=trace.Library.CINDER, name="GET", started=1.0, ended=2.0, exchange=exchange
    )
    for number in range(4):
        journal.accept(f"o{number}", replace(REQUEST, request_id=f"r{number}"))
        journal.rest(f"o{number}", OperationState.DONE, calls=[call])
    kept = [journal.calls(f"o{number}")[0].exchange for number in range(4)]
    assert kept == [None, None, exchange, exchange]


# --- what holds something is kept parsed ----------------------------------------------------------


def test_what_is_attached_is_as_the_file_has_it_at_any_time(journal: Journal, path: Path) -> None:
    """By the order of guests and names, through changes, ends and a write that failed."""

    def by_another() -> tuple[AttachmentRecord, ...]:
        other = Journal(path=path, boot_id="boot-1")
        try:
            return other.live_attachments()
        finally:
            other.close()

    journal.accept("o1", REQUEST)
    records = [
        a_record(record_id=f"r{n}", operation_id="o1", volume_id=f"v{n}", device=f"vd{name}")
        for n, name in enumerate("cba")
    ]
    assert journal.live_attachments() == ()
    for record in records:
        journal.reserve(record)
        assert journal.live_attachments() == by_another()
    assert [r.device for r in journal.live_attachments()] == ["vda", "vdb", "vdc"]
    journal.reserve(replace(records[0], state=AttachmentState.ATTACHED))
    assert journal.live_attachments() == by_another()
    with pytest.raises(AttachdError):
        journal.reserve(a_record(record_id="r9", operation_id="o1", device="vda", volume_id="v9"))
    assert journal.live_attachments() == by_another()
    journal.reserve(replace(records[0], state=AttachmentState.RELEASED))
    journal.forget("r1")
    assert journal.live_attachments() == by_another()
    assert [r.record_id for r in journal.live_attachments()] == ["r2"]


def test_reading_what_is_attached_again_reads_no_row_again(journal: Journal) -> None:
    journal.accept("o1", REQUEST)
    journal.reserve(a_record(operation_id="o1"))
    first = journal.live_attachments()
    statements: list[str] = []
    journal._db.set_trace_callback(statements.append)
    assert journal.live_attachments() is first
    assert statements == []
