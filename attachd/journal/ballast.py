"""Room on the disk that is held back for the rows of operations under way (law 1).

A file of a fixed size is allocated, not merely declared, before an operation is accepted. When the
disk is full it is given up, and the journal's write is tried again: the rows of every open
operation, undo included, fit into it many times. While it is missing no new operation is accepted.
"""

from __future__ import annotations

import os
from pathlib import Path

SIZE = 8 * 1024 * 1024
"""Bytes. An attach with its whole undo writes about 30 rows, each commit a few pages, and what was
said to Cinder 100 KiB at most.
"""


def path_of(journal: Path) -> Path:
    """Where it lies: beside the journal."""
    return journal.with_suffix(".ballast")


class Ballast:
    """The file. Every method is safe to call again."""

    def __init__(self, *, path: Path, size: int = SIZE) -> None:
        self._path = path
        self._size = size

    def secure(self) -> None:
        """Allocate the file where it isn't whole. Raises OSError (ENOSPC, EROFS ...)."""
        if self.is_whole():
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size)
        except OSError:
            os.ftruncate(descriptor, 0)
            raise
        finally:
            os.close(descriptor)

    def is_whole(self) -> bool:
        """Is the room held back, all of it?"""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return False
        return status.st_size >= self._size and status.st_blocks * 512 >= self._size

    def give_up(self) -> bool:
        """Free the room. False where there was none to free."""
        if not self._path.exists() or self._path.stat().st_blocks == 0:
            return False
        os.truncate(self._path, 0)
        return True
