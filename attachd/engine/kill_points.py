"""Named moments at which attachd can be told to die: how its recovery is tested on the real parts.

A name reads ``attach.connect.do.after-effect``: the operation, its step, doing or undoing it, and
the moment around the journal's lines about it. Where the environment's ``ATTACHD_KILL_AT`` is a
file's path, the daemon dies of SIGKILL at the moment that the file names, and removes the file
first: its successor lives. ``NAME+2.5`` dies so many seconds behind the moment, in the middle of
what follows. Nothing else reads the names, and without that variable nothing happens.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from attachd.errors import AttachdError, Code
from attachd.operations.tables import TABLES

LOG = logging.getLogger(__name__)

VARIABLE = "ATTACHD_KILL_AT"


class Moment(StrEnum):
    """Where in a step, or in its undo."""

    BEFORE_INTENT = "before-intent"  # nothing says that it shall be done
    AFTER_INTENT = "after-intent"  # that is on the disk, and nothing was done
    AFTER_EFFECT = "after-effect"  # it was done, and nothing says so
    AFTER_OUTCOME = "after-outcome"  # that is journalled


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
    for operation, table in TABLES.items():
        undone = [(step, Verb.UNDO) for step in reversed(table) if step.undoable]
        for step, verb in [*((step, Verb.DO) for step in table), *undone]:
            names += [name_of(operation, step.name, verb, moment) for moment in Moment]
    return tuple(names)


class KillPoint:
    """Dies once at the moment that ``file`` names; ``die`` isn't expected to return."""

    def __init__(self, *, file: Path, die: Callable[[], None]) -> None:
        self._file = file
        self._die = die

    def reached(self, name: str) -> None:
        """The runner is at this moment."""
        wanted, _, delay = self._asked_for().partition("+")
        if wanted != name:
            return
        seconds = float(delay or 0)
        self._file.unlink()
        LOG.warning("Told to die %g s behind %s", seconds, name)
        if seconds > 0:
            threading.Timer(seconds, self._die).start()
        else:
            self._die()

    def _asked_for(self) -> str:
        try:
            return self._file.read_text().strip()
        except FileNotFoundError:
            return ""


def from_environment(environment: Mapping[str, str]) -> Reached:
    """What the environment asks for. Raises config-invalid on what is no file's absolute path."""
    path = environment.get(VARIABLE)
    if not path:
        return lambda _: None
    if not Path(path).is_absolute():
        raise AttachdError(
            Code.CONFIG_INVALID,
            f"The environment's {VARIABLE} is no absolute path.",
            details=path,
            resolution="Unset it: it is for tests of attachd's recovery only.",
            touched=False,
        )
    return KillPoint(file=Path(path), die=_die).reached


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
