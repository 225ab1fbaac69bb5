"""Cinder's rules about volumes and their attachments, in memory.

It owns the rows and the transitions that Cinder's API makes between statuses, with Cinder's own
answers to what it refuses; ``cinder`` puts attachd's Protocol before it, ``cinder_http`` HTTP.
What it keeps of the real one, because attachd depends on it:

* a volume is reserved from ``available`` only, except by an instance that has an attachment of it
  already: that one may reserve again and again;
* connection_info comes into being at the update, and is flat; the update's answer has the status
  from before;
* a volume shows its completed attachments only;
* completing sets the volume ``in-use`` from whatever it was;
* roll_detaching of a volume that isn't ``detaching`` does nothing, successfully;
* an extend is accepted, ``extending``, and ends later: in the status from before with the new size,
  in the same with the old one (the scheduler found no room), or in ``error_extending``; a volume in
  use is extended since microversion 3.42;
* after a delete, the volume's status follows from the attachments that are left.

And of the old style, whose verbs look at hardly anything:

* a reservation is a status, ``attaching``, of nobody's; whoever unreserves, takes it away;
* initialize_connection exports whatever the status, and names its protocol beside its data;
* terminate_connection lets the initiator in no more, leaves the target, ends with unreserve; it
  fails where there is no target, but succeeds of a volume that never was exported;
* attach makes an attachment unless the instance has one of the volume, from any status but the
  ``in-use`` of a volume that only one may have;
* detach takes away the whole target, and sets the status anew even if the attachment is gone.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

QUOTA_GIB = 1000  # Cinder's default, of a project
STATUS_BY_ATTACH_STATUS = {"attached": "in-use", "detached": "available"}


class CinderFaultError(Exception):
    """Cinder's refusal: an HTTP status and its message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class NoSuchVolumeError(CinderFaultError):
    """404 for a volume."""

    def __init__(self, volume_id: str) -> None:
        super().__init__(HTTPStatus.NOT_FOUND, f"Volume {volume_id} could not be found.")


class NoSuchAttachmentError(CinderFaultError):
    """404 for an attachment."""

    def __init__(self, attachment_id: str) -> None:
        super().__init__(
            HTTPStatus.NOT_FOUND,
            f"Volume attachment could not be found with filter: attachment_id = {attachment_id}.",
        )


@dataclass(kw_only=True)
class VolumeRow:
    """A volume, as Cinder's database has it."""

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    name: str | None = None
    size: int = 1
    status: str = "available"
    attach_status: str = "detached"
    encrypted: bool = False
    multiattach: bool = False
    shared_targets: bool | None = False
    service_uuid: str | None = "5d3c5e7a-0000-4000-8000-000000000001"
    read_only: bool = False
    qos: Mapping[str, str] | None = None  # of its type, for the front end
    previous_status: str = ""
    growing_to: int = 0
    attached_mode: str | None = None
    exported_once: bool = False
    chap_password: str = field(default_factory=lambda: uuid.uuid4().hex[:16])


@dataclass(kw_only=True)
class AttachmentRow:
    """An attachment, as Cinder's database has it."""

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    volume_id: str
    instance: str | None
    status: str = "reserved"
    connector: Mapping[str, Any] | None = None
    connection_info: dict[str, Any] = field(default_factory=dict)


