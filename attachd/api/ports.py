"""What the API asks of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attachd.audit.findings import Finding
from attachd.doctor import findings as doctor
from attachd.engine.views import Event, OperationView
from attachd.model import AttachmentRecord, Connector, Guest, Request, Volume


class Engine(Protocol):
    """The engine's facade. Every method may be called from any thread; all but ``wait`` and the
    lists of what another world has return promptly; each raises only AttachdError.
    """

    def submit(self, request: Request) -> OperationView:
        """Journal and queue it; the view is what its operation is now.

        The same request_id with the same content gets the first one's operation. Raises
        request-id-reused (other content), shutting-down, journal-full, journal-unavailable.
        """

    def resume(self, operation_id: str) -> OperationView:
        """Go on with one that needs attention; the view of any other is what it is.

        Raises operation-not-found, shutting-down, journal-unavailable.
        """

    def reconnect(self, guest: str) -> tuple[OperationView, ...]:
        """Bring back the devices of what is attached to a guest: one operation for each.

        libvirt isn't asked. Raises shutting-down, journal-full, journal-unavailable.
        """

    def disconnect(self, guest: str) -> tuple[OperationView, ...]:
        """Take a guest's devices off the host, which nobody may hold: one operation for each.

        libvirt isn't asked. Raises shutting-down, journal-full, journal-unavailable.
        """

    def operation(self, operation_id: str) -> OperationView:
        """Raises operation-not-found."""

    def operations(
        self, *, open_only: bool, limit: int | None = None, before: str | None = None
    ) -> tuple[OperationView, ...]:
        """Newest first, ``limit`` at most; ``open_only`` leaves out those that came to their end.

        ``before``: only what was accepted before this operation. Raises operation-not-found.
        """

    def accepted(self, request_id: str) -> bool:
        """Was a request with this id accepted before?"""

    def attachments(
        self, *, guest: str | None, limit: int | None = None, after: str | None = None
    ) -> tuple[AttachmentRecord, ...]:
        """The live ones, all or those of a guest (name or id), by guest and device.

        ``limit`` at most, and only those behind the attachment ``after``. Raises
        attachment-not-found, guest-not-found.
        """

    def attachment(self, attachment_id: str) -> AttachmentRecord:
        """By Cinder's id, or by the record's own. Raises attachment-not-found."""

    def wait(self, operation_id: str, *, after: int, timeout: float) -> tuple[Event, ...]:
        """The events with a ``seq`` above ``after``, oldest first.

        Blocks until there is one, the operation rests, or ``timeout`` seconds are over. Raises
        operation-not-found.
        """

    def list_guests(self) -> tuple[Guest, ...]:
        """libvirt's guests, by name. May take as long as libvirt; raises libvirt-unavailable."""

    def list_volumes(self, *, status: str, limit: int) -> tuple[Volume, ...]:
        """Cinder's volumes in a status, the newest first, ``limit`` at most.

        May take as long as Cinder; raises cinder-unavailable.
        """

    def connector(self) -> Connector:
        """What Cinder is told of this host. Raises iscsi-unavailable."""

    def health(self) -> Mapping[str, object]:
        """What JSON can say about the daemon: at least ``status`` and ``version``."""


class Auditor(Protocol):
    """Compares the four worlds."""

    def audit(self) -> tuple[Finding, ...]:
        """Every finding, each world looked at anew. Raises journal-unavailable."""


class Repairer(Protocol):
    """Mends what an audit finds, as far as that is safe."""

    def repair(self) -> tuple[OperationView, ...]:
        """Begin it: one operation for each attachment. Raises as the audit and ``submit`` do."""


class Doctor(Protocol):
    """Says whether this host is fit."""

    def examine(self) -> tuple[doctor.Finding, ...]:
        """Every check's findings, all looked at anew. Raises shutting-down, deadline-exceeded."""


class Metrics(Protocol):
    """The numbers."""

    def text(self) -> str:
        """Each as it is now, in Prometheus' text form; no world is asked for it."""
