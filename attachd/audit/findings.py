"""What an audit can find. Codes are permanent, as errors' are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from attachd.errors import World


class FindingCode(StrEnum):
    """What doesn't agree."""

    WORLD_UNREACHABLE = "world-unreachable"  # nothing is known of it: no agreement either
    OPERATION_NEEDS_ATTENTION = "operation-needs-attention"
    ATTACHMENT_NEEDS_ATTENTION = "attachment-needs-attention"
    VOLUME_GONE = "volume-gone"
    VOLUME_STATUS_DIFFERS = "volume-status-differs"
    ATTACHMENT_GONE = "attachment-gone"
    ATTACHMENT_STATUS_DIFFERS = "attachment-status-differs"
    DEVICE_GONE = "device-gone"
    WRONG_DEVICE = "wrong-device"
    GUEST_GONE = "guest-gone"
    DISK_GONE = "disk-gone"
    DISK_SOURCE_DIFFERS = "disk-source-differs"
    SIZE_DIFFERS = "size-differs"
    DISK_UNKNOWN = "disk-unknown"
    SESSION_LEFT = "session-left"


class Repair(StrEnum):
    """What attachd can safely do about a finding, each by a journalled operation."""

    RESUME = "resume"  # the operation that stopped goes on, or back
    CLEAN_UP = "clean-up"  # no guest can use it: what is left of it is taken away
    RESTORE = "restore"  # Cinder is told again that the volume is attached
    FENCE = "fence"  # attachd uses the device no more
    DISCONNECT = "disconnect"  # the host's session is taken away
    EXTEND = "extend"  # what the volume has grown by in Cinder is handed on to its guest


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
