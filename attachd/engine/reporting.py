"""From the journal's rows to what callers see. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attachd.engine.views import (
    CallView,
    Direction,
    Event,
    OperationView,
    Phase,
    StepState,
    StepView,
)
from attachd.journal.rows import EventRow, OperationRow
from attachd.model import AttachmentRecord
from attachd.operations.tables import TABLES
from attachd.saga.history import RESUMPTIONS, Happening
from attachd.trace import Call

_INTENTS: dict[Happening, Direction] = {
    Happening.DO_INTENT: "do",
    Happening.UNDO_INTENT: "undo",
}

_OUTCOMES: dict[Happening, tuple[Direction, StepState]] = {
    Happening.DO_DONE: ("do", "done"),
    Happening.DO_UNTOUCHED: ("do", "untouched"),
    Happening.DO_FAILED: ("do", "failed"),
    Happening.UNDO_DONE: ("undo", "done"),
    Happening.UNDO_FAILED: ("undo", "failed"),
}


def operation_view(
    row: OperationRow,
    events: Sequence[EventRow],
    record: AttachmentRecord | None,
    calls: Sequence[Call],
) -> OperationView:
    """An operation as callers see it."""
    return OperationView(
        operation_id=row.operation_id,
        kind=row.request.kind,
        state=row.state,
        request=row.request,
        created_at=row.created_at,
        global_request_id=row.global_request_id,
        guest_id=row.guest_id,
        guest_name=row.guest_name,
        volume_id=row.volume_id,
        volume_name=row.volume_name,
        attachment=record,
        problem=row.problem,
        steps=_steps(row, events),
        calls=tuple(_call(call, row.accepted) for call in calls if call.started >= row.accepted),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def event_view(row: EventRow) -> Event:
    """One line of an operation's history as callers see it."""
    happening = row.entry.happening
    phase: Phase = "intent" if happening in _INTENTS else "outcome"
    if happening in RESUMPTIONS:
        return Event(
            seq=row.seq,
            step=None,
            direction=None,
            phase="state",
            state=happening.value,
            reason=row.reason,
            at=row.at,
        )
    direction, state = _OUTCOMES.get(happening) or (_INTENTS[happening], "running")
    return Event(
        seq=row.seq,
        step=row.entry.step,
        direction=direction,
        phase=phase,
        state=state,
        reason=row.reason,
        at=row.at,
    )


def _call(call: Call, accepted: float) -> CallView:
    return CallView(
        library=call.library.value,
        name=call.name,
        started=round(call.started - accepted, 4),
        ended=round(call.ended - accepted, 4),
        outcome=call.outcome,
        exchange=call.exchange,
    )


def _steps(row: OperationRow, events: Sequence[EventRow]) -> tuple[StepView, ...]:
    worlds = {spec.name: spec.world.value for spec in TABLES[row.request.kind]}
    boot = events[0].boot_id if events else None  # in which it was accepted, or soon after
    views: list[StepView] = []
    for position, event in enumerate(events):
        direction = _INTENTS.get(event.entry.happening)
        if direction is not None:
            later = events[position + 1 :]
            view = _step(event, direction, worlds[event.entry.step], later)
            offset = round(event.uptime - row.accepted, 4) if event.boot_id == boot else None
            views.append(replace(view, offset=offset))
    return tuple(views)


def _step(
    intent: EventRow, direction: Direction, world: str, later: Sequence[EventRow]
) -> StepView:
    # A step's outcome is the very next line: one operation runs one step at a time.
    outcome = later[0] if later and later[0].entry.step == intent.entry.step else None
    if outcome is None or outcome.entry.happening not in _OUTCOMES:
        return StepView(
            name=intent.entry.step,
            world=world,
            direction=direction,
            state="unknown" if later else "running",
            reason=intent.reason,
            started_at=intent.at,
        )
    same_boot = outcome.boot_id == intent.boot_id
    return StepView(
        name=intent.entry.step,
        world=world,
        direction=direction,
        state=_OUTCOMES[outcome.entry.happening][1],
        reason=outcome.reason,
        started_at=intent.at,
        finished_at=outcome.at,
        seconds=round(outcome.uptime - intent.uptime, 3) if same_boot else None,
        problem=outcome.problem,
    )
