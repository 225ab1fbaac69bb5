"""Adopt: attachd takes over an attachment that another hand has made, once all of it is proven.

It changes nothing but the journal: it logs in nowhere, and completes nothing. What isn't there, or
isn't certain, is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from contextlib import suppress

from attachd.errors import AttachdError, Code, Refused, World
from attachd.model import (
    AttachFlow,
    AttachmentRecord,
    AttachmentState,
    Bus,
    CinderAttachment,
    Connection,
    Guest,
    GuestDisk,
    HostDevice,
    OperationKind,
    Volume,
    cinder_instance_id,
)
from attachd.operations import prechecks, proofs
from attachd.operations.housekeeping import Housekeeping
from attachd.operations.operation import Given
from attachd.operations.steps import GuestName, Step, VolumeName, bind
from attachd.saga.history import StepSpec

TABLE = (
    StepSpec(name="precheck", world=World.JOURNAL),
    StepSpec(name="identify", world=World.HOST),
    StepSpec(name="remember", world=World.JOURNAL),
)


class Adopt(Housekeeping):
    """One adoption. There is no ``record`` before the last step; it is whole then."""

    kind = OperationKind.ADOPT

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._guest_id = ""
        self._volume: Volume | None = None
        self._attachment_id = ""
        self._connection: Connection | None = None
        self._draft: AttachmentRecord | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The table, with what does each row."""
        return bind(
            TABLE, precheck=self._precheck, identify=self._identify, remember=self._remember
        )

    # --- 0 precheck: whose is it, and what does Cinder say? -----------------------------------

    def _precheck(self) -> None:
        if self.record is not None:
            return  # resumed behind its last step
        worlds = self._worlds
        worlds.guests.check()
        guest = worlds.guests.find(self._request.guest)
        _refuse_nova_owned(guest)
        volume = worlds.cinder.find_volume(self._request.volume)
        if self._claim(GuestName.of(guest), VolumeName.of(volume)):
            volume = worlds.cinder.find_volume(volume.volume_id)
        records = worlds.records.live_attachments()
        prechecks.refuse_journalled(guest, volume, records)
        prechecks.refuse_elsewhere(volume, records, AttachFlow.ATTACHMENTS)
        prechecks.refuse_encrypted(volume)
        attachment = self._only_attachment(guest, volume, records)
        self._guest_id, self._volume = guest.guest_id, volume
        self._attachment_id = attachment.attachment_id
        self._connection = _connection_of(attachment, volume)

    def _only_attachment(
        self, guest: Guest, volume: Volume, records: Collection[AttachmentRecord]
    ) -> CinderAttachment:
        """Cinder's, which must be one, complete, and nobody else's."""
        ours = {record.attachment_id for record in records}
        others = [
            attachment.attachment_id
            for attachment in self._worlds.cinder.list_attachments(volume.volume_id)
            if attachment.attachment_id not in ours
            # Other hosts may have a multiattach volume, too: this guest's is the one that names it.
            and (not volume.multiattach or attachment.instance_id == cinder_instance_id(guest))
        ]
        if len(others) != 1:
            raise _disagree(
                volume, f"Cinder has {len(others)} attachments of it.", details=", ".join(others)
            )
        attachment = self._worlds.cinder.get_attachment(others[0])
        if attachment is None:
            raise _disagree(volume, "Its attachment in Cinder has just been deleted.")
        if (attachment.status, volume.status) != ("attached", "in-use"):
            raise _disagree(
                volume,
                f"Cinder says that it is {volume.status}, and its attachment {attachment.status}.",
            )
        if attachment.instance_id not in (None, cinder_instance_id(guest)):
            raise _disagree(volume, f"Cinder's attachment is of instance {attachment.instance_id}.")
        host = volume.attachment_hosts.get(attachment.attachment_id)
        if host is not None and host != self._worlds.host.connector().get("host"):
            raise _disagree(volume, f"Cinder's attachment is of another host: {host}.")
        return attachment

    # --- 1 identify: the guest's disk is the LUN's device, and nobody else's ------------------

    def _identify(self) -> None:
        if self.record is not None:
            return
        if self._volume is None or self._connection is None:
            raise AssertionError("identify comes after precheck")
        try:
            self._draft = self._proven(self._volume, self._connection)
        except AttachdError as exc:
            exc.touched = False  # it has only looked
            raise

    def _proven(self, volume: Volume, connection: Connection) -> AttachmentRecord:
        host = self._worlds.host
        device = self._device(volume, connection)
        guests = self._worlds.guests.all()
        names = host.leading_to(device, proofs.sources(guests))
        guest = next((guest for guest in guests if guest.guest_id == self._guest_id), None)
        if guest is None:
            raise Refused(
                Code.GUEST_NOT_FOUND, "The guest has just gone.", details=self._request.guest
            )
        _refuse_nova_owned(guest)  # it may have been defined anew
        disk = _only_disk(guest, volume, device, names)
        record = AttachmentRecord(
            record_id=str(uuid.uuid4()),
            operation_id=self._operation_id,
            state=AttachmentState.ATTACHED,
            volume_id=volume.volume_id,
            volume_name=volume.name,
            guest_id=guest.guest_id,
            guest_name=guest.name,
            instance_id=cinder_instance_id(guest),
            device=disk.target,
            bus=_bus_of(disk),
            mode=disk.mode,
            size_bytes=volume.size_bytes,
            attachment_id=self._attachment_id,
            connection=connection,
            host_path=device.path,
            wwn=device.wwn,
            shared_targets=volume.shared_targets,
            service_uuid=volume.service_uuid,
            persistent=guest.persistent,
            adopted_path=disk.source,
            adopted_serial=disk.serial,
        )
        attachments = self._worlds.records.live_attachments()
        proofs.prove_unclaimed(connection, record, attachments)
        proofs.prove_unshared(device, record, names=names, attachments=attachments, guests=guests)
        return record

    def _device(self, volume: Volume, connection: Connection) -> HostDevice:
        """The LUN's device on this host, proven (law 2); it must be there, and alone."""
        paths = self._worlds.host.paths(connection)
        wwns = self._worlds.host.wwns(connection)
        if len(paths) != 1 or len(wwns) != 1:
            raise _disagree(
                volume,
                f"This host has {len(paths)} devices of it.",
                details=", ".join(f"{t.portal} {t.iqn} {t.lun}" for t in connection.targets),
            )
        return self._worlds.host.identify(
            paths[0], connection, size_bytes=volume.size_bytes, expected_wwn=wwns[0]
        )

    # --- 2 remember: the finished record, or none -----------------------------------------------

    def _remember(self) -> None:
        record = self.record or self._draft
        if record is None:
            raise AssertionError("remember comes after identify")
        self._worlds.records.reserve(record)
        self.record = record


