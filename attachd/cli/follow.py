"""An operation from its request to its rest, across a restart of the daemon.

Every request carries an id of its own, so that it may be sent again without being done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attachd.cli.client import ANSWER_SECONDS, Client, Reply
from attachd.cli.failure import DaemonGone, Failure
from attachd.errors import Code, Exit

PATIENCE = 60.0
"""Seconds that a daemon may be gone midway: systemd starts it again."""

# No event has such a number: only the end is waited for. Each answer costs the operation a bit.
_NO_EVENT = 2**31

_PAUSE = 0.3
_LONGEST_WAIT = 5.0

Event = dict[str, Any]
Operation = dict[str, Any]


class Deadline:
    """The caller's own: ``seconds`` from now, or never."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self, most: float) -> float:
        """Seconds left, ``most`` at most, never below 0."""
        if self._end is None:
            return most
        return max(0.0, min(most, self._end - time.monotonic()))

    @property
    def over(self) -> bool:
        """Has it come?"""
        return self._end is not None and time.monotonic() >= self._end


class StillRunning(Failure):
    """The caller's deadline came before the operation's end."""

    def __init__(self, operation_id: str) -> None:
        super().__init__(
            Code.STILL_RUNNING,
            "The operation is still running.",
            status=Exit.STILL_RUNNING,
            details=f"Operation {operation_id} goes on without being watched.",
            resolution=how_to_follow(operation_id),
        )


class Unanswered(Failure):
    """The caller's deadline came before the daemon said which operation it began."""

    def __init__(self) -> None:
        super().__init__(
            Code.STILL_RUNNING,
            "The request was sent, and not answered in time.",
            status=Exit.STILL_RUNNING,
            details="The operation may be running without being watched.",
            resolution="See whether it does: attachctl operation list --open",
        )


def submit(send: Callable[[float], Reply], *, deadline: Deadline) -> Operation:
    """The operation that a request started.

    ``send`` gets the seconds that an answer may take. Where it was lost, it is called again.
    """
    lost = _Lost()
    while True:
        try:
            return send(max(1.0, deadline.left(ANSWER_SECONDS))).document
        except Failure as failure:
            began = isinstance(failure, DaemonGone) and (failure.sent or lost.since)
            if began and deadline.over:
                raise Unanswered from failure
            if deadline.over or not (began or failure.code == Code.SHUTTING_DOWN):
                raise
            lost.bear(failure)


def follow(
    client: Client,
    operation_id: str,
    *,
    deadline: Deadline,
    tell: Callable[[Event], None] | None,
    after: int = 0,
) -> Operation:
    """The operation at rest; ``tell`` hears of each of its events behind ``after``, once."""
    if tell is None:
        after = _NO_EVENT
    try:
        return _follow(client, operation_id, after, deadline, tell)
    except StillRunning:
        raise
    except Failure as failure:
        raise _unwatched(failure, operation_id) from failure


def how_to_follow(operation_id: str) -> str:
    """A sentence for whoever stops watching."""
    return f"See how it went: attachctl operation show {operation_id}"


def _follow(
    client: Client,
    operation_id: str,
    after: int,
    deadline: Deadline,
    tell: Callable[[Event], None] | None,
) -> Operation:
    target = f"/v1/operations/{operation_id}"
    lost = _Lost()
    while True:
        wait = deadline.left(_LONGEST_WAIT)
        timeout = wait + max(1.0, deadline.left(ANSWER_SECONDS))
        query = {"after": after, "wait": f"{wait:.3f}"}
        try:
            reply = client.get(f"{target}/events", query, timeout=timeout)
            lost = _Lost()
            for event in reply.document["events"]:
                after = event["seq"]
                if tell is not None:
                    tell(event)
            if reply.document["resting"]:
                return client.get(target).document
            time.sleep(deadline.left(reply.pause))
        except DaemonGone as gone:
            if not deadline.over:
                lost.bear(gone)
        if deadline.over:
            raise StillRunning(operation_id)


class _Lost:
    """For how long the daemon has been gone."""

    def __init__(self) -> None:
        self.since: float | None = None

    def bear(self, failure: Failure) -> None:
        """Pause for a moment; raise ``failure`` when patience is at its end."""
        now = time.monotonic()
        self.since = self.since or now
        if now - self.since > PATIENCE:
            raise failure
        time.sleep(_PAUSE)


def _unwatched(failure: Failure, operation_id: str) -> Failure:
    """The request was taken, and then the daemon couldn't be asked how it went."""
    gone = failure.status is Exit.UNREACHABLE
    return Failure(
        failure.code,
        failure.brief,
        status=Exit.UNREACHABLE if gone else Exit.NEEDS_ATTENTION,
        details=f"{failure.details}\nOperation {operation_id} was begun; its end wasn't seen.",
        resolution=f"{failure.resolution}\n{how_to_follow(operation_id)}",
    )
