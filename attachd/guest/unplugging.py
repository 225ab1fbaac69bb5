"""Takes a disk out of a guest: first out of the live XML, then out of the persistent one.

An unplug of a live disk is a request to the guest's own kernel. libvirt hands it on and answers
at once; the guest may take its time, or never answer. So the request is repeated in intervals, and
between two of them events wake this thread to look at the XML, the only thing that is believed. An
event that was missed costs time, never correctness. A request that QEMU has accepted can't be
withdrawn: it is what unplug-timeout means, and guest-refused means that nothing is pending.

The disk is gone when the XML doesn't show it after everything that was under way in libvirt on
this domain has ended (:meth:`Domains.settle`). An error is never read as "gone". The persistent XML
is kept until the live disk is gone, so that a guest which keeps its disk keeps it whole.

libvirt may go away and come back in the middle: once the first request may have left, its absence
is waited out until the deadline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from attachd.errors import AttachdError, Code, Unreachable
from attachd.guest.disk_xml import persistent_xml
from attachd.guest.domain_events import DomainEvents, Happened, Signal, Watch
from attachd.guest.domain_xml import DomainXml, FoundDisk, Reading
from attachd.guest.domains import Answer, Domains, Layer
from attachd.guest.failures import refused, saved, touching, unavailable
from attachd.trace import Library, call

LOG = logging.getLogger(__name__)

# An event wakes earlier; this is for the event that was lost.
_LOOK_SECONDS = 5.0
_AFTER_LOSS_SECONDS = 1.0


class Unplugging:
    """Unplugs disks; keeps nothing between calls. Times in seconds.

    ``timeout`` bounds one unplug as a whole, but for the call that is under way when it ends;
    ``retry_interval`` is the pause between two requests to the guest; ``asked_again`` is called for
    each request beyond the first.
    """

    def __init__(
        self,
        *,
        domains: Domains,
        events: DomainEvents,
        timeout: float,
        retry_interval: float,
        asked_again: Callable[[], None] = lambda: None,
    ) -> None:
        self._domains = domains
        self._events = events
        self._timeout = timeout
        self._retry_interval = retry_interval
        self._asked_again = asked_again

    def unplug(self, guest_id: str, volume_id: str, *, source: str | None) -> None:
        """Return when the disk is proven gone from both XMLs, or the guest itself is gone.

        ``source``: of a disk that another hand plugged, which may have no name of attachd's.

        Raises, with ``touched=False``, unplug-timeout when the guest was asked and kept the disk,
        guest-refused when it can't be asked or said no, guest-saved. Raises Unreachable when
        libvirt is out of reach, ``touched`` by whether a request may have left.
        """
        with self._events.watch(guest_id) as watch:
            removal = _Removal(
                domains=self._domains,
                watch=watch,
                volume_id=volume_id,
                source=source,
                deadline=time.monotonic() + self._timeout,
                retry_interval=self._retry_interval,
                asked_again=self._asked_again,
            )
            removal.run()


@dataclass(kw_only=True)
class _Removal:
    """One unplug on its way: look, ask where it is time to, wait for a reason to look again."""

    domains: Domains
    watch: Watch
    volume_id: str
    source: str | None
    deadline: float
    retry_interval: float
    asked_again: Callable[[], None]
    left: bool = False  # may a request have been taken?
    pending: bool = False  # has QEMU taken one that it hasn't answered?
    settled: bool = False  # has all that was under way ended since the live disk was last seen?
    config_asked: bool = False
    stopping: bool = False
    next_request: float = 0.0
    words: str = ""  # libvirt's, when it didn't take the last request

    @property
    def guest_id(self) -> str:
        return self.watch.guest_id

    def run(self) -> None:
        while not self._gone():
            pass

    def _gone(self) -> bool:
        try:
            return self._advance()
        except Unreachable as exc:
            self.left = self.left or exc.touched
            exc.touched = self.left
            if not self.left or self.stopping or self._overdue():
                raise
            LOG.debug("libvirt is away while %s unplugs a disk: %s", self.guest_id, exc)
            self._wait(_AFTER_LOSS_SECONDS)
            return False

    def _advance(self) -> bool:
        """One look and the step that follows from it; True when the disk is proven gone."""
        reading = self._look()
        if reading is None:
            return True  # libvirt answered that there is no such guest: nor has it disks
        if reading.saved is not None and self._find(reading.saved) is not None:
            raise self._saved(reading.saved)
        live = self._find(reading.live)
        config = self._find(reading.config)
        if live is not None:
            self.settled = False
            self._out_of_live(reading, live)
        elif not self.settled:
            self._settle()
        elif config is not None:
            self._out_of_config(config)
        else:
            return True
        return False

    def _look(self) -> Reading | None:
        try:
            return self.domains.read(self.guest_id)
        except AttachdError as exc:
            exc.touched = self.left
            raise

    def _settle(self) -> None:
        try:
            self.domains.settle(self.guest_id)
        except AttachdError as exc:
            exc.touched = self.left
            raise
        self.settled = True

    def _out_of_live(self, reading: Reading, disk: FoundDisk) -> None:
        if self._overdue():
            raise self._kept(reading, disk)
        if time.monotonic() >= self.next_request:
            if self.next_request > 0:
                self.asked_again()
            self.next_request = time.monotonic() + self.retry_interval
            if self._ask(disk, Layer.LIVE) is Answer.NEVER:
                raise self._kept(reading, disk)
        signal = self._wait(min(self.next_request - time.monotonic(), _LOOK_SECONDS))
        if signal == Signal(happened=Happened.REFUSED, alias=disk.disk.alias):
            self.pending = False
            self.words = "The guest's kernel refused to let go of it."
            raise self._kept(reading, disk)

    def _out_of_config(self, disk: FoundDisk) -> None:
        if self.config_asked:  # it isn't the first time: don't turn in circles
            self._wait(_AFTER_LOSS_SECONDS)
        answer = self._ask(disk, Layer.CONFIG)
        self.config_asked = True
        if answer is Answer.NEVER or self._overdue():
            raise refused(
                "The guest's persistent XML keeps the disk.", self.words, touched=self.left
            )

    def _ask(self, disk: FoundDisk, layer: Layer) -> Answer:
        answer, words = self.domains.detach(self.guest_id, disk, layer)
        if answer is Answer.ACCEPTED:
            self.left = True
            self.pending = layer is Layer.LIVE
        self.words = words
        if words:
            LOG.info("%s, %s: %s", self.guest_id, disk.disk.alias, words)
        return answer

    def _kept(self, reading: Reading, disk: FoundDisk) -> AttachdError:
        """The guest keeps its disk: so it shall be whole, in the persistent XML as well.

        Not so another hand's, which may never have been there.
        """
        whole = reading.config is None or self._find(reading.config) is not None
        if not whole and self.source is None:
            with touching():
                self.domains.attach(self.guest_id, persistent_xml(disk.xml), Layer.CONFIG)
        if not self.pending:
            return refused("The guest keeps the disk.", self.words, touched=False)
        return AttachdError(
            Code.UNPLUG_TIMEOUT,
            "The guest was asked to let go of the disk, and didn't.",
            details=f"{disk.disk.alias} ({disk.disk.target}) in {self.guest_id}. "
            "The request can't be withdrawn: the guest may still follow it.",
            resolution="See that the guest runs and that its kernel has PCI hot-plug.",
            touched=False,
        )

    def _saved(self, document: DomainXml) -> AttachdError:
        """Where a request had left, the guest may have followed it before it was saved, or not."""
        error = saved(document.name)
        error.touched = self.left
        return error

    def _find(self, document: DomainXml | None) -> FoundDisk | None:
        return document.find(self.volume_id, source=self.source) if document is not None else None

    def _overdue(self) -> bool:
        return time.monotonic() >= self.deadline

    def _wait(self, seconds: float) -> Signal | None:
        """Until a signal, at most ``seconds``, never beyond the deadline."""
        with call(Library.LIBVIRT, "wait for the guest"):
            signal = self.watch.wait(min(seconds, self.deadline - time.monotonic()))
        if signal is not None and signal.happened is Happened.STOPPING:
            self.stopping = True
            raise unavailable("attachd is stopping.", touched=self.left)
        return signal
