"""libvirt's domains, one call at a time: each with its deadline, and its error translated.

A call that libvirt answered with an error raises guest-refused; one that it didn't answer raises
Unreachable, ``touched`` by whether it would have changed something. Domains are looked up anew for
every call, so none of them outlives its connection.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from attachd import trace
from attachd.guest.calls import in_thread, is_transport_failure
from attachd.guest.connection import Connection
from attachd.guest.domain_xml import DomainXml, FoundDisk, Reading
from attachd.guest.failures import refused, unavailable
from attachd.trace import Library
from attachd.vitals import LibvirtVersions, Version

LOG = logging.getLogger(__name__)

T = TypeVar("T")

# No repetition changes these answers.
_FINAL_ERRORS = frozenset(
    {
        libvirt.VIR_ERR_ACCESS_DENIED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_OPERATION_DENIED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    }
)

# QEMU's own words, never translated: an earlier request is pending.
_PENDING = "already in the process of unplug"


class Layer(enum.IntFlag):
    """Which of a domain's two documents a change is for; libvirt's own numbers."""

    LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
    CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG


class Answer(enum.Enum):
    """What libvirt said to a request to take a disk out."""

    ACCEPTED = enum.auto()  # done (config), or asked of QEMU (live)
    NOT_NOW = enum.auto()  # no, but perhaps later
    NEVER = enum.auto()  # no, and asking again is of no use
    NO_GUEST = enum.auto()  # there is no such domain


class _Pulse:
    """When the latest of several calls was answered: each has a deadline of its own.

    libvirt waits 30 s for a guest that another change holds up before it shows its XML, and there
    are two of them; one such guest mustn't hide all others.
    """

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """One more was answered."""
        self._at = time.monotonic()

    def left(self, seconds: float) -> float:
        """Of the seconds that the call under way may take."""
        return max(0.0, self._at + seconds - time.monotonic())


class Domains:
    """Reads and changes domains. ``call_timeout`` in seconds bounds each single call.

    It should be longer than libvirt's own wait for a busy domain (30 s), so that libvirt's answer
    is heard.
    """

    def __init__(self, *, connection: Connection, call_timeout: float) -> None:
        self._connection = connection
        self._call_timeout = call_timeout
        self._lock = threading.Lock()
        self._given_up: dict[str, Future[Any]] = {}

    def ping(self) -> None:
        """Raise Unreachable where the daemon doesn't answer."""
        try:
            self._call(lambda connection: connection.getLibVersion(), name="ping")
        except libvirt.libvirtError as exc:
            raise refused("libvirt refused to answer.", exc, touched=False) from exc

    def versions(self) -> LibvirtVersions:
        """The daemon's and its hypervisor's. Raises Unreachable; guest-refused."""
        try:
            return self._call(_versions, name="versions")
        except libvirt.libvirtError as exc:
            raise refused("libvirt refused to tell its version.", exc, touched=False) from exc

    def read(self, guest_id: str) -> Reading | None:
        """Its documents; None: libvirt answered that there is no such domain."""
        return self._read(lambda connection: _lookup(connection, guest_id))

    def find(self, reference: str) -> Reading | None:
        """By UUID, else by name."""
        guest_id = _as_uuid(reference)
        found = self.read(guest_id) if guest_id else None
        if found:
            return found
        try:
            return self._read(lambda connection: connection.lookupByName(reference))
        except ValueError:  # characters that no name has: libvirt-python can't even ask for it
            return None

    def all(self) -> Iterator[Reading]:
        """Every domain, defined or running; one that goes meanwhile is left out.

        Each is parsed when its turn comes: all trees at once are many times as large as the XMLs.
        """
        pulse = _Pulse()
        try:
            documents = self._call(lambda c: _all_documents(c, pulse), name="list", pulse=pulse)
        except libvirt.libvirtError as exc:
            raise refused("libvirt refused to list its guests.", exc, touched=False) from exc
        return map(_reading, documents)

    def attach(self, guest_id: str, xml: str, layers: Layer) -> None:
        """attachDeviceFlags. Raises guest-refused; Unreachable with ``touched=True``."""

        def attach(connection: libvirt.virConnect) -> None:
            _lookup(connection, guest_id).attachDeviceFlags(xml, int(layers))

        try:
            self._change(guest_id, attach, name="attach")
        except libvirt.libvirtError as exc:
            raise refused("libvirt refused the disk.", exc, touched=True) from exc

    def detach(self, guest_id: str, found: FoundDisk, layer: Layer) -> tuple[Answer, str]:
        """Ask once for a disk to be taken out of one document, with libvirt's words to it.

        Raises Unreachable with ``touched=True`` where the answer was lost.
        """

        def detach(connection: libvirt.virConnect) -> None:
            domain = _lookup(connection, guest_id)
            if found.disk.alias:
                domain.detachDeviceAlias(found.disk.alias, int(layer))
            else:  # in the persistent XML only a user's own alias is kept
                domain.detachDeviceFlags(found.xml, int(layer))

        try:
            self._change(guest_id, detach, name="detach")
        except libvirt.libvirtError as exc:
            return _answer(exc), str(exc)
        return Answer.ACCEPTED, ""

    def resize(self, guest_id: str, target: str, size_bytes: int) -> None:
        """blockResize of the disk with this target, live. Raises as ``attach`` does."""

        def resize(connection: libvirt.virConnect) -> None:
            _lookup(connection, guest_id).blockResize(
                target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
            )

        try:
            self._change(guest_id, resize, name="resize")
        except libvirt.libvirtError as exc:
            raise refused("libvirt refused the disk's new size.", exc, touched=True) from exc

    def settle(self, guest_id: str) -> None:
        """Return when all that was under way on this domain in libvirt has ended.

        A change that another connection asked for, even one of a process that is dead, holds the
        domain's job until it is done, and only then shows in the XML. So does the end of a
        removal: the XML loses the disk before QEMU has closed the device. This call queues for the
        same job, and changes nothing. Raises Unreachable, or guest-refused where the job can't be
        had.
        """
        try:
            self._change(
                guest_id,
                lambda connection: _lookup(connection, guest_id).memoryStats(),
                name="settle",
                touched=False,
            )
        except libvirt.libvirtError as exc:
            answered = (
                libvirt.VIR_ERR_NO_DOMAIN,
                libvirt.VIR_ERR_OPERATION_INVALID,  # not running, said from within the job
            )
            if exc.get_error_code() not in answered:
                raise refused("libvirt is busy with this guest.", exc, touched=False) from exc

    # --- calls ----------------------------------------------------------------------------

    def _read(self, lookup: Callable[[libvirt.virConnect], libvirt.virDomain]) -> Reading | None:
        pulse = _Pulse()
        try:
            documents = self._call(lambda c: _documents(lookup(c), pulse), name="read", pulse=pulse)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise refused("libvirt refused to show the guest.", exc, touched=False) from exc
        return _reading(documents)

    def _change(
        self,
        guest_id: str,
        call: Callable[[libvirt.virConnect], T],
        *,
        name: str,
        touched: bool = True,
    ) -> T:
        """A call that must not overtake an earlier one on this guest which was given up."""
        self._await_given_up(guest_id)
        return self._call(call, name=name, guest_id=guest_id, touched=touched)

    def _call(
        self,
        call: Callable[[libvirt.virConnect], T],
        *,
        name: str,
        guest_id: str | None = None,
        touched: bool = False,
        pulse: _Pulse | None = None,
    ) -> T:
        """Raises libvirtError where libvirt answered with one, else Unreachable.

        ``pulse``: of a ``call`` that consists of several.
        """
        connection = self._connection.get()
        with trace.call(Library.LIBVIRT, name) as note:
            future = in_thread(lambda: call(connection), name=name)
            ended = _ended(future, self._call_timeout, pulse or _Pulse())
            note.outcome = _outcome(future) if ended else "no answer"
        if not ended:
            if guest_id is not None:
                with self._lock:
                    self._given_up[guest_id] = future
            raise unavailable(
                f"The call {name!r} wasn't answered within {self._call_timeout:g} s.",
                touched=touched,
            )
        try:
            return future.result()
        except libvirt.libvirtError as exc:
            if not is_transport_failure(connection, exc):
                raise
            self._connection.lost(connection)
            raise unavailable(str(exc), touched=touched) from exc

    def _await_given_up(self, guest_id: str) -> None:
        with self._lock:
            future = self._given_up.get(guest_id)
        if future is None:
            return
        if not _ended(future, self._call_timeout, _Pulse()):
            raise unavailable(
                "An earlier call on this guest is still under way in libvirt.", touched=False
            )
        with self._lock:
            if self._given_up.get(guest_id) is future:
                del self._given_up[guest_id]


