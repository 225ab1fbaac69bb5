"""Trying again: bounded, with a growing pause, and never blindly.

Only a :class:`~attachd.cinder.faults.Transient` fault is worth another try. A call that only reads
is simply repeated. A call that changes something may have had its effect although its answer was
lost; so before it is repeated, and before it is given up, Cinder is asked what happened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import tenacity

from attachd.cinder.faults import Transient
from attachd.errors import AttachdError

LOG = logging.getLogger(__name__)
LONGEST_PAUSE = 15.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Landed(Generic[T]):
    """The call had its effect; ``result`` is what its lost answer would have said."""

    result: T


class Retry:
    """How long, and how often.

    ``tries`` counts the first one; no new try begins once ``deadline`` seconds have passed;
    ``pause`` is the first pause in seconds, doubled (with some jitter) up to 15 s. ``asked_again``
    is called for each try beyond the first.
    """

    def __init__(
        self,
        *,
        tries: int,
        deadline: float,
        pause: float,
        asked_again: Callable[[], None] = lambda: None,
    ) -> None:
        self._tries = tries
        self._deadline = deadline
        self._pause = pause
        self._asked_again = asked_again

    def read(self, ask: Callable[[], T]) -> T:
        """Return what ``ask`` returns; raise its last fault when the bounds are reached."""
        return self._retrying()(ask)

    def change(self, act: Callable[[], T], *, landed: Callable[[], Landed[T] | None]) -> T:
        """Do ``act``, once in effect.

        ``landed`` looks whether an earlier try had its effect. It is asked only after an answer was
        lost: before ``act`` is repeated; after the repetition, because the first one may have
        come late; and once more before giving up. An error that is raised then has ``touched``.
        """
        lost = False

        def attempt() -> T:
            nonlocal lost
            if lost and (found := landed()):
                return found.result
            try:
                result = act()
            except Transient as exc:
                lost = lost or exc.touched
                raise
            if lost and (found := landed()):
                return found.result
            return result

        try:
            return self._retrying()(attempt)
        except AttachdError as exc:
            if not lost:
                raise
            if found := _last_look(landed):
                return found.result
            exc.touched = True
            raise

    def _retrying(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            stop=tenacity.stop_after_attempt(self._tries)
            | tenacity.stop_before_delay(self._deadline),
            wait=tenacity.wait_exponential(multiplier=self._pause, max=LONGEST_PAUSE)
            + tenacity.wait_random(0, self._pause / 2),
            before_sleep=self._before_pause,
            reraise=True,
        )

    def _before_pause(self, state: tenacity.RetryCallState) -> None:
        self._asked_again()
        _log_pause(state)


def _last_look(landed: Callable[[], Landed[T] | None]) -> Landed[T] | None:
    try:
        return landed()
    except AttachdError as exc:
        LOG.debug("What became of the call can't be told: %s", exc)
        return None


def _log_pause(state: tenacity.RetryCallState) -> None:
    fault = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    LOG.warning("%s Try %d failed; the next one in %.1f s.", fault, state.attempt_number, pause)
