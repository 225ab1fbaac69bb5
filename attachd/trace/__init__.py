"""What an operation asked of the outer libraries, and for how long.

Steps say what attachd did; calls say what the time went into. Each room wraps its library's calls,
and only those, in :func:`call`; the engine collects what one operation's thread called and keeps
it with the operation. A call's name is a verb and perhaps a path: never a body, never a secret.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum


class Library(StrEnum):
    """Whose time it is."""

    CINDER = "cinder"
    OS_BRICK = "os_brick"
    LIBVIRT = "libvirt"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call; ``started`` and ``ended`` in seconds since the host booted."""

    library: Library
    name: str
    started: float
    ended: float


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
def call(library: Library, name: str) -> Iterator[None]:
    """Note how long the library takes, where anybody collects."""
    calls = _collector.get()
    if calls is None:
        yield
        return
    started = now()
    try:
        yield
    finally:
        calls.append(Call(library=library, name=name, started=started, ended=now()))
