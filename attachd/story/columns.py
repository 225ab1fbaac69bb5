"""Where the lifelines of a drawing stand: as close together as their labels allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from attachd.story.story import Participant


@dataclass(frozen=True, kw_only=True)
class Need:
    """A label needs ``room`` between two lifelines."""

    source: Participant
    target: Participant
    room: float


def columns(
    participants: Sequence[Participant],
    *,
    first: float,
    heads: Mapping[Participant, float],
    needs: Iterable[Need],
) -> dict[Participant, float]:
    """Each participant's x. ``heads`` are the widths at the top; no two of them touch."""
    gaps = [
        (heads[left] + heads[right]) / 2 + _BETWEEN_HEADS for left, right in pairwise(participants)
    ]
    spans = [(_span(participants, need), need.room) for need in needs]
    for (begin, end), room in sorted(spans, key=lambda each: each[0][1] - each[0][0]):
        missing = room - sum(gaps[begin:end])
        for gap in range(begin, end):
            gaps[gap] += max(0.0, missing) / (end - begin)
    return {each: first + sum(gaps[:number]) for number, each in enumerate(participants)}


_BETWEEN_HEADS = 24.0


def _span(participants: Sequence[Participant], need: Need) -> tuple[int, int]:
    begin, end = sorted((participants.index(need.source), participants.index(need.target)))
    return begin, end
