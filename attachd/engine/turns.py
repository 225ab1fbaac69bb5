"""Turns at a backend: so many attaches at once are between their reservation and their export.

Asked for many exports at once a backend makes one after another, and Cinder answers none much
before the last: nothing would be left to connect meanwhile, and those that wait longest run into
Cinder's own time limit. Each of Cinder's volume services has its own turns, where Cinder tells them
apart (3.48): one that hangs keeps nobody off the others.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from attachd.errors import Code, Refused

LOG = logging.getLogger(__name__)


class Turns:
    """``at_once``: turns at each backend; ``timeout``: seconds that one is waited for."""

    def __init__(self, *, at_once: int, timeout: float) -> None:
        self._at_once = at_once
        self._timeout = timeout
        self._lock = threading.Lock()
        self._lines: dict[str | None, _Line] = {}

    @contextmanager
    def turn(self, service_uuid: str | None) -> Iterator[bool]:
        """Have a turn at a volume service; None: at one that Cinder doesn't tell.

        True where it had to be waited for. Raises Refused deadline-exceeded where it didn't come.
        """
        with self._lock:
            line = self._lines.setdefault(service_uuid, _Line(places=self._at_once))
        waited = line.enter(self._timeout)
        try:
            yield waited
        finally:
            line.leave()


class _Line:
    """A semaphore that lets those who wait in by the order in which they came."""

    def __init__(self, *, places: int) -> None:
        self._lock = threading.Lock()
        self._places = places
        self._waiting: deque[threading.Event] = deque()

    def enter(self, timeout: float) -> bool:
        """True where it had to wait."""
        come = threading.Event()
        with self._lock:
            if self._places:
                self._places -= 1
                return False
            self._waiting.append(come)
        LOG.info("Waiting for a turn at the volume's backend")
        if come.wait(timeout):
            return True
        with self._lock:
            if come.is_set():  # just now: the place is its own already
                return True
            self._waiting.remove(come)
        raise Refused(
            Code.DEADLINE_EXCEEDED,
            f"The volume's backend was busy with other attaches for {timeout:g} s.",
            resolution="See them: attachctl operation list --open; and see how Cinder's volume "
            "service is: openstack volume service list",
        )

    def leave(self) -> None:
        """The next one's place it is, where one waits."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._places += 1
