"""The journal's file damaged, its disk full or read-only, its schema newer or older.

Each is a clear refusal, or a clear recovery; and nothing is changed by a refusal.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from attachd.errors import AttachdError, Code
from attachd.journal import database
from attachd.journal.ballast import Ballast, path_of
from attachd.journal.history import Terms
from attachd.journal.journal import Journal
from attachd.journal.rows import attachment_values
from attachd.model import AttachFlow, AttachmentState, OperationKind, OperationState, Request
from attachd.saga.history import Entry, Happening
from tests.unit.records import a_record

REQUEST = Request(kind=OperationKind.ATTACH, guest="g1", volume="v1", request_id="r1")
PAGE = 4096


@pytest.fixture
def filled(path: Path) -> Path:
    """A closed journal of many pages: every table and index has some."""
    journal = Journal(path=path, boot_id="boot-1")
    for number in range(120):
        journal.accept(f"o{number}", replace(REQUEST, request_id=f"r{number}"))
        record = a_record(
            operation_id=f"o{number}",
            record_id=f"record-{number}",
            volume_id=f"volume-{number}",
            device=f"vd{number}",
        )
        intent = Entry(happening=Happening.DO_INTENT, step="reserve")
        journal.append(f"o{number}", intent, reason="next", record=record)
    journal.close()
    return path


def refused(path: Path, code: Code = Code.JOURNAL_UNAVAILABLE) -> AttachdError:
    """Opening fails with the code and all of its words, and leaves the directory as it was."""
    before = content(path.parent)
    with pytest.raises(AttachdError) as excinfo:
        Journal(path=path, boot_id="b")
    assert content(path.parent) == before
    error, problem = excinfo.value, excinfo.value.problem
    assert (error.code, error.touched) == (code, False)
    assert problem.brief
    assert problem.details
    assert problem.resolution
    return error


def content(directory: Path) -> dict[str, bytes]:
    """The files, but for what SQLite makes whenever it opens one."""
    return {
        file.name: file.read_bytes()
        for file in directory.iterdir()
        if not file.name.endswith("-shm") and not (file.name.endswith("-wal") and not size(file))
    }


def size(file: Path) -> int:
    return file.stat().st_size


# --- a damaged file ---------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("This is not a database, whatever its name says." * 50)
    refused(path)


def test_any_page_overwritten_is_noticed(filled: Path) -> None:
    whole = filled.read_bytes()
    assert len(whole) > 20 * PAGE
    for start in range(0, len(whole), PAGE):
        for bad in (os.urandom(PAGE), bytes(PAGE)):
            filled.write_bytes(whole[:start] + bad + whole[start + PAGE :])
            refused(filled)


def test_a_long_files_damage_is_noticed_where_decisions_are_made_by_it_or_when_it_is_read(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FULLY_CHECKED", 0)

    def decisive(journal: Journal) -> object:
        return journal.operations(), journal.live_attachments()

    def all_of_it(journal: Journal) -> object:
        return [journal.events(row.operation_id) for row in journal.operations()]

    journal = Journal(path=filled, boot_id="b")
    before = decisive(journal), all_of_it(journal)
    journal.close()
    whole = filled.read_bytes()
    seen = set()
    for start in range(0, len(whole), PAGE):
        filled.write_bytes(whole[:start] + os.urandom(PAGE) + whole[start + PAGE :])
        try:
            journal = Journal(path=filled, boot_id="b")
        except AttachdError as exc:
            assert exc.code is Code.JOURNAL_UNAVAILABLE
            seen.add("refused")
            continue
        with closing(journal):
            assert decisive(journal) == before[0]
            try:
                assert all_of_it(journal) == before[1]  # an index, of the calls' say
            except AttachdError as exc:
                assert exc.code is Code.JOURNAL_UNAVAILABLE
                seen.add("found when it was read")
    assert seen == {"refused", "found when it was read"}


def test_two_pages_exchanged_are_noticed(filled: Path) -> None:
    whole = filled.read_bytes()
    for start in range(PAGE, len(whole) - PAGE, PAGE):
        one, other = whole[start : start + PAGE], whole[start + PAGE : start + 2 * PAGE]
        filled.write_bytes(whole[:start] + other + one + whole[start + 2 * PAGE :])
        refused(filled)


@pytest.mark.parametrize("kept", [0, 1, 50, PAGE, 5 * PAGE + 17, 10 * PAGE])
def test_a_file_cut_short_is_refused(filled: Path, kept: int) -> None:
    """Above all one of no length: an empty journal would have forgotten every attachment."""
    os.truncate(filled, kept)
    refused(filled)


def test_somebody_elses_database_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    assert "no journal" in refused(path).problem.details


def test_a_log_without_its_journal_is_refused(filled: Path) -> None:
    """SQLite would read it into the new file."""
    journal = Journal(path=filled, boot_id="b")
    journal.forget("record-1")
    shutil.copy(f"{filled}-wal", filled.with_name("kept"))
    journal.close()
    filled.unlink()
    shutil.copy(filled.with_name("kept"), f"{filled}-wal")
    assert "-wal" in refused(filled).problem.details


def test_a_start_that_was_killed_while_it_made_the_file(path: Path) -> None:
    path.with_name("journal.db.new").write_bytes(b"half")
    Journal(path=path, boot_id="b").close()
    assert [file.name for file in path.parent.iterdir()] == ["journal.db"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE attachments SET connection = '{'",
        "UPDATE attachments SET connection = '{\"targets\": [{}]}'",
        "UPDATE attachments SET state = 'sideways'",
        "UPDATE attachments SET flow = 'backwards'",
        "UPDATE attachments SET prior_attachment_ids = '3'",
    ],
)
def test_a_damaged_row_names_itself(path: Path, damage: str) -> None:
    journal = Journal(path=path, boot_id="b")
    journal.accept("o1", REQUEST)
    journal.reserve(a_record(operation_id="o1"))
    journal._db.execute(damage)
    with pytest.raises(AttachdError) as excinfo:
        journal.record("record-1")
    assert excinfo.value.code is Code.JOURNAL_UNAVAILABLE
    assert "record-1" in excinfo.value.problem.details
    journal.close()


# --- schemas ----------------------------------------------------------------------------------


def test_a_newer_schema_is_refused(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as db:
        db.execute("PRAGMA user_version = 99")
    assert "schema 99" in refused(filled).problem.details


def later(monkeypatch: pytest.MonkeyPatch, *scripts: str) -> None:
    """This program knows more schemas than there are."""
    known = database._migrations()
    more = list(enumerate(scripts, start=len(known) + 1))
    monkeypatch.setattr(database, "_migrations", lambda: [*known, *more])


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


def test_an_older_schema_is_migrated_and_the_old_file_kept(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = database._migrations()[-1][0]
    before = {name: rows(filled, name) for name in ("operations", "events", "attachments")}
    later(
        monkeypatch,
        "ALTER TABLE operations ADD COLUMN colour TEXT; UPDATE operations SET colour = 'red'",
        "ALTER TABLE operations DROP COLUMN colour",
    )
    journal = Journal(path=filled, boot_id="b")
    assert len(journal.operations()) == 120
    journal.close()
    with closing(sqlite3.connect(filled)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == version + 2

    kept = filled.with_name(f"journal.db.schema-{version}")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert {name: rows(kept, name) for name in before} == before
    assert {file.name for file in filled.parent.iterdir()} == {
        *(filled.name, kept.name),
        "journal.ballast",
    }
    monkeypatch.undo()
    shutil.copy(kept, filled)  # the way back
    Journal(path=filled, boot_id="b").close()


def test_a_journal_of_the_first_schema_is_migrated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds is attached still, none of it adopted; and what it had is kept beside it."""
    with monkeypatch.context() as older:
        first = database._migrations()[:1]
        older.setattr(database, "_migrations", lambda: first)
        with closing(database.open_database(path)) as db:
            columns = {column["name"] for column in db.execute("PRAGMA table_info(attachments)")}
            old = {k: v for k, v in attachment_values(a_record()).items() if k in columns}
            marks = ", ".join(f":{name}" for name in old)
            db.execute(f"INSERT INTO attachments ({', '.join(old)}) VALUES ({marks})", old)
    before = rows(path, "attachments")
    journal = Journal(path=path, boot_id="b")
    (record,) = journal.live_attachments()
    assert record == a_record()
    assert not record.adopted
    journal.accept("o1", REQUEST)
    journal.reserve(replace(record, operation_id="o1", state=AttachmentState.RELEASED))
    assert journal.live_attachments() == ()
    again = replace(record, record_id="again", adopted_path="/dev/sdb", adopted_serial="theirs")
    journal.reserve(again)
    journal.close()
    journal = Journal(path=path, boot_id="b")
    (kept,) = journal.live_attachments()
    assert (kept.adopted_path, kept.serial) == ("/dev/sdb", "theirs")
    journal.close()
    assert rows(path.with_name("journal.db.schema-1"), "attachments") == before