def _refuse_nova_owned(guest: Guest) -> None:
    prechecks.refuse_nova_owned(guest, resolution="Leave it to Nova: it can't be adopted.")


def _connection_of(attachment: CinderAttachment, volume: Volume) -> Connection:
    if attachment.connection is None or attachment.connection.encrypted:
        what = "no" if attachment.connection is None else "an encrypted"
        raise _disagree(volume, f"Cinder's attachment has {what} connection.")
    return attachment.connection.without_secrets()


def _only_disk(
    guest: Guest, volume: Volume, device: HostDevice, names: Collection[str]
) -> GuestDisk:
    """The guest's one disk that is the device: the same in each XML that has it."""
    for disk in guest.disks:
        if disk.is_of(volume.volume_id) and disk.source not in names:
            raise Refused(
                Code.WRONG_DEVICE,
                f"Guest {guest.name}'s disk {disk.target} has this volume's name, and is another "
                "device.",
                details=f"It is {disk.source}; the volume is {device.path}.",
                resolution="See what it is: virsh domblklist, lsblk",
            )
    found = {
        name: [disk for disk in disks if disk.source in names]
        for name, disks in guest.documents.items()
    }
    held = found["live" if guest.state.live else "persistent"]
    if not held:
        raise Refused(
            Code.NOT_ATTACHED,
            f"Guest {guest.name} has no disk that is volume {volume.name or volume.volume_id}.",
            details=f"None of its disks in use is {device.path}.",
            resolution="See its disks: virsh domblklist",
        )
    places = {(d.target, d.bus, d.source or "") for disks in found.values() for d in disks}
    if len(places) > 1:
        raise _disagree(
            volume,
            f"Guest {guest.name} has it as several disks.",
            details=", ".join(f"{target} is {source}" for target, _, source in sorted(places)),
        )
    return held[0]


def _bus_of(disk: GuestDisk) -> Bus:
    with suppress(ValueError):
        return Bus(disk.bus)
    raise Refused(
        Code.BUS_UNSUPPORTED,
        f"The disk {disk.target} is on a {disk.bus} bus, which lets no disk go at run time.",
        resolution=f"Use one of: {', '.join(Bus)}.",
    )


def _disagree(volume: Volume, why: str, *, details: str = "") -> Refused:
    return Refused(
        Code.WORLDS_DISAGREE,
        f"Volume {volume.name or volume.volume_id} can't be adopted. {why}",
        details=details,
        resolution=f"See who has it: openstack volume attachment list --volume-id "
        f"{volume.volume_id}; lsblk",
    )
