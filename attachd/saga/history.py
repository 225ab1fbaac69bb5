"""What happened to an operation, and where each of its steps stands because of it.

``TRANSITIONS`` is the whole theory: a step's standing and what happened to it give its next
standing. A pair that isn't in it can't come from a sound journal and raises ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from attachd.errors import World


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """What the plan knows of a step.

    ``undoable``: it has an effect that an undo takes away. ``pivot``: once it took effect, the
    operation only goes forward (a guest that let go of its disk).
    """

    name: str
    world: World
    undoable: bool = False
    pivot: bool = False


class Happening(StrEnum):
    """Everything that can happen to a step."""

    DO_INTENT = "do-intent"  # it is about to be done: durable before anything is
    DO_DONE = "do-done"  # it took effect
    DO_UNTOUCHED = "do-untouched"  # it failed, and certainly changed nothing
    DO_FAILED = "do-failed"  # it failed, and may have changed something
    UNDO_INTENT = "undo-intent"  # it is about to be undone
    UNDO_DONE = "undo-done"  # its effect is proven gone
    UNDO_FAILED = "undo-failed"  # its effect may be there still
    RESUME_FORWARD = "resume-forward"  # after a look at the worlds: every step is done anew
    RESUME_BACK = "resume-back"  # after a look at the worlds: everything is undone


RESUMPTIONS = frozenset({Happening.RESUME_FORWARD, Happening.RESUME_BACK})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of an operation's history. A resumption concerns all steps and names none."""

    happening: Happening
    step: str = ""


class Standing(StrEnum):
    """Where a step stands."""

    PENDING = "pending"  # to be done, and never had an effect that could be left
    AGAIN = "again"  # to be done anew, after a resumption: what it did before may be there
    OPEN = "open"  # begun; whether it took effect isn't known
    REOPENED = "reopened"  # begun anew; even if this time nothing was touched, something may be
    DONE = "done"  # took effect
    UNTOUCHED = "untouched"  # failed without any effect
    FAILED = "failed"  # failed, or its outcome was lost: to be undone
    UNDOING = "undoing"  # its undo began; whether it is gone isn't known
    UNDONE = "undone"  # proven gone
    STUCK = "stuck"  # its undo failed


TRANSITIONS: dict[tuple[Standing, Happening], Standing] = {
    (Standing.PENDING, Happening.DO_INTENT): Standing.OPEN,
    (Standing.PENDING, Happening.RESUME_FORWARD): Standing.PENDING,
    (Standing.PENDING, Happening.RESUME_BACK): Standing.PENDING,
    (Standing.AGAIN, Happening.DO_INTENT): Standing.REOPENED,
    (Standing.AGAIN, Happening.UNDO_INTENT): Standing.UNDOING,
    (Standing.AGAIN, Happening.RESUME_FORWARD): Standing.AGAIN,
    (Standing.AGAIN, Happening.RESUME_BACK): Standing.FAILED,
    (Standing.OPEN, Happening.DO_DONE): Standing.DONE,
    (Standing.OPEN, Happening.DO_UNTOUCHED): Standing.UNTOUCHED,
    (Standing.OPEN, Happening.DO_FAILED): Standing.FAILED,
    (Standing.OPEN, Happening.RESUME_FORWARD): Standing.AGAIN,
    (Standing.OPEN, Happening.RESUME_BACK): Standing.FAILED,
    (Standing.REOPENED, Happening.DO_DONE): Standing.DONE,
    (Standing.REOPENED, Happening.DO_UNTOUCHED): Standing.FAILED,
    (Standing.REOPENED, Happening.DO_FAILED): Standing.FAILED,
    (Standing.REOPENED, Happening.RESUME_FORWARD): Standing.AGAIN,
    (Standing.REOPENED, Happening.RESUME_BACK): Standing.FAILED,
    (Standing.DONE, Happening.UNDO_INTENT): Standing.UNDOING,
    (Standing.DONE, Happening.RESUME_FORWARD): Standing.AGAIN,
    (Standing.DONE, Happening.RESUME_BACK): Standing.DONE,
    (Standing.UNTOUCHED, Happening.RESUME_FORWARD): Standing.PENDING,
    (Standing.UNTOUCHED, Happening.RESUME_BACK): Standing.UNTOUCHED,
    (Standing.FAILED, Happening.UNDO_INTENT): Standing.UNDOING,
    (Standing.FAILED, Happening.RESUME_FORWARD): Standing.AGAIN,
    (Standing.FAILED, Happening.RESUME_BACK): Standing.FAILED,
    (Standing.UNDOING, Happening.UNDO_DONE): Standing.UNDONE,
    (Standing.UNDOING, Happening.UNDO_FAILED): Standing.STUCK,
    (Standing.UNDOING, Happening.RESUME_FORWARD): Standing.AGAIN,
    (Standing.UNDOING, Happening.RESUME_BACK): Standing.FAILED,
    (Standing.UNDONE, Happening.RESUME_FORWARD): Standing.PENDING,
    (Standing.UNDONE, Happening.RESUME_BACK): Standing.UNDONE,
    (Standing.STUCK, Happening.RESUME_FORWARD): Standing.AGAIN,
    (Standing.STUCK, Happening.RESUME_BACK): Standing.FAILED,
}


@dataclass(frozen=True, kw_only=True)
class Course:
    """A history, folded.

    ``committed``: it was resumed forward after its pivot had begun, since the pivot was seen to
    have had its effect; so there is no way back, even while earlier steps are done anew.
    """

    standings: tuple[Standing, ...]
    turned_back: bool
    committed: bool


def fold(steps: Sequence[StepSpec], history: Iterable[Entry]) -> Course:
    """Fold a history into a course. Raises ValueError on one that no sound journal holds."""
    names = [step.name for step in steps]
    standings = [Standing.PENDING] * len(steps)
    turned_back = committed = False
    for entry in history:
        resumption = entry.happening in RESUMPTIONS
        if resumption:
            committed = entry.happening is Happening.RESUME_FORWARD and (
                committed or _pivot_was_begun(steps, standings)
            )
        concerned = range(len(steps)) if resumption else (_position(names, entry),)
        for position in concerned:
            standings[position] = _next(standings[position], entry)
        if entry.happening in (Happening.UNDO_INTENT, Happening.RESUME_BACK):
            turned_back = True
        elif entry.happening is Happening.RESUME_FORWARD:
            turned_back = False
    return Course(standings=tuple(standings), turned_back=turned_back, committed=committed)


def undo_was_begun(history: Iterable[Entry]) -> bool:
    """Was any undo ever journalled?"""
    return any(entry.happening is Happening.UNDO_INTENT for entry in history)


def was_begun(history: Iterable[Entry], step: str) -> bool:
    """Was this step ever begun?"""
    return any(e.happening is Happening.DO_INTENT and e.step == step for e in history)


def _pivot_was_begun(steps: Sequence[StepSpec], standings: Sequence[Standing]) -> bool:
    return any(
        step.pivot and standing is not Standing.PENDING
        for step, standing in zip(steps, standings, strict=True)
    )


def _position(names: list[str], entry: Entry) -> int:
    if entry.step not in names:
        raise ValueError(f"the history names the step {entry.step!r}, which this operation lacks")
    return names.index(entry.step)


def _next(standing: Standing, entry: Entry) -> Standing:
    try:
        return TRANSITIONS[standing, entry.happening]
    except KeyError:
        raise ValueError(
            f"the history says {entry.happening} of {entry.step or 'a step'}, which is {standing}"
        ) from None
