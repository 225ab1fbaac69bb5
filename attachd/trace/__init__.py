"""What an operation asked of the outer libraries, for how long, and with what outcome.

Steps say what attachd did; calls say what the time went into. Each room wraps its library's calls,
and only those, in :func:`call`; the engine collects what one operation's thread called and keeps
it with the operation. A call's name is a verb and perhaps a path: never a body, never a secret.
What was said in a request to Cinder goes into its :class:`Exchange`, secrets masked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from attachd.errors import AttachdError


class Library(StrEnum):
    """Whose time it is."""

    CINDER = "cinder"
    OS_BRICK = "os_brick"
    LIBVIRT = "libvirt"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request and its answer, with nothing secret in it; see :mod:`attachd.trace.masking`.

    ``status`` and what follows is None where no answer came.
    """

    method: str
    url: str
    body: Any = None
    status: int | None = None
    request_id: str | None = None
    answer: Any = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call; ``started`` and ``ended`` in seconds since the host booted.

    ``outcome``: None where it went well, else in a word or two how not.
    """

    library: Library
    name: str
    started: float
    ended: float
    outcome: str | None = None
    exchange: Exchange | None = None


@dataclass(kw_only=True)
class Note:
    """What a room adds to a call of its own while it is under way.

    ``collected``: does anybody keep it? Else it needs no exchange.
    """

    collected: bool
    outcome: str | None = None
    exchange: Exchange | None = None


_collector: ContextVar[list[Call] | None] = ContextVar("attachd-calls", default=None)


def now() -> float:
    """Seconds since the host booted, suspended time included: no clock jump moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextmanager
def collecting() -> Iterator[list[Call]]:
    """The calls that this thread makes from here on, in order of their ends."""
    calls: list[Call] = []
    token = _collector.set(calls)
    try:
        yield calls
    finally:
        _collector.reset(token)


@contextmanager
def call(library: Library, name: str) -> Iterator[Note]:
    """Note how long the library takes, and how it ends, where anybody collects."""
    calls = _collector.get()
    note = Note(collected=calls is not None)
    if calls is None:
        yield note
        return
    started = now()
    try:
        yield note
    except BaseException as exc:
        note.outcome = note.outcome or _name_of(exc)
        raise
    finally:
        calls.append(
            Call(
                library=library,
                name=name,
                started=started,
                ended=now(),
                outcome=note.outcome,
                exchange=note.exchange,
            )
        )


def _name_of(exc: BaseException) -> str:
    return exc.code.value if isinstance(exc, AttachdError) else type(exc).__name__
