"""What every operation is made of, and what the engine needs of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

from attachd.errors import Code, Refused, Unreachable
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    CinderAttachment,
    OperationKind,
    Request,
)
from attachd.operations import prechecks
from attachd.operations.flows import Flow, find_attachment, flow_of
from attachd.operations.ports import Worlds
from attachd.operations.steps import Claim, ExportTurn, GuestName, Step, Unanswered, VolumeName
from attachd.saga.resumption import Sighting


@dataclass(frozen=True, kw_only=True)
class Given:
    """What an operation begins with. ``record``: as journalled, where it is resumed."""

    operation_id: str
    request: Request
    record: AttachmentRecord | None
    claim: Claim
    export_turn: ExportTurn
    worlds: Worlds


class Operation(ABC):
    """One object drives one operation in one thread.

    ``record``: what is known so far of the attachment that it is about; journalled with every
    outcome.
    """

    kind: ClassVar[OperationKind]

    def __init__(self, given: Given) -> None:
        self.record = given.record
        self._operation_id = given.operation_id
        self._request = given.request
        self._claim = given.claim
        self._worlds = given.worlds
        self._guard = ExitStack()
        self._guarded = False

    @property
    @abstractmethod
    def steps(self) -> tuple[Step, ...]:
        """The table, top to bottom, with what does and undoes each row."""

    @abstractmethod
    def settle(self, unanswered: Mapping[str, Unanswered]) -> None:
        """Wait until these steps' late effects show, or can't come any more.

        Raises Unreachable where their world can't be asked.
        """

    @abstractmethod
    def look(self) -> Sighting:
        """Look at guest and Cinder, freshly. Raises Unreachable where it could not."""

    def close(self) -> None:
        """Let go of what is held for the operation only: the backend's guard."""
        self._guard.close()

    @property
    def _known(self) -> AttachmentRecord:
        if self.record is None:
            raise AssertionError("an earlier step finds or makes the record")
        return self.record

    def _claim_for(self, record: AttachmentRecord, *, volume_only: bool = False) -> None:
        """See :class:`Claim`."""
        self._claim(
            GuestName(guest_id=record.guest_id, name=record.guest_name),
            VolumeName(
                volume_id=record.volume_id, name=record.volume_name, shareable=record.shareable
            ),
            volume_only=volume_only,
        )

    def _not_attached(self) -> Refused:
        return Refused(
            Code.NOT_ATTACHED,
            f"Volume {self._request.volume} isn't attached to guest {self._request.guest}.",
            resolution="See what is: attachctl list",
        )

    def _hold_guard(self) -> None:
        """Take the backend's guard, once, until the operation lets go of it or rests.

        It spans what the host and what Cinder does, as Nova's does: in between, a scan for another
        volume would find the LUN again. Raises deadline-exceeded, nothing touched.
        """
        if not self._guarded:
            record = self._known
            self._guard.enter_context(
                self._worlds.host.guard(
                    shared_targets=record.shared_targets, service_uuid=record.service_uuid
                )
            )
            self._guarded = True

    @property
    def _flow(self) -> Flow:
        return flow_of(self._known, self._worlds)

    def _attachment(self) -> CinderAttachment | None:
        """Cinder's, freshly; None: it has none, or none any more."""
        return find_attachment(self._worlds.cinder, self._known)

    def _other_wwns(self, record: AttachmentRecord) -> set[str]:
        """Of the devices behind its LUN those that aren't it, each by a fresh INQUIRY."""
        if record.connection is None:
            return set()
        return {wwn for wwn in self._worlds.host.wwns(record.connection) if wwn != record.wwn}

    def _others(self) -> tuple[AttachmentRecord, ...]:
        """The volume's attachments to other guests of this host, which use the same device.

        None of them comes or goes while this operation holds the volume.
        """
        return self._others_of(self._known)

    def _others_of(self, record: AttachmentRecord) -> tuple[AttachmentRecord, ...]:
        return tuple(
            other
            for other in self._worlds.records.live_attachments()
            if other.volume_id == record.volume_id
            and other.record_id != record.record_id
            and other.connection is not None
        )

    def _require_export_for_others(self, record: AttachmentRecord) -> None:
        """Guests that keep the device need an attachment in Cinder that keeps it exported.

        Otherwise this one's end would take the export away under them. Raises still-in-use.
        """
        others = self._others_of(record)
        if not others:
            return
        listed = self._worlds.cinder.list_attachments(record.volume_id)
        if any(attachment.attachment_id == record.attachment_id for attachment in listed):
            prechecks.refuse_given_up(others, listed)

    def _is_used_beside(self) -> bool:
        """Does another guest have the volume in good order, running or not?"""
        return any(other.state is AttachmentState.ATTACHED for other in self._others())

    def _is_given_up(self) -> bool:
        """Is its device silent since Cinder doesn't export it to this host any more?

        Where Cinder can't be asked, it may export it.
        """
        connection = self._known.connection
        if connection is None or not self._worlds.host.silent(connection):
            return False
        try:
            return self._flow.is_given_up(self._known)
        except Unreachable:
            return False
