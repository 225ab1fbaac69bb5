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
    DISK_UNKNOWN = "disk-unknown"
    SESSION_LEFT = "session-left"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One disagreement. ``says``: what each world that was asked says of it, in words."""

    code: FindingCode
    brief: str
    says: Mapping[World, str] = field(default_factory=dict)
    resolution: str = ""
    attachment_id: str | None = None
    volume_id: str | None = None
    guest_id: str | None = None
    guest_name: str | None = None
    operation_id: str | None = None
