"""Fence: attachd uses a device no more that may be, or become, another volume's (CVE-2023-2088).

The record needs attention from then on: no guest gets the device back at its start. Where nobody
holds it, it is taken off the host at once; a running guest keeps it until someone detaches it.
"""

from __future__ import annotations

from attachd.errors import Code, Refused, World
from attachd.model import AttachmentRecord, AttachmentState, OperationKind
from attachd.operations.flows import find_attachment
from attachd.operations.housekeeping import Housekeeping
from attachd.operations.steps import Step, bind
from attachd.saga.history import StepSpec

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="fence", world=World.JOURNAL),
    StepSpec(name="disconnect", world=World.HOST),
)


class Fence(Housekeeping):
    """One fencing."""

    kind = OperationKind.FENCE

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does each row."""
        return bind(
            TABLE,
            precheck=self._precheck,
            fence=self._fence_off,
            disconnect=self._take_off_fenced,
        )

    # --- 0 precheck: touch nothing ----------------------------------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed
        self._claim_for(self._asked_for(), volume_only=True)
        record = self._asked_for()
        if not self._is_dangerous(record):
            raise Refused(
                Code.WORLDS_AGREE,
                f"Nothing is wrong with volume {record.volume_id} any more.",
            )
        self.record = record

    def _asked_for(self) -> AttachmentRecord:
        record = self._live()
        if record is None or record.state is not AttachmentState.ATTACHED:
            raise self._not_attached()
        return record

    def _is_dangerous(self, record: AttachmentRecord) -> bool:
        """Did Cinder give the volume up, or does another one answer behind the LUN?"""
        cinder = self._worlds.cinder
        if find_attachment(cinder, record) is None:
            return True
        if cinder.get_volume(record.volume_id) is None:
            return True
        return bool(self._other_wwns(record))
