"""The journal's verbs. Each returns when what it wrote is on the disk, or says that it may not be.

No end of this process loses anything that was written. A power cut may take the last lines that
nothing durable was written behind: outcomes, never an intent.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from attachd import trace
from attachd.errors import AttachdError, Code, Problem, Refused, World
from attachd.journal import ballast, history
from attachd.journal.ballast import Ballast
from attachd.journal.database import is_full, open_database, translated
from attachd.journal.history import Terms
from attachd.journal.live import LiveAttachments
from attachd.journal.rows import (
    EventRow,
    OperationRow,
    attachment_from,
    attachment_values,
    call_from,
    call_values,
    event_from,
    operation_from,
    problem_text,
)
from attachd.model import AttachmentRecord, OperationState, Request
from attachd.saga.history import Entry, Happening
from attachd.trace import Call

LOG = logging.getLogger(__name__)

# Order is the order of the rows: times are the wall clock's, and it may be set back.
_ALL_OPERATIONS = "SELECT * FROM operations WHERE rowid < ? ORDER BY rowid DESC LIMIT ?"
_OPEN_OPERATIONS = (
    "SELECT * FROM operations WHERE operation_id IN (SELECT operation_id FROM open_operations) "
    "AND rowid < ? ORDER BY rowid DESC LIMIT ?"
)
_BEHIND_ALL_ROWS = 2**63 - 1
_NO_LIMIT = -1


def utc_now() -> str:
    """Now, as ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


KEPT_EXCHANGES = 200
"""So many operations keep what they said to Cinder."""


