"""The guest room's face: what the operations ask of libvirt's domains (their port ``Guests``).

Safe to use from many threads: operations on different guests go on side by side, over one
connection.
"""

from __future__ import annotations

from collections.abc import Callable

from attachd.errors import Code, Refused
from attachd.guest.connection import Connection
from attachd.guest.domain_events import DomainEvents
from attachd.guest.domains import Domains
from attachd.guest.event_loop import EventLoop
from attachd.guest.plugging import Plugging
from attachd.guest.resizing import Resizing
from attachd.guest.unplugging import Unplugging
from attachd.model import DiskSpec, Guest
from attachd.vitals import LibvirtVersions


class LibvirtGuests:
    """The guests of one libvirt daemon, between ``start`` and ``stop``.

    All times are in seconds. ``open_timeout``: how long a caller waits for a connection;
    ``call_timeout``: for a single answer; ``unplug_timeout``: for a guest to let go of a disk,
    asked again every ``unplug_retry_interval``, when ``asked_again`` is called. After
    ``keepalive_count`` unanswered probes, ``keepalive_interval`` apart, the daemon counts as hung.
    """

    def __init__(
        self,
        *,
        uri: str,
        open_timeout: float,
        call_timeout: float,
        keepalive_interval: int,
        keepalive_count: int,
        unplug_timeout: float,
        unplug_retry_interval: float,
        asked_again: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = EventLoop()
        self._events = DomainEvents()
        self._connection = Connection(
            uri=uri,
            events=self._events,
            open_timeout=open_timeout,
            keepalive_interval=keepalive_interval,
            keepalive_count=keepalive_count,
        )
        self._domains = Domains(connection=self._connection, call_timeout=call_timeout)
        self._plugging = Plugging(domains=self._domains)
        self._resizing = Resizing(domains=self._domains)
        self._unplugging = Unplugging(
            domains=self._domains,
            events=self._events,
            timeout=unplug_timeout,
            retry_interval=unplug_retry_interval,
            asked_again=asked_again,
        )

    def start(self) -> None:
        """Start the event loop, then begin to connect. Returns at once, libvirt there or not."""
        self._loop.start()
        self._events.start()
        self._connection.start()

    def stop(self) -> None:
        """End every wait, close the connection, stop the event loop.

        A call under way ends in Unreachable.
        """
        self._events.stop()
        self._connection.stop()
        self._loop.stop()

    def check(self) -> None:
        """Raise Unreachable libvirt-unavailable where libvirt doesn't answer."""
        self._domains.ping()

    def versions(self) -> LibvirtVersions:
        """libvirt's and QEMU's. Raises Unreachable libvirt-unavailable."""
        return self._domains.versions()

    def find(self, reference: str) -> Guest:
        """By UUID, else by name. Raises Refused guest-not-found."""
        reading = self._domains.find(reference)
        if reading is None:
            raise Refused(
                Code.GUEST_NOT_FOUND,
                "There is no such guest.",
                details=reference,
                resolution="virsh list --all shows the guests of this host.",
            )
        return reading.guest

    def get(self, guest_id: str) -> Guest | None:
        """None: libvirt answered that there is no such domain."""
        reading = self._domains.read(guest_id)
        return reading.guest if reading is not None else None

    def all(self) -> tuple[Guest, ...]:
        """Every domain, defined or running."""
        return tuple(reading.guest for reading in self._domains.all())

    def plug(self, guest_id: str, disk: DiskSpec) -> None:
        """Complete the disk in the guest's XMLs; see :class:`Plugging`."""
        self._plugging.plug(guest_id, disk)

    def unplug(self, guest_id: str, volume_id: str, *, source: str | None = None) -> None:
        """Take the volume's disk out of the guest, proven; see :class:`Unplugging`."""
        self._unplugging.unplug(guest_id, volume_id, source=source)

    def resize(
        self, guest_id: str, volume_id: str, size_bytes: int, *, source: str | None = None
    ) -> None:
        """Tell a live guest its disk's new size; see :class:`Resizing`."""
        self._resizing.resize(guest_id, volume_id, size_bytes, source=source)

    def on_disk_removed(self, listener: Callable[[str, str], None]) -> None:
        """Call ``listener(guest_id, alias)`` on every DEVICE_REMOVED, in the event thread.

        It must return soon and call nothing of this object: events wait behind it.
        """
        self._events.on_disk_removed(listener)

    def on_stopped(self, listener: Callable[[str], None]) -> None:
        """Call ``listener(guest_id)`` on the end of every guest; see ``on_disk_removed``."""
        self._events.on_stopped(listener)

    def on_reachable(self, listener: Callable[[], None]) -> None:
        """Call ``listener()`` each time a connection to libvirt comes (back) to life.

        In the connection's own thread: it must return soon.
        """
        self._connection.on_reachable(listener)
