"""os-brick's commands under a deadline (law 7).

os-brick has retries inside retries and one loop without a bound, all while it holds its host-wide
lock; but every step of it is a command that goes through an ``execute`` of ours. So it is bounded
here: no command outlives the deadline, and behind it none begins. The one exception is a login,
because iscsid would finish it behind our back: it has a bound of its own instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attachd.errors import AttachdError
from attachd.host.brick import (
    Execute,
    ExecutionTimeout,
    ProcessExecutionError,
    in_own_thread,
)

LOGIN = "--login"
# iscsid tries a login 1 + LOGIN_RETRIES times, 15 s each (its login_timeout).
LOGIN_RETRIES = 2
LOGIN_SECONDS = 50.0
# Exit statuses of iscsiadm.
NO_SESSION = 2
LOGIN_REFUSED = 24
NO_ISCSID = 20
NO_RECORDS = 21

_OS_BRICK_TIMEOUT = 600.0
# Is a map ready, is it let go of? udev and multipathd may take a moment.
_ASKED_AGAIN = frozenset({("multipath", "-C"), ("multipath", "-f")})


class Deadline:
    """A point in time, ``seconds`` from now."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds that are left; 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Is nothing left?"""
        return self.remaining() == 0


class CallEndedError(BaseException):
    """Ends a call of os-brick from inside.

    Not an Exception: os-brick catches those, and tries again.
    """


class DeadlinePassedError(CallEndedError):
    """A command was asked for behind the deadline."""


class HelperLostError(CallEndedError):
    """The privileged helper is dead: oslo.privsep must not look for another."""


class NotOursError(CallEndedError):
    """os-brick was about to take away what isn't this volume's. ``error`` says what."""

    def __init__(self, error: AttachdError) -> None:
        super().__init__(str(error))
        self.error = error


class LoginRefusedError(CallEndedError):
    """The target refused the credentials: trying again would not help."""


class Commands:
    """An ``execute`` for one call of os-brick, until its deadline or until :meth:`stop`."""

    def __init__(
        self, *, execute: Execute, deadline: Deadline, helper_alive: Callable[[], bool]
    ) -> None:
        self._execute = execute
        self._helper_alive = helper_alive
        self._deadline = deadline
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._logins = 0
        self._stopped = False
        self._began = False
        self.login_status: int | str | None = None
        self.login_abandoned = False

    def __call__(self, *command: str, **options: object) -> tuple[str, str]:
        """Run a command for os-brick: once, as a failed one is judged by a fresh look anyway.

        os-brick waits for ever for a thread of its own that ends by anything but an Exception.
        """
        try:
            return self._run(command, options)
        except CallEndedError as exc:
            if not in_own_thread():
                raise
            raise ProcessExecutionError(description=type(exc).__name__) from exc

    def _run(self, command: tuple[str, ...], options: dict[str, object]) -> tuple[str, str]:
        self._admit()
        tries = options.get("attempts") if command[:2] in _ASKED_AGAIN else None
        if tries is None:
            for retrying in ("attempts", "interval", "delay_on_retry"):
                options.pop(retrying, None)
        if LOGIN in command:
            with self._a_login():
                return self._log_in(command, options)
        asked = options.get("timeout")
        limit = asked if isinstance(asked, int | float) else _OS_BRICK_TIMEOUT
        left = self._deadline.remaining() / (tries if isinstance(tries, int) else 1)
        options["timeout"] = min(limit, max(1.0, left))
        return self._execute(*command, **options)

    def as_root(self, *command: str) -> str:
        """Run a command of our own as root; its standard output."""
        return self(*command, run_as_root=True)[0]

    def stop(self) -> bool:
        """Let no further command begin. Has any begun so far?"""
        with self._lock:
            self._stopped = True
            return self._began

    def logins_ended(self, timeout: float) -> bool:
        """Has every login ended, or does it within ``timeout`` seconds?

        os-brick leaves the threads of its other paths behind where one of its commands raises.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._logins == 0, timeout)

    @contextmanager
    def _a_login(self) -> Iterator[None]:
        with self._changed:
            self._logins += 1
        try:
            yield
        finally:
            with self._changed:
                self._logins -= 1
                self._changed.notify_all()

    def _admit(self) -> None:
        with self._lock:
            if self._stopped or self._deadline.passed:
                raise DeadlinePassedError
            if not self._helper_alive():
                raise HelperLostError
            self._began = True

    def _log_in(self, command: tuple[str, ...], options: dict[str, object]) -> tuple[str, str]:
        record = command[: command.index(LOGIN)]
        retries = ("-n", "node.session.initial_login_retry_max", "-v", str(LOGIN_RETRIES))
        self._execute(*record, "--op", "update", *retries, **options | {"timeout": LOGIN_SECONDS})
        try:
            return self._execute(*command, **options | {"timeout": LOGIN_SECONDS})
        except ExecutionTimeout:
            self.login_abandoned = True
            raise
        except ProcessExecutionError as exc:
            self.login_status = exc.exit_code
            if exc.exit_code == LOGIN_REFUSED:
                raise LoginRefusedError from exc
            raise
