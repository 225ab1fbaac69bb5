"""The periodic thread: it looks again whatever a look came to, at once when woken, and it ends."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from attachd.errors import AttachdError, Code
from attachd.periodic import Periodic

NEVER = 3600.0
PATIENCE = 30.0


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def periodic(
    look: Callable[[], None],
    *,
    interval: float = 0.001,
    share: float = 1.0,
    longest: float = math.inf,
    others: Callable[[], float] = lambda: 0.0,
) -> Periodic:
    return Periodic(
        name="test",
        interval=interval,
        look=look,
        failing="It can't look now",
        share=share,
        longest=longest,
        others=others,
    )


class Looks:
    """Counts its looks; the first ones raise what it was given."""

    def __init__(self, *errors: Exception) -> None:
        self.count = 0
        self._errors = list(errors)
        self._changed = threading.Condition()

    def __call__(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        if self._errors:
            raise self._errors.pop(0)

    def reach(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, PATIENCE)


def test_it_looks_again_and_again_until_it_is_stopped() -> None:
    looks = Looks()
    thread = periodic(looks)
    thread.start()
    looks.reach(3)
    assert thread.stop(PATIENCE)


@pytest.mark.parametrize(
    ("error", "level", "line"),
    [
        (
            AttachdError(Code.JOURNAL_UNAVAILABLE, "No journal."),
            logging.WARNING,
            "It can't look now: journal-unavailable: No journal.",
        ),
        (ZeroDivisionError("by nothing"), logging.ERROR, "It can't look now"),
    ],
)
def test_a_look_that_raises_is_told_and_does_not_end_it(
    caplog: pytest.LogCaptureFixture, error: Exception, level: int, line: str
) -> None:
    looks = Looks(error)
    thread = periodic(looks)
    thread.start()
    looks.reach(2)
    assert thread.stop(PATIENCE)
    (told,) = caplog.records
    assert (told.levelno, told.getMessage()) == (level, line)
    assert (told.exc_info is not None) == (level == logging.ERROR), "a mistake has its traceback"


def test_the_first_look_comes_after_an_interval() -> None:
    looks = Looks()
    thread = periodic(looks, interval=NEVER)
    thread.start()
    assert thread.stop(PATIENCE)
    assert looks.count == 0


def test_woken_it_looks_at_once() -> None:
    looks = Looks()
    thread = periodic(looks, interval=NEVER)
    thread.start()
    for count in (1, 2):
        thread.wake()
        looks.reach(count)
    assert thread.stop(PATIENCE)
    assert looks.count == 2


def test_woken_while_it_looks_it_looks_once_more() -> None:
    looks = Looks()
    began, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        assert go_on.wait(PATIENCE)
        looks()

    thread = periodic(slow, interval=NEVER)
    thread.start()
    thread.wake()
    assert began.wait(PATIENCE)
    thread.wake()
    go_on.set()
    looks.reach(2)
    assert thread.stop(PATIENCE)


def test_stopped_while_it_looks_it_says_so() -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        assert go_on.wait(PATIENCE)

    thread = periodic(slow)
    thread.start()
    assert began.wait(PATIENCE)
    assert not thread.stop(0.01)
    go_on.set()
    assert thread.stop(PATIENCE)


def test_one_that_was_never_started_stops() -> None:
    assert periodic(Looks()).stop(1)


def test_a_look_that_took_long_is_followed_by_a_longer_pause() -> None:
    """By the processor's time: what was waited for costs nobody anything."""
    looks = Looks()

    def look() -> None:
        looks()
        while time.thread_time() < looks.count * 0.02:
            pass

    thread = periodic(look, share=0.02 / NEVER)
    thread.start()
    looks.reach(1)
    threading.Event().wait(0.3)  # three hundred intervals
    assert looks.count == 1
    thread.wake()
    looks.reach(2)
    assert thread.stop(PATIENCE)


def test_what_others_work_for_a_look_counts() -> None:
    looks = Looks()
    thread = periodic(looks, share=0.02 / NEVER, others=lambda: looks.count * 0.02)
    thread.start()
    looks.reach(1)
    threading.Event().wait(0.3)  # three hundred intervals
    assert looks.count == 1
    assert thread.stop(PATIENCE)


def test_a_look_that_only_waits_is_followed_by_the_next() -> None:
    looks = Looks()

    def look() -> None:
        looks()
        threading.Event().wait(0.05)

    thread = periodic(look, share=0.05 / (2 * PATIENCE))
    thread.start()
    looks.reach(2)
    assert thread.stop(PATIENCE)


def test_no_pause_is_longer_than_the_longest() -> None:
    looks = Looks()

    def look() -> None:
        looks()
        while time.thread_time() < looks.count * 0.02:
            pass

    thread = periodic(look, share=0.02 / NEVER, longest=0.05)
    thread.start()
    looks.reach(3)
    assert thread.stop(PATIENCE)
