"""The nouns of attachd, in the field's own words. No I/O, no behaviour beyond their own data.

Everything that comes from outside (Cinder's answers, libvirt's XML, rows of the journal, requests)
is read once at its boundary into one of these; inside, the types are trusted.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

GIB = 1024**3

# Namespace of the uuid5 that stands for a Nova-owned guest in Cinder (law 9): Cinder's record must
# never carry Nova's server UUID, or Nova deletes the attachment as one of its own dangling ones.
NOVA_GUEST_NAMESPACE = uuid.UUID("6f1c1f0e-8d1b-5a55-9c34-0a6f5f4a7d11")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def is_uuid(text: str) -> bool:
    """May it be an id of Cinder's? A name may look so, too."""
    return _UUID.fullmatch(text) is not None


class Bus(StrEnum):
    """The bus on which a guest sees the disk."""

    VIRTIO = "virtio"
    SCSI = "scsi"


class Mode(StrEnum):
    """May the guest write?"""

    RW = "rw"
    RO = "ro"


# --- Cinder ---------------------------------------------------------------------------------


MAP_PREFIX = "dm-uuid-mpath-"
"""Before the WWN, in udev's name of a multipath map."""


class AttachFlow(StrEnum):
    """How Cinder is told of an attachment: in the new style, or in the old one."""

    ATTACHMENTS = "attachments"  # attachments with ids of their own
    VOLUME_ACTIONS = "volume-actions"  # os-reserve, os-initialize_connection, os-attach


class Multipath(StrEnum):
    """Whether a volume is connected by several paths.

    As Nova's volume_use_multipath and volume_enforce_multipath: ``on`` takes a single path while
    multipathd doesn't run, ``require`` never does.
    """

    OFF = "off"
    ON = "on"
    REQUIRE = "require"


@dataclass(frozen=True, kw_only=True)
class CinderAttachment:
    """Cinder's record of an attachment. ``connection`` is None until a connector was given."""

    attachment_id: str
    volume_id: str
    instance_id: str | None
    status: str
    connection: Connection | None = None


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A Cinder volume as it was last read.

    ``shared_targets`` is None where Cinder's microversion doesn't tell, and means "take the guard"
    as True does. ``attachment_hosts``: the host's name by the attachment's id, where Cinder tells.
    """

    volume_id: str
    name: str
    status: str
    size_gib: int
    encrypted: bool = False
    multiattach: bool = False
    shared_targets: bool | None = None
    service_uuid: str | None = None
    attachment_ids: tuple[str, ...] = ()
    attachment_hosts: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """The size in bytes."""
        return self.size_gib * GIB


@dataclass(frozen=True, kw_only=True)
class Target:
    """One way to a LUN: an iSCSI portal (``address:port``), the target's IQN, the LUN's number."""

    portal: str
    iqn: str
    lun: int


@dataclass(frozen=True, kw_only=True)
class Chap:
    """CHAP credentials: in memory only (law 6), so the password is kept out of ``repr``."""

    username: str
    password: str = field(repr=False)
    method: str = "CHAP"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Cinder's connection_info, normalised: always in the plural.

    os-brick consults stale discovery records when it gets the singular form, and has been seen to
    disconnect another volume's device. ``iotune``: the front-end limits of the volume type's QoS,
    by libvirt's own names (``total_bytes_sec`` ...); ``unreadable``: those that no one can read.
    """

    protocol: str
    targets: tuple[Target, ...]
    mode: Mode = Mode.RW
    discard: bool = False
    encrypted: bool = False
    iotune: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    chap: Chap | None = None
    discovery_chap: Chap | None = None

    def without_secrets(self) -> Connection:
        """The same without credentials: what may be journalled, and all that disconnect needs."""
        return Connection(
            protocol=self.protocol,
            targets=self.targets,
            mode=self.mode,
            discard=self.discard,
            encrypted=self.encrypted,
            iotune=self.iotune,
        )


Connector = Mapping[str, Any]
"""What os-brick says of this host (initiator, ip, host ...): opaque to everyone but Cinder."""


# --- the host -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class HostDevice:
    """A block device on this host, with the identity by which it may be named (law 2).

    ``path`` is the identity path (/dev/disk/by-id/...); ``wwn`` is the identifier of VPD page 0x83
    in udev's spelling (``3600140...``); ``size_bytes`` is the device's own size.
    """

    path: str
    wwn: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class DevicesSeen:
    """What one look saw of a LUN's devices: of each the fresh WWN, and the bytes."""

    wwns: tuple[str, ...]
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HostSession:
    """An iSCSI session on this host, whoever made it; ``luns`` are those with a block device."""

    iqn: str
    portals: frozenset[str]
    luns: frozenset[int]

    def leads_to(self, target: Target) -> bool:
        """Is this the LUN's session: with its device, or with none at all?"""
        reached = self.iqn == target.iqn and target.portal in self.portals
        return reached and (not self.luns or target.lun in self.luns)


