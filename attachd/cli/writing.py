"""The last words: written whole, or it is known that they weren't."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_NEEDS_ATTENTION = 5


def write(stream: TextIO, text: str, status: int) -> int:
    """``status``, or needs-attention where the words found no reader but a full disk.

    A reader that went away (head, less) is no failure.
    """
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _muffle(stream)
    except OSError as exc:
        _muffle(stream)
        if stream is sys.stdout:
            sys.stderr.write(f"attachctl: the output can't be written: {exc.strerror}\n")
        return _NEEDS_ATTENTION
    return status


def _muffle(stream: TextIO) -> None:
    """What is left in the buffer goes nowhere, so that the interpreter's exit is silent."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