def _ended(future: Future[Any], seconds: float, pulse: _Pulse) -> bool:
    while not wait([future], timeout=pulse.left(seconds)).done:
        if not pulse.left(seconds):
            return False
    return True


def _outcome(future: Future[Any]) -> str | None:
    failure = future.exception()
    if isinstance(failure, libvirt.libvirtError):
        return f"libvirt error {failure.get_error_code()}"
    return None if failure is None else type(failure).__name__


def _answer(exc: libvirt.libvirtError) -> Answer:
    if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return Answer.NO_GUEST
    if exc.get_error_code() in _FINAL_ERRORS:
        return Answer.NEVER
    return Answer.ACCEPTED if _PENDING in str(exc) else Answer.NOT_NOW


def _as_uuid(reference: str) -> str | None:
    try:
        return str(uuid.UUID(reference))
    except ValueError:
        return None


def _lookup(connection: libvirt.virConnect, guest_id: str) -> libvirt.virDomain:
    return connection.lookupByUUIDString(guest_id)


def _versions(connection: libvirt.virConnect) -> LibvirtVersions:
    return LibvirtVersions(
        libvirt=_version(connection.getLibVersion()), qemu=_version_of_qemu(connection)
    )


def _version_of_qemu(connection: libvirt.virConnect) -> Version | None:
    """None: libvirt finds no emulator that it could ask."""
    try:
        return _version(connection.getVersion())
    except libvirt.libvirtError as exc:
        if is_transport_failure(connection, exc):
            raise
        return None


