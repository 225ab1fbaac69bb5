"""What the worlds say of all attachments together: one question a world, however many there are.

It does where everything agrees. What differs is asked for by itself, freshly, before anything is
said of it; so is what isn't in here.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from attachd.audit.comparison import CinderSays, GuestSays
from attachd.errors import AttachdError, Refused
from attachd.model import AttachmentRecord, CinderAttachment, DevicesSeen, Guest, Volume
from attachd.operations.ports import Cinder, Host

LOG = logging.getLogger(__name__)

_FEW = 8
_PAUSE = 20
# Cinder answers with so many at most (osapi_max_limit).
_LONGEST_LIST = 1000


@dataclass(frozen=True, kw_only=True)
class Overview:
    """``records``: what no operation was at work on before the worlds were asked, by id."""

    records: Mapping[str, AttachmentRecord] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    devices: Mapping[str, DevicesSeen] = field(default_factory=dict)
    guests: Mapping[str, Guest] = field(default_factory=dict)

    def is_of(self, record: AttachmentRecord) -> bool:
        """Has nothing become of the record since?"""
        return self.records.get(record.record_id) == record

    def cinder(self, record: AttachmentRecord) -> CinderSays | None:
        """What Cinder says, where its volume shows the record's attachment."""
        volume = self.volumes.get(record.volume_id)
        return attached(volume, record) if volume is not None else None

    def host(self, record: AttachmentRecord) -> DevicesSeen | None:
        """What the host says, where every device answered."""
        return self.devices.get(record.record_id)

    def guest(self, record: AttachmentRecord) -> GuestSays:
        """What libvirt says: it was asked for every guest."""
        return GuestSays(guest=self.guests.get(record.guest_id))


class VolumesTogether:
    """Asks Cinder for the newest volumes in-use, where that shows most of those in question.

    A large cloud has many others: there each is to be asked for by itself, and the list is tried
    again after some audits.
    """

    def __init__(self, *, cinder: Cinder) -> None:
        self._cinder = cinder
        self._pause = 0  # audits without a list

    def get(self, volume_ids: Collection[str]) -> Mapping[str, Volume]:
        """Those of them that could be had together, by id."""
        if len(volume_ids) < _FEW or self._pauses():
            return {}
        limit = min(2 * len(volume_ids), _LONGEST_LIST)
        try:
            listed = self._cinder.list_volumes(status="in-use", limit=limit)
        except AttachdError as exc:
            LOG.info("The audit can't list volumes: %s", exc)
            if isinstance(exc, Refused):  # it would be refused again
                self._pause = _PAUSE
            return {}
        found = {each.volume_id: each for each in listed if each.volume_id in volume_ids}
        # A short list has all there are: what it lacks isn't in use, for now. Cinder's own limit
        # (osapi_max_limit) may be below what was asked for.
        if len(listed) >= len(volume_ids) > 2 * len(found):
            self._pause = _PAUSE
        return found

    def _pauses(self) -> bool:
        pauses = self._pause > 0
        self._pause -= pauses
        return pauses


def devices_together(host: Host, records: Sequence[AttachmentRecord]) -> Mapping[str, DevicesSeen]:
    """The devices of these attachments, by their records' ids, as far as they answered."""
    connections = [(r.record_id, r.connection) for r in records if r.connection is not None]
    try:
        seen = host.look_at([connection for _, connection in connections])
    except AttachdError as exc:
        LOG.info("The audit can't look at all devices: %s", exc)
        return {}
    found = zip((record_id for record_id, _ in connections), seen, strict=True)
    return {record_id: devices for record_id, devices in found if devices is not None}


def attached(volume: Volume | None, record: AttachmentRecord) -> CinderSays | None:
    """What a volume alone tells, where it shows the record's attachment.

    Cinder shows there what is attached: nothing else need be asked where all is well.
    """
    if volume is None or record.attachment_id not in volume.attachment_ids:
        return None
    attachment = CinderAttachment(
        attachment_id=record.attachment_id or "",
        volume_id=record.volume_id,
        instance_id=record.instance_id,
        status="attached",
    )
    return CinderSays(volume=volume, attachment=attachment)
