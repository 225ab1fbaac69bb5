"""Named moments at which attachd can be told to die: how its recovery is tested on the real parts.

A name reads ``attach.connect.do.after-effect``: the operation, its step, doing or undoing it, and
the moment around the journal's lines about it. The daemon dies of SIGKILL at the one that its
environment names in ``ATTACHD_KILL_AT``; ``NAME+2.5`` dies so many seconds behind it, in the middle
of what follows. Nothing else reads the names, and without that variable nothing happens.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum

from attachd.errors import AttachdError, Code
from attachd.operations import attach, detach

LOG = logging.getLogger(__name__)

VARIABLE = "ATTACHD_KILL_AT"


class Moment(StrEnum):
    """Where in a step, or in its undo."""

    BEFORE_INTENT = "before-intent"  # nothing says that it shall be done
    AFTER_INTENT = "after-intent"  # that is on the disk, and nothing was done
    AFTER_EFFECT = "after-effect"  # it was done, and nothing says so
    AFTER_OUTCOME = "after-outcome"  # that is on the disk


class Verb(StrEnum):
    """Doing a step, or undoing it."""

    DO = "do"
    UNDO = "undo"


Reached = Callable[[str], None]
"""What the runner calls at each moment, with its name."""


def name_of(operation: str, step: str, verb: Verb, moment: Moment) -> str:
    """The moment's name."""
    return f"{operation}.{step}.{verb}.{moment}"


def all_names() -> tuple[str, ...]:
    """Every name, in the order in which an operation and its undo come by."""
    names = []
    for operation, table in (("attach", attach.TABLE), ("detach", detach.TABLE)):
        undone = [(step, Verb.UNDO) for step in reversed(table) if step.undoable]
        for step, verb in [*((step, Verb.DO) for step in table), *undone]:
            names += [name_of(operation, step.name, verb, moment) for moment in Moment]
    return tuple(names)


class KillPoint:
    """Dies at one moment. ``delay``: seconds from there; ``die`` isn't expected to return."""

    def __init__(self, *, name: str, delay: float, die: Callable[[], None]) -> None:
        self._name = name
        self._delay = delay
        self._die = die

    def reached(self, name: str) -> None:
        """The runner is at this moment."""
        if name != self._name:
            return
        LOG.warning("Told to die %g s behind %s", self._delay, name)
        if self._delay > 0:
            threading.Timer(self._delay, self._die).start()
        else:
            self._die()


def from_environment(environment: Mapping[str, str]) -> Reached:
    """What the environment asks for. Raises config-invalid on a name that nothing has."""
    wanted = environment.get(VARIABLE)
    if not wanted:
        return lambda _: None
    name, _, delay = wanted.partition("+")
    try:
        seconds = float(delay or 0)
    except ValueError:
        seconds = -1.0
    if name not in all_names() or not 0 <= seconds < float("inf"):
        raise AttachdError(
            Code.CONFIG_INVALID,
            f"The environment's {VARIABLE} names no moment of an operation.",
            details=wanted,
            resolution="Unset it: it is for tests of attachd's recovery only.",
            touched=False,
        )
    return KillPoint(name=name, delay=seconds, die=_die).reached


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
