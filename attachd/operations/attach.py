"""Attach: its table of steps, top to bottom. What they say to Cinder: see ``flows``."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from attachd.errors import AttachdError, Code, Refused, World
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    CinderAttachment,
    Connection,
    DiskSpec,
    Guest,
    Mode,
    OperationKind,
    Volume,
    cinder_instance_id,
    is_uuid,
)
from attachd.operations import prechecks, proofs
from attachd.operations.operation import Given, Operation
from attachd.operations.steps import GuestName, Step, Unanswered, VolumeName, bind
from attachd.operations.together import together
from attachd.saga.history import StepSpec
from attachd.saga.resumption import Sighting

Attachments = tuple[CinderAttachment, ...]

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="reserve", world=World.JOURNAL, undoable=True),
    StepSpec(name="create", world=World.CINDER, undoable=True),
    StepSpec(name="update", world=World.CINDER),
    StepSpec(name="connect", world=World.HOST, undoable=True),
    StepSpec(name="identify", world=World.HOST),
    StepSpec(name="plug", world=World.GUEST, undoable=True),
    StepSpec(name="complete", world=World.CINDER),
    StepSpec(name="remember", world=World.JOURNAL),
)


class Attach(Operation):
    """One attach. ``record`` is what is known so far."""

    kind = OperationKind.ATTACH

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._draft: AttachmentRecord | None = None
        self._export_turn = given.export_turn
        self._turn = ExitStack()  # held from before the volume is reserved until it is exported
        self._connection: Connection | None = None  # with secrets: never leaves this object
        self._kernel_path: str | None = None  # /dev/sdX: true only within this run
        self._fresh = False  # created by this run, and not exported yet
        self._perhaps_exported = False  # nobody heard how update ended

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does and undoes each row."""
        return bind(
            TABLE,
            precheck=self._precheck,
            reserve=(self._reserve, self._release),
            create=(self._create, self._give_back),
            update=self._update,
            connect=(self._connect, self._disconnect),
            identify=self._identify,
            plug=(self._plug, self._unplug),
            complete=self._complete,
            remember=self._remember,
        )

    def close(self) -> None:
        """Let go of the backend's turn, too."""
        self._turn.close()
        super().close()

    # --- 0 precheck: touch nothing ----------------------------------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed: what would be refused now is of its own making
        guest, (volume, listed) = together(
            lambda: self._worlds.guests.find(self._request.guest), self._volume_as_asked_for
        )
        prechecks.refuse_nova_owned(guest, override=self._request.override_nova)
        prechecks.refuse_saved(guest)
        if self._claim(GuestName.of(guest), VolumeName.of(volume)):
            guest, volume, listed = *self._anew(guest, volume), None
        self._draft = self._refuse_or_draft(guest, volume, listed)
        if self._turn.enter_context(self._export_turn(volume.service_uuid)):
            self._draft = self._refuse_or_draft(*self._anew(guest, volume), None)

    def _anew(self, guest: Guest, volume: Volume) -> tuple[Guest, Volume]:
        """What was waited for may have taken long."""
        guest = self._worlds.guests.find(guest.guest_id)
        prechecks.refuse_saved(guest)
        return guest, self._worlds.cinder.find_volume(volume.volume_id)

    def _volume_as_asked_for(self) -> tuple[Volume, Attachments | None]:
        """With its attachments where it may be asked for by its id, which no name has for long."""
        reference = self._request.volume
        find = partial(self._worlds.cinder.find_volume, reference)
        if not is_uuid(reference):
            return find(), None
        volume, listed = together(find, lambda: self._worlds.cinder.list_attachments(reference))
        return volume, listed if volume.volume_id == reference else None

    def _refuse_or_draft(
        self, guest: Guest, volume: Volume, listed: Attachments | None
    ) -> AttachmentRecord:
        """``listed``: the volume's attachments, where they are known already."""
        self._worlds.host.check()
        attachments = self._worlds.records.live_attachments()
        flow = self._worlds.cinder.attach_flow()
        prechecks.refuse_attached(guest, volume, attachments, flow)
        prechecks.refuse_unavailable(volume, flow)
        if listed is None:
            listed = self._worlds.cinder.list_attachments(volume.volume_id)
        beside = [record for record in attachments if record.volume_id == volume.volume_id]
        prechecks.refuse_given_up([r for r in beside if r.connection is not None], listed)
        if not beside:  # its session would be known
            self._refuse_strangers_on_this_host(volume, listed)
        prechecks.refuse_full_bus(guest, self._request.bus)
        reserved = [r.device for r in attachments if r.guest_id == guest.guest_id]
        return AttachmentRecord(
            record_id=str(uuid.uuid4()),
            operation_id=self._operation_id,
            state=AttachmentState.ATTACHING,
            volume_id=volume.volume_id,
            volume_name=volume.name,
            guest_id=guest.guest_id,
            guest_name=guest.name,
            instance_id=cinder_instance_id(guest),
            device=prechecks.choose_device(guest, self._request, reserved),
            bus=self._request.bus,
            mode=self._request.mode,
            size_bytes=volume.size_bytes,
            prior_attachment_ids=tuple(each.attachment_id for each in listed),
            shared_targets=volume.shared_targets,
            service_uuid=volume.service_uuid,
            persistent=guest.persistent,
            shareable=volume.multiattach,
            flow=flow,
        )

    def _refuse_strangers_on_this_host(
        self, volume: Volume, listed: Collection[CinderAttachment]
    ) -> None:
        """A multiattach volume that somebody else uses on this very host (Nova, an operator).

        Whose session it is could be told by nobody afterwards.
        """
        for attachment_id in (each.attachment_id for each in listed):
            attachment = self._worlds.cinder.get_attachment(attachment_id)
            connection = attachment.connection if attachment else None
            if connection is not None and self._worlds.host.present(connection):
                raise Refused(
                    Code.VOLUME_NOT_AVAILABLE,
                    f"Somebody else uses volume {volume.name or volume.volume_id} on this host.",
                    details=f"Cinder's attachment {attachment_id} isn't attachd's.",
                    resolution="Have attachd adopt it: attachctl adopt; or detach it there.",
                )

    # --- 1 reserve the device name ----------------------------------------------------------

    def _reserve(self) -> None:
        record = self.record or self._draft
        if record is None:
            raise AssertionError("reserve comes after precheck")
        self._worlds.records.reserve(record)
        self.record = record

    def _release(self) -> None:
        if self.record is not None:
            self._worlds.records.forget(self.record.record_id)
            self.record = None

    # --- 2 create: the volume is taken ------------------------------------------------------

    def _create(self) -> None:
        self._fresh = self._known.attachment_id is None
        self.record = self._flow.create(self._known)

    def _give_back(self) -> None:
        """Give the volume back: never before the host is clear."""
        exported = self._known.connection is not None or self._perhaps_exported
        if exported:
            self._hold_guard()
        connection = self._known.connection
        if connection is not None and self._others_use(connection):
            self._require_export_for_others(self._known)
        elif connection is not None:
            self._clear_host(connection)
        try:
            self._flow.give_back(self._known, exported=exported)
        except AttachdError as exc:
            if exc.touched:  # what is reserved from now on may be so for somebody else
                self.record = replace(self._known, reserved=False)
            raise
        self.record = replace(self._known, attachment_id=None, reserved=False)

    def _clear_host(self, connection: Connection) -> None:
        """What was another guest's, too, when it was disconnect's turn, may be ours alone now.

        Only what was proven to be this volume's: all else was disconnect's to judge.
        """
        if self._known.wwn is not None and self._worlds.host.present(connection):
            self._disconnect()
        proofs.prove_host_clear(self._worlds.host, self._known)

    # --- 3 update: the volume is exported ---------------------------------------------------

    def _update(self) -> None:
        self._hold_guard()
        not_connected_yet = self._known.connection is None
        try:
            connection = self._connection = self._exported()
        finally:
            self._turn.close()
        self.record = replace(
            self._known,
            connection=connection.without_secrets(),
            mode=Mode.RO if connection.mode is Mode.RO else self._known.mode,  # Cinder's word
        )
        if not_connected_yet:  # kept in the journal: attachd may be killed in the connect
            self._note_what_is_there(connection)

    def _note_what_is_there(self, connection: Connection) -> None:
        if self._worlds.host.wwns(connection):
            self.record = replace(self._known, device_was_there=True)

    def _exported(self) -> Connection:
        fresh, self._fresh = self._fresh, False
        return _usable(self._known, self._flow.update(self._known, fresh=fresh))

    # --- 4 connect --------------------------------------------------------------------------

    def _connect(self) -> None:
        # The secrets are in no journal.
        connection = self._connection or self._exported()
        proofs.prove_unclaimed(connection, self._known, self._worlds.records.live_attachments())
        if self._connection is not None:  # fresh from update: no connect of this was ever begun
            self._note_what_is_there(connection)
        self._kernel_path = self._worlds.host.connect(
            self._known.volume_id, connection, mapped=self._known.mapped
        )

    def _disconnect(self) -> None:
        self._hold_guard()
        record = self._known
        # What somebody else brought, and what was never proven to be this volume's, isn't ours to
        # take away: its presence keeps the attachment (see _give_back).
        # Nor is what another guest of this host uses.
        ours = record.wwn is not None or not record.device_was_there
        if record.connection is not None and ours and not self._others_use(record.connection):
            self._worlds.host.disconnect(
                record.volume_id, record.connection, expected_wwn=record.wwn
            )

    def _others_use(self, connection: Connection) -> bool:
        """What another guest shares is there by its WWN; a stranger's device isn't what it uses."""
        theirs = {other.wwn for other in self._others()}
        return bool(theirs) and not theirs.isdisjoint(self._worlds.host.wwns(connection))

    # --- 5 identify: no guest sees a device that wasn't proven -------------------------------

    def _identify(self) -> None:
        record = self._known
        if self._kernel_path is None or record.connection is None:
            raise AssertionError("identify comes after connect")
        device = self._worlds.host.identify(
            self._kernel_path,
            record.connection,
            size_bytes=record.size_bytes,
            expected_wwn=record.wwn or self._wwn_of_others(),
        )
        guests = self._worlds.guests.all()
        proofs.prove_unshared(
            device,
            record,
            names=self._worlds.host.leading_to(device, proofs.sources(guests)),
            attachments=self._worlds.records.live_attachments(),
            guests=guests,
        )
        self.record = replace(record, host_path=device.path, wwn=device.wwn)

    def _wwn_of_others(self) -> str | None:
        """One volume, one WWN: also beside other guests."""
        return next((other.wwn for other in self._others() if other.wwn), None)

    # --- 6 plug -----------------------------------------------------------------------------

    def _plug(self) -> None:
        record = self._known
        if record.host_path is None or record.connection is None:
            raise AssertionError("plug comes after identify")
        disk = DiskSpec(
            volume_id=record.volume_id,
            source=record.host_path,
            target=record.device,
            bus=record.bus,
            mode=record.mode,
            discard=record.connection.discard,
            shareable=record.shareable,
            iotune=record.connection.iotune,
        )
        self._worlds.guests.plug(record.guest_id, disk)

    def _unplug(self) -> None:
        self._worlds.guests.unplug(self._known.guest_id, self._known.volume_id)

    # --- 7 complete: the volume becomes in-use ----------------------------------------------

    def _complete(self) -> None:
        self.record = self._flow.complete(self._known)

    # --- 8 remember -------------------------------------------------------------------------

    def _remember(self) -> None:
        self._guard.close()
        self.record = replace(self._known, state=AttachmentState.ATTACHED)

    # --- after a crash ----------------------------------------------------------------------

    def settle(self, unanswered: Mapping[str, Unanswered]) -> None:
        """Let Cinder and iscsid finish what nobody waits for any more (libvirt queues it)."""
        if self.record is None:
            return
        self._perhaps_exported = "update" in unanswered
        self.record = record = self._flow.settle_attach(self.record, unanswered)
        connect = unanswered.get("connect")
        if connect and connect.orphaned and record.connection is not None:
            self._worlds.host.settle(record.volume_id, record.connection, age=connect.age)

    def look(self) -> Sighting:
        """Look at guest and Cinder, freshly."""
        if self.record is None:
            return Sighting(guest_holds_disk=False, attachment_is_ours=False)
        guest = self._worlds.guests.get(self.record.guest_id)
        return Sighting(
            guest_holds_disk=guest is not None and proofs.guest_holds(guest, self.record),
            attachment_is_ours=self._flow.is_ours(self.record),
        )


def _usable(record: AttachmentRecord, connection: Connection) -> Connection:
    if connection.encrypted:
        raise AttachdError(
            Code.VOLUME_ENCRYPTED,
            f"Volume {record.volume_id} is encrypted, which attachd can't attach.",
            resolution="Use a volume of a type without encryption.",
        )
    if connection.unreadable:
        raise AttachdError(
            Code.CINDER_REFUSED,
            f"The QoS of volume {record.volume_id} has limits that QEMU doesn't know.",
            details=", ".join(connection.unreadable),
            resolution="See its type's specs: openstack volume qos list",
        )
    return connection
