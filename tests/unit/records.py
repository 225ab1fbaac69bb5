"""A sound attachment record for tests, each field of which can be changed."""

from __future__ import annotations

from typing import Any

from attachd.model import GIB, AttachmentRecord, AttachmentState, Bus, Connection, Mode, Target

CONNECTION = Connection(
    protocol="iscsi",
    targets=(Target(portal="192.0.2.1:3260", iqn="iqn.x:v", lun=1),),
    mode=Mode.RW,
    discard=False,
    encrypted=False,
)


def a_record(**changes: Any) -> AttachmentRecord:
    """An attaching record of volume-1 in guest-1."""
    values: dict[str, Any] = {
        "record_id": "record-1",
        "operation_id": "operation-1",
        "state": AttachmentState.ATTACHING,
        "volume_id": "volume-1",
        "volume_name": "data",
        "guest_id": "guest-1",
        "guest_name": "web",
        "instance_id": "guest-1",
        "device": "vdb",
        "bus": Bus.VIRTIO,
        "mode": Mode.RW,
        "size_bytes": GIB,
        "prior_attachment_ids": ("other",),
    }
    return AttachmentRecord(**{**values, **changes})
