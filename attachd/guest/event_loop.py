"""libvirt's event loop, turned by one thread.

libvirt allows one event implementation a process, and a connection that was opened before it was
registered never gets an event nor a keepalive. So the registration is the one thing here that is
global, because libvirt makes it so; everything else belongs to an :class:`EventLoop`.
"""

from __future__ import annotations

import functools
import logging
import threading

import libvirt

LOG = logging.getLogger(__name__)

_NEVER = -1
_NOW = 0
_JOIN_SECONDS = 30.0
_PAUSE_AFTER_ERROR_SECONDS = 1.0


@functools.cache
def _register_implementation() -> None:
    # libvirt would print every error to stderr as well; they reach us as exceptions.
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()


class EventLoop:
    """Runs libvirt's event loop in a daemon thread between ``start`` and ``stop``."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer = _NEVER

    def start(self) -> None:
        """Register the implementation, start the thread. Call before any connection opens."""
        _register_implementation()
        self._stopping.clear()
        self._timer = libvirt.virEventAddTimeout(_NEVER, lambda *_: None, None)
        self._thread = threading.Thread(target=self._run, name="libvirt-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; a loop that isn't running is left alone."""
        if self._thread is None:
            return
        self._stopping.set()
        # The thread sleeps in poll(): only an event of libvirt's own wakes it.
        libvirt.virEventUpdateTimeout(self._timer, _NOW)
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            LOG.warning("libvirt's event loop is held up by a callback and was left behind.")
        libvirt.virEventRemoveTimeout(self._timer)
        self._thread = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError:
                LOG.exception("libvirt's event loop failed; it is run again.")
                self._stopping.wait(_PAUSE_AFTER_ERROR_SECONDS)
