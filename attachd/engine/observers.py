"""Who is told what operations do, while they do it: the numbers, the traces.

They are told in the operation's own thread, behind the journal: so an observer returns at once and
asks no world anything. What it raises is logged, and neither fails nor holds up an operation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from attachd.engine.kill_points import Verb
from attachd.errors import Code
from attachd.model import OperationKind, OperationState
from attachd.saga.history import Happening

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepRun:
    """A step, or its undo, was run. ``code`` is its error's; None: it took effect."""

    kind: OperationKind
    step: str
    verb: Verb
    seconds: float
    code: Code | None


@dataclass(frozen=True, kw_only=True)
class OperationRun:
    """An operation came to rest in ``state``; ``before``: what it was in when this run began.

    ``resumed``: an earlier run had begun it. ``seconds``: since it was accepted, that is with all
    its runs; None where it was resumed, maybe days later.
    """

    operation_id: str
    kind: OperationKind
    state: OperationState
    before: OperationState
    resumed: bool
    seconds: float | None


class Observer(Protocol):
    """Somebody who is told. From any thread."""

    def step_ran(self, run: StepRun) -> None:
        """A step ended, one way or the other."""

    def resumed(self, kind: OperationKind, happening: Happening) -> None:
        """The worlds were looked at, and an interrupted operation goes forward or back."""

    def rested(self, run: OperationRun) -> None:
        """An operation came to rest, and the journal has it."""


class Observers:
    """All of them, as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def step_ran(self, run: StepRun) -> None:
        """See :class:`Observer`."""
        self._tell(lambda observer: observer.step_ran(run))

    def resumed(self, kind: OperationKind, happening: Happening) -> None:
        """See :class:`Observer`."""
        self._tell(lambda observer: observer.resumed(kind, happening))

    def rested(self, run: OperationRun) -> None:
        """See :class:`Observer`."""
        self._tell(lambda observer: observer.rested(run))

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                tell(observer)
            except Exception:  # whatever it was: the operation has nothing to do with it
                LOG.exception("An observer of the operations failed.")
