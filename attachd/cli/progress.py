"""The steps of an operation, drawn on standard error while they happen, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

Event = dict[str, Any]


@contextmanager
def progress(title: str, *, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """What the events of an operation are told to."""
    if quiet or not sys.stderr.isatty():
        yield lambda _event: None
        return
    with _drawn(title) as tell:
        yield tell


@contextmanager
def _drawn(title: str) -> Iterator[Callable[[Event], None]]:
    # rich takes longer to import than all the rest: only who watches pays for it.
    from rich.console import Console, Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.spinner import Spinner  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    colours = {"done": "green", "failed": "red", "untouched": "red", "unknown": "yellow"}
    steps = Steps()
    spinner = Spinner("line")

    def picture() -> Group:
        grid = Table.grid(padding=(0, 1))
        for name, state, seconds in steps.lines():
            mark = spinner if state == "running" else Text(" ")
            shown = Text(state, style=colours.get(state, ""))
            grid.add_row(mark, Text(name), shown, Text(seconds, justify="right"))
        return Group(Text(title), grid)

    with Live(picture(), console=Console(stderr=True), refresh_per_second=8) as live:

        def tell(event: Event) -> None:
            steps.add(event)
            live.update(picture())

        yield tell


class Steps:
    """What is known of each step so far, in the order in which they began."""

    def __init__(self) -> None:
        self._begun: dict[str, str] = {}
        self._ended: dict[str, tuple[str, str]] = {}

    def add(self, event: Event) -> None:
        """Take in one event; those of the operation itself draw nothing."""
        if event["step"] is None:
            return
        name = event["step"] if event["direction"] == "do" else f"undo {event['step']}"
        if event["phase"] == "intent":
            # A step that is run again after a restart begins anew.
            self._begun[name] = event["at"]
            self._ended.pop(name, None)
        else:
            self._ended[name] = (event["state"], event["at"])

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """Name, state and time of each step."""
        for name, began in self._begun.items():
            state, ended = self._ended.get(name, ("running", ""))
            yield name, state, _elapsed(began, ended) if ended else ""


def _elapsed(began: str, ended: str) -> str:
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    return f"{seconds:.1f} s"
