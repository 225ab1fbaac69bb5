"""Turns at a backend: so many attaches at once are between their reservation and their export.

Asked for many exports at once a backend makes one after another, and Cinder answers none much
before the last: nothing would be left to connect meanwhile, and those that wait longest run into
Cinder's own time limit. Each of Cinder's volume services has its own turns, so that one that hangs
keeps nobody off the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG = logging.getLogger(__name__)


class Turns:
    """``at_once``: turns at each backend. ``check``: called once a turn has come; it may raise."""

    def __init__(self, *, at_once: int, check: Callable[[], None]) -> None:
        self._at_once = at_once
        self._check = check
        self._lock = threading.Lock()
        self._turns: dict[str | None, threading.BoundedSemaphore] = {}

    @contextmanager
    def turn(self, service_uuid: str | None) -> Iterator[bool]:
        """Have a turn at a volume service, waited for as long as it takes; None: at the rest.

        True where it had to be waited for.
        """
        with self._lock:
            turns = self._turns.setdefault(service_uuid, threading.BoundedSemaphore(self._at_once))
        at_once = turns.acquire(blocking=False)
        if not at_once:
            LOG.info("Waiting for a turn at the volume's backend")
            turns.acquire()
        try:
            self._check()
            yield not at_once
        finally:
            turns.release()
