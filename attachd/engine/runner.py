"""One operation to its end or its rest: intent, effect, outcome, step by step.

The runner decides nothing: :func:`attachd.saga.plan.plan` does, from the history that the runner
writes. A resumed operation starts with a look at the worlds, journalled as a resumption.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from attachd.engine.kill_points import Moment, Reached, Verb, name_of
from attachd.engine.observers import Observers, StepRun
from attachd.errors import AttachdError, Code, Problem, Unreachable, World
from attachd.journal.journal import Journal
from attachd.logs.subject import note, of_attachment
from attachd.model import AttachmentRecord, AttachmentState, OperationState
from attachd.operations.operation import Operation
from attachd.operations.steps import Step, Unanswered
from attachd.saga.history import Entry, Happening, Standing, fold
from attachd.saga.plan import Do, Finish, Look, Stop, Undo, plan
from attachd.saga.resumption import decide
from attachd.trace import Call, now

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rest:
    """How a run ended. ``waiting_for``: the operation can go on by itself when it is back."""

    state: OperationState
    problem: Problem | None = None
    waiting_for: World | None = None


class Runner:
    """Runs one operation, once.

    ``news`` is called after each line that was journalled, ``reached`` at each moment that has a
    name (see :mod:`attachd.engine.kill_points`); ``observers`` are told of each step. ``calls`` are
    those that the operation's thread has made so far; what is journalled of them is taken out.
    """

    def __init__(
        self,
        *,
        operation_id: str,
        operation: Operation,
        journal: Journal,
        news: Callable[[], None],
        reached: Reached,
        observers: Observers,
        calls: list[Call],
    ) -> None:
        self._id = operation_id
        self._operation = operation
        self._journal = journal
        self._news = news
        self._reached = reached
        self._observers = observers
        self._calls = calls
        self._steps = {step.spec.name: step for step in operation.steps}
        self._specs = tuple(step.spec for step in operation.steps)
        self._events = list(journal.events(operation_id))
        self._history = [event.entry for event in self._events]
        self._first_problem = next((e.problem for e in self._events if e.problem), None)
        self._last_error: AttachdError | None = None
        self._journalled: AttachmentRecord | None = None

    def run(self) -> Rest:
        """Drive the operation until it rests."""
        self._note_attachment()
        try:
            if self._history:
                self._settle()
                self._observers.resumed(self._operation.kind, self._look("it is resumed"))
            while True:
                action = plan(self._specs, self._history)
                match action:
                    case Do(step=spec, reason=reason):
                        self._do(self._steps[spec.name], reason)
                    case Undo(step=spec, reason=reason):
                        self._undo(self._steps[spec.name], reason)
                    case Look(reason=reason):
                        self._look(reason)
                    case Stop(reason=reason):
                        return self._needs_attention(reason)
                    case Finish(state=state):
                        return self._finished(state)
        except _CannotLookError as exc:
            self._last_error = exc.error
            return self._needs_attention("the worlds can't be looked at")

    # --- do and undo ------------------------------------------------------------------------

    def _do(self, step: Step, reason: str) -> None:
        error = self._carry_out(step, Verb.DO, step.do, reason)
        if error is None:
            return
        self._first_problem = self._first_problem or error.problem
        self._last_error = error
        happening = Happening.DO_FAILED if error.touched else Happening.DO_UNTOUCHED
        self._write(happening, step, error.problem.brief, error.problem)
        if error.touched:
            self._settle()

    def _undo(self, step: Step, reason: str) -> None:
        if step.undo is None:
            raise AssertionError(f"{step.spec.name} is undoable and has no undo")
        error = self._carry_out(step, Verb.UNDO, step.undo, reason)
        if error is None:
            return
        self._last_error = error
        self._write(Happening.UNDO_FAILED, step, error.problem.brief, error.problem)

    def _carry_out(
        self, step: Step, verb: Verb, effect: Callable[[], None], reason: str
    ) -> AttachdError | None:
        """Intent, effect, outcome (law 1). The outcome of a failure is left to the caller."""
        intent, outcome, done = _LINES[verb]
        self._at(step, verb, Moment.BEFORE_INTENT)
        self._write(intent, step, reason)
        self._at(step, verb, Moment.AFTER_INTENT)
        note(step=step.spec.name)
        began = now()
        error = self._attempt(effect, step)
        note(step=None)
        self._observers.step_ran(
            StepRun(
                kind=self._operation.kind,
                step=step.spec.name,
                verb=verb,
                seconds=now() - began,
                code=error.code if error else None,
            )
        )
        if error is None:
            self._at(step, verb, Moment.AFTER_EFFECT)
            self._write(outcome, step, done)
            self._at(step, verb, Moment.AFTER_OUTCOME)
        return error

    def _at(self, step: Step, verb: Verb, moment: Moment) -> None:
        self._reached(name_of(self._operation.kind, step.spec.name, verb, moment))

    def _attempt(self, effect: Callable[[], None], step: Step) -> AttachdError | None:
        try:
            effect()
        except AttachdError as exc:
            LOG.info("%s: %s: %s", self._id, step.spec.name, exc, exc_info=LOG.isEnabledFor(10))
            return exc
        except Exception as exc:  # a mistake of ours must be undone like any other failure
            LOG.exception("%s: %s failed unexpectedly", self._id, step.spec.name)
            return _unexpected(step, exc)
        return None

    # --- after a crash, or after a world was out of reach -----------------------------------

    def _settle(self) -> None:
        """An effect that comes late must not come behind a roll-back (law 7)."""
        unanswered = self._unanswered()
        if not unanswered:
            return
        try:
            self._operation.settle(unanswered)
        except Unreachable as exc:
            raise _CannotLookError(exc) from exc
        except AttachdError as exc:  # it answered: whatever that is, nothing is waited for
            LOG.info("%s: what may come late can't be told: %s", self._id, exc)

    def _unanswered(self) -> dict[str, Unanswered]:
        """The steps whose last line tells of no outcome, or of one that may yet change."""
        known = self._events[-1].seq if self._events else 0
        self._events += self._journal.events(self._id, after=known)  # what this run has written
        last = {event.entry.step: event for event in self._events}
        return {
            step: Unanswered(
                age=self._journal.age(event),
                orphaned=not self._journal.is_own(event),
                undoing=event.entry.happening in _UNDOING,
                failed_with=event.problem.code if event.problem else None,
            )
            for step, event in last.items()
            if event.entry.happening in _DOING | _UNDOING
        }

    def _look(self, reason: str) -> Happening:
        """Which way it goes from here."""
        try:
            seen = self._operation.look()
        except AttachdError as exc:
            raise _CannotLookError(exc) from exc
        verdict = decide(self._operation.kind, self._specs, self._history, seen)
        LOG.info("%s: %s: %s since %s", self._id, reason, verdict.happening, verdict.reason)
        self._append(Entry(happening=verdict.happening), verdict.reason, None)
        return verdict.happening

    # --- rest -------------------------------------------------------------------------------

    def _finished(self, state: OperationState) -> Rest:
        if state is OperationState.DONE:
            return Rest(state=state)
        return Rest(state=state, problem=self._first_problem or _INTERRUPTED)

    def _needs_attention(self, reason: str) -> Rest:
        error = self._last_error
        record = self._operation.record
        if record is not None and self._touched() and not self._operation.kind.housekeeping:
            self._operation.record = replace(record, state=AttachmentState.NEEDS_ATTENTION)
            self._journal.reserve(self._operation.record)
        waiting_for = error.world if error is not None else None
        return Rest(
            state=OperationState.NEEDS_ATTENTION,
            problem=self._what_is_left(reason, waiting_for),
            waiting_for=waiting_for,
        )

    def _touched(self) -> bool:
        """May anything of it be left outside of the journal?"""
        standings = fold(self._specs, self._history).standings
        return any(
            standing not in _NOTHING_LEFT
            for spec, standing in zip(self._specs, standings, strict=True)
            if spec.undoable or spec.pivot
        )

    def _what_is_left(self, reason: str, waiting_for: World | None) -> Problem:
        problem = self._last_error.problem if self._last_error else _INTERRUPTED
        first = self._first_problem
        lines = [problem.details, f"It stopped there: {reason}."]
        if self._operation.record is not None and not self._operation.kind.housekeeping:
            lines.append(f"What may be left: {', '.join(_remains(self._operation.record))}.")
        if first is not None and first != problem:
            lines.append(f"It went wrong first with {first}")
        if waiting_for is not None:
            resolution = (
                f"attachd goes on by itself when {_WORLD_NAMES[waiting_for]} answers again."
            )
        else:
            resolution = f"{problem.resolution} Then: attachctl operation resume {self._id}"
        return replace(
            problem,
            details="\n".join(line for line in lines if line),
            resolution=resolution.strip(),
        )

    # --- the journal ------------------------------------------------------------------------

    def _write(
        self, happening: Happening, step: Step, reason: str, problem: Problem | None = None
    ) -> None:
        self._append(Entry(happening=happening, step=step.spec.name), reason, problem)

    def _append(self, entry: Entry, reason: str, problem: Problem | None) -> None:
        record = self._operation.record
        self._journal.append(
            self._id,
            entry,
            reason=reason,
            problem=problem,
            record=None if record == self._journalled else record,
            calls=tuple(self._calls),
        )
        self._journalled = record
        self._calls.clear()
        self._note_attachment()
        self._history.append(entry)
        self._news()

    def _note_attachment(self) -> None:
        """What the log says from here on."""
        if self._operation.record is not None:
            note(**of_attachment(self._operation.record))


class _CannotLookError(Exception):
    """A world could not be looked at, so nothing can be decided now."""

    def __init__(self, error: AttachdError) -> None:
        super().__init__(str(error))
        self.error = error


_LINES = {
    Verb.DO: (Happening.DO_INTENT, Happening.DO_DONE, "it took effect"),
    Verb.UNDO: (Happening.UNDO_INTENT, Happening.UNDO_DONE, "it is proven gone"),
}

_DOING = frozenset({Happening.DO_INTENT, Happening.DO_FAILED})
_UNDOING = frozenset({Happening.UNDO_INTENT, Happening.UNDO_FAILED})

_NOTHING_LEFT = frozenset({Standing.PENDING, Standing.UNTOUCHED, Standing.UNDONE})

_INTERRUPTED = Problem(
    code=Code.INTERRUPTED,
    brief="attachd was stopped in the middle of it.",
    resolution="Ask for it again.",
)

_WORLD_NAMES = {
    World.CINDER: "Cinder",
    World.HOST: "the host's storage",
    World.GUEST: "libvirt",
    World.JOURNAL: "the journal",
}


def _remains(record: AttachmentRecord) -> list[str]:
    """What each world may still hold of an attachment, for whoever has to look."""
    remains = [f"disk {record.device} of guest {record.guest_name}"]
    if record.host_path is not None:
        remains.append(f"device {record.host_path}")
    if record.connection is not None:
        remains += [
            f"session to {target.iqn} at {target.portal}" for target in record.connection.targets
        ]
    if record.attachment_id is not None:
        remains.append(f"Cinder's attachment {record.attachment_id}")
    return [*remains, f"volume {record.volume_id}"]


def _unexpected(step: Step, exc: Exception) -> AttachdError:
    return AttachdError(
        Code.INTERNAL_ERROR,
        f"attachd made a mistake in {step.spec.name}.",
        details=type(exc).__name__,
        resolution="See attachd's log (journalctl -u attachd) and report it.",
    )