def test_what_was_attached_before_there_was_an_old_style_is_of_the_new(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = database._migrations()[:1]
    with monkeypatch.context() as older:
        older.setattr(database, "_migrations", lambda: first)
        Journal(path=path, boot_id="b").close()
    with closing(sqlite3.connect(path)) as db:
        columns = {column[1] for column in db.execute("PRAGMA table_info(attachments)")}
        every = attachment_values(a_record(attachment_id="a-1"))
        values = {name: value for name, value in every.items() if name in columns}
        db.execute(
            f"INSERT INTO attachments ({', '.join(values)}) "
            f"VALUES ({', '.join(f':{name}' for name in values)})",
            values,
        )
        db.commit()
    journal = Journal(path=path, boot_id="b")
    (record,) = journal.live_attachments()
    journal.close()
    assert record == a_record(attachment_id="a-1")
    assert (record.flow, record.reserved) == (AttachFlow.ATTACHMENTS, False)
    assert path.with_name("journal.db.schema-1").exists()


def test_a_migration_that_fails_leaves_the_old_schema(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = database._migrations()[-1][0]
    before = rows(filled, "operations")
    with monkeypatch.context() as newer:
        later(newer, "UPDATE operations SET state = 'lost'; SELECT nothing FROM nowhere")
        with pytest.raises(AttachdError) as excinfo:
            Journal(path=filled, boot_id="b")
    assert excinfo.value.code is Code.JOURNAL_UNAVAILABLE
    assert rows(filled, "operations") == before
    assert rows(filled.with_name(f"journal.db.schema-{version}"), "operations") == before
    Journal(path=filled, boot_id="b").close()


# --- a full disk, a read-only one -------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB of its own; only root can mount one."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or not mount or not umount:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=True)
    yield place
    subprocess.run([umount, "--lazy", place], check=True)


def fill(place: Path) -> None:
    with (place / f"filler-{len(list(place.iterdir()))}").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            return


def free(place: Path) -> None:
    for filler in place.glob("filler-*"):
        filler.unlink()


def undo_something(journal: Journal, times: int) -> None:
    for _ in range(times):
        for happening in (Happening.UNDO_INTENT, Happening.UNDO_FAILED):
            journal.append("o1", Entry(happening=happening, step="plug"), reason="again")


def test_a_full_disk_stops_new_operations_but_never_an_undo(small_disk: Path) -> None:
    journal = Journal(path=small_disk / "journal.db", boot_id="b")
    journal.accept("o1", REQUEST)
    journal.reserve(a_record(operation_id="o1"))
    fill(small_disk)

    undo_something(journal, 300)
    assert len(journal.events("o1")) == 600

    with pytest.raises(AttachdError) as excinfo:
        journal.accept("o2", replace(REQUEST, request_id="r2"))
    assert (excinfo.value.code, excinfo.value.touched) == (Code.JOURNAL_FULL, False)
    assert excinfo.value.problem.resolution
    assert [row.operation_id for row in journal.operations()] == ["o1"]

    free(small_disk)
    assert journal.accept("o2", replace(REQUEST, request_id="r2")).operation_id == "o2"
    journal.close()


@pytest.mark.parametrize("killed", [False, True])
def test_a_daemon_that_starts_on_a_full_disk_can_still_undo(small_disk: Path, killed: bool) -> None:
    """SQLite can't even open its file there: the ballast is for that, too."""
    path = small_disk / "journal.db"
    journal = Journal(path=path, boot_id="b")
    journal.accept("o1", REQUEST)
    if killed:  # what is on the disk then is what a copy has
        for file in small_disk.glob("journal.db-*"):
            shutil.copy(file, f"{file}.kept")
    journal.close()
    for file in small_disk.glob("*.kept"):
        file.rename(file.with_suffix(""))
    fill(small_disk)

    again = Journal(path=path, boot_id="b")
    undo_something(again, 300)
    with pytest.raises(AttachdError) as excinfo:
        again.accept("o2", replace(REQUEST, request_id="r2"))
    assert excinfo.value.code is Code.JOURNAL_FULL
    again.close()


def test_what_is_held_back_is_not_for_forgetting(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    journal = Journal(path=path, boot_id="b")
    for number in range(200):
        journal.accept(f"o{number}", replace(REQUEST, request_id=f"r{number}"))
        journal.rest(f"o{number}", OperationState.DONE)
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    fill(small_disk)
    with pytest.raises(AttachdError) as excinfo:
        journal.forget_history(Terms(ended_before="9999", kept=0, most=0), spared=())
    assert excinfo.value.code is Code.JOURNAL_FULL
    assert Ballast(path=path_of(path)).is_whole()
    assert len(journal.operations()) == 200
    journal.close()


def test_a_full_disk_without_a_journal(small_disk: Path) -> None:
    fill(small_disk)
    refused(small_disk / "journal.db", Code.JOURNAL_FULL)


def test_a_full_disk_keeps_an_old_journal_as_it_is(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for the copy: no migration, and no half of a copy."""
    path = small_disk / "journal.db"
    journal = Journal(path=path, boot_id="b")
    for number in range(2000):
        journal.accept(f"o{number}", replace(REQUEST, request_id=f"r{number}"))
    journal.close()
    path.with_suffix(".ballast").unlink()
    fill(small_disk)
    with monkeypatch.context() as newer:
        later(newer, "ALTER TABLE operations ADD COLUMN colour TEXT")
        refused(path, Code.JOURNAL_FULL)
    free(small_disk)
    Journal(path=path, boot_id="b").close()


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


def test_a_read_only_disk_is_refused(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    remount(small_disk, "ro")
    refused(path)
    remount(small_disk, "rw")
    Journal(path=path, boot_id="b").close()
    remount(small_disk, "ro")
    refused(path)
    remount(small_disk, "rw")
    Journal(path=path, boot_id="b").close()


def test_a_disk_that_becomes_read_only_stops_writing_not_reading(path: Path) -> None:
    journal = Journal(path=path, boot_id="b")
    journal.accept("o1", REQUEST)
    whole, journal._db = (
        journal._db,
        sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None),
    )
    journal._db.row_factory = sqlite3.Row
    for write in (
        lambda: journal.accept("o2", replace(REQUEST, request_id="r2")),
        lambda: undo_something(journal, 1),
    ):
        with pytest.raises(AttachdError) as excinfo:
            write()
        assert excinfo.value.code is Code.JOURNAL_UNAVAILABLE
    assert [row.operation_id for row in journal.operations()] == ["o1"]
    assert journal.events("o1") == ()
    journal.close()
    journal._db = whole
    undo_something(journal, 1)
    assert len(journal.events("o1")) == 2
    journal.close()