# --- the guest ------------------------------------------------------------------------------

# What virtio-blk shows of a serial (VIRTIO_BLK_ID_BYTES).
_VIRTIO_SERIAL_LENGTH = 20


def guest_path(bus: Bus, serial: str) -> str:
    """Where udev in the guest names the disk: its device's name is a hint, this holds."""
    if bus is Bus.SCSI:
        return f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{serial}"
    return f"/dev/disk/by-id/virtio-{serial[:_VIRTIO_SERIAL_LENGTH]}"


def disk_alias(volume_id: str) -> str:
    """The alias of a volume's disk (libvirt wants a user's own to begin with ``ua-``)."""
    return f"ua-{volume_id}"


class GuestState(StrEnum):
    """What matters of a libvirt domain's state: is there a live XML?"""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"

    @property
    def live(self) -> bool:
        """Has the domain a QEMU process, and so a live XML?"""
        return self is not GuestState.SHUTOFF


@dataclass(frozen=True, kw_only=True)
class GuestDisk:
    """A disk in a guest's XML. ``target`` is the device name there (a hint to the guest)."""

    target: str
    bus: str
    serial: str | None = None
    alias: str | None = None
    source: str | None = None
    mode: Mode = Mode.RW

    def is_of(self, volume_id: str) -> bool:
        """Is it this volume's, by alias or serial?"""
        return self.alias == disk_alias(volume_id) or self.serial == volume_id


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A libvirt domain as it was last read. ``live_disks`` is empty where it isn't running.

    ``saved_disks``: those in its save image (virsh managedsave), with which it goes on when it is
    started, whatever its persistent XML says; None: it has none.
    ``free_slots`` counts what a new disk on a bus could still take; None: no limit is known.
    """

    guest_id: str
    name: str
    state: GuestState
    persistent: bool
    nova_owned: bool
    live_disks: tuple[GuestDisk, ...] = ()
    config_disks: tuple[GuestDisk, ...] = ()
    saved_disks: tuple[GuestDisk, ...] | None = None
    free_slots: Mapping[Bus, int | None] = field(default_factory=dict)

    @property
    def disks(self) -> tuple[GuestDisk, ...]:
        """All disks of all its XMLs."""
        return self.live_disks + self.config_disks + (self.saved_disks or ())

    @property
    def documents(self) -> Mapping[str, tuple[GuestDisk, ...]]:
        """The disks of each XML that there is: ``live``, ``persistent``."""
        return {
            **({"live": self.live_disks} if self.state.live else {}),
            **({"persistent": self.config_disks} if self.persistent else {}),
        }


@dataclass(frozen=True, kw_only=True)
class DiskSpec:
    """The disk that a guest shall get: everything that its XML says."""

    volume_id: str
    source: str
    target: str
    bus: Bus
    mode: Mode
    discard: bool = False
    shareable: bool = False
    iotune: Mapping[str, int] = field(default_factory=dict)

    @property
    def serial(self) -> str:
        """The guest-visible serial is the volume's id (virtio shows 20 characters of it)."""
        return self.volume_id

    @property
    def alias(self) -> str:
        """A user alias of its own, by which the disk is found again."""
        return disk_alias(self.volume_id)


# --- the journal ----------------------------------------------------------------------------


class AttachmentState(StrEnum):
    """Where an attachment stands."""

    ATTACHING = "attaching"  # an attach of it is open
    ATTACHED = "attached"  # all four worlds were brought to agree
    DETACHING = "detaching"  # a detach of it is open
    DETACHED = "detached"  # gone from all worlds; the record stays as memory
    RELEASED = "released"  # left as it is in all other worlds; attachd's business no more
    NEEDS_ATTENTION = "needs-attention"  # something is left that attachd couldn't decide or undo

    @property
    def live(self) -> bool:
        """Does it hold its guest's device name and its volume?"""
        return self not in (AttachmentState.DETACHED, AttachmentState.RELEASED)


