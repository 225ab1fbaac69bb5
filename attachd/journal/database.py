"""Opening journal.db: pragmas, migrations, and SQLite's errors in attachd's words."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path

from attachd.errors import AttachdError, Code, World

BUSY_TIMEOUT = 10.0
"""Seconds that SQLite waits for another process's lock on the file."""

FULLY_CHECKED = 64 * 1024 * 1024
"""Bytes: a longer file is checked where decisions are made by it, or a start would take minutes.
What is damaged elsewhere in it is found when it is read.
"""
LONGEST_LOG = 16 * 1024 * 1024
"""Bytes that the write-ahead log is cut down to when it has been longer."""
_PAGES_KEPT = 512
"""KiB of the file in attachd's own memory: the kernel has the rest, and reads are no slower."""
_DECISIVE = ("attachments", "operations")

# In write-ahead mode a full disk shows first where the shared index can't grow.
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


def open_database(path: Path) -> sqlite3.Connection:
    """Open journal.db, check it, bring its schema up to date; a new one has mode 0600.

    Raises journal-unavailable: the file is damaged, newer than this program, or can't be written;
    journal-full. An older one is copied beside itself before it is migrated.
    """
    with translated("open the journal"):
        if not path.exists():
            _create(path)
        if path.stat().st_size == 0:
            raise unavailable("trust the journal", f"{path} is empty")
        connection = _connect(path)
        try:
            _check(connection, path)
            _migrate(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn SQLite's and the file system's errors into journal-unavailable or journal-full."""
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        if is_full(exc):
            raise AttachdError(
                Code.JOURNAL_FULL,
                f"There is no room to {doing}.",
                details=str(exc),
                resolution="Free room on the journal's file system.",
                touched=False,
                world=World.JOURNAL,
            ) from exc
        raise unavailable(doing, str(exc)) from exc


def unavailable(doing: str, details: str) -> AttachdError:
    """The journal can't be used."""
    return AttachdError(
        Code.JOURNAL_UNAVAILABLE,
        f"attachd could not {doing}.",
        details=details,
        resolution="See that the journal's directory is writable and its file whole. Move a "
        "damaged file aside, together with its -wal and -shm, only after Cinder, the host's "
        "sessions and the guests' disks were compared by hand: attachd forgets what is in it.",
        touched=False,
        world=World.JOURNAL,
    )


def is_full(exc: Exception) -> bool:
    """Does this error say that the disk is full?"""
    if isinstance(exc, sqlite3.Error):
        return getattr(exc, "sqlite_errorcode", None) in _FULL
    return isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {LONGEST_LOG}")
        connection.execute(f"PRAGMA cache_size = -{_PAGES_KEPT}")  # negative: KiB, not pages
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Make an empty journal appear whole: a file that is there and isn't whole was damaged."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists():  # SQLite would read it into any file of that name
        raise unavailable("trust the journal", f"{log} lies there without {path.name}")
    with _appearing(path) as draft, closing(_connect(draft)) as connection:
        _migrate(connection, draft)


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A draft of a file, which takes its place once it is whole and on the disk."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    try:
        yield draft
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    for check in checks_of(path):
        verdict = connection.execute(check).fetchone()[0]
        if verdict != "ok":
            raise unavailable("trust the journal", f"{path} is damaged: {verdict}")
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        raise unavailable("trust the journal", f"{path} is no journal of attachd's")


def checks_of(path: Path) -> tuple[str, ...]:
    """The statements that check a journal of this size; each answers ``ok``, or what is wrong."""
    if path.stat().st_size <= FULLY_CHECKED:
        return ("PRAGMA integrity_check(1)",)
    return tuple(f"PRAGMA integrity_check({table})" for table in _DECISIVE)


def _migrations() -> list[tuple[int, str]]:
    folder = resources.files("attachd.journal") / "migrations"
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(int(name.split("_")[0]), (folder / name).read_text("utf-8")) for name in files]


def newest_schema() -> int:
    """The schema of a journal that this program wrote."""
    return _migrations()[-1][0]


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    migrations = _migrations()
    newest = newest_schema()
    if version > newest:
        raise unavailable(
            "read the journal",
            f"{path} has schema {version}; this attachd knows schemas up to {newest}",
        )
    if 0 < version < newest:
        _keep_copy(connection, path.with_name(f"{path.name}.schema-{version}"))
    for number, script in migrations:
        if number > version:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;"
            )


def _keep_copy(connection: sqlite3.Connection, copy: Path) -> None:
    with _appearing(copy) as draft, closing(sqlite3.connect(draft)) as target:
        connection.backup(target)
