"""How journal.db is, read beside whoever writes it; nothing is changed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from attachd.journal.ballast import SIZE, Ballast, path_of
from attachd.journal.database import BUSY_TIMEOUT, newest_schema, translated
from attachd.vitals import JournalHealth


def health_of(path: Path) -> JournalHealth:
    """Raises journal-unavailable where it can't be looked at."""
    with translated("look at the journal"):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return JournalHealth(there=False)
        free = os.statvfs(path.parent)
        return JournalHealth(
            there=True,
            problem=_problem(path) if size else f"{path} is empty",
            reserved=Ballast(path=path_of(path)).is_whole(),
            room=free.f_bavail * free.f_frsize >= SIZE,
        )


def _problem(path: Path) -> str | None:
    """What is wrong with the file; None: it is whole, and of a known schema."""
    try:
        with closing(_reading(path)) as connection:
            return _verdict(connection, path)
    except sqlite3.OperationalError:
        raise  # it couldn't be read at all
    except sqlite3.DatabaseError as exc:
        return f"{path}: {exc}"


def _reading(path: Path) -> sqlite3.Connection:
    """Where nobody has it open (no -wal), SQLite mustn't make the files for sharing it."""
    at_rest = not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT)


def _verdict(connection: sqlite3.Connection, path: Path) -> str | None:
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        return f"{path} is damaged: {verdict}"
    schema: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if schema == 0:
        return f"{path} is no journal of attachd's"
    if schema > newest_schema():
        return f"{path} has schema {schema}; this attachd knows schemas up to {newest_schema()}"
    return None
