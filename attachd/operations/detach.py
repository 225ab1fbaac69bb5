"""Detach: its table of steps, top to bottom. Once the guest let go, only forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.model import AttachmentRecord, AttachmentState, OperationKind, Volume
from attachd.operations import prechecks, proofs, references
from attachd.operations.operation import Given, Operation
from attachd.operations.steps import Step, Unanswered, bind
from attachd.saga.history import StepSpec
from attachd.saga.resumption import Sighting

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="begin", world=World.CINDER, undoable=True),
    StepSpec(name="unplug", world=World.GUEST, pivot=True),
    StepSpec(name="disconnect", world=World.HOST),
    StepSpec(name="prove", world=World.HOST),
    StepSpec(name="delete", world=World.CINDER),
    StepSpec(name="remember", world=World.JOURNAL),
)


class Detach(Operation):
    """One detach. ``record`` is the attachment that it takes away."""

    kind = OperationKind.DETACH

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._was_pending = True  # who resumes can't know

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does and undoes each row."""
        return bind(
            TABLE,
            precheck=self._precheck,
            begin=(self._begin, self._roll_back),
            unplug=self._unplug,
            disconnect=self._disconnect,
            prove=self._prove,
            delete=self._delete,
            remember=self._remember,
        )

    # --- 0 precheck: touch nothing ----------------------------------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed
        record = self._asked_for()
        self._claim_for(record)
        # Read again: another operation may have ended while this one waited for its turn.
        current = [
            r for r in self._worlds.records.live_attachments() if r.record_id == record.record_id
        ]
        if not current:
            raise self._not_attached()
        guest = self._worlds.guests.get(record.guest_id)
        if guest is not None and any(record.has(disk) for disk in guest.saved_disks or ()):
            prechecks.refuse_saved(guest)
        self._require_export_for_others(current[0])
        self.record = current[0]

    def _asked_for(self) -> AttachmentRecord:
        record = references.attached(self._request, self._worlds)
        if record is None:
            raise self._not_attached()
        return record

    # --- 1 begin: the volume becomes detaching ----------------------------------------------

    def _begin(self) -> None:
        """From here on the guest may have been asked to let go, and that can't be withdrawn.

        It is remembered before it is asked: the answer, or attachd itself, may get lost.
        """
        record = self._known
        self._was_pending = record.unplug_pending
        # Without an attachment of ours the volume's status is somebody else's: Cinder would change
        # it all the same. The guest must not keep the device then.
        volume = self._worlds.cinder.get_volume(record.volume_id)
        if volume is not None and self._is_attached(volume):
            self._begin_detaching(volume)
        self.record = replace(
            record,
            state=AttachmentState.DETACHING,
            operation_id=self._operation_id,
            unplug_pending=True,
        )

    def _is_attached(self, volume: Volume) -> bool:
        """Has it our attachment? It shows those that are complete; any other is asked for."""
        shown = self._known.attachment_id in volume.attachment_ids
        return shown or self._attachment() is not None

    def _begin_detaching(self, volume: Volume) -> None:
        """Whatever Cinder refuses: a guest that let go already only leaves forward."""
        try:
            self._worlds.cinder.begin_detaching(volume.volume_id, status=volume.status)
        except AttachdError as exc:
            if exc.code not in _REFUSALS or exc.touched or self._guest_holds():
                raise

    def _roll_back(self) -> None:
        """The guest kept its disk: the volume is in-use again, and so says the record.

        What Cinder has given up, or the storage has exchanged, stays fenced.
        """
        ours = self._attachment() is not None
        if ours:
            self._roll_detaching()
        well = ours and not self._is_exchanged()
        state = AttachmentState.ATTACHED if well else AttachmentState.NEEDS_ATTENTION
        self.record = replace(self._known, state=state)

    def _is_exchanged(self) -> bool:
        """Does another volume answer behind the LUN? One that doesn't answer now may come back."""
        try:
            return bool(self._other_wwns(self._known))
        except Unreachable:
            return False

    def _roll_detaching(self) -> None:
        try:
            self._worlds.cinder.roll_detaching(self._known.volume_id)
        except AttachdError as exc:
            if exc.code is not Code.VOLUME_NOT_FOUND:
                raise

    # --- 2 unplug: the guest lets go, proven; from here on only forward ----------------------

    def _unplug(self) -> None:
        try:
            self._worlds.guests.unplug(
                self._known.guest_id, self._known.volume_id, source=self._known.adopted_path
            )
        except AttachdError as exc:
            if exc.code is Code.GUEST_REFUSED and not exc.touched:  # nothing is pending, it says
                if self._guest_holds():
                    self.record = replace(self._known, unplug_pending=False)
                else:  # nor is there anything to go back to: it had let go before
                    exc.touched = True
            elif exc.code is not Code.UNPLUG_TIMEOUT and not exc.touched:  # it was never asked
                self.record = replace(self._known, unplug_pending=self._was_pending)
            raise
        self.record = replace(self._known, unplug_pending=False)

    # --- 3 disconnect -----------------------------------------------------------------------

    def _disconnect(self) -> None:
        record = self._known
        if record.connection is None:
            return
        self._hold_guard()
        if self._others():
            return  # the last one disconnects
        self._worlds.host.disconnect(
            record.volume_id,
            record.connection,
            expected_wwn=record.wwn,
            given_up=self._is_given_up(),
        )

    # --- 4 prove: Cinder may give the LUN to someone else after this -------------------------

    def _prove(self) -> None:
        proofs.prove_guest_clear(self._worlds.guests, self._known)
        if self._others():
            self._require_export_for_others(self._known)
        else:
            proofs.prove_host_clear(self._worlds.host, self._known)

    # --- 5 delete: the volume becomes available ---------------------------------------------

    def _delete(self) -> None:
        if self._known.attachment_id is not None:
            self._hold_guard()
            self._flow.delete(self._known)

    # --- 6 remember -------------------------------------------------------------------------

    def _remember(self) -> None:
        self.record = replace(self._known, state=AttachmentState.DETACHED)

    # --- after a crash ----------------------------------------------------------------------

    def settle(self, unanswered: Mapping[str, Unanswered]) -> None:
        """Let Cinder finish what nobody waits for any more (libvirt queues it)."""
        if self.record is None:
            return
        if (begin := unanswered.get("begin")) and not begin.undoing:
            self._worlds.cinder.settle_begin(self.record.volume_id, age=begin.age)
        self._flow.settle_detach(self.record, unanswered)

    def look(self) -> Sighting:
        """Look at the guest, freshly. What Cinder says decides nothing here."""
        if self.record is None:
            return Sighting(guest_holds_disk=False, attachment_is_ours=False)
        return Sighting(guest_holds_disk=self._guest_holds(), attachment_is_ours=True)

    def _guest_holds(self) -> bool:
        guest = self._worlds.guests.get(self._known.guest_id)
        return guest is not None and proofs.guest_holds(guest, self._known)


_REFUSALS = frozenset({Code.CINDER_REFUSED, Code.VOLUME_NOT_FOUND})
