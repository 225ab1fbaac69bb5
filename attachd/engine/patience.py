"""How long to wait before an operation is tried again: longer each time, so that a world that stays
away for a day fills neither the journal nor the log.
"""

from __future__ import annotations

import threading
import time

LONGEST = 600.0
"""Seconds."""


class Patience:
    """Pauses by operation: ``first`` seconds, doubled each time, up to :data:`LONGEST`."""

    def __init__(self, *, first: float) -> None:
        self._first = first
        self._lock = threading.Lock()
        self._next: dict[str, tuple[float, float]] = {}

    def is_over(self, operation_id: str) -> bool:
        """May it be tried now? A yes begins the next, longer pause."""
        now = time.monotonic()
        with self._lock:
            due, pause = self._next.get(operation_id, (0.0, self._first))
            if now < due:
                return False
            self._next[operation_id] = (now + pause, min(pause * 2, LONGEST))
            return True

    def forget(self) -> None:
        """A world came back: everything may be tried at once."""
        with self._lock:
            self._next.clear()
