"""Disconnect: the host's side of an attachment is taken away, while no guest uses it.

Of an attachment whose guest has ended: its device comes back when it starts (see reconnect). Or of
a volume that was detached, and whose session was left. Like reconnect it makes no libvirt call, as
libvirt's hook for the guest's next start may wait for it: whether anybody holds the device is seen
on the host itself.
"""

from __future__ import annotations

from attachd.errors import Code, Refused, World
from attachd.model import AttachmentRecord, AttachmentState, OperationKind, Volume
from attachd.operations.housekeeping import Housekeeping
from attachd.operations.steps import Step, bind
from attachd.saga.history import StepSpec

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="disconnect", world=World.HOST),
)


class Disconnect(Housekeeping):
    """One disconnect."""

    kind = OperationKind.DISCONNECT

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does each row."""
        return bind(TABLE, precheck=self._precheck, disconnect=self._disconnect)

    # --- 0 precheck: touch nothing ----------------------------------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed
        self._claim_for(self._asked_for(), volume_only=True)
        self.record = self._asked_for()  # it may have been detached, or attached anew, meanwhile

    def _asked_for(self) -> AttachmentRecord:
        """The live record, else the latest that was detached, if nobody has the volume since."""
        live = self._live()
        if live is not None and live.state in _SETTLED and live.connection is not None:
            return live
        if not any(
            record.volume_id == self._request.volume
            for record in self._worlds.records.live_attachments()
        ):
            asked = (self._request.guest, self._request.volume)
            for record in reversed(self._worlds.records.detached_attachments()):
                # Without its WWN nobody could tell the device behind the LUN from another's.
                known = record.connection is not None and record.wwn is not None
                if known and (record.guest_id, record.volume_id) == asked:
                    return record
        raise Refused(
            Code.NOT_ATTACHED,
            f"Nothing that could be disconnected is known of volume {self._request.volume} and "
            f"guest {self._request.guest}.",
            resolution="See what is attached: attachctl list",
        )

    def _refuse_somebodys(self, record: AttachmentRecord) -> None:
        """Nova, an operator or Cinder may have the volume now, on this very host."""
        cinder = self._worlds.cinder
        if cinder.list_attachments(record.volume_id) or not is_idle(
            cinder.get_volume(record.volume_id)
        ):
            raise Refused(
                Code.VOLUME_NOT_AVAILABLE,
                f"Somebody else has volume {record.volume_id} now: its session may be theirs.",
                resolution=f"See who: openstack volume attachment list "
                f"--volume-id {record.volume_id}",
            )

    # --- 1 disconnect ------------------------------------------------------------------------

    def _disconnect(self) -> None:
        """The looks are part of the step: attachd may have been away since it was asked for.

        The guard isn't waited for, as the hook of a guest's start may wait for this operation.
        """
        record = self._known
        if record.connection is None:
            return
        if record.state is AttachmentState.DETACHED:
            self._refuse_somebodys(record)
        with self._worlds.host.guard(
            shared_targets=record.shared_targets, service_uuid=record.service_uuid, wait=False
        ):
            self._refuse_superseded(record)
            self._refuse_shared(record)
            self._worlds.host.disconnect(
                record.volume_id, record.connection, expected_wwn=record.wwn
            )

    def _refuse_shared(self, record: AttachmentRecord) -> None:
        """Another guest may be about to start with it: its last detach disconnects it."""
        if self._is_used_beside():
            raise Refused(
                Code.STILL_IN_USE,
                f"Volume {record.volume_id} is attached to other guests of this host: "
                f"{', '.join(other.guest_name for other in self._others())}.",
            )

    def _refuse_superseded(self, record: AttachmentRecord) -> None:
        if self._worlds.records.superseded(self._operation_id, record.volume_id):
            raise Refused(
                Code.VOLUME_BUSY,
                f"Something else was asked for with volume {record.volume_id} since.",
                details="The guest may be about to start.",
            )


def is_idle(volume: Volume | None) -> bool:
    """Is Cinder at no work with it? For a backup or an image it connects it by itself."""
    return volume is None or volume.status == "available" or volume.status.startswith("error")


_SETTLED = frozenset({AttachmentState.ATTACHED, AttachmentState.NEEDS_ATTENTION})
