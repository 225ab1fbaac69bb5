"""Clean-up: a detach of what no guest uses, for an audit's repair. Its steps are detach's.

Looked at once more under the guest's lock, and again before the guest is asked to let go: one that
started since the audit keeps its disk, and so does another guest whose XML names the device (it was
undefined and defined anew, perhaps).
"""

from __future__ import annotations

from dataclasses import replace

from attachd.errors import Code, Refused
from attachd.model import OperationKind
from attachd.operations import proofs
from attachd.operations.detach import Detach


class CleanUp(Detach):
    """One clean-up."""

    kind = OperationKind.CLEAN_UP

    def _precheck(self) -> None:
        resumed = self.record is not None
        super()._precheck()
        if resumed:
            return
        try:
            self._refuse_used()
        except Refused:
            self.record = None  # none of this operation's business
            raise

    def _unplug(self) -> None:
        """attachd, or Cinder, may have been away for long since the precheck."""
        try:
            self._refuse_used()
        except Refused:
            self.record = replace(self._known, unplug_pending=self._was_pending)
            raise
        super()._unplug()

    def _refuse_used(self) -> None:
        record = self._known
        users = proofs.users(
            record, self._worlds.guests.all(), self._worlds.records.live_attachments()
        )
        if users:
            raise Refused(
                Code.STILL_IN_USE,
                f"Volume {record.volume_id} is used: by {', '.join(users)}.",
                resolution=f"Take it off anyhow: attachctl detach {record.guest_name} "
                f"{record.volume_id}",
            )
