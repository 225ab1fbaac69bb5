"""What each world says of one attachment that no operation is at work on, compared.

A world that couldn't be asked is None here, and nothing is found about it: that it couldn't be is
a finding of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from attachd.audit.findings import Finding, FindingCode
from attachd.errors import World
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    CinderAttachment,
    Guest,
    GuestDisk,
    Volume,
    disk_alias,
)


@dataclass(frozen=True, kw_only=True)
class CinderSays:
    """Cinder's volume and attachment; None: Cinder answered that there is none."""

    volume: Volume | None
    attachment: CinderAttachment | None


@dataclass(frozen=True, kw_only=True)
class HostSays:
    """The fresh WWN of each device of the attachment's LUNs."""

    wwns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GuestSays:
    """libvirt's domain; None: libvirt answered that there is none."""

    guest: Guest | None


def compare(
    record: AttachmentRecord,
    *,
    cinder: CinderSays | None,
    host: HostSays | None,
    guest: GuestSays | None,
) -> tuple[Finding, ...]:
    """The disagreements about an attachment that no operation is at work on."""
    says = _in_words(record, cinder, host, guest)
    found = (
        *_in_journal(record),
        *(_in_cinder(cinder) if cinder else ()),
        *(_on_host(record, host) if host else ()),
        *(_in_guest(record, guest) if guest else ()),
    )
    return tuple(
        Finding(
            code=code,
            brief=brief,
            says=says,
            resolution=resolution,
            attachment_id=record.attachment_id,
            volume_id=record.volume_id,
            guest_id=record.guest_id,
            guest_name=record.guest_name,
            operation_id=record.operation_id,
        )
        for code, brief, resolution in found
    )


def unknown_disks(guests: Iterable[Guest], records: Iterable[AttachmentRecord]) -> list[Finding]:
    """Disks that carry attachd's alias, and of which the journal knows nothing."""
    known = {(record.guest_id, record.volume_id) for record in records}
    found: dict[tuple[str, str], Finding] = {}
    for guest in guests:
        for disk in guest.disks:
            volume_id = disk.serial or ""
            if disk.alias != disk_alias(volume_id) or (guest.guest_id, volume_id) in known:
                continue
            found[guest.guest_id, volume_id] = Finding(
                code=FindingCode.DISK_UNKNOWN,
                brief=f"Guest {guest.name} has a disk of attachd's, and the journal doesn't know "
                "it.",
                says={World.GUEST: _disk_in_words(disk), World.JOURNAL: "nothing"},
                resolution=f"See whether it is in use; then: virsh detach-disk {guest.name} "
                f"{disk.target} --persistent",
                volume_id=volume_id,
                guest_id=guest.guest_id,
                guest_name=guest.name,
            )
    return list(found.values())


_Found = tuple[FindingCode, str, str]

_DETACH = "Take it off everywhere: attachctl detach GUEST VOLUME"
_SET_AND_DETACH = "openstack volume set --state in-use VOLUME. Then: attachctl detach GUEST VOLUME"

# What Cinder makes of a volume that is attached, for a while.
_ATTACHED_STATUSES = frozenset(
    {
        *("in-use", "backing-up", "extending", "retyping", "uploading", "migrating"),
        *("maintenance", "creating_snapshot"),
    }
)


def _in_journal(record: AttachmentRecord) -> Iterator[_Found]:
    if record.state is not AttachmentState.ATTACHED:
        yield (
            FindingCode.ATTACHMENT_NEEDS_ATTENTION,
            f"The attachment is {record.state}, and no operation is at work on it.",
            _DETACH,
        )


def _in_cinder(cinder: CinderSays) -> Iterator[_Found]:
    if cinder.volume is None:
        yield (
            FindingCode.VOLUME_GONE,
            "Cinder has no such volume any more: the guest may hold another volume's bytes.",
            _DETACH,
        )
    elif cinder.volume.status not in _ATTACHED_STATUSES and cinder.attachment is not None:
        yield (
            FindingCode.VOLUME_STATUS_DIFFERS,
            f"Cinder says that the volume is {cinder.volume.status}, and it is attached.",
            "Cinder may give it to somebody else. " + _SET_AND_DETACH,
        )
    if cinder.attachment is None:
        yield (
            FindingCode.ATTACHMENT_GONE,
            "Somebody deleted the attachment in Cinder: the device may become another volume's.",
            _DETACH,
        )
    elif cinder.attachment.status != "attached":
        yield (
            FindingCode.ATTACHMENT_STATUS_DIFFERS,
            f"Cinder says that the attachment is {cinder.attachment.status}.",
            _DETACH,
        )


def _on_host(record: AttachmentRecord, host: HostSays) -> Iterator[_Found]:
    if not host.wwns:
        yield (
            FindingCode.DEVICE_GONE,
            "The host has no device of the volume: the guest's disk is dead.",
            _DETACH,
        )
    if others := [wwn for wwn in host.wwns if wwn != record.wwn]:
        yield (
            FindingCode.WRONG_DEVICE,
            f"Another volume answers behind this one's LUN: WWN {', '.join(others)}.",
            "Stop the guest before it writes to it, and compare the target's exports with Cinder.",
        )


def _in_guest(record: AttachmentRecord, says: GuestSays) -> Iterator[_Found]:
    guest = says.guest
    if guest is None:
        yield (FindingCode.GUEST_GONE, "libvirt has no such guest any more.", _DETACH)
        return
    documents = {
        **({"live": guest.live_disks} if guest.state.live else {}),
        **({"persistent": guest.config_disks} if guest.persistent else {}),
    }
    for name, disks in documents.items():
        disk = next((disk for disk in disks if disk.is_of(record.volume_id)), None)
        if disk is None:
            yield (FindingCode.DISK_GONE, f"The disk isn't in the guest's {name} XML.", _DETACH)
        elif disk.source != record.host_path:
            yield (
                FindingCode.DISK_SOURCE_DIFFERS,
                f"The disk in the guest's {name} XML is {disk.source}.",
                _DETACH,
            )


def _in_words(
    record: AttachmentRecord,
    cinder: CinderSays | None,
    host: HostSays | None,
    guest: GuestSays | None,
) -> Mapping[World, str]:
    return {
        World.JOURNAL: f"{record.state}, {record.host_path}",
        World.CINDER: _cinder_in_words(cinder),
        World.HOST: "unknown" if host is None else ", ".join(host.wwns) or "no device",
        World.GUEST: _guest_in_words(record, guest),
    }


def _cinder_in_words(cinder: CinderSays | None) -> str:
    if cinder is None:
        return "unknown"
    volume = f"volume {cinder.volume.status}" if cinder.volume else "no volume"
    attachment = f"attachment {cinder.attachment.status}" if cinder.attachment else "no attachment"
    return f"{volume}, {attachment}"


def _guest_in_words(record: AttachmentRecord, says: GuestSays | None) -> str:
    if says is None:
        return "unknown"
    if says.guest is None:
        return "no guest"
    disks = [d for d in says.guest.disks if d.is_of(record.volume_id)]
    words = ", ".join(sorted({_disk_in_words(disk) for disk in disks})) or "no disk"
    return f"{says.guest.state}: {words}"


def _disk_in_words(disk: GuestDisk) -> str:
    return f"{disk.target} is {disk.source}"
