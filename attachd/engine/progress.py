"""Those who wait for news of an operation: they are woken, and read the journal themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class News:
    """Somebody's own bell: rung at each piece of news of the operation that they follow."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def ring(self) -> None:
        """There is news."""
        self._rung.set()

    def wait_until(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``holds()``, asked again at each ring, ``timeout`` seconds at most."""
        deadline = time.monotonic() + timeout
        while True:
            self._rung.clear()
            if holds():
                return True
            if not self._rung.wait(max(0.0, deadline - time.monotonic())):
                return False


class Progress:
    """Who follows which operation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[str, list[News]] = {}

    def news(self, operation_id: str) -> None:
        """Something was journalled of it."""
        with self._lock:
            followers = tuple(self._followers.get(operation_id, ()))
        for each in followers:
            each.ring()

    @contextmanager
    def following(self, operation_id: str) -> Iterator[News]:
        """A bell of one's own, for as long as it is needed."""
        news = News()
        with self._lock:
            self._followers.setdefault(operation_id, []).append(news)
        try:
            yield news
        finally:
            with self._lock:
                self._followers[operation_id].remove(news)
                if not self._followers[operation_id]:
                    del self._followers[operation_id]
