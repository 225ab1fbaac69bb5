"""What an operation cost, read from its own trace in the daemon's journal. Seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

LIBRARIES = ("cinder", "os_brick", "libvirt")
CHANGING = ("POST", "PUT", "DELETE")
Interval = tuple[float, float]
Document = dict[str, Any]


def say(text: str) -> None:
    """Progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def union(intervals: Iterable[Interval]) -> float:
    """The length of the union of intervals, in seconds."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


@dataclass(frozen=True)
class Round:
    """One operation, as the daemon journalled it."""

    operation: Document

    @property
    def wall(self) -> float:
        """From accepted to ended."""
        start, end = self.interval
        return end - start

    def in_library(self, *libraries: str) -> float:
        """The union of the calls of these libraries."""
        return union(
            (call["started"], call["ended"])
            for call in self.operation["calls"]
            if call["library"] in libraries
        )

    @property
    def interval(self) -> Interval:
        """When it was accepted, and when it ended, by the wall clock."""
        start, end = (
            datetime.fromisoformat(self.operation[name]).timestamp()
            for name in ("created_at", "finished_at")
        )
        return start, end

    def connects(self) -> list[Interval]:
        """When os-brick connected, by the wall clock: it lets nobody else connect meanwhile."""
        start, _ = self.interval
        return [
            (start + call["started"], start + call["ended"])
            for call in self.operation["calls"]
            if (call["library"], call["name"]) == ("os_brick", "connect")
        ]

    @property
    def overhead_ratio(self) -> float:
        """What is left of wall outside of the three libraries, as a part of it."""
        return (self.wall - self.in_library(*LIBRARIES)) / self.wall

    @property
    def own_time(self) -> float:
        """Until in-use (or available), less what Cinder changed, less (dis)connect."""
        return self._own_time(CHANGING)

    @property
    def own_time_less_questions(self) -> float:
        """The same, less all that Cinder was asked, too."""
        return self._own_time(("",))

    def _own_time(self, requests: tuple[str, ...]) -> float:
        calls = self.operation["calls"]
        last = max(call["ended"] for call in calls if call["library"] == "cinder")
        outside = union(
            (call["started"], call["ended"])
            for call in calls
            if (call["library"] == "cinder" and call["name"].startswith(requests))
            or call["name"] in ("connect", "disconnect")
        )
        return float(last) - outside


def of_rounds(rounds: Sequence[Round], floor: Sequence[float]) -> Document:
    """The medians of one kind of operation. ``floor``: the plain process's own times."""

    def mid(figure: Callable[[Round], float]) -> float:
        return round(median(figure(r) for r in rounds), 4)

    names = [step["name"] for step in rounds[0].operation["steps"]]
    seconds = {
        name: [s["seconds"] for r in rounds for s in r.operation["steps"] if s["name"] == name]
        for name in names
    }
    return {
        "steps": {n: {"median": median(s), "max": max(s)} for n, s in seconds.items()},
        "wall": mid(lambda r: r.wall),
        **{name: mid(lambda r, n=name: r.in_library(n)) for name in LIBRARIES},  # type: ignore[misc]
        "overhead_ratio": mid(lambda r: r.overhead_ratio),
        "own_time": mid(lambda r: r.own_time),
        "own_time_less_questions": mid(lambda r: r.own_time_less_questions),
        "floor_own_time": round(median(floor), 4) if floor else None,
    }
