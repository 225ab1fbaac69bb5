"""What an audit can find. Codes are permanent, as errors' are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attachd.errors import Explained, World


class FindingCode(Explained):
    """What doesn't agree."""

    WORLD_UNREACHABLE = (
        "world-unreachable",
        "A world couldn't be asked: nothing is known of it, which is no agreement.",
    )
    OPERATION_NEEDS_ATTENTION = (
        "operation-needs-attention",
        "An operation stopped where it can't go on by itself.",
    )
    ATTACHMENT_NEEDS_ATTENTION = (
        "attachment-needs-attention",
        "An attachment isn't whole, and no operation is at work on it.",
    )
    VOLUME_GONE = "volume-gone", "Cinder has no such volume any more, and a guest has its disk."
    VOLUME_STATUS_DIFFERS = (
        "volume-status-differs",
        "Cinder's status of the volume isn't that of an attached one.",
    )
    ATTACHMENT_GONE = (
        "attachment-gone",
        "Somebody deleted the attachment in Cinder: the device may become another volume's.",
    )
    ATTACHMENT_STATUS_DIFFERS = (
        "attachment-status-differs",
        "Cinder's attachment isn't attached any more.",
    )
    DEVICE_GONE = "device-gone", "The host has no device of the volume: the guest's disk is dead."
    WRONG_DEVICE = "wrong-device", "Another volume answers behind this one's LUN."
    GUEST_GONE = "guest-gone", "libvirt has no such guest any more."
    DISK_GONE = "disk-gone", "The disk isn't in the guest's XML, or in one of the two only."
    DISK_SOURCE_DIFFERS = (
        "disk-source-differs",
        "The guest's disk is another device than the one that was proven.",
    )
    SIZE_DIFFERS = "size-differs", "The volume has grown in Cinder, and its guest wasn't told."
    DISK_UNKNOWN = "disk-unknown", "A guest has a disk of attachd's that the journal doesn't know."
    SESSION_LEFT = "session-left", "The host has a session of attachd's that nothing needs."


class Repair(Explained):
    """What attachd can safely do about a finding, each by a journalled operation."""

    RESUME = "resume", "The operation that stopped goes on, or back."
    CLEAN_UP = "clean-up", "No guest can use it: what is left of it is taken away."
    RESTORE = "restore", "Cinder is told again that the volume is attached."
    FENCE = "fence", "attachd uses the device no more, until an operator has decided."
    DISCONNECT = "disconnect", "The host's session is taken away."
    EXTEND = "extend", "What the volume has grown by in Cinder is handed on to its guest."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One disagreement. ``says``: what each world that was asked says of it, in words.

    ``repair``: what is safe to do about it; None: only an operator can decide.
    """

    code: FindingCode
    brief: str
    says: Mapping[World, str] = field(default_factory=dict)
    resolution: str = ""
    attachment_id: str | None = None
    volume_id: str | None = None
    guest_id: str | None = None
    guest_name: str | None = None
    operation_id: str | None = None
    repair: Repair | None = None