class Journal:
    """attachd's memory. Safe to use from any thread: one writer at a time."""

    def __init__(self, *, path: Path, boot_id: str) -> None:
        self._boot_id = boot_id
        self._opened = trace.now()
        self._lock = threading.RLock()
        self._ballast = Ballast(path=ballast.path_of(path))
        self._db = self._open(path)
        self._live = LiveAttachments(select=self._all)

    def close(self) -> None:
        """Close the file. The journal can't be used afterwards."""
        with self._lock:
            self._db.close()

    # --- operations -------------------------------------------------------------------------

    def accept(self, operation_id: str, request: Request) -> OperationRow:
        """Journal a new operation, room for all its rows secured before.

        The same request again gets the first one's operation (law 8). Raises request-id-reused
        where its content differs, journal-full where no room can be secured.
        """
        with self._lock:
            earlier = self.operation_of_request(request.request_id)
            if earlier is not None:
                return _same(earlier, request)
            with translated("secure room for a new operation"):
                self._ballast.secure()
            self._write(lambda: self._insert_operation(operation_id, request))
            return self.operation(operation_id)

    def operation(self, operation_id: str) -> OperationRow:
        """One operation. Raises operation-not-found."""
        row = self._one("SELECT * FROM operations WHERE operation_id = ?", operation_id)
        if row is None:
            raise _no_such_operation(operation_id)
        return operation_from(row)

    def operation_of_request(self, request_id: str) -> OperationRow | None:
        """The operation that a request with this id began."""
        row = self._one("SELECT * FROM operations WHERE request_id = ?", request_id)
        return None if row is None else operation_from(row)

    def operations(
        self, *, open_only: bool = False, limit: int | None = None, before: str | None = None
    ) -> tuple[OperationRow, ...]:
        """Operations, the newest first: ``limit`` of them, or all.

        ``before``: only what was accepted before this operation. Raises operation-not-found.
        """
        query = _OPEN_OPERATIONS if open_only else _ALL_OPERATIONS
        behind = _BEHIND_ALL_ROWS if before is None else self._place_of(before)
        rows = self._all(query, behind, _NO_LIMIT if limit is None else limit)
        return tuple(operation_from(row) for row in rows)

    def _place_of(self, operation_id: str) -> int:
        row = self._one("SELECT rowid FROM operations WHERE operation_id = ?", operation_id)
        if row is None:
            raise _no_such_operation(operation_id)
        return int(row["rowid"])

    def snapshot(
        self, operation_id: str, *, exchanges: bool
    ) -> tuple[OperationRow, tuple[EventRow, ...], AttachmentRecord | None, tuple[Call, ...]]:
        """An operation, its history, its attachment and its calls, all as of one moment.

        ``exchanges``: with what was said to Cinder.
        """
        with self._lock:
            row = self.operation(operation_id)
            record = self.record(row.record_id) if row.record_id else None
            return (
                row,
                self.events(operation_id),
                record,
                self.calls(operation_id, exchanges=exchanges),
            )

    def start(self, operation_id: str) -> None:
        """A worker drives the operation from now on; what stopped it before is forgotten."""
        self._execute(
            "UPDATE operations SET state = 'running', started_at = coalesce(started_at, ?), "
            "problem = NULL, waiting_for = NULL, finished_at = NULL WHERE operation_id = ?",
            utc_now(),
            operation_id,
            durable=False,
        )

    def accept_again(self, operation_id: str) -> None:
        """One that needs attention shall go on; any other is left as it is.

        Raises operation-not-found.
        """
        self.operation(operation_id)
        self._execute(
            "UPDATE operations SET state = 'accepted', waiting_for = NULL, problem = NULL "
            "WHERE operation_id = ? AND state = 'needs-attention'",
            operation_id,
        )

    def claim(
        self,
        operation_id: str,
        *,
        guest_id: str,
        guest_name: str,
        volume_id: str,
        volume_name: str,
        shareable: bool = False,
    ) -> OperationRow | None:
        """Set the busy mark of an operation on its guest's disk and its volume (law 5).

        On the disk with the operation's next intent, which comes before any effect.

        The open operation that holds the volume's mark already, and so prevented it; else None.
        """
        with self._lock:
            marks = self._all(
                "SELECT * FROM open_operations WHERE volume_id = ? AND operation_id != ?",
                volume_id,
                operation_id,
            )
            for holder in map(operation_from, marks):
                if holder.keeps_off(guest_id, shareable=shareable):
                    return holder
            self._execute(
                "UPDATE operations SET guest_id = ?, guest_name = ?, volume_id = ?, "
                "volume_name = ? WHERE operation_id = ?",
                guest_id,
                guest_name,
                volume_id,
                volume_name,
                operation_id,
                durable=False,
            )
            return None

    def rest(
        self,
        operation_id: str,
        state: OperationState,
        *,
        problem: Problem | None = None,
        waiting_for: World | None = None,
        calls: Sequence[Call] = (),
    ) -> None:
        """The operation rests: at its end, or until it is resumed."""

        def write() -> None:
            self._db.execute(
                "UPDATE operations SET state = ?, problem = ?, waiting_for = ?, finished_at = ? "
                "WHERE operation_id = ?",
                (
                    state.value,
                    problem_text(problem),
                    waiting_for,
                    None if state.open else utc_now(),
                    operation_id,
                ),
            )
            self._insert_calls(operation_id, calls)
            self._forget_exchanges()

        self._write(write)

    def _forget_exchanges(self) -> None:
        """What was said to Cinder is many times as long as all else: only the latest keep it."""
        self._db.execute(
            "UPDATE calls SET exchange = NULL WHERE exchange IS NOT NULL AND operation_id IN "
            "(SELECT operation_id FROM operations ORDER BY rowid DESC LIMIT ? OFFSET ?)",
            (KEPT_EXCHANGES, KEPT_EXCHANGES),
        )

    def _insert_calls(self, operation_id: str, calls: Sequence[Call]) -> None:
        self._db.executemany(
            "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)",
            [call_values(operation_id, call) for call in calls],
        )

    def calls(self, operation_id: str, *, exchanges: bool = True) -> tuple[Call, ...]:
        """What the operation asked of the outer libraries, by their starts."""
        rows = self._all(
            "SELECT * FROM calls WHERE operation_id = ? ORDER BY started", operation_id
        )
        return tuple(call_from(row, exchange=exchanges) for row in rows)

    def forget_history(self, terms: Terms, *, spared: Collection[str]) -> int:
        """Forget some of the oldest operations that are over; how many.

        None of a volume in ``spared``, or one with an open operation, which may be judged by what
        came behind it; nor the latest one of what is attached. With its last operation goes the
        record of what was detached. Raises journal-full: what is held back isn't for this.
        """
        doomed: list[str] = []

        def write() -> None:
            doomed[:] = history.forget(self._db, terms, spared)

        with self._lock, translated("forget old operations"):
            self._transact(write)
        return len(doomed)

    # --- what happens to steps --------------------------------------------------------------

    def append(
        self,
        operation_id: str,
        entry: Entry,
        *,
        reason: str,
        problem: Problem | None = None,
        record: AttachmentRecord | None = None,
        calls: Sequence[Call] = (),
    ) -> None:
        """Journal what happens to a step, and what became known with it, in one transaction.

        On the disk at the return where an effect comes next (law 1). Of an effect whose outcome was
        lost in a power cut recovery takes a look, as of one that attachd died in.
        ``calls``: those that were made since the last line.
        """

        def write() -> None:
            self._insert_event(operation_id, entry, reason, problem)
            self._insert_calls(operation_id, calls)
            if record is not None:
                self._write_record(operation_id, record)

        self._write(write, durable=entry.happening in _BEFORE_EFFECTS)

    def events(self, operation_id: str, *, after: int = 0) -> tuple[EventRow, ...]:
        """What happened to an operation's steps, oldest first, behind number ``after``."""
        rows = self._all(
            "SELECT * FROM events WHERE operation_id = ? AND seq > ? ORDER BY seq",
            operation_id,
            after,
        )
        return tuple(event_from(row) for row in rows)

    def is_own(self, event: EventRow) -> bool:
        """Was it this process that journalled the event?"""
        return event.boot_id == self._boot_id and event.uptime >= self._opened

    def age(self, event: EventRow) -> float:
        """Seconds since what the event tells of was last asked for, at the least.

        An earlier process may have asked, and asked again, until it died: since this one opened
        the journal it certainly didn't. By the boot's own clock: no jump of the wall clock counts.
        """
        return trace.now() - (event.uptime if self.is_own(event) else self._opened)

    # --- attachments ------------------------------------------------------------------------

    def reserve(self, record: AttachmentRecord) -> None:
        """Write a new record and bind it to its operation, in one transaction.

        On the disk with the operation's next intent. Raises device-name-taken or already-attached.
        """
        self._write(lambda: self._write_record(record.operation_id, record), durable=False)

    def forget(self, record_id: str) -> None:
        """The attach of this record was undone: it holds nothing more.

        One that led to a target is kept as detached, by which an audit knows what may turn up late.
        """

        def write() -> None:
            self._live.changed(record_id)
            self._db.execute(
                "UPDATE operations SET record_id = NULL WHERE record_id = ?", (record_id,)
            )
            self._db.execute(
                "DELETE FROM attachments WHERE record_id = ? AND connection IS NULL", (record_id,)
            )
            self._db.execute(
                "UPDATE attachments SET state = 'detached', updated_at = ? WHERE record_id = ?",
                (utc_now(), record_id),
            )

        self._write(write)

    def record(self, record_id: str) -> AttachmentRecord:
        """The record with attachd's own id. Raises attachment-not-found."""
        return self._record_or_refuse(
            self._one("SELECT * FROM attachments WHERE record_id = ?", record_id), record_id
        )

    def attachment(self, attachment_id: str) -> AttachmentRecord:
        """The record with Cinder's attachment id, or attachd's own. Raises attachment-not-found."""
        row = self._one(
            "SELECT * FROM attachments WHERE attachment_id = ? OR record_id = ? "
            "ORDER BY state IN ('detached', 'released'), rowid DESC LIMIT 1",
            attachment_id,
            attachment_id,
        )
        return self._record_or_refuse(row, attachment_id)

    def live_attachments(self) -> tuple[AttachmentRecord, ...]:
        """Every record that is neither detached nor released, by guest and device."""
        with self._lock:
            return self._live.all()

    def detached_attachments(self) -> tuple[AttachmentRecord, ...]:
        """Every record of what was detached, the newest last.

        Without those of a volume that was released since: what is left of it is somebody else's.
        """
        rows = self._all(
            "SELECT * FROM attachments AS old WHERE state = 'detached' AND NOT EXISTS "
            "(SELECT 1 FROM attachments AS later WHERE later.volume_id = old.volume_id "
            "AND later.state = 'released' AND later.rowid > old.rowid) ORDER BY rowid"
        )
        return tuple(attachment_from(row) for row in rows)

    def released_attachments(self) -> tuple[AttachmentRecord, ...]:
        """Every record that was released, and whose guest didn't get the volume anew since."""
        rows = self._all(
            "SELECT * FROM attachments AS old WHERE state = 'released' AND NOT EXISTS "
            "(SELECT 1 FROM attachments AS later WHERE later.volume_id = old.volume_id "
            "AND later.guest_id = old.guest_id AND later.rowid > old.rowid) ORDER BY rowid"
        )
        return tuple(attachment_from(row) for row in rows)

    def superseded(self, operation_id: str, volume_id: str) -> bool:
        """Was anything else asked for with this volume behind this operation, and not refused?"""
        later = self._one(
            "SELECT 1 FROM operations WHERE ? IN (volume, volume_id) AND state != 'refused' "
            "AND rowid > (SELECT rowid FROM operations WHERE operation_id = ?) LIMIT 1",
            volume_id,
            operation_id,
        )
        return later is not None

    # --- inside -----------------------------------------------------------------------------

    def _open(self, path: Path) -> sqlite3.Connection:
        """A full disk costs the ballast here, too: what is under way must be brought to its end."""
        try:
            return open_database(path)
        except AttachdError as exc:
            if exc.code is not Code.JOURNAL_FULL or not self._ballast.give_up():
                raise
        LOG.warning("The journal's disk is full: its reserve is used up from now on")
        return open_database(path)

    def _record_or_refuse(self, row: sqlite3.Row | None, name: str) -> AttachmentRecord:
        if row is None:
            raise Refused(
                Code.ATTACHMENT_NOT_FOUND,
                f"There is no attachment {name}.",
                resolution="List them: attachctl list",
            )
        return attachment_from(row)

    def _insert_operation(self, operation_id: str, request: Request) -> None:
        self._db.execute(
            "INSERT INTO operations (operation_id, request_id, kind, state, guest, volume, device, "
            "bus, mode, override_nova, size_gib, created_at, accepted) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                operation_id,
                request.request_id,
                request.kind.value,
                OperationState.ACCEPTED.value,
                request.guest,
                request.volume,
                request.device,
                request.bus.value,
                request.mode.value,
                int(request.override_nova),
                request.size_gib,
                utc_now(),
                trace.now(),
            ),
        )

    def _insert_event(
        self, operation_id: str, entry: Entry, reason: str, problem: Problem | None
    ) -> None:
        self._db.execute(
            "INSERT INTO events (operation_id, seq, step, happening, reason, problem, at, uptime, "
            "boot_id) SELECT ?, coalesce(max(seq), 0) + 1, ?, ?, ?, ?, ?, ?, ? "
            "FROM events WHERE operation_id = ?",
            (
                operation_id,
                entry.step,
                entry.happening.value,
                reason,
                problem_text(problem),
                utc_now(),
                trace.now(),
                self._boot_id,
                operation_id,
            ),
        )

    def _write_record(self, operation_id: str, record: AttachmentRecord) -> None:
        self._upsert_record(record)
        self._db.execute(
            "UPDATE operations SET record_id = ? WHERE operation_id = ?",
            (record.record_id, operation_id),
        )

    def _upsert_record(self, record: AttachmentRecord) -> None:
        self._live.changed(record.record_id)
        now = utc_now()
        stamped = replace(record, created_at=record.created_at or now, updated_at=now)
        values = attachment_values(stamped)
        columns = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        changes = ", ".join(f"{n} = excluded.{n}" for n in values if n not in _FIXED_COLUMNS)
        statement = (
            f"INSERT INTO attachments ({columns}) VALUES ({marks}) "  # noqa: S608 - own names
            f"ON CONFLICT (record_id) DO UPDATE SET {changes}"
        )
        try:
            self._db.execute(statement, values)
        except sqlite3.IntegrityError as exc:
            raise _clash(record, exc) from exc

    def _write(self, work: Callable[[], None], *, durable: bool = True) -> None:
        """Do ``work`` in one transaction; a full disk costs the ballast, not the operation.

        Not durable: it waits for no disk, and the next durable one takes it along.
        """
        with self._lock, translated("write to the journal"):
            try:
                self._transact(work, durable=durable)
            except (sqlite3.Error, OSError) as exc:
                if not (is_full(exc) and self._ballast.give_up()):
                    raise
                LOG.warning("The journal's disk is full: its reserve is used up from now on")
                self._transact(work, durable=durable)

    def _transact(self, work: Callable[[], None], *, durable: bool = True) -> None:
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            work()
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _execute(self, statement: str, *values: object, durable: bool = True) -> None:
        def write() -> None:
            self._db.execute(statement, values)

        self._write(write, durable=durable)

    def _one(self, query: str, *values: object) -> sqlite3.Row | None:
        with self._reading():
            row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
            return row

    def _all(self, query: str, *values: object) -> Sequence[sqlite3.Row]:
        with self._reading():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, translated("read the journal"):
            yield


_BEFORE_EFFECTS = frozenset({Happening.DO_INTENT, Happening.UNDO_INTENT})
_FIXED_COLUMNS = frozenset({"record_id", "created_at"})


def _no_such_operation(operation_id: str) -> Refused:
    return Refused(
        Code.OPERATION_NOT_FOUND,
        f"There is no operation {operation_id}.",
        resolution="List them: attachctl operation list",
    )


def _same(earlier: OperationRow, request: Request) -> OperationRow:
    if earlier.request != request:
        raise Refused(
            Code.REQUEST_ID_REUSED,
            f"The request id {request.request_id} was used for another request before.",
            resolution="Give each new request an id of its own.",
        )
    return earlier


def _clash(record: AttachmentRecord, exc: sqlite3.IntegrityError) -> AttachdError:
    if "device" in str(exc):
        return Refused(
            Code.DEVICE_NAME_TAKEN,
            f"{record.device} of guest {record.guest_name} is taken by another attachment.",
            resolution="Choose another name with --device, or none.",
        )
    return Refused(
        Code.ALREADY_ATTACHED,
        f"Volume {record.volume_name or record.volume_id} is attached to guest "
        f"{record.guest_name} already.",
        resolution="See it: attachctl list --guest " + record.guest_name,
    )
