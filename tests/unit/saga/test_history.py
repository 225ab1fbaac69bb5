"""The transition table, every cell; and that a damaged history is refused, not guessed at."""

from __future__ import annotations

import itertools

import pytest

from attachd.errors import World
from attachd.saga.history import (
    RESUMPTIONS,
    TRANSITIONS,
    Entry,
    Happening,
    Standing,
    StepSpec,
    fold,
)

STEPS = (
    StepSpec(name="one", world=World.CINDER, undoable=True),
    StepSpec(name="two", world=World.HOST),
)

TO_REACH: dict[Standing, tuple[Happening, ...]] = {
    Standing.PENDING: (),
    Standing.AGAIN: (Happening.DO_INTENT, Happening.RESUME_FORWARD),
    Standing.OPEN: (Happening.DO_INTENT,),
    Standing.REOPENED: (Happening.DO_INTENT, Happening.RESUME_FORWARD, Happening.DO_INTENT),
    Standing.DONE: (Happening.DO_INTENT, Happening.DO_DONE),
    Standing.UNTOUCHED: (Happening.DO_INTENT, Happening.DO_UNTOUCHED),
    Standing.FAILED: (Happening.DO_INTENT, Happening.DO_FAILED),
    Standing.UNDOING: (Happening.DO_INTENT, Happening.DO_DONE, Happening.UNDO_INTENT),
    Standing.UNDONE: (
        Happening.DO_INTENT,
        Happening.DO_DONE,
        Happening.UNDO_INTENT,
        Happening.UNDO_DONE,
    ),
    Standing.STUCK: (
        Happening.DO_INTENT,
        Happening.DO_DONE,
        Happening.UNDO_INTENT,
        Happening.UNDO_FAILED,
    ),
}


def entry(happening: Happening) -> Entry:
    return Entry(happening=happening, step="" if happening in RESUMPTIONS else "one")


@pytest.mark.parametrize(("standing", "happening"), list(itertools.product(Standing, Happening)))
def test_every_cell_of_the_table(standing: Standing, happening: Happening) -> None:
    history = [entry(h) for h in (*TO_REACH[standing], happening)]
    expected = TRANSITIONS.get((standing, happening))
    if expected is None:
        with pytest.raises(ValueError, match="history says"):
            fold(STEPS, history)
    else:
        assert fold(STEPS, history).standings[0] is expected


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(ValueError, match="'three'"):
        fold(STEPS, [Entry(happening=Happening.DO_INTENT, step="three")])


def test_a_resumption_concerns_every_step() -> None:
    history = [
        Entry(happening=Happening.DO_INTENT, step="one"),
        Entry(happening=Happening.DO_DONE, step="one"),
        Entry(happening=Happening.DO_INTENT, step="two"),
        Entry(happening=Happening.RESUME_BACK),
    ]
    course = fold(STEPS, history)
    assert course.standings == (Standing.DONE, Standing.FAILED)
    assert course.turned_back


def test_going_forward_again_forgets_that_it_turned_back() -> None:
    history = [
        Entry(happening=Happening.DO_INTENT, step="one"),
        Entry(happening=Happening.DO_DONE, step="one"),
        Entry(happening=Happening.UNDO_INTENT, step="one"),
        Entry(happening=Happening.RESUME_FORWARD),
    ]
    course = fold(STEPS, history)
    assert course.standings == (Standing.AGAIN, Standing.PENDING)
    assert not course.turned_back
