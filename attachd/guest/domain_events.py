"""What libvirt tells of domains: who waits for it, and who listens.

An event is only a reason to look again. Nothing is concluded from one, because the event that
matters may have been sent while libvirt was out of reach; so a watch is also woken when libvirt is
back. All callbacks come in the event loop's thread, where a call to libvirt would hold up
keepalive and every other event: here they only put a signal into a queue, or call a listener.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

import libvirt

LOG = logging.getLogger(__name__)

DiskRemovedListener = Callable[[str, str], None]
StoppedListener = Callable[[str], None]


class Happened(Enum):
    """Why a watch was woken."""

    REMOVED = auto()  # the guest let go of the device ``alias``
    REFUSED = auto()  # the guest said that it keeps the device ``alias``
    LOOK_AGAIN = auto()  # the domain changed its state, or libvirt is back
    STOPPING = auto()  # this process stops; stop waiting


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One reason to look again."""

    happened: Happened
    alias: str | None = None


class Watch:
    """Signals about one guest, kept from the moment the watch began."""

    def __init__(self, guest_id: str) -> None:
        self.guest_id = guest_id
        self._signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()

    def wait(self, seconds: float) -> Signal | None:
        """The next signal, or None after ``seconds``."""
        try:
            return self._signals.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return None

    def tell(self, signal: Signal) -> None:
        """Queue a signal; never blocks."""
        self._signals.put(signal)


class DomainEvents:
    """Hands the events of whichever connection is alive to watches and listeners."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._listeners: list[DiskRemovedListener] = []
        self._stopped_listeners: list[StoppedListener] = []
        self._stopping = False

    def on_disk_removed(self, listener: DiskRemovedListener) -> None:
        """Call ``listener(guest_id, alias)`` on every DEVICE_REMOVED, in the event thread."""
        with self._lock:
            self._listeners.append(listener)

    def on_stopped(self, listener: StoppedListener) -> None:
        """Call ``listener(guest_id)`` on the end of every domain, in the event thread."""
        with self._lock:
            self._stopped_listeners.append(listener)

    @contextlib.contextmanager
    def watch(self, guest_id: str) -> Iterator[Watch]:
        """Collect signals about this guest. Begin before the call whose effect is awaited."""
        watch = Watch(guest_id)
        with self._lock:
            self._watches.add(watch)
            if self._stopping:
                watch.tell(Signal(happened=Happened.STOPPING))
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.discard(watch)

    def start(self) -> None:
        """Let watches wait."""
        with self._lock:
            self._stopping = False

    def stop(self) -> None:
        """End every wait, those to come as well."""
        with self._lock:
            self._stopping = True
        self._tell(Signal(happened=Happened.STOPPING))

    def look_again(self) -> None:
        """Wake every watch: events may have been missed."""
        self._tell(Signal(happened=Happened.LOOK_AGAIN))

    def register(self, connection: libvirt.virConnect) -> tuple[int, ...]:
        """Ask a fresh connection for its events; the ids are for :meth:`deregister`."""
        callbacks = {
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: self._device_removed,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED: self._removal_failed,
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: self._lifecycle,
        }
        return tuple(
            connection.domainEventRegisterAny(None, event, callback, None)
            for event, callback in callbacks.items()
        )

    def deregister(self, connection: libvirt.virConnect, ids: tuple[int, ...]) -> None:
        """Let go of a connection, which libvirt-python otherwise keeps alive for its callbacks."""
        for callback_id in ids:
            # On a dead connection the local half is done and the request to the daemon fails.
            with contextlib.suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(callback_id)

    def _device_removed(
        self, _connection: object, domain: libvirt.virDomain, alias: str, _opaque: object
    ) -> None:
        guest_id = domain.UUIDString()
        self._tell(Signal(happened=Happened.REMOVED, alias=alias), guest_id)
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            _call(partial(listener, guest_id, alias), f"the removal of {alias} from {guest_id}")

    def _removal_failed(
        self, _connection: object, domain: libvirt.virDomain, alias: str, _opaque: object
    ) -> None:
        self._tell(Signal(happened=Happened.REFUSED, alias=alias), domain.UUIDString())

    def _lifecycle(
        self, _connection: object, domain: libvirt.virDomain, event: int, *_: object
    ) -> None:
        guest_id = domain.UUIDString()
        self._tell(Signal(happened=Happened.LOOK_AGAIN), guest_id)
        if event != libvirt.VIR_DOMAIN_EVENT_STOPPED:
            return
        with self._lock:
            listeners = tuple(self._stopped_listeners)
        for listener in listeners:
            _call(partial(listener, guest_id), f"the end of {guest_id}")

    def _tell(self, signal: Signal, guest_id: str | None = None) -> None:
        with self._lock:
            watches = tuple(self._watches)
        for watch in watches:
            if guest_id in (None, watch.guest_id):
                watch.tell(signal)


def _call(listener: Callable[[], None], news: str) -> None:
    """An exception would end in libvirt's C code, and the other listeners must hear of it, too."""
    try:
        listener()
    except Exception:
        LOG.exception("A listener failed on %s.", news)
