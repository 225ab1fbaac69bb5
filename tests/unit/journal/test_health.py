"""journal.db as the doctor sees it, beside the journal that is open, and without one."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from attachd.errors import AttachdError, Code
from attachd.journal.ballast import Ballast, path_of
from attachd.journal.health import health_of
from attachd.journal.journal import Journal
from attachd.model import OperationKind, Request
from attachd.vitals import JournalHealth

PAGE = 4096
REQUEST = Request(kind=OperationKind.ATTACH, guest="g1", volume="v1", request_id="r1")


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """Open, with an operation in its write-ahead log."""
    journal = Journal(path=path, boot_id="b")
    journal.accept("o1", REQUEST)
    yield journal
    journal.close()


def test_a_journal_that_is_being_written(journal: Journal, path: Path) -> None:
    before = sorted(path.parent.iterdir())
    assert health_of(path) == JournalHealth(there=True)
    assert sorted(path.parent.iterdir()) == before
    journal.start("o1")  # it is in nobody's way


def test_a_journal_at_rest_stays_as_it_is(journal: Journal, path: Path) -> None:
    journal.close()
    content, files = path.read_bytes(), sorted(path.parent.iterdir())
    assert health_of(path).problem is None
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == (content, files)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_none_at_all(path: Path) -> None:
    assert health_of(path) == JournalHealth(there=False)
    assert not path.exists()


def test_room_that_was_given_up_and_room_that_is_not_there(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ballast(path=path_of(path)).give_up()
    assert health_of(path) == JournalHealth(there=True, reserved=False)
    full = SimpleNamespace(f_bavail=1, f_frsize=PAGE)
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    assert health_of(path) == JournalHealth(there=True, reserved=False, room=False)


def damage(path: Path, content: bytes, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def test_a_damaged_page(journal: Journal, path: Path) -> None:
    journal.close()
    damage(path, os.urandom(PAGE), PAGE)
    problem = health_of(path).problem
    assert problem is not None
    assert str(path) in problem


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 200])
def test_what_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert health_of(path).problem is not None


@pytest.mark.parametrize(("schema", "said"), [(0, "no journal of attachd's"), (99, "schema 99")])
def test_another_schema(path: Path, schema: int, said: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute(f"PRAGMA user_version = {schema}")
    assert said in str(health_of(path).problem)


def test_what_cannot_be_looked_at_is_not_well(path: Path) -> None:
    path.mkdir()
    (path / "journal.db").touch()
    with pytest.raises(AttachdError) as caught:
        health_of(path)
    assert caught.value.code is Code.JOURNAL_UNAVAILABLE
