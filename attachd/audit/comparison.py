"""What each world says of one attachment that no operation is at work on, compared.

A world that couldn't be asked is None here, and nothing is found about it: that it couldn't be is
a finding of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from attachd.audit.findings import Finding, FindingCode, Repair
from attachd.errors import World
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    CinderAttachment,
    DevicesSeen,
    Guest,
    GuestDisk,
    Volume,
    disk_alias,
)
from attachd.operations import proofs
from attachd.operations.extend import is_behind, is_resizable
from attachd.operations.restore import RESTORABLE_ATTACHMENT, RESTORABLE_VOLUME


@dataclass(frozen=True, kw_only=True)
class CinderSays:
    """Cinder's volume and attachment; None: Cinder answered that there is none."""

    volume: Volume | None
    attachment: CinderAttachment | None


@dataclass(frozen=True, kw_only=True)
class GuestSays:
    """libvirt's domain; None: libvirt answered that there is none."""

    guest: Guest | None


def compare(
    record: AttachmentRecord,
    *,
    cinder: CinderSays | None,
    host: DevicesSeen | None,
    guest: GuestSays | None,
    guests: Collection[Guest],
    attachments: Collection[AttachmentRecord],
) -> tuple[Finding, ...]:
    """The disagreements about an attachment that no operation is at work on.

    ``guests``: every one, as far as libvirt could be asked for them; ``attachments``: all that are
    live.
    """
    says = _in_words(record, cinder, host, guest)
    # For a shell: whoever reads it pastes the command, and a guest's name may be anything.
    names = {"guest": shlex.quote(record.guest_name), "volume": shlex.quote(record.volume_id)}
    found = (
        *_in_journal(record),
        *(_in_cinder(cinder) if cinder else ()),
        *(_on_host(record, host, guest) if host else ()),
        *(_in_guest(record, guest) if guest else ()),
        *_size(record, cinder, host),
    )
    seen = cinder is not None and host is not None and guest is not None
    codes = {code for code, _, _ in found}
    repair = _repair(record, codes, cinder if seen else None, guests, attachments)
    return tuple(
        Finding(
            code=code,
            brief=brief,
            says=says,
            resolution=resolution.format(**names),
            attachment_id=record.attachment_id,
            volume_id=record.volume_id,
            guest_id=record.guest_id,
            guest_name=record.guest_name,
            operation_id=record.operation_id,
            repair=repair,
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
                resolution="Take it over: attachctl adopt "
                f"{shlex.quote(guest.name)} {shlex.quote(volume_id)}; attachctl detach then takes "
                "it off everywhere. Where adopt refuses: virsh detach-disk "
                f"{shlex.quote(guest.name)} {disk.target} --persistent; then log out, and delete "
                "the attachment in Cinder.",
                volume_id=volume_id,
                guest_id=guest.guest_id,
                guest_name=guest.name,
            )
    return list(found.values())


_Found = tuple[FindingCode, str, str]

_DETACH = "Take it off everywhere: attachctl detach {guest} {volume}"
_SET_AND_DETACH = (
    "openstack volume set --state in-use {volume} && attachctl detach {guest} {volume}"
)

# What Cinder makes of a volume that is attached, for a while.
_ATTACHED_STATUSES = frozenset(
    {
        *("in-use", "backing-up", "extending", "retyping", "uploading", "migrating"),
        *("maintenance", "creating_snapshot"),
    }
)


# What it is while somebody else attaches or detaches a multiattach volume.
_OTHERS_STATUSES = frozenset({"reserved", "attaching", "detaching"})


def _statuses(volume: Volume) -> Set[str]:
    return _ATTACHED_STATUSES | (_OTHERS_STATUSES if volume.multiattach else frozenset())


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
    elif cinder.volume.status not in _statuses(cinder.volume) and cinder.attachment is not None:
        yield (
            FindingCode.VOLUME_STATUS_DIFFERS,
            f"Cinder says that the volume is {cinder.volume.status}, and it is attached.",
            "Cinder may give it to somebody else. Take it off: " + _SET_AND_DETACH,
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


def _on_host(
    record: AttachmentRecord, host: DevicesSeen, says: GuestSays | None
) -> Iterator[_Found]:
    """A guest that isn't live needs no device: it comes back when the guest starts."""
    if not host.wwns and says and says.guest and says.guest.state.live:
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


def _size(
    record: AttachmentRecord, cinder: CinderSays | None, host: DevicesSeen | None
) -> Iterator[_Found]:
    """Somebody extended it in Cinder; what isn't well otherwise comes first."""
    volume = cinder.volume if cinder else None
    if volume is None or record.state is not AttachmentState.ATTACHED:
        return
    if is_behind(record, volume, host.sizes if host else ()):
        yield (
            FindingCode.SIZE_DIFFERS,
            f"Cinder says that the volume has {volume.size_gib} GiB; its guest wasn't told.",
            f"Tell it: attachctl extend {{guest}} {{volume}} {volume.size_gib}",
        )


def _in_guest(record: AttachmentRecord, says: GuestSays) -> Iterator[_Found]:
    guest = says.guest
    if guest is None:
        yield (FindingCode.GUEST_GONE, "libvirt has no such guest any more.", _DETACH)
        return
    for name, disks in proofs.documents(guest, record).items():
        disk = next((disk for disk in disks if record.has(disk)), None)
        if disk is None:
            yield (FindingCode.DISK_GONE, f"The disk isn't in the guest's {name} XML.", _DETACH)
        elif disk.source != record.source:
            yield (
                FindingCode.DISK_SOURCE_DIFFERS,
                f"The disk in the guest's {name} XML is {disk.source}.",
                _DETACH,
            )


_DANGEROUS = frozenset(
    {FindingCode.WRONG_DEVICE, FindingCode.ATTACHMENT_GONE, FindingCode.VOLUME_GONE}
)
_CINDERS_STATUS = frozenset(
    {
        *(FindingCode.VOLUME_STATUS_DIFFERS, FindingCode.ATTACHMENT_STATUS_DIFFERS),
        FindingCode.ATTACHMENT_NEEDS_ATTENTION,
    }
)


def _repair(
    record: AttachmentRecord,
    codes: Set[FindingCode],
    cinder: CinderSays | None,
    guests: Collection[Guest],
    attachments: Collection[AttachmentRecord],
) -> Repair | None:
    """What is safe. ``cinder`` is None unless every world could be asked.

    No running guest loses a disk by a repair, and nobody's wish is guessed: a disk that was taken
    out of one XML only may be meant so.
    """
    dangerous = bool(codes & _DANGEROUS)
    wrong = FindingCode.WRONG_DEVICE in codes  # which a detach wouldn't touch
    own = next((guest for guest in guests if guest.guest_id == record.guest_id), None)
    dropped = own is None or not any(record.has(disk) for disk in own.disks)
    needless = dropped or dangerous
    if cinder and not wrong and needless and not proofs.users(record, guests, attachments):
        return Repair.CLEAN_UP
    if dangerous:
        return Repair.FENCE if record.state is AttachmentState.ATTACHED else None
    others = codes - {FindingCode.SIZE_DIFFERS}
    if cinder and others and others <= _CINDERS_STATUS and _restorable(cinder):
        return Repair.RESTORE
    if cinder and codes and not others and own is not None and is_resizable(record, own):
        return Repair.EXTEND
    return None


def _restorable(cinder: CinderSays) -> bool:
    volume, attachment = cinder.volume, cinder.attachment
    return (
        volume is not None
        and volume.status in RESTORABLE_VOLUME
        and attachment is not None
        and attachment.status in RESTORABLE_ATTACHMENT
    )


def _in_words(
    record: AttachmentRecord,
    cinder: CinderSays | None,
    host: DevicesSeen | None,
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
    disks = [d for d in says.guest.disks if record.has(d)]
    words = ", ".join(sorted({_disk_in_words(disk) for disk in disks})) or "no disk"
    return f"{says.guest.state}: {words}"


def _disk_in_words(disk: GuestDisk) -> str:
    return f"{disk.target} is {disk.source}"
