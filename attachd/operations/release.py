"""Release: attachd forgets an attachment, and leaves it as it is in every world but its journal.

The guest keeps its disk, Cinder its attachment, the host its session: from then on they are
somebody else's, and adopt takes them back.
"""

from __future__ import annotations

from dataclasses import replace

from attachd.errors import Code, Refused, World
from attachd.model import AttachmentRecord, AttachmentState, OperationKind
from attachd.operations import references
from attachd.operations.housekeeping import Housekeeping
from attachd.operations.steps import Step, bind
from attachd.saga.history import StepSpec

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="forget", world=World.JOURNAL),
)

_RELEASABLE = frozenset({AttachmentState.ATTACHED, AttachmentState.NEEDS_ATTENTION})


class Release(Housekeeping):
    """One release. ``record`` is the attachment that is forgotten."""

    kind = OperationKind.RELEASE

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does each row."""
        return bind(TABLE, precheck=self._precheck, forget=self._forget)

    # --- 0 precheck: touch nothing ----------------------------------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed
        asked_for = self._asked_for()
        self._claim_for(asked_for)
        # Read again: another operation may have ended while this one waited for its turn.
        records = self._worlds.records.live_attachments()
        record = next((r for r in records if r.record_id == asked_for.record_id), None)
        if record is None or record.state not in _RELEASABLE:
            raise self._not_attached()
        _refuse_pending(record)
        self._refuse_shared(record)
        self.record = record

    def _refuse_shared(self, record: AttachmentRecord) -> None:
        """Whose device it is then could nobody tell: the last of the others would take it away."""
        if others := self._others_of(record):
            raise Refused(
                Code.STILL_IN_USE,
                f"Guest {others[0].guest_name} has volume {record.volume_id}, too, by attachd.",
                resolution="Detach it from all but one of them first.",
            )

    def _asked_for(self) -> AttachmentRecord:
        record = references.attached(self._request, self._worlds)
        if record is None:
            raise self._not_attached()
        return record

    # --- 1 forget -----------------------------------------------------------------------------

    def _forget(self) -> None:
        self.record = replace(
            self._known, state=AttachmentState.RELEASED, operation_id=self._operation_id
        )


def _refuse_pending(record: AttachmentRecord) -> None:
    """A request to QEMU can't be withdrawn: whoever has the disk then may lose it at any moment."""
    if record.unplug_pending:
        raise Refused(
            Code.GUEST_BUSY,
            f"Guest {record.guest_name} was asked to let go of the disk, and may do so yet.",
            resolution=f"Detach it: attachctl detach {record.guest_name} {record.volume_id}",
        )
