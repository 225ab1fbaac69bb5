"""Calls of os-brick in a thread of their own: they can be waited for, and may outlive the waiting.

A call that hasn't returned when its deadline and its grace are over stays on record by its volume,
and whoever comes next for that volume waits for it first: it never finishes behind a roll-back
(law 7).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from typing import Any, TypeVar

from attachd.errors import Code, Unreachable, World
from attachd.host.commands import Commands, Deadline

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Calls:
    """The calls that somebody gave up waiting for, by volume."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left_behind: dict[str, tuple[Future[Any], Deadline]] = {}

    def run(
        self,
        volume_id: str,
        function: Callable[[], T],
        *,
        commands: Commands,
        timeout: float,
        grace: float,
    ) -> Future[T]:
        """Run ``function`` for ``timeout`` seconds and, its commands stopped, ``grace`` more.

        Returns its future, done. Raises Unreachable deadline-exceeded when it didn't return; with
        ``touched=False`` when it had begun nothing, and now never will.
        """
        future: Future[T] = Future()
        # In the caller's context: what os-brick is asked for is noted with the operation.
        threading.Thread(
            target=copy_context().run,
            args=(_fulfil, future, function),
            name=f"os-brick-{volume_id}",
            daemon=True,
        ).start()
        if _done(future, timeout):
            return future
        if not commands.stop():
            raise _not_returned(volume_id, touched=False)
        if not _done(future, grace):
            self.leave_behind(volume_id, future)
            raise _not_returned(volume_id, touched=True)
        return future

    def leave_behind(self, volume_id: str, future: Future[Any], *, settles_in: float = 0) -> None:
        """Put a call on record; its effects may show up to ``settles_in`` seconds from now."""
        with self._lock:
            self._left_behind[volume_id] = (future, Deadline(settles_in))

    def settle(self, volume_id: str, *, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for a call that was left behind, and until it settled.

        Raises Unreachable deadline-exceeded when it still hasn't returned.
        """
        with self._lock:
            left_behind = self._left_behind.get(volume_id)
        if left_behind is None:
            return
        future, settled = left_behind
        if not _done(future, timeout):
            raise _not_returned(volume_id, touched=False)
        time.sleep(settled.remaining())
        with self._lock:
            if self._left_behind.get(volume_id) is left_behind:
                del self._left_behind[volume_id]


def _fulfil(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as exc:  # noqa: BLE001 - it is handed to whoever waits, and judged there
        future.set_exception(exc)


def _done(future: Future[Any], timeout: float) -> bool:
    return bool(wait([future], timeout).done)


def _not_returned(volume_id: str, *, touched: bool) -> Unreachable:
    LOG.warning("os-brick has not returned from its work on volume %s", volume_id)
    return Unreachable(
        Code.DEADLINE_EXCEEDED,
        "os-brick did not come back in time.",
        details=f"A call for volume {volume_id} still waits for a lock or a storage device.",
        resolution="See what holds os-brick's lock or the storage up. The work goes on when the "
        "call has returned; if it never does, restart attachd.",
        world=World.HOST,
        touched=touched,
    )
