"""Records to rows and back. The rows are a boundary: what is read is checked here, once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, TypeVar

from attachd.errors import Code, Problem, World
from attachd.journal.database import unavailable
from attachd.model import (
    AttachFlow,
    AttachmentRecord,
    AttachmentState,
    Bus,
    Connection,
    Mode,
    OperationKind,
    OperationState,
    Request,
    Target,
)
from attachd.saga.history import Entry, Happening
from attachd.trace import Call, Exchange, Library

_Row = TypeVar("_Row")


_AT_NOTHING = frozenset({OperationState.NEEDS_ATTENTION, OperationState.ACCEPTED})


@dataclass(frozen=True, kw_only=True)
class OperationRow:
    """An operation as the journal holds it."""

    operation_id: str
    request: Request
    state: OperationState
    guest_id: str | None
    guest_name: str | None
    volume_id: str | None
    volume_name: str | None
    record_id: str | None
    problem: Problem | None
    waiting_for: World | None
    created_at: str
    accepted: float
    started_at: str | None
    finished_at: str | None

    @property
    def holds_volume(self) -> bool:
        """Does it, being open, keep others off its volume (law 5)?"""
        resting = self.state is OperationState.NEEDS_ATTENTION
        return self.state.open and not (resting and self.request.kind.yields)

    def keeps_off(self, guest_id: str | None, *, shareable: bool) -> bool:
        """Does it, being open, keep an operation of this guest off its volume?

        One that rests keeps no other guest off a shareable volume: what is left of it is its own
        guest's, and the others' device is not its affair. Nor does one that was accepted again
        and hasn't begun: it may wait for the other, and they would wait for each other.
        """
        beside = shareable and self.guest_id != guest_id
        return self.holds_volume and not (beside and self.state in _AT_NOTHING)

    @property
    def goes_on_by_itself(self) -> bool:
        """Is there something left to do, for which nobody need ask?"""
        resting = self.state is OperationState.NEEDS_ATTENTION
        return self.state.open and not (resting and self.waiting_for is None)

    @property
    def global_request_id(self) -> str:
        """What OpenStack's services log for every call of this operation."""
        return f"req-{self.operation_id}"


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """One thing that happened. ``at`` is UTC, ``uptime`` seconds since the boot ``boot_id``."""

    seq: int
    entry: Entry
    reason: str
    problem: Problem | None
    at: str
    uptime: float
    boot_id: str


def operation_from(row: sqlite3.Row) -> OperationRow:
    """Read an operation; a damaged row raises journal-unavailable."""
    return _read("operation", row["operation_id"], lambda: _operation(row))


def event_from(row: sqlite3.Row) -> EventRow:
    """Read an event; a damaged row raises journal-unavailable."""
    return _read("event", f"{row['operation_id']}/{row['seq']}", lambda: _event(row))


def call_from(row: sqlite3.Row, *, exchange: bool) -> Call:
    """Read a call, with its exchange or without; a damaged row raises journal-unavailable."""
    kept = row["exchange"] if exchange else None
    return _read(
        "call",
        f"{row['operation_id']}/{row['name']}",
        lambda: Call(
            library=Library(row["library"]),
            name=row["name"],
            started=row["started"],
            ended=row["ended"],
            outcome=row["outcome"],
            exchange=Exchange(**json.loads(kept)) if kept else None,
        ),
    )


def call_values(operation_id: str, call: Call) -> tuple[object, ...]:
    """A call's columns, in their order."""
    # Not asdict: it goes down into the bodies, and fails in one that is deep.
    exchange = json.dumps(vars(call.exchange)) if call.exchange else None
    return (
        operation_id,
        call.library.value,
        call.name,
        call.started,
        call.ended,
        call.outcome,
        exchange,
    )


def attachment_from(row: sqlite3.Row) -> AttachmentRecord:
    """Read an attachment; a damaged row raises journal-unavailable."""
    return _read("attachment", row["record_id"], lambda: _attachment(row))


def attachment_values(record: AttachmentRecord) -> dict[str, object]:
    """An attachment's columns. A connection goes in without its secrets, whoever calls."""
    values: dict[str, object] = {
        f.name: _plain(getattr(record, f.name)) for f in fields(AttachmentRecord)
    }
    values["prior_attachment_ids"] = json.dumps(record.prior_attachment_ids)
    values["connection"] = _connection_text(record.connection)
    return values


def problem_text(problem: Problem | None) -> str | None:
    """A problem as JSON."""
    return None if problem is None else json.dumps(asdict(problem))


def _read(what: str, name: str, reader: Callable[[], _Row]) -> _Row:
    try:
        return reader()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as exc:
        raise unavailable("read the journal", f"the {what} {name} is damaged: {exc}") from exc


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool):
        return int(value)
    return value


def _operation(row: sqlite3.Row) -> OperationRow:
    return OperationRow(
        operation_id=row["operation_id"],
        request=Request(
            kind=OperationKind(row["kind"]),
            guest=row["guest"],
            volume=row["volume"],
            request_id=row["request_id"],
            device=row["device"],
            bus=Bus(row["bus"]),
            mode=Mode(row["mode"]),
            override_nova=bool(row["override_nova"]),
            size_gib=row["size_gib"],
        ),
        state=OperationState(row["state"]),
        guest_id=row["guest_id"],
        guest_name=row["guest_name"],
        volume_id=row["volume_id"],
        volume_name=row["volume_name"],
        record_id=row["record_id"],
        problem=_problem(row["problem"]),
        waiting_for=World(row["waiting_for"]) if row["waiting_for"] else None,
        created_at=row["created_at"],
        accepted=row["accepted"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _event(row: sqlite3.Row) -> EventRow:
    return EventRow(
        seq=row["seq"],
        entry=Entry(happening=Happening(row["happening"]), step=row["step"]),
        reason=row["reason"],
        problem=_problem(row["problem"]),
        at=row["at"],
        uptime=row["uptime"],
        boot_id=row["boot_id"],
    )


def _attachment(row: sqlite3.Row) -> AttachmentRecord:
    values: dict[str, Any] = {f.name: row[f.name] for f in fields(AttachmentRecord)}
    shared = values["shared_targets"]
    values.update(
        state=AttachmentState(values["state"]),
        bus=Bus(values["bus"]),
        mode=Mode(values["mode"]),
        prior_attachment_ids=tuple(json.loads(values["prior_attachment_ids"])),
        connection=_connection(values["connection"]),
        shared_targets=None if shared is None else bool(shared),
        unplug_pending=bool(values["unplug_pending"]),
        persistent=bool(values["persistent"]),
        shareable=bool(values["shareable"]),
        flow=AttachFlow(values["flow"]),
        reserved=bool(values["reserved"]),
        device_was_there=bool(values["device_was_there"]),
    )
    return AttachmentRecord(**values)


def _problem(text: str | None) -> Problem | None:
    if text is None:
        return None
    value = json.loads(text)
    return Problem(**{**value, "code": Code(value["code"])})


def _connection_text(connection: Connection | None) -> str | None:
    if connection is None:
        return None
    safe = asdict(connection.without_secrets())
    return json.dumps({key: value for key, value in safe.items() if not key.endswith("chap")})


def _connection(text: str | None) -> Connection | None:
    if text is None:
        return None
    value = json.loads(text)
    return Connection(
        protocol=value["protocol"],
        targets=tuple(Target(**target) for target in value["targets"]),
        mode=Mode(value["mode"]),
        discard=value["discard"],
        encrypted=value["encrypted"],
        iotune=value.get("iotune", {}),  # since schema 2
    )
