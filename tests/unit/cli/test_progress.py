"""What is written of an operation's steps, by who writes it: no process, no terminal."""

from __future__ import annotations

import io
import sys

import pytest

from attachd.cli.progress import progress

BEGINS = {"step": "connect", "direction": "do", "phase": "intent", "state": "running", "at": ""}


class _InterruptedBehind(io.StringIO):
    """A terminal at which somebody presses Ctrl-C as soon as he has read a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text in text:
            raise KeyboardInterrupt
        return written


def test_an_interrupt_behind_a_steps_name_ends_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", terminal := _InterruptedBehind("connect"))
    with pytest.raises(KeyboardInterrupt), progress("Attaching", quiet=False) as tell:
        assert tell is not None
        tell(BEGINS)
    assert terminal.getvalue() == "Attaching\n  connect ... \n"
