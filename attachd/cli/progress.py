"""The steps of an operation, drawn on standard error while they happen, on a terminal only.

Where the terminal can move its cursor, the steps are drawn anew with the time that each takes; else
they are written one behind the other.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from attachd.plain import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Event = dict[str, Any]
Tell = Callable[[Event], None]

_COLOURS = {"done": "green", "failed": "red", "untouched": "red", "unknown": "yellow"}
_TERMINATED = 128 + signal.SIGTERM


@contextmanager
def progress(title: str, *, quiet: bool) -> Iterator[Tell | None]:
    """What the events of an operation are told to; None: nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield None
    elif os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        yield from _written(printable(title))
    else:
        yield from _drawn(printable(title))


def _written(title: str) -> Iterator[Tell]:
    """Line by line: a step's name when it begins, the rest when it has ended."""
    steps = Steps()
    running = False

    def write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    def tell(event: Event) -> None:
        nonlocal running
        step = steps.add(event)
        if step is None:
            return
        if step.ended:
            write(f"{step.state} {_seconds(step.seconds)}".rstrip() + "\n")
            running = False
        else:
            text = f"{_break(running)}  {step.name} ... "
            running = True  # before it is written: an interrupt may come right behind it
            write(text)

    write(f"{title}\n")
    try:
        yield tell
    finally:
        write(_break(running))


def _break(midway: bool) -> str:
    return "\n" if midway else ""


def _drawn(title: str) -> Iterator[Tell]:
    # rich takes longer to import than all the rest: only who watches pays for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    # rich itself heeds NO_COLOR.
    colourless = True if os.environ.get("CLICOLOR") == "0" else None
    console = Console(stderr=True, no_color=colourless, highlight=False)
    picture = _Picture(title, console)
    live = Live(get_renderable=picture.draw, console=console, refresh_per_second=8)
    with _unwinding_on_sigterm():
        try:
            with _undisturbed():
                live.start()
            yield picture.tell
        finally:
            with _undisturbed():
                picture.finish()
                live.stop()


@contextmanager
def _unwinding_on_sigterm() -> Iterator[None]:
    """While the cursor is hidden: ``timeout attachctl ...`` must not leave it so."""

    def stop(*_: object) -> NoReturn:
        raise SystemExit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A signal waits until the cursor is hidden, or is there again, with all that belongs to it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Picture:
    """The title with the time so far, below it the steps: the latest, where not all have room."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._began = time.monotonic()
        self._steps = Steps()
        self._finished = False
        self._lock = threading.Lock()  # rich draws in a thread

    def tell(self, event: Event) -> None:
        """See ``Steps.add``."""
        with self._lock:
            self._steps.add(event)

    def finish(self) -> None:
        """From now on all steps are drawn, whether they have room or not."""
        with self._lock:
            self._finished = True

    def draw(self) -> RenderableType:
        """As it is now."""
        from rich.console import Group  # noqa: PLC0415
        from rich.spinner import Spinner  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        with self._lock:
            steps, finished = self._steps.all(), self._finished
        head = Text(f"{self._title}  {_seconds(time.monotonic() - self._began)}")
        if not finished:
            width, height = self._console.size
            steps = steps[-max(1, height - len(head.wrap(self._console, width)) - 1) :]
        grid = Table.grid(padding=(0, 1))
        for step in steps:
            mark = " " if step.ended or finished else Spinner("line")
            state = Text(step.state, style=_COLOURS.get(step.state, ""))
            grid.add_row(mark, step.name, state, Text(_seconds(step.seconds), justify="right"))
        return Group(head, grid)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step as far as it is known.

    ``seconds``: what it took, or has taken so far; None: its begin isn't known.
    """

    name: str
    state: str
    began: str | None = None
    seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Is its outcome known?"""
        return self.state != "running"


class Steps:
    """What is known of each step so far, in the order in which they began.

    How long a step took is told by the daemon's clock; how long it has taken so far by this
    client's, since it heard of it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: dict[str, Step] = {}
        self._heard: dict[str, float] = {}

    def add(self, event: Event) -> Step | None:
        """Take in one event: the step that it is about; None for one of the operation itself."""
        if event["step"] is None:
            return None
        name = event["step"] if event["direction"] == "do" else f"undo {event['step']}"
        if event["phase"] == "intent":
            # A step that is run again after a restart begins anew.
            self._heard[name] = self._clock()
            step = Step(name=name, state="running", began=event["at"])
        else:
            begun = self._steps.get(name, Step(name=name, state="running"))
            step = replace(begun, state=event["state"], seconds=_between(begun.began, event["at"]))
        self._steps[name] = step
        return step

    def all(self) -> list[Step]:
        """Each as it is now."""
        now = self._clock()
        return [
            step if step.ended else replace(step, seconds=now - self._heard[name])
            for name, step in self._steps.items()
        ]


def _between(began: str | None, ended: str) -> float | None:
    if began is None:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"
