"""Which operations the journal forgets, with all that hangs on them, and which never."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attachd.journal import history
from attachd.journal.history import Terms
from attachd.journal.journal import Journal
from attachd.model import AttachmentState, OperationKind, OperationState, Request
from attachd.saga.history import Entry, Happening
from attachd.trace import Call, Library
from tests.unit.records import CONNECTION, a_record

ALL = Terms(ended_before="9999", kept=0, most=0)


def begun(journal: Journal, name: str, *, volume: str = "v") -> str:
    """An operation with an event and a call, and its claim."""
    journal.accept(
        name, Request(kind=OperationKind.ATTACH, guest="g", volume=volume, request_id=name)
    )
    journal.start(name)
    call = Call(library=Library.CINDER, name="GET", started=1.0, ended=2.0)
    entry = Entry(happening=Happening.DO_INTENT, step="reserve")
    journal.append(name, entry, reason="next", calls=(call,))
    return name


def over(
    journal: Journal, *names: str, volume: str = "v", state: OperationState = OperationState.DONE
) -> None:
    for name in names:
        journal.rest(begun(journal, name, volume=volume), state)


def left(journal: Journal) -> list[str]:
    return [row.operation_id for row in journal.operations()]


def rows(journal: Journal, table: str) -> int:
    return int(journal._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_all_that_hangs_on_an_operation_goes_with_it(journal: Journal) -> None:
    over(journal, "o1", "o2")
    over(journal, "o3", state=OperationState.UNDONE)
    over(journal, "o4", state=OperationState.REFUSED)
    assert journal.forget_history(ALL, spared=()) == 4
    assert [rows(journal, table) for table in ("operations", "events", "calls")] == [0, 0, 0]
    assert journal.forget_history(ALL, spared=()) == 0


def test_the_newest_are_kept_whatever_the_clock_says(journal: Journal) -> None:
    over(journal, "o1", "o2", "o3")
    assert journal.forget_history(replace(ALL, kept=2, most=2), spared=()) == 1
    assert left(journal) == ["o3", "o2"]


def test_none_goes_before_its_time_unless_there_are_too_many(journal: Journal) -> None:
    over(journal, "o1", "o2", "o3")
    terms = Terms(ended_before="2000", kept=0, most=3)
    assert journal.forget_history(terms, spared=()) == 0
    assert journal.forget_history(replace(terms, most=1), spared=()) == 2
    assert left(journal) == ["o3"]


@pytest.mark.parametrize("state", [s for s in OperationState if s.open])
def test_an_open_operation_stays_and_what_is_known_of_its_volume(
    journal: Journal, state: OperationState
) -> None:
    """It may have been superseded by what came behind it."""
    over(journal, "before")
    begun(journal, "open")
    journal._db.execute("UPDATE operations SET state = ?", (state.value,))
    over(journal, "behind")
    over(journal, "another", volume="w")
    assert journal.forget_history(ALL, spared=()) == 1
    assert "open" in left(journal)
    assert "behind" in left(journal)
    assert "another" not in left(journal)
    assert journal.superseded("open", "v")


def test_a_volume_that_is_named_otherwise_by_each_is_one(journal: Journal) -> None:
    over(journal, "by-id", volume="1-2-3")
    begun(journal, "by-name", volume="data")
    journal.claim("by-name", guest_id="g", guest_name="g", volume_id="1-2-3", volume_name="data")
    assert journal.forget_history(ALL, spared=()) == 0


def test_what_an_audit_found_something_about_keeps_its_history(journal: Journal) -> None:
    over(journal, "o1")
    over(journal, "o2", volume="w")
    assert journal.forget_history(ALL, spared={"v", "u"}) == 1
    assert left(journal) == ["o1"]


def test_an_attachment_keeps_its_latest_operation(journal: Journal) -> None:
    record = a_record(operation_id="o1", state=AttachmentState.ATTACHED)
    begun(journal, "o1")
    journal.reserve(record)
    journal.rest("o1", OperationState.DONE)
    begun(journal, "o2")
    journal.reserve(replace(record, operation_id="o2"))
    journal.rest("o2", OperationState.DONE)
    assert journal.forget_history(ALL, spared=()) == 1
    assert left(journal) == ["o2"]
    assert journal.record(record.record_id).state is AttachmentState.ATTACHED


@pytest.mark.parametrize("state", [AttachmentState.DETACHED, AttachmentState.RELEASED])
def test_what_was_detached_is_forgotten_with_its_last_operation(
    journal: Journal, state: AttachmentState
) -> None:
    record = a_record(operation_id="o1", state=AttachmentState.ATTACHED, connection=CONNECTION)
    begun(journal, "o1")
    journal.reserve(record)
    journal.rest("o1", OperationState.DONE)
    begun(journal, "o2")
    journal.reserve(replace(record, operation_id="o2", state=state))
    journal.rest("o2", OperationState.DONE)
    assert journal.forget_history(replace(ALL, kept=1, most=1), spared=()) == 1
    assert rows(journal, "attachments") == 1
    assert journal.forget_history(ALL, spared=()) == 1
    assert rows(journal, "attachments") == (0 if state is AttachmentState.DETACHED else 1)


def test_what_an_undone_attach_may_have_left_is_forgotten_with_it(journal: Journal) -> None:
    begun(journal, "o1")
    journal.reserve(a_record(operation_id="o1", connection=CONNECTION))
    journal.forget("record-1")
    journal.rest("o1", OperationState.UNDONE)
    assert [r.record_id for r in journal.detached_attachments()] == ["record-1"]
    assert journal.forget_history(ALL, spared=()) == 1
    assert journal.detached_attachments() == ()


def test_nobody_waits_for_more_than_a_batch(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BATCH", 2)
    over(journal, "o1", "o2", "o3")
    assert [journal.forget_history(ALL, spared=()) for _ in range(3)] == [2, 1, 0]


def test_the_files_room_is_used_again(journal: Journal, path: Path) -> None:
    """Many times what is kept is written, and the file is as long as behind the first time."""

    def a_time(number: int) -> int:
        over(journal, *(f"{number}-{each}" for each in range(60)))
        while journal.forget_history(replace(ALL, kept=10, most=10), spared=()):
            pass
        journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.stat().st_size

    longest = max(a_time(number) for number in range(3))
    assert max(a_time(number) for number in range(3, 12)) <= longest