@dataclass(frozen=True, kw_only=True)
class AttachmentRecord:
    """The journal's record of one attachment; steps return it with what they learned added.

    ``record_id`` is attachd's own and exists before Cinder's ``attachment_id`` does.
    ``prior_attachment_ids`` are the volume's Cinder attachments before ours was asked for: only an
    unambiguous difference is ours (law 11). ``connection`` never carries secrets (law 6).
    ``unplug_pending``: QEMU was asked to unplug and never answered; it can't be withdrawn.
    ``shareable``: a multiattach volume, which other guests may have beside this one.
    ``persistent``: the guest had a persistent XML; one without it loses its disks at its end.
    ``adopted_path``: the source of a disk that another hand plugged, as its guest's XML names it;
    ``adopted_serial``: that disk's own serial, if it has one. None for what attachd plugged.
    ``flow`` is the one it was attached with, and is detached with, whatever is configured by then.
    ``reserved``, in the old style: Cinder said that os-reserve took effect for us, and nothing was
    said or done since by which the volume's status could be somebody else's.
    ``device_was_there``: somebody else had brought the LUN's device before it was connected.
    """

    record_id: str
    operation_id: str
    state: AttachmentState
    volume_id: str
    volume_name: str
    guest_id: str
    guest_name: str
    instance_id: str
    device: str
    bus: Bus
    mode: Mode
    size_bytes: int
    attachment_id: str | None = None
    prior_attachment_ids: tuple[str, ...] = ()
    connection: Connection | None = None
    host_path: str | None = None
    wwn: str | None = None
    shared_targets: bool | None = None
    service_uuid: str | None = None
    unplug_pending: bool = False
    persistent: bool = True
    shareable: bool = False
    adopted_path: str | None = None
    adopted_serial: str | None = None
    flow: AttachFlow = AttachFlow.ATTACHMENTS
    reserved: bool = False
    device_was_there: bool = False
    created_at: str = ""
    updated_at: str = ""

    @property
    def adopted(self) -> bool:
        """Did another hand plug its disk?"""
        return self.adopted_path is not None

    @property
    def serial(self) -> str | None:
        """The serial that the guest sees; an adopted disk may have none."""
        return self.adopted_serial if self.adopted else self.volume_id

    @property
    def source(self) -> str | None:
        """What the guest's XML names the device by."""
        return self.adopted_path or self.host_path

    def has(self, disk: GuestDisk) -> bool:
        """Is this disk of its guest the volume's: by alias or serial, adopted also by source?"""
        return disk.is_of(self.volume_id) or (self.adopted and disk.source == self.adopted_path)

    @property
    def mapped(self) -> bool | None:
        """Is it the guest's by a multipath map? None: that isn't known yet."""
        return None if self.host_path is None else MAP_PREFIX in self.host_path

    @property
    def guest_path(self) -> str | None:
        """The disk's name that holds inside the guest, where it has udev; None without a serial."""
        return guest_path(self.bus, self.serial) if self.serial else None

    @property
    def size_gib(self) -> int:
        """The volume's size, as it was handed on to the guest."""
        return self.size_bytes // GIB


class OperationKind(StrEnum):
    """What was asked for."""

    ATTACH = "attach"
    DETACH = "detach"
    RECONNECT = "reconnect"
    DISCONNECT = "disconnect"
    FENCE = "fence"
    RESTORE = "restore"
    CLEAN_UP = "clean-up"
    ADOPT = "adopt"
    RELEASE = "release"
    EXTEND = "extend"

    @property
    def housekeeping(self) -> bool:
        """Does it serve an attachment that stands? Then its failure says nothing against that."""
        return self in (
            OperationKind.RECONNECT,
            OperationKind.DISCONNECT,
            OperationKind.FENCE,
            OperationKind.RESTORE,
            OperationKind.EXTEND,
        )

    @property
    def without_libvirt(self) -> bool:
        """Does it make no libvirt call? Then libvirt's hook may wait for it: it locks no guest."""
        return self in (
            OperationKind.RECONNECT,
            OperationKind.DISCONNECT,
            OperationKind.FENCE,
        )

    @property
    def yields(self) -> bool:
        """Does it keep nobody off its volume while it needs attention?

        What an extend left undone harms nobody, and its guest must be able to start.
        """
        return self is OperationKind.EXTEND


class OperationState(StrEnum):
    """How far an operation is."""

    ACCEPTED = "accepted"  # journalled, waiting for a worker
    RUNNING = "running"  # a worker drives its steps
    DONE = "done"  # it did what was asked
    REFUSED = "refused"  # it ended before anything was touched
    UNDONE = "undone"  # it failed, and everything was undone
    NEEDS_ATTENTION = "needs-attention"  # it failed, and something is left

    @property
    def open(self) -> bool:
        """Is there still something to be brought to its end?"""
        return self in (
            OperationState.ACCEPTED,
            OperationState.RUNNING,
            OperationState.NEEDS_ATTENTION,
        )

    @property
    def resting(self) -> bool:
        """Has the one who waits for it an answer?"""
        return self not in (OperationState.ACCEPTED, OperationState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the caller asked for, in the caller's words (names or ids).

    ``request_id`` is the caller's own: the same one again gets the first one's answer (law 8).
    ``size_gib`` is an extend's new size; None: the one that Cinder says.
    """

    kind: OperationKind
    guest: str
    volume: str
    request_id: str
    device: str | None = None
    bus: Bus = Bus.VIRTIO
    mode: Mode = Mode.RW
    override_nova: bool = False
    size_gib: int | None = None


def cinder_instance_id(guest: Guest) -> str:
    """The instance UUID that Cinder's attachment carries for this guest (law 9)."""
    if guest.nova_owned:
        return str(uuid.uuid5(NOVA_GUEST_NAMESPACE, guest.guest_id))
    return guest.guest_id
