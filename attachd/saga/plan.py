"""From an operation's steps and history to the one next action.

Forward, the first step that isn't done decides:

| standing | before the pivot | at the pivot | behind it |
|---|---|---|---|
| pending, again | do it | do it | do it |
| open, reopened, undoing | look | look | look |
| untouched | turn back | turn back | stop |
| failed | turn back | stop | stop |

An operation that was resumed forward because its pivot had had its effect stops wherever the table
says to turn back.

Back, the last step that isn't gone decides: done, failed or again is undone, open, reopened and
undoing want a look, stuck stops: nothing is undone past a failed undo (law 4). When all are gone
the operation is ``undone``, or ``refused`` where no undoable step ever had an effect, and none
failed that may have had one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attachd.model import OperationState
from attachd.saga.history import Course, Entry, Standing, StepSpec, fold


@dataclass(frozen=True, kw_only=True)
class Do:
    """Do this step."""

    step: StepSpec
    reason: str


@dataclass(frozen=True, kw_only=True)
class Undo:
    """Undo this step."""

    step: StepSpec
    reason: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """What became of this step isn't known: look at the worlds, then resume forward or back."""

    step: StepSpec
    reason: str


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Nothing more can be done by itself: the operation needs attention."""

    step: StepSpec
    reason: str


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The operation is at its end."""

    state: OperationState
    reason: str


Action = Do | Undo | Look | Stop | Finish

_TO_DO = frozenset({Standing.PENDING, Standing.AGAIN})
_TO_UNDO = frozenset({Standing.DONE, Standing.FAILED, Standing.AGAIN})
_UNKNOWN = frozenset({Standing.OPEN, Standing.REOPENED, Standing.UNDOING})
_NEVER_TOUCHED = frozenset({Standing.PENDING, Standing.UNTOUCHED})


def plan(steps: Sequence[StepSpec], history: Iterable[Entry]) -> Action:
    """The next action. Raises ValueError on a history that no sound journal holds."""
    course = fold(steps, history)
    if course.turned_back:
        return _back(steps, course)
    return _forward(steps, course)


def _forward(steps: Sequence[StepSpec], course: Course) -> Action:
    for step, standing in zip(steps, course.standings, strict=True):
        if standing is Standing.DONE:
            continue
        if standing in _TO_DO:
            return Do(step=step, reason="next in order")
        if standing in _UNKNOWN:
            return Look(step=step, reason=f"what became of {step.name} isn't known")
        if not course.committed and _may_turn_back(steps, step, standing):
            return _back(steps, course)
        return Stop(step=step, reason=f"{step.name} failed where there is no way back")
    return Finish(state=OperationState.DONE, reason="every step is done")


def _may_turn_back(steps: Sequence[StepSpec], step: StepSpec, standing: Standing) -> bool:
    before = steps[: steps.index(step)]
    if any(earlier.pivot for earlier in before):
        return False
    return not step.pivot or standing is Standing.UNTOUCHED


def _back(steps: Sequence[StepSpec], course: Course) -> Action:
    undoable = [
        (step, standing)
        for step, standing in zip(steps, course.standings, strict=True)
        if step.undoable
    ]
    for step, standing in reversed(undoable):
        if standing in _TO_UNDO:
            return Undo(step=step, reason=f"the operation goes back; {step.name} was {standing}")
        if standing in _UNKNOWN:
            return Look(step=step, reason=f"what became of {step.name} isn't known")
        if standing is Standing.STUCK:
            return Stop(step=step, reason=f"{step.name} couldn't be undone")
    harmless = Standing.FAILED not in course.standings
    if harmless and all(standing in _NEVER_TOUCHED for _, standing in undoable):
        return Finish(state=OperationState.REFUSED, reason="it ended before anything was touched")
    return Finish(state=OperationState.UNDONE, reason="everything is undone")
