"""What is refused before anything is touched. Pure: everything they look at was read before."""

from __future__ import annotations

from collections.abc import Collection

from attachd.errors import Code, Refused
from attachd.model import (
    AttachFlow,
    AttachmentRecord,
    Bus,
    CinderAttachment,
    Guest,
    Request,
    Volume,
)
from attachd.operations import device_names

_THROUGH_NOVA = (
    "Attach through Nova (openstack server add volume), or take the risk: --override-nova."
)


def refuse_nova_owned(
    guest: Guest, *, override: bool = False, resolution: str = _THROUGH_NOVA
) -> None:
    """Nova's guests are Nova's (law 9), unless the operator overrides."""
    if guest.nova_owned and not override:
        raise Refused(
            Code.NOVA_OWNED,
            f"Guest {guest.name} belongs to Nova.",
            details="A reboot by Nova deletes Cinder attachments and disks that it doesn't know.",
            resolution=resolution,
        )


def refuse_saved(guest: Guest) -> None:
    """It would go on without what it is given now, and with what is taken away from it."""
    if guest.saved_disks is not None:
        raise Refused(
            Code.GUEST_SAVED,
            f"Guest {guest.name} is saved: its disks can't be changed now.",
            resolution=f"Start it (virsh start {guest.name}), or give its memory up: virsh "
            f"managedsave-remove {guest.name}",
        )


def refuse_unavailable(volume: Volume, flow: AttachFlow) -> None:
    """Only an available, plain volume can be attached, or one more time a multiattach one.

    Not so in the old style: it takes no volume that is in-use (os-reserve).
    """
    refuse_encrypted(volume)
    again = volume.multiattach and flow is AttachFlow.ATTACHMENTS
    usable = ("available", "in-use") if again else ("available",)
    if volume.status not in usable:
        raise Refused(
            Code.VOLUME_NOT_AVAILABLE,
            f"Volume {volume.name or volume.volume_id} is {volume.status}, not "
            f"{' or '.join(usable)}.",
            resolution=f"See who uses it: openstack volume show {volume.volume_id}",
        )


def refuse_encrypted(volume: Volume) -> None:
    """Of an encrypted volume the guest sees another device than the LUN's."""
    if volume.encrypted:
        raise Refused(
            Code.VOLUME_ENCRYPTED,
            f"Volume {volume.name or volume.volume_id} is encrypted, which attachd can't attach.",
            resolution="Retype the volume to an unencrypted type, or attach it through Nova.",
        )


def refuse_attached(
    guest: Guest, volume: Volume, attachments: Collection[AttachmentRecord], flow: AttachFlow
) -> None:
    """A second attach of an attached volume is refused: by the journal, and by the XML.

    Whatever Cinder says by now: as long as another guest of this host may have the volume's device,
    no second one gets it, unless they may share it.
    """
    refuse_journalled(guest, volume, attachments)
    if any(disk.is_of(volume.volume_id) for disk in guest.disks):
        raise _already_attached(guest, volume)
    refuse_elsewhere(volume, attachments, flow)


def refuse_journalled(
    guest: Guest, volume: Volume, attachments: Collection[AttachmentRecord]
) -> None:
    """The guest has it already, by the journal."""
    if any(
        (record.guest_id, record.volume_id) == (guest.guest_id, volume.volume_id)
        for record in attachments
    ):
        raise _already_attached(guest, volume)


def refuse_elsewhere(
    volume: Volume, attachments: Collection[AttachmentRecord], flow: AttachFlow
) -> None:
    """Another guest has it, by the journal, and can't share it.

    Cinder's LVM driver counts this host's attachments by their connectors, which those of the old
    style lack: it would shut the other one out with the first that goes.
    """
    for record in attachments:
        new_style = {flow, record.flow} == {AttachFlow.ATTACHMENTS}
        both = volume.multiattach and record.shareable and new_style
        if record.volume_id == volume.volume_id and not both:
            raise Refused(
                Code.VOLUME_NOT_AVAILABLE,
                f"Volume {volume.name or volume.volume_id} is attached to guest "
                f"{record.guest_name} still: {record.state}.",
                resolution=f"Detach it first: attachctl detach {record.guest_name} "
                f"{volume.volume_id}",
            )


def refuse_given_up(
    others: Collection[AttachmentRecord], listed: Collection[CinderAttachment]
) -> None:
    """Another guest's device that no attachment of its own in Cinder keeps exported.

    ``listed`` are all attachments of the volume in Cinder.
    """
    known = {attachment.attachment_id for attachment in listed}
    for other in others:
        if other.attachment_id not in known:
            raise Refused(
                Code.STILL_IN_USE,
                f"Guest {other.guest_name} has the volume, too, and Cinder doesn't know it any "
                "more.",
                details=f"Cinder has no attachment {other.attachment_id}.",
                resolution=f"Detach that one first: attachctl detach {other.guest_name} "
                f"{other.volume_id}",
            )


def _already_attached(guest: Guest, volume: Volume) -> Refused:
    return Refused(
        Code.ALREADY_ATTACHED,
        f"Volume {volume.name or volume.volume_id} is attached to guest {guest.name} already.",
        resolution=f"See it: attachctl list --guest {guest.name}",
    )


def refuse_full_bus(guest: Guest, bus: Bus) -> None:
    """A disk needs a place to be plugged into."""
    if guest.free_slots.get(bus) == 0:
        raise Refused(
            Code.NO_FREE_SLOT,
            f"Guest {guest.name} has no free slot for a {bus} disk.",
            details="On q35 each virtio disk needs a pcie-root-port of its own, and none can be "
            "added while the guest runs.",
            resolution="Add pcie-root-port controllers to the stopped guest, detach a disk, or "
            "use --bus scsi where the guest has a virtio-scsi controller.",
        )


def choose_device(guest: Guest, request: Request, reserved: Collection[str]) -> str:
    """The requested name if it is free, else the first free one of the bus.

    ``reserved`` are the names that other attachments of this guest hold in the journal.
    """
    taken = {disk.target for disk in guest.disks} | set(reserved)
    if request.device is None:
        return device_names.first_free(taken, request.bus)
    name = device_names.parse(request.device, request.bus)
    if name in taken:
        raise Refused(
            Code.DEVICE_NAME_TAKEN,
            f"Guest {guest.name} has a disk {name} already.",
            resolution="Choose another name with --device, or none.",
        )
    return name
