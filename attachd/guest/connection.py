"""The connection to libvirt: one at a time, opened and re-opened in the background.

A keeper thread owns the opening, so a daemon that hangs while it is greeted holds up that thread
and nobody else; whoever needs the connection waits for it with a bound. A lost connection is
noticed by the close callback (end of file, or keepalive unanswered) or by a call that fails on it,
whichever is first, and is never handed out again. Events are registered before a connection is
handed out, so no unplug can be asked for whose event nobody hears.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

import libvirt
import tenacity

from attachd.guest.calls import is_alive
from attachd.guest.domain_events import DomainEvents
from attachd.guest.failures import unavailable

LOG = logging.getLogger(__name__)

ReachableListener = Callable[[], None]

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_STOP_SECONDS = 10.0


class Connection:
    """Keeps one virConnect alive between ``start`` and ``stop``. All times are in seconds."""

    def __init__(
        self,
        *,
        uri: str,
        events: DomainEvents,
        open_timeout: float,
        keepalive_interval: int,
        keepalive_count: int,
    ) -> None:
        self._uri = uri
        self._events = events
        self._open_timeout = open_timeout
        self._keepalive_interval = keepalive_interval
        self._keepalive_count = keepalive_count
        self._changed = threading.Condition()
        self._current: libvirt.virConnect | None = None
        self._event_ids: tuple[int, ...] = ()
        self._attempts = 0
        self._failure = "No connection has been opened yet."
        self._wanted = False
        self._stopping = False
        self._listeners: list[ReachableListener] = []
        self._keeper: threading.Thread | None = None

    def on_reachable(self, listener: ReachableListener) -> None:
        """Call ``listener()`` in the keeper's thread when a connection came to life."""
        with self._changed:
            self._listeners.append(listener)

    def start(self) -> None:
        """Begin to connect; returns at once, whether libvirt is there or not."""
        with self._changed:
            self._stopping = False
        self._keeper = threading.Thread(target=self._keep, name="libvirt-connection", daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """Close the connection and end the keeper; calls under way fail or are given up."""
        with self._changed:
            self._stopping = True
            disposal = self._dispose_of_current()
            self._changed.notify_all()
        # Closing is a request to the daemon as well, and a hung one doesn't answer it.
        disposal.join(_STOP_SECONDS)
        if self._keeper is not None:
            self._keeper.join(_STOP_SECONDS)
            self._keeper = None

    def get(self) -> libvirt.virConnect:
        """The living virConnect.

        Where there is none, an attempt is made at once and waited for. Raises Unreachable
        libvirt-unavailable with ``touched=False``: nothing has left this process.
        """
        with self._changed:
            if self._current is not None and is_alive(self._current):
                return self._current
            self._forget(self._current)
            attempts = self._attempts
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._current is not None or self._attempts > attempts or self._stopping,
                timeout=self._open_timeout,
            )
            if self._current is not None:
                return self._current
            if self._attempts > attempts:
                raise unavailable(f"{self._uri}: {self._failure}", touched=False)
            if self._stopping:
                raise unavailable("attachd is stopping.", touched=False)
            raise unavailable(
                f"{self._uri}: no connection within {self._open_timeout:g} s.", touched=False
            )

    def lost(self, connection: libvirt.virConnect) -> None:
        """Hand this connection out no more, and open another."""
        with self._changed:
            self._forget(connection)

    def _forget(self, connection: libvirt.virConnect) -> None:
        """With the lock held."""
        if connection is None or connection is not self._current:
            return
        LOG.warning("The connection to libvirt (%s) is lost; it is opened again.", self._uri)
        self._dispose_of_current()
        self._changed.notify_all()

    def _dispose_of_current(self) -> threading.Thread:
        """With the lock held: forget the connection; a thread of its own lets go of it."""
        disposal = threading.Thread(
            target=self._dispose,
            args=(self._current, self._event_ids),
            name="libvirt-dispose",
            daemon=True,
        )
        self._current, self._event_ids = None, ()
        disposal.start()
        return disposal

    def _keep(self) -> None:
        while not self._stopping:
            with contextlib.suppress(tenacity.RetryError):  # told to stop
                self._open_with_patience()
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._current is None)
            # A daemon that dies as soon as it is greeted isn't courted in a tight circle.
            self._pause(_FIRST_PAUSE_SECONDS)

    def _open_with_patience(self) -> None:
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(libvirt.libvirtError),
            wait=tenacity.wait_exponential(
                multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS
            ),
            sleep=self._pause,
            stop=lambda _: self._stopping,
            before_sleep=self._failed,
        )(self._open_once)

    def _open_once(self) -> None:
        connection = libvirt.open(self._uri)
        ids = self._prepare(connection)
        with self._changed:
            self._attempts += 1
            stopping = self._stopping
            if not stopping:
                self._current, self._event_ids = connection, ids
            self._wanted = False
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        if stopping:
            self._dispose(connection, ids)
            return
        LOG.info("Connected to libvirt (%s).", self._uri)
        if not is_alive(connection):  # it died before the close callback could find it here
            self.lost(connection)
            return
        self._events.look_again()
        for listener in listeners:
            try:
                listener()
            except Exception:
                LOG.exception("A listener failed when libvirt came back.")

    def _prepare(self, connection: libvirt.virConnect) -> tuple[int, ...]:
        try:
            self._keep_alive(connection)
            connection.registerCloseCallback(self._closed, None)
            return self._events.register(connection)
        except libvirt.libvirtError:
            self._dispose(connection, ())
            raise

    def _keep_alive(self, connection: libvirt.virConnect) -> None:
        try:
            connection.setKeepAlive(self._keepalive_interval, self._keepalive_count)
        except libvirt.libvirtError as exc:
            # A driver inside this process has no transport that could be kept alive.
            if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise

    def _failed(self, state: tenacity.RetryCallState) -> None:
        failure = str(state.outcome.exception()) if state.outcome else ""
        with self._changed:
            self._attempts += 1
            self._wanted = False
            repeated = failure == self._failure
            self._failure = failure
            self._changed.notify_all()
        LOG.log(
            logging.DEBUG if repeated else logging.WARNING,
            "libvirt (%s) can't be reached: %s",
            self._uri,
            failure,
        )

    def _pause(self, seconds: float) -> None:
        """Ends early when a caller wants a connection now, or on stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._stopping, timeout=seconds)

    def _closed(self, connection: libvirt.virConnect, reason: int, _opaque: object) -> None:
        LOG.debug("libvirt closed a connection, reason %s.", reason)
        self.lost(connection)

    def _dispose(self, connection: libvirt.virConnect | None, ids: tuple[int, ...]) -> None:
        """Drop all that libvirt-python keeps of it; its last user's reference then closes it.

        It isn't closed here, because libvirt would free it under a call that is still under way.
        """
        if connection is None:
            return
        self._events.deregister(connection, ids)
        with contextlib.suppress(libvirt.libvirtError):
            connection.unregisterCloseCallback()
