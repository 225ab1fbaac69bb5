"""``python -m attachd.journal``: what is attached, asked of the file alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest

from attachd.errors import AttachdError, Code
from attachd.journal.__main__ import attached
from attachd.journal.journal import Journal
from attachd.model import AttachmentState, OperationKind, Request
from attachd.saga.history import Entry, Happening
from tests.unit.records import a_record

FIRST_SCHEMA = resources.files("attachd.journal") / "migrations" / "0001_first.sql"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """An open journal with an attachment in each state."""
    journal = Journal(path=path, boot_id="boot-1")
    for state in AttachmentState:
        operation = f"operation-{state}"
        request = Request(
            kind=OperationKind.ATTACH, guest="web", volume=state.value, request_id=operation
        )
        journal.accept(operation, request)
        record = a_record(
            record_id=state.value,
            operation_id=operation,
            state=state,
            volume_id=f"volume-{state}",
            device=f"vd-{state}",
        )
        entry = Entry(happening=Happening.DO_INTENT, step="reserve")
        journal.append(operation, entry, reason="next", record=record)
    yield journal
    journal.close()


LIVE = sorted(f"web volume-{state} {state}" for state in AttachmentState if state.live)


def test_those_that_are_not_over_are_told(journal: Journal, path: Path) -> None:
    """Also while a daemon has it open, with rows that are only in the write-ahead log."""
    assert path.with_name("journal.db-wal").stat().st_size > 0
    assert sorted(attached(path)) == LIVE
    assert 0 < len(LIVE) < len(AttachmentState)


def test_a_journal_whose_daemon_is_away_is_left_as_it_is(journal: Journal, path: Path) -> None:
    journal.close()
    before = path.read_bytes()
    assert sorted(attached(path)) == LIVE
    assert path.read_bytes() == before


def test_where_there_is_no_journal_nothing_is_attached(path: Path) -> None:
    assert attached(path) == []
    assert not path.exists()


def test_the_first_schema_can_be_read_and_is_not_migrated(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST_SCHEMA.read_text() + "PRAGMA user_version = 1;")
        known = {"guest_name": "web", "volume_id": "volume-1", "state": "attached"}
        row = [
            known.get(name, 0 if kind == "INTEGER" else name)
            for _, name, kind, *_ in connection.execute("PRAGMA table_info(attachments)")
        ]
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO attachments VALUES ({marks})", row)
        connection.commit()
    assert attached(path) == ["web volume-1 attached"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 1


@pytest.mark.parametrize("content", [b"nonsense", b"", b"SQLite format 3\0" + bytes(4080)])
def test_one_that_cannot_be_read_is_an_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(AttachdError) as excinfo:
        attached(path)
    assert excinfo.value.code is Code.JOURNAL_UNAVAILABLE


def test_the_module_prints_them(journal: Journal, path: Path, tmp_path: Path) -> None:
    conf = tmp_path / "attachd.conf"
    conf.write_text(f"[DEFAULT]\nstate_path = {path.parent}\n")
    program = (
        "import sys; from pathlib import Path; from attachd import conf\n"
        "from attachd.journal import __main__ as module\n"
        "conf.DEFAULT_FILE = Path(sys.argv[1]); sys.exit(module.main())"
    )
    command = [sys.executable, "-c", program, str(conf)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == LIVE
    conf.write_text("[DEFAULT]\nworkers = many\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("config-invalid")
