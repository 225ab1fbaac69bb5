"""What the engine shows of its operations: snapshots for readers, never handles to change one.

Times are ISO 8601 in UTC. A view doesn't change after it was taken; take another one instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attachd.errors import Problem
from attachd.model import AttachmentRecord, OperationKind, OperationState, Request
from attachd.trace import Exchange

Direction = Literal["do", "undo"]

StepState = Literal["running", "done", "failed", "untouched", "unknown"]
"""``untouched``: it failed, and certainly changed nothing. ``unknown``: an intent whose outcome
was never recorded, so it counts as still running elsewhere."""

Phase = Literal["intent", "outcome", "state"]
"""``intent`` and ``outcome`` are a step's; ``state`` is the operation's own."""


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One run of a step, or of its undo. ``seconds`` is None until its outcome is recorded.

    ``offset``: seconds after the operation was accepted; None where the host was booted since.
    """

    name: str
    world: str
    direction: Direction
    state: StepState
    reason: str
    started_at: str
    finished_at: str | None = None
    offset: float | None = None
    seconds: float | None = None
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True)
class CallView:
    """A call of an outer library, in seconds after the operation was accepted.

    ``outcome`` is None where it went well.
    """

    library: str
    name: str
    started: float
    ended: float
    outcome: str | None = None
    exchange: Exchange | None = None


@dataclass(frozen=True, kw_only=True)
class OperationView:
    """An operation. Ids and names stay None until the prechecks have found what they stand for.

    ``attachment`` is the record that the operation works on, as it is now.
    """

    operation_id: str
    kind: OperationKind
    state: OperationState
    request: Request
    created_at: str
    global_request_id: str
    guest_id: str | None = None
    guest_name: str | None = None
    volume_id: str | None = None
    volume_name: str | None = None
    attachment: AttachmentRecord | None = None
    problem: Problem | None = None
    steps: tuple[StepView, ...] = ()
    calls: tuple[CallView, ...] = ()
    started_at: str | None = None
    finished_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that an operation recorded. ``seq`` rises from event to event, and is above 0.

    ``step`` and ``direction`` are None for what concerns the whole operation. ``state`` is a
    StepState for a step, else one word for what happened to the operation.
    """

    seq: int
    step: str | None
    direction: Direction | None
    phase: Phase
    state: str
    reason: str
    at: str
