"""Those who wait for news of an operation: they are woken, and read the journal themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Progress:
    """One condition for all operations: news is rare, and those who wait are few."""

    def __init__(self) -> None:
        self._condition = threading.Condition()

    def news(self) -> None:
        """Something was journalled."""
        with self._condition:
            self._condition.notify_all()

    def wait_for(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``ready()`` holds, ``timeout`` seconds at most; does it hold?"""
        with self._condition:
            return self._condition.wait_for(ready, timeout)
