"""A thread that looks now and then, whatever a look comes to."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from attachd.errors import AttachdError

LOG = logging.getLogger(__name__)


class Periodic:
    """Calls ``look`` every ``interval`` seconds between ``start`` and ``stop``.

    ``failing``: what the log says when a look raises; the next one comes all the same. ``daemon``:
    the process's end waits for no look. ``share``: what the looks may take of a processor: one that
    took long is followed by a longer pause, ``longest`` seconds at most. ``others``: seconds of a
    processor that others have worked for the looks so far, beside the looks' own thread.
    """

    def __init__(
        self,
        *,
        name: str,
        interval: float,
        look: Callable[[], None],
        failing: str,
        daemon: bool = False,
        share: float = 1.0,
        longest: float = math.inf,
        others: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._interval = interval
        self._share = share
        self._longest = max(longest, interval)
        self._others = others
        self._look = look
        self._failing = failing
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._look_now_and_then, name=name, daemon=daemon)

    def start(self) -> None:
        """Begin; the first look comes after one interval."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once; one that is under way is followed by another."""
        self._wake.set()

    def stop(self, timeout: float) -> bool:
        """Look no more; False where a look is still under way after ``timeout`` seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _look_now_and_then(self) -> None:
        pause = self._interval
        while not self._stopping.is_set():
            self._wake.wait(pause)
            self._wake.clear()  # before the look: what wakes it from here on it may not have seen
            if self._stopping.is_set():
                return
            began = self._worked()
            self._try_to_look()
            earned = (self._worked() - began) / self._share
            pause = min(max(self._interval, earned), self._longest)

    def _worked(self) -> float:
        return time.thread_time() + self._others()

    def _try_to_look(self) -> None:
        try:
            self._look()
        except AttachdError as exc:
            LOG.warning("%s: %s", self._failing, exc)
        except Exception:  # without the thread nobody would ever look again
            LOG.exception("%s", self._failing)