class CinderRules:
    """Cinder's API without HTTP; one lock stands for its database's transactions."""

    def __init__(self, *, portal: str = "192.0.2.10:3260") -> None:
        self.portal = portal
        self.volumes: dict[str, VolumeRow] = {}
        self.attachments: dict[str, AttachmentRow] = {}
        self.quota_gib = QUOTA_GIB
        self.extend_ends = "grown"  # the next ones: grown, no-room, error; "" when finish_extend is
        self.on_grown: Callable[[str, int], object] = lambda _volume_id, _gib: None  # the backend
        # For whom a target has an ACL: an attachment, or in the old style volume and initiator.
        self.exports: set[str] = set()
        self.targets: set[str] = set()  # volumes
        self.lock = threading.RLock()

    # --- volumes ----------------------------------------------------------------------------

    def add_volume(self, **columns: Any) -> VolumeRow:
        """A new volume; see :class:`VolumeRow` for its columns."""
        with self.lock:
            row = VolumeRow(**columns)
            self.volumes[row.id] = row
            return row

    def volume(self, volume_id: str) -> VolumeRow:
        """The volume; 404 where there is none."""
        with self.lock:
            if volume_id.lower() not in self.volumes:
                raise NoSuchVolumeError(volume_id)
            return self.volumes[volume_id.lower()]

    def volumes_named(self, name: str) -> list[VolumeRow]:
        """As MySQL compares by default: case doesn't count, nor do spaces at the end."""
        wanted = name.rstrip(" ").casefold()
        with self.lock:
            return [
                row
                for row in self.volumes.values()
                if row.name is not None and row.name.rstrip(" ").casefold() == wanted
            ]

    def volumes_in(self, status: str, *, limit: int) -> list[VolumeRow]:
        """The volumes in a status, the newest first."""
        with self.lock:
            rows = [row for row in reversed(self.volumes.values()) if row.status == status]
            return rows[:limit]

    def attachments_of(self, volume_id: str) -> list[AttachmentRow]:
        """All attachments of a volume, in the order they were made."""
        with self.lock:
            return [row for row in self.attachments.values() if row.volume_id == volume_id]

    def begin_detaching(self, volume_id: str) -> None:
        """os-begin_detaching."""
        with self.lock:
            volume = self.volume(volume_id)
            if (volume.status, volume.attach_status) != ("in-use", "attached"):
                raise _bad_request(
                    "Invalid volume: Unable to detach volume. Volume status must be 'in-use' and "
                    "attach_status must be 'attached' to detach."
                )
            volume.status = "detaching"

    def roll_detaching(self, volume_id: str) -> None:
        """os-roll_detaching."""
        with self.lock:
            volume = self.volume(volume_id)
            if volume.status == "detaching":
                volume.status = "in-use"

    def extend(self, volume_id: str, new_size: int, *, in_use: bool = True) -> None:
        """os-extend; ``in_use``: of a volume in use, too."""
        with self.lock:
            volume = self.volume(volume_id)
            wanted = "in-use" if in_use and volume.status == "in-use" else "available"
            if new_size <= volume.size:
                raise _bad_request(
                    "Invalid input received: New size for extend must be greater than current "
                    f"size. (current: {volume.size}, extended: {new_size})."
                )
            if volume.status != wanted:
                raise _bad_request(
                    f"Invalid volume: Volume {volume.id} status must be '{wanted}' to extend, "
                    f"currently {volume.status}."
                )
            consumed, more = sum(row.size for row in self.volumes.values()), new_size - volume.size
            if consumed + more > self.quota_gib:
                raise CinderFaultError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    "Requested volume or snapshot exceeds allowed gigabytes quota. Requested "
                    f"{more}G, quota is {self.quota_gib}G and {consumed}G has been consumed.",
                )
            volume.previous_status, volume.status = volume.status, "extending"
            volume.growing_to = new_size
            if self.extend_ends:
                self.finish_extend(volume_id)

    def finish_extend(self, volume_id: str, end: str = "") -> None:
        """An extend under way comes to its end."""
        end = end or self.extend_ends
        with self.lock:
            volume = self.volume(volume_id)
            volume.status = "error_extending" if end == "error" else volume.previous_status
            if end == "grown":
                volume.size = volume.growing_to
        if end == "grown":
            self.on_grown(volume.id, volume.size)

    # --- attachments ------------------------------------------------------------------------

    def attachment(self, attachment_id: str) -> AttachmentRow:
        """The attachment; 404 where there is none."""
        with self.lock:
            if attachment_id not in self.attachments:
                raise NoSuchAttachmentError(attachment_id)
            return self.attachments[attachment_id]

    def create(self, volume_id: str, instance: str | None) -> AttachmentRow:
        """POST /attachments without a connector."""
        with self.lock:
            volume = self.volume(volume_id)
            if "error" in volume.status:
                raise _bad_request(
                    "Invalid volume: Volume attachments can not be created if the volume is in an "
                    "error state."
                )
            self._reserve(volume, instance)
            row = AttachmentRow(volume_id=volume.id, instance=instance)
            self.attachments[row.id] = row
            return row

    def _reserve(self, volume: VolumeRow, instance: str | None) -> None:
        reservable = {"available", "downloading"} | ({"in-use"} if volume.multiattach else set())
        if volume.status in reservable:
            volume.status = "reserved"
            return
        again = volume.status in ("in-use", "reserved") and any(
            row.instance == instance for row in self.attachments_of(volume.id)
        )
        if not (instance and again):
            raise _bad_request(
                f"Invalid volume: Volume {volume.id} status must be "
                f"{' or '.join(sorted(reservable))} to reserve, but the current status is "
                f"{volume.status}."
            )

    def update(self, attachment_id: str, connector: Mapping[str, Any]) -> AttachmentRow:
        """PUT /attachments/{id}: the backend exports the volume for this connector.

        The answer has the new connection_info, and the status from before: the API reads the row
        before cinder-volume changes it, and not again.
        """
        with self.lock:
            self.exports.add(attachment_id)  # as cinder-volume does, without another look
            row = self.attachment(attachment_id)
            volume = self.volume(row.volume_id)
            self._make_target(volume)
            if "error" in volume.status:
                self.exports.discard(attachment_id)
                raise CinderFaultError(
                    HTTPStatus.CONFLICT,
                    "Volume attachments can not be updated if the volume is in an error state.",
                )
            others = [r for r in self.attachments_of(volume.id) if r is not row]
            if not volume.multiattach and any(other.connection_info for other in others):
                self.exports.discard(attachment_id)
                raise CinderFaultError(
                    HTTPStatus.CONFLICT, f"duplicate connectors detected on volume {volume.id}"
                )
            status_before = row.status
            row.connector = dict(connector)
            row.connection_info = {
                "driver_volume_type": "iscsi",
                **self._export(volume),
                "attachment_id": row.id,
            }
            row.status = volume.status = volume.attach_status = "attaching"
            return replace(row, status=status_before)

    def _export(self, volume: VolumeRow) -> dict[str, Any]:
        """What Cinder's LVM driver on LIO says of a volume on a single path."""
        return {
            "target_discovered": False,
            "target_portal": self.portal,
            "target_iqn": f"iqn.2010-10.org.openstack:volume-{volume.id}",
            "target_lun": 0,
            "volume_id": volume.id,
            "auth_method": "CHAP",
            "auth_username": f"user-{volume.id[:8]}",
            "auth_password": volume.chap_password,
            "encrypted": volume.encrypted,
            "qos_specs": dict(volume.qos) if volume.qos else None,
            "access_mode": volume.attached_mode or ("ro" if volume.read_only else "rw"),
            "cacheable": False,
            "enforce_multipath": False,
        }

    def complete(self, attachment_id: str) -> None:
        """os-complete."""
        with self.lock:
            row = self.attachment(attachment_id)
            row.status = "attached"
            volume = self.volume(row.volume_id)
            volume.status, volume.attach_status = "in-use", "attached"

    def delete(self, attachment_id: str, *, by_service: bool) -> None:
        """DELETE /attachments/{id}; one in use goes only for a caller with a service token."""
        with self.lock:
            row = self.attachment(attachment_id)
            if row.instance and row.connection_info and not by_service:
                raise CinderFaultError(
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "public endpoint for compute service not found",
                )
            # A reserved one goes without cinder-volume, one of the old style without a connector.
            if row.status != "reserved" and row.connector is not None:
                self._take_export_away(attachment_id)
            self._finish_detach(row)

    def forget_a_delete(self, attachment_id: str) -> None:
        """cinder-volume does a DELETE, of which cinder-api has given up the answer."""
        with self.lock:
            self._take_export_away(attachment_id)

    def _take_export_away(self, attachment_id: str) -> None:
        """As LIO's driver: it fails where there is nothing to take away."""
        if attachment_id not in self.exports:
            raise CinderFaultError(HTTPStatus.INTERNAL_SERVER_ERROR, "Could not find target")
        self.exports.discard(attachment_id)
        if (row := self.attachments.get(attachment_id)) is None:
            return
        if not {other.id for other in self.attachments_of(row.volume_id)} & self.exports:
            self.targets.discard(row.volume_id)

    def _make_target(self, volume: VolumeRow) -> None:
        self.targets.add(volume.id)
        volume.exported_once = True

    # --- the old style ----------------------------------------------------------------------

    def reserve(self, volume_id: str) -> None:
        """os-reserve."""
        with self.lock:
            volume = self.volume(volume_id)
            expected = ("available", "in-use") if volume.multiattach else ("available",)
            if volume.status not in expected:
                raise _bad_request(
                    f"Invalid volume: Volume status must be {' or '.join(expected)} to reserve, "
                    f"but the status is {volume.status}."
                )
            volume.status = "attaching"

    def unreserve(self, volume_id: str) -> None:
        """os-unreserve."""
        with self.lock:
            volume = self.volume(volume_id)
            if volume.status == "attaching":
                volume.status = "in-use" if self.attachments_of(volume_id) else "available"

    def initialize_connection(self, volume_id: str, connector: Mapping[str, Any]) -> dict[str, Any]:
        """os-initialize_connection."""
        with self.lock:
            volume = self.volume(volume_id)
            if not connector.get("initiator"):
                raise _bad_request("Invalid input received: Connector doesn't have initiator")
            self._make_target(volume)
            self.exports.add(_access(volume, connector))
            return {
                "driver_volume_type": "iscsi",
                "data": self._export(volume),
                "enforce_multipath": False,
            }

    def terminate_connection(self, volume_id: str, connector: Mapping[str, Any]) -> None:
        """os-terminate_connection."""
        with self.lock:
            volume = self.volume(volume_id)
            if volume.exported_once and volume.id not in self.targets:
                raise CinderFaultError(
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "Unable to terminate volume connection from backend.",
                )
            self.exports.discard(_access(volume, connector))
            self.unreserve(volume_id)

    def attach(self, volume_id: str, instance: str, mode: str) -> AttachmentRow:
        """os-attach."""
        with self.lock:
            volume = self.volume(volume_id)
            if volume.read_only and mode != "ro":
                raise _bad_request(
                    f"Invalid attaching mode '{mode}' for volume {volume_id}.",
                )
            if volume.status == "attaching" and volume.attached_mode not in (None, mode):
                raise _bad_request("Invalid volume: being attached by different mode")
            for row in self.attachments_of(volume_id):
                if row.instance == instance:
                    volume.status = "in-use"
                    return row
            if volume.status == "in-use" and not volume.multiattach:
                raise _bad_request(
                    "Error attaching volume - InvalidVolume: Invalid volume: volume is already "
                    "attached and multiple attachments are not enabled"
                )
            row = AttachmentRow(volume_id=volume.id, instance=instance, status="attached")
            self.attachments[row.id] = row
            volume.attached_mode = mode
            volume.status, volume.attach_status = "in-use", "attached"
            return row

    def detach(self, volume_id: str, attachment_id: str) -> None:
        """os-detach by a service: the volume's export goes as a whole, if it is there."""
        with self.lock:
            volume = self.volume(volume_id)
            row = self.attachments.get(attachment_id)
            if row is None:
                self._set_status(volume)
                return
            ours = {other.id for other in self.attachments_of(volume_id)}
            self.exports = {
                access
                for access in self.exports
                if access not in ours and not access.startswith(volume.id)
            }
            self.targets.discard(volume.id)
            self._finish_detach(row)

    def _finish_detach(self, row: AttachmentRow) -> None:
        del self.attachments[row.id]
        volume = self.volume(row.volume_id)
        volume.attached_mode = None
        self._set_status(volume)

    def _set_status(self, volume: VolumeRow) -> None:
        left = sorted(other.status for other in self.attachments_of(volume.id))
        volume.attach_status = left[0] if left else "detached"
        volume.status = STATUS_BY_ATTACH_STATUS.get(volume.attach_status, volume.attach_status)


def _access(volume: VolumeRow, connector: Mapping[str, Any]) -> str:
    return f"{volume.id} {connector['initiator']}"


def _bad_request(message: str) -> CinderFaultError:
    return CinderFaultError(HTTPStatus.BAD_REQUEST, message)
