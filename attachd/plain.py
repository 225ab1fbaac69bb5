"""Text as a terminal shows it: nothing in it that would be obeyed, and how wide it is."""

from __future__ import annotations

import unicodedata

_BREAKS = "/,;&?"


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with its control characters escaped, but for those in ``keep``."""
    return "".join(
        char
        if char.isprintable() or char in keep
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def width(text: str) -> int:
    """How many columns of a terminal it takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def wrapped(text: str, room: int) -> list[str]:
    """``text`` in lines of at most ``room`` columns; a word that is too long is broken."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and width(lines[-1]) + 1 + width(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines += _pieces(word, room)
    return lines


def _pieces(word: str, room: int) -> list[str]:
    """A word in pieces that fit, broken behind punctuation where that doesn't cost half a line."""
    pieces = []
    while width(word) > room:
        most = _fitting(word, room)
        behind = max(word.rfind(mark, 0, most) for mark in _BREAKS) + 1
        cut = behind if behind > most // 2 else most
        pieces.append(word[:cut])
        word = word[cut:]
    return [*pieces, word]


def _fitting(word: str, room: int) -> int:
    """How many characters of it fit; one does, whatever its width."""
    taken = 0
    for position, char in enumerate(word):
        taken += width(char)
        if taken > room:
            return max(1, position)
    return len(word)
