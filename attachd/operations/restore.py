"""Restore: Cinder is told again that a volume is attached, which it is in every other world.

Somebody reset the volume's status, or nobody ever completed the attachment. Only where each world
but Cinder's status agrees, looked at anew, and nobody else has the volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from attachd.errors import Code, Refused, World
from attachd.model import AttachFlow, AttachmentRecord, AttachmentState, OperationKind
from attachd.operations import proofs
from attachd.operations.flows import find_attachment
from attachd.operations.housekeeping import Housekeeping
from attachd.operations.steps import Step, bind
from attachd.saga.history import StepSpec

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="complete", world=World.CINDER),
    StepSpec(name="remember", world=World.JOURNAL),
)

RESTORABLE_VOLUME = frozenset({"available", "reserved", "attaching", "in-use"})
RESTORABLE_ATTACHMENT = frozenset({"attached", "attaching"})
"""Cinder's statuses that somebody's reset, or a complete that never came, may have left."""


class Restore(Housekeeping):
    """One restoring."""

    kind = OperationKind.RESTORE

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does each row."""
        return bind(
            TABLE, precheck=self._precheck, complete=self._complete, remember=self._remember
        )

    # --- 0 precheck: touch nothing ----------------------------------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed
        self._claim_for(self._asked_for(), volume_only=False)
        self.record = self._asked_for()

    def _asked_for(self) -> AttachmentRecord:
        record = self._live()
        if record is None or record.attachment_id is None or record.connection is None:
            raise self._not_attached()
        return record

    def _refuse_where_another_world_disagrees(self, record: AttachmentRecord) -> None:
        wrong = [
            *self._wrong_in_cinder(record),
            *self._wrong_on_host(record),
            *self._wrong_in_guest(record),
        ]
        if wrong:
            raise Refused(
                Code.WORLDS_DISAGREE,
                f"Volume {record.volume_id} can't be called attached.",
                details="\n".join(wrong),
                resolution="See what the four worlds say: attachctl audit",
            )

    def _wrong_in_cinder(self, record: AttachmentRecord) -> Iterator[str]:
        cinder = self._worlds.cinder
        volume = cinder.get_volume(record.volume_id)
        if volume is None or volume.status not in RESTORABLE_VOLUME:
            yield f"Cinder's volume is {volume.status if volume else 'gone'}."
        attachment = find_attachment(cinder, record)
        if attachment is None or attachment.status not in RESTORABLE_ATTACHMENT:
            yield f"Cinder's attachment is {attachment.status if attachment else 'gone'}."
        elif record.flow is AttachFlow.ATTACHMENTS and (  # the old style's has no connection
            attachment.connection is None
            or (record.connection and attachment.connection.targets != record.connection.targets)
        ):
            yield "Cinder's attachment leads somewhere else."
        listed = {a.attachment_id for a in cinder.list_attachments(record.volume_id)}
        if volume is not None and not volume.multiattach and listed - {record.attachment_id}:
            yield "Somebody else has the volume, too."

    def _wrong_on_host(self, record: AttachmentRecord) -> Iterator[str]:
        for wwn in self._other_wwns(record):
            yield f"Another volume's device is on the host: WWN {wwn}."

    def _wrong_in_guest(self, record: AttachmentRecord) -> Iterator[str]:
        guest = self._worlds.guests.get(record.guest_id)
        if guest is None:
            yield "libvirt has no such guest."
            return
        for name, disks in proofs.documents(guest, record).items():
            disk = next((disk for disk in disks if record.has(disk)), None)
            if disk is None or disk.source != record.source:
                yield f"The guest's {name} XML has no such disk."

    # --- 1 complete: the volume becomes in-use -----------------------------------------------

    def _complete(self) -> None:
        """The looks are part of the step: attachd may have been away since it was asked for."""
        self._refuse_where_another_world_disagrees(self._known)
        self.record = self._flow.complete(self._known)

    # --- 2 remember --------------------------------------------------------------------------

    def _remember(self) -> None:
        self.record = replace(self._known, state=AttachmentState.ATTACHED)
