"""What attachd's own housekeeping operations have in common: each is done anew until it is done.

They are short, they change nothing that isn't attachd's, and doing a step twice does no harm; so
nothing that could be seen decides which way one goes after a crash. Adopt and release, which change
nothing but the journal, are made alike.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from attachd.errors import AttachdError
from attachd.model import AttachmentRecord, AttachmentState
from attachd.operations.operation import Operation
from attachd.operations.steps import Unanswered
from attachd.saga.resumption import Sighting

LOG = logging.getLogger(__name__)


class Housekeeping(Operation):
    """One such operation. ``record`` is the attachment that it is about."""

    def settle(self, unanswered: Mapping[str, Unanswered]) -> None:
        """Nothing that comes late can do harm."""

    def look(self) -> Sighting:
        """Nothing that could be seen decides here."""
        return Sighting(guest_holds_disk=False, attachment_is_ours=False)

    def _live(self) -> AttachmentRecord | None:
        """The live record that the request names, by ids."""
        asked = (self._request.guest, self._request.volume)
        for record in self._worlds.records.live_attachments():
            if (record.guest_id, record.volume_id) == asked:
                return record
        return None

    def _fence_off(self) -> None:
        """From here on attachd gives the device to nobody: the record needs attention."""
        self.record = replace(self._known, state=AttachmentState.NEEDS_ATTENTION)

    def _take_off_fenced(self) -> None:
        """Where nobody holds it; else it stays fenced, and who detaches it meets what is left.

        It also stays where another guest has the volume by an attachment of its own.

        The guard isn't waited for, as a guest's start may wait for this operation.
        """
        record = self._known
        if record.connection is None or self._is_used_beside():
            return
        try:
            with self._worlds.host.guard(
                shared_targets=record.shared_targets, service_uuid=record.service_uuid, wait=False
            ):
                self._worlds.host.disconnect(
                    record.volume_id,
                    record.connection,
                    expected_wwn=record.wwn,
                    given_up=self._is_given_up(),
                )
        except AttachdError as exc:
            LOG.warning("The fenced volume %s stays on this host: %s", record.volume_id, exc)
