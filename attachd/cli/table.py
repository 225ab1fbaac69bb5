"""Tables between bars; other forms of them where a terminal hasn't the room."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from attachd.plain import width, wrapped

_LEAST_PROSE = 20
"""Columns in which sentences can still be read."""


def terminal_room() -> int | None:
    """The columns of the terminal that standard output is; None where it is none, or won't say."""
    if not sys.stdout.isatty():
        return None
    asked_for = os.environ.get("COLUMNS", "")
    if asked_for.isdecimal() and int(asked_for) > 0:
        return int(asked_for)
    return os.get_terminal_size(sys.stdout.fileno()).columns or None


def table(
    names: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    room: int | None = None,
    spare: Sequence[str] = (),
) -> str:
    """Columns between bars; without ``room`` never wrapped, so that a line stays a line for grep.

    Where there is less ``room``, first the columns ``spare`` are left out, one by one; the last
    column is wrapped between its words; and if that doesn't do, each line becomes a record, name
    beside value. No other word is broken: ids are there to be copied.
    """
    if room is None or _whole_width(names, lines) <= room:
        return _drawn(names, lines)
    for count in range(len(spare) + 1):
        kept = [number for number, name in enumerate(names) if name not in spare[:count]]
        fewer = [names[number] for number in kept]
        cells = [[line[number] for number in kept] for line in lines]
        if (fitting := _wrapped(fewer, cells, room)) is not None:
            return _drawn(fewer, fitting)
    return records(names, lines, room=room)


def records(names: Sequence[str], lines: Sequence[Sequence[str]], *, room: int) -> str:
    """Each line on lines of its own: name and value side by side, or below each other."""
    longest = max(map(width, names))
    return "\n".join(
        "".join(
            f"{name:<{longest}}  {value}\n"
            if longest + 2 + width(value) <= room
            else f"{name}\n  {value}\n"
            for name, value in zip(names, line, strict=True)
        )
        for line in lines
    )


def _wrapped(
    names: Sequence[str], lines: Sequence[Sequence[str]], room: int
) -> list[list[str]] | None:
    """The lines with their last cells in pieces below each other; None where they don't fit."""
    *others, last = _widths(names, lines)
    left = room - _bars(others) - sum(others) - len("|  ")
    if left >= last:
        return [list(line) for line in lines]
    words = (word for line in lines for word in line[-1].split(" "))
    if left < max(_LEAST_PROSE, width(names[-1]), *map(width, words)):
        return None
    return [
        [*cells, piece]
        for *first, prose in lines
        for cells, piece in _beside(first, wrapped(prose, left) or [""])
    ]


def _beside(cells: list[str], pieces: list[str]) -> Iterable[tuple[list[str], str]]:
    """The cells beside the first piece, nothing beside the others."""
    return zip([cells, *[[""] * len(cells)] * (len(pieces) - 1)], pieces, strict=True)


def _drawn(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = _widths(names, lines)
    rule = "+" + "".join("-" * (room + 2) + "+" for room in widths) + "\n"
    body = "".join(_line(line, widths) for line in lines)
    return rule + _line(names, widths) + rule + body + (rule if body else "")


def _line(line: Iterable[str], widths: Iterable[int]) -> str:
    padded = (
        f" {text}{' ' * (room - width(text))} |" for text, room in zip(line, widths, strict=True)
    )
    return "|" + "".join(padded) + "\n"


def _widths(names: Sequence[str], lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(width, column)) for column in zip(names, *lines, strict=True)]


def _whole_width(names: Sequence[str], lines: Sequence[Sequence[str]]) -> int:
    widths = _widths(names, lines)
    return sum(widths) + _bars(widths)


def _bars(widths: Sequence[int]) -> int:
    """What stands between and around the cells of so many columns."""
    return 3 * len(widths) + 1