def _version(number: int) -> Version:
    """libvirt counts a million a major one, a thousand a minor one."""
    return number // 1_000_000, number // 1_000 % 1_000, number % 1_000


@dataclass(frozen=True, kw_only=True)
class _Documents:
    """The XMLs of a domain, unread."""

    now: str
    persistent: str | None
    saved: str | None
    paused: bool


def _documents(domain: libvirt.virDomain, pulse: _Pulse) -> _Documents:
    pulse.beat()
    now = domain.XMLDesc(0)
    pulse.beat()
    persistent = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else None
    pulse.beat()
    state = domain.state()[0]
    saved = None
    if state in _ENDED and domain.hasManagedSaveImage():
        saved = domain.managedSaveGetXMLDesc()
    return _Documents(now=now, persistent=persistent, saved=saved, paused=state in _PAUSED)


_ENDED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)
_PAUSED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED)


def _all_documents(connection: libvirt.virConnect, pulse: _Pulse) -> list[_Documents]:
    documents = []
    for domain in connection.listAllDomains():
        try:
            documents.append(_documents(domain, pulse))
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return documents


def _reading(documents: _Documents) -> Reading:
    document = DomainXml.parse(documents.now)
    if not document.live:
        saved = DomainXml.parse(documents.saved) if documents.saved is not None else None
        return Reading(live=None, config=document, saved=saved)
    persistent = documents.persistent
    config = DomainXml.parse(persistent) if persistent is not None else None
    return Reading(live=document, config=config, paused=documents.paused)
