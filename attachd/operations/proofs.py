"""What must be seen, freshly, before a step that can't be taken back.

Each looks at a world through its port: what can't be looked at raises Unreachable on the way, and
is never read as "gone" (law 3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from attachd.errors import AttachdError, Code
from attachd.model import AttachmentRecord, Connection, Guest, GuestDisk, HostDevice
from attachd.operations.ports import Guests, Host


def guest_holds(guest: Guest, record: AttachmentRecord) -> bool:
    """Does the guest hold the disk: in the live XML where it is live, else in what it starts with?

    One that was saved starts with its save image's.
    """
    disks = guest.live_disks if guest.state.live else guest.disks
    return any(record.has(disk) for disk in disks)


def documents(guest: Guest, record: AttachmentRecord) -> Mapping[str, tuple[GuestDisk, ...]]:
    """The disks of each XML that must show the volume's.

    What another hand plugged into a running guest may be meant for its live XML alone.
    """
    if record.adopted and guest.state.live:
        return {"live": guest.live_disks}
    return guest.documents


def sharers(record: AttachmentRecord, attachments: Collection[AttachmentRecord]) -> frozenset[str]:
    """The ids of the other guests that have the volume by attachments of their own."""
    return frozenset(
        other.guest_id
        for other in attachments
        if other.volume_id == record.volume_id and other.guest_id != record.guest_id
    )


def users(
    record: AttachmentRecord,
    guests: Collection[Guest],
    attachments: Collection[AttachmentRecord],
) -> list[str]:
    """The guests for whom the volume can't be cleaned up: who runs with it, or names its device.

    Not those that have it by attachments of their own.
    """
    found = []
    others = sharers(record, attachments)
    for guest in guests:
        if guest.guest_id in others:
            continue
        own = guest.guest_id == record.guest_id
        disks = guest.live_disks if own else guest.disks
        if any(
            (own and record.has(disk))
            or (disk.source is not None and disk.source in (record.host_path, record.adopted_path))
            for disk in disks
        ):
            found.append(f"guest {guest.name}")
    return found


def prove_guest_clear(guests: Guests, record: AttachmentRecord) -> None:
    """Neither XML of the guest names the volume. Raises still-in-use."""
    guest = guests.get(record.guest_id)
    if guest and any(record.has(disk) for disk in guest.disks):
        raise AttachdError(
            Code.STILL_IN_USE,
            f"Guest {guest.name} still has the disk of volume {record.volume_id}.",
            resolution="Detach it from the guest first: attachctl detach "
            f"{guest.name} {record.volume_id}",
        )


def prove_host_clear(host: Host, record: AttachmentRecord) -> None:
    """No session with, nor device of, the volume's LUN is on this host. Raises still-in-use.

    A session that other volumes may share was judged by the disconnect, which kept them off.
    """
    shared = record.shared_targets is not False
    if record.connection is not None and host.present(record.connection, session_shared=shared):
        raise AttachdError(
            Code.STILL_IN_USE,
            f"The host is still connected to volume {record.volume_id}.",
            details=", ".join(f"{t.portal} {t.iqn} {t.lun}" for t in record.connection.targets),
            resolution="See what holds the device: lsblk, iscsiadm -m session -P 3",
        )


def prove_unclaimed(
    connection: Connection, record: AttachmentRecord, attachments: Collection[AttachmentRecord]
) -> None:
    """No other attachment stands on one of these LUNs already: before anything is connected.

    Raises wrong-device, and nothing was touched.
    """
    for other in attachments:
        theirs = other.connection.targets if other.connection else ()
        shared = record.shareable and other.volume_id == record.volume_id
        if other.record_id == record.record_id or shared:
            continue
        if set(theirs) & set(connection.targets):
            raise AttachdError(
                Code.WRONG_DEVICE,
                f"Cinder names a LUN that volume {other.volume_id} is attached by already.",
                details=", ".join(f"{t.portal} {t.iqn} {t.lun}" for t in connection.targets),
                resolution="Compare the target's LUNs with Cinder's volumes.",
                touched=False,
            )


def sources(guests: Iterable[Guest]) -> frozenset[str]:
    """What the guests' disks are, by the names that their XMLs have for it."""
    return frozenset(d.source for guest in guests for d in guest.disks if d.source is not None)


def prove_unshared(
    device: HostDevice,
    record: AttachmentRecord,
    *,
    names: Collection[str],
    attachments: Collection[AttachmentRecord],
    guests: Collection[Guest],
) -> None:
    """No other attachment has this WWN, and no guest a disk that is this device (law 2).

    ``names``: those of the guests' ``sources`` that lead to the device. Raises wrong-device.
    """
    for other in attachments:
        if other.wwn == device.wwn and other.volume_id != record.volume_id:
            raise _shared(device, f"attachment {other.attachment_id} of volume {other.volume_id}")
    holders = [record, *(other for other in attachments if other.volume_id == record.volume_id)]
    for guest in guests:
        for disk in guest.disks:
            own = any(held.guest_id == guest.guest_id and held.has(disk) for held in holders)
            if disk.source in names and not own:
                raise _shared(device, f"disk {disk.target} of guest {guest.name}")


def _shared(device: HostDevice, other: str) -> AttachdError:
    return AttachdError(
        Code.WRONG_DEVICE,
        f"The device that appeared is in use already: it is {other}.",
        details=f"{device.path} has WWN {device.wwn}",
        resolution="Compare the target's LUNs with Cinder's volumes: two names lead to one LUN.",
    )
