"""attachctl on a terminal of some size; pyte knows what is to be seen there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import pyte

ATTACHCTL = (sys.executable, "-m", "attachd.cli.main")
PATIENCE = 60.0
_OF_THE_TESTERS = ("NO_COLOR", "CLICOLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM")


class Terminal:
    """A program's three streams are the terminal; it is ended with the block, if it runs still."""

    def __init__(
        self,
        *argv: str,
        columns: int = 80,
        rows: int = 60,
        program: tuple[str, ...] = ATTACHCTL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.written = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        inherited = {k: v for k, v in os.environ.items() if k not in _OF_THE_TESTERS}
        self.process = subprocess.Popen(
            # Who runs the tests may ignore the interrupt, as nohup does.
            ["env", "--default-signal=INT", *program, *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**inherited, "TERM": "xterm-256color", **(environment or {})},
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        """At the keyboard."""
        os.write(self._ours, text.encode())

    def lines(self) -> list[str]:
        """What is to be seen, without the empty lines at the end."""
        shown = [line.rstrip() for line in self._screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def colours(self) -> set[str]:
        """The colours of all that is to be seen."""
        return {cell.fg for line in self._screen.buffer.values() for cell in line.values()}

    @property
    def cursor_hidden(self) -> bool:
        """Is the cursor hidden?"""
        return bool(self._screen.cursor.hidden)

    def until(self, seen: Callable[[list[str]], object]) -> list[str]:
        """Watch until that is to be seen; the lines then."""
        deadline = time.monotonic() + PATIENCE
        while not seen(self.lines()):
            assert time.monotonic() < deadline, "\n".join(self.lines())
            assert self._read() or seen(self.lines()), "\n".join(self.lines())
        return self.lines()

    def end(self) -> int:
        """Watch until the program ends; its exit status."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        """Take in what was written; False where nobody writes any more."""
        if not select.select([self._ours], [], [], PATIENCE)[0]:
            raise AssertionError("nothing is written any more:\n" + "\n".join(self.lines()))
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # Linux says so when the other end of a terminal is closed
            return False
        self.written += piece
        self._stream.feed(piece)
        return True
