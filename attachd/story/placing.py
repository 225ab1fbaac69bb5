"""Which step a call belongs to.

The journal keeps steps and calls apart: a call has no step, only its time. It belongs to the step
during which it began. What began between two steps is a look of a recovery, or of a resumption, and
stays between them. Calls are journalled with their step's outcome, so none is looked for in a step
without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Generic, Protocol, TypeVar

# Times are rounded, each in its own way: to a millisecond at the worst.
_SLACK = 0.001


@dataclass(frozen=True, kw_only=True)
class Span:
    """When a step was under way; an end of None: nobody knows, or it is under way still."""

    began: float | None
    ended: float | None
    running: bool = False

    @property
    def last(self) -> float:
        """The last moment that is certainly within it; only where its beginning is known."""
        if self.running:
            return inf
        return self.began or 0.0 if self.ended is None else self.ended


class Timed(Protocol):
    """Whatever has a time."""

    @property
    def at(self) -> float:
        """Seconds after the operation was accepted."""


T = TypeVar("T", bound=Timed)


@dataclass(frozen=True, kw_only=True)
class Placed(Generic[T]):
    """``within``: what belongs to each step; ``behind``: what came behind it, before the next one.

    ``before`` came before all of them.
    """

    before: list[T] = field(default_factory=list)
    within: list[list[T]]
    behind: list[list[T]]


def place(calls: Iterable[T], steps: Sequence[Span]) -> Placed[T]:
    """Give every call its place."""
    placed: Placed[T] = Placed(within=[[] for _ in steps], behind=[[] for _ in steps])
    for call in calls:
        position, inside = _position(call.at, steps)
        if position < 0:
            placed.before.append(call)
        else:
            (placed.within if inside else placed.behind)[position].append(call)
    return placed


def _position(at: float, steps: Sequence[Span]) -> tuple[int, bool]:
    """The last step that had begun by then, and whether it was under way still."""
    position = max((i for i, step in enumerate(steps) if _has_begun(step, at)), default=-1)
    if position >= 0 and at <= steps[position].last:
        return position, True
    following = position + 1
    if following < len(steps) and _has_begun(steps[following], at + _SLACK):
        return following, True
    return position, position >= 0 and _is_at_its_end(steps[position], at)


def _has_begun(step: Span, at: float) -> bool:
    return step.began is not None and step.began <= at


def _is_at_its_end(step: Span, at: float) -> bool:
    return step.ended is not None and at <= step.ended + _SLACK
