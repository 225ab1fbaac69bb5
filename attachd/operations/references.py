"""Which attachment a request names: by ids, or by what its names mean to the worlds now."""

from __future__ import annotations

from collections.abc import Callable

from attachd.errors import Code, Refused
from attachd.model import AttachmentRecord, Request
from attachd.operations.ports import Worlds


def attached(request: Request, worlds: Worlds) -> AttachmentRecord | None:
    """The live record of the request's guest and volume; None: there is none.

    The journal's own names may be of old: the guest may have been renamed, and another have its
    name. They count only for a guest or volume that is gone. Raises Refused volume-ambiguous,
    guest-not-found, volume-not-found.
    """
    records = worlds.records.live_attachments()
    guests = {record.guest_id: record.guest_name for record in records}
    volumes = {record.volume_id: record.volume_name for record in records}
    guest_ids = _meant(request.guest, guests, lambda name: worlds.guests.find(name).guest_id)
    volume_ids = _meant(
        request.volume, volumes, lambda name: worlds.cinder.find_volume(name).volume_id
    )
    found = [r for r in records if r.guest_id in guest_ids and r.volume_id in volume_ids]
    if len(found) > 1:
        raise Refused(
            Code.VOLUME_AMBIGUOUS,
            f"Guest {request.guest} has several volumes {request.volume}.",
            details=", ".join(record.volume_id for record in found),
            resolution="Name the guest and the volume by their ids.",
        )
    return found[0] if found else None


def _meant(reference: str, journalled: dict[str, str], find: Callable[[str], str]) -> set[str]:
    """The ids that a reference may mean. ``journalled``: names by id; ``find`` asks the world.

    Several only where the world has none of that name any more.
    """
    if reference in journalled:
        return {reference}
    try:
        return {find(reference)}
    except Refused as exc:
        ids = {known for known, name in journalled.items() if name == reference}
        if exc.code not in _GONE or not ids:
            raise
        return ids


_GONE = frozenset({Code.GUEST_NOT_FOUND, Code.VOLUME_NOT_FOUND})
