"""The JSON Schemas (2020-12) of everything that goes over the wire.

One definition serves twice: requests are validated by it, and the OpenAPI document is made of it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from attachd.audit.findings import FindingCode, Repair
from attachd.doctor.catalogue import Check, Fault, Severity
from attachd.errors import Code, World
from attachd.model import (
    AttachmentState,
    Bus,
    GuestState,
    Mode,
    OperationKind,
    OperationState,
)

Schema = dict[str, Any]

# A control character has no place in a name.
_UNPRINTABLE = r"[\u0000-\u001f\u007f]"


def text(description: str, *, longest: int = 255) -> Schema:
    """A printable string of 1 to ``longest`` characters, from the outside."""
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": longest,
        "not": {"pattern": _UNPRINTABLE},
        "description": description,
    }


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


REQUEST_ID = text(
    "The caller's own id of this request: the same one again gets the first one's operation. "
    "Without it every request is a new one.",
    longest=128,
)


LARGEST_SIZE = 2**31 - 1
"""In GiB: what Cinder's own schema takes."""


def _choice(enum: type[StrEnum]) -> Schema:
    return {"type": "string", "enum": [str(member) for member in enum]}


def _nullable(*alternatives: Schema) -> Schema:
    return {"anyOf": [*alternatives, {"type": "null"}]}


def _object(properties: Schema) -> Schema:
    """An answer's object: everything is there, and more may be added in later versions."""
    return {"type": "object", "required": list(properties), "properties": properties}


_STRING: Schema = {"type": "string"}
_STRING_OR_NULL: Schema = {"type": ["string", "null"]}
_TIME: Schema = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
_PROBLEM_FIELDS: Schema = {
    "code": {
        "type": "string",
        "description": "Permanent, for scripts; later versions may have more.",
        "examples": [str(code) for code in Code],
    },
    "brief": {"type": "string", "description": "One sentence for the operator."},
    "details": {"type": "string", "description": "For whoever investigates; may be empty."},
    "resolution": {"type": "string", "description": "What to do next; may be empty."},
}

COMPONENTS: dict[str, Schema] = {
    "AttachRequest": {
        "type": "object",
        "required": ["guest", "volume"],
        "additionalProperties": False,
        "properties": {
            "guest": text("A libvirt domain: its name or its UUID."),
            "volume": text("A Cinder volume: its name or its UUID."),
            "device": text("The device's name in the guest's XML (vdb, sdb); default: next free."),
            "bus": {**_choice(Bus), "default": str(Bus.VIRTIO)},
            "mode": {**_choice(Mode), "default": str(Mode.RW)},
            "request_id": REQUEST_ID,
            "override_nova": {
                "type": "boolean",
                "default": False,
                "description": "Attach even to a guest that Nova owns.",
            },
        },
    },
    "GuestAndVolume": {
        "type": "object",
        "required": ["guest", "volume"],
        "additionalProperties": False,
        "properties": {
            "guest": text("A libvirt domain: its name or its UUID."),
            "volume": text("A Cinder volume: its name or its UUID."),
            "request_id": REQUEST_ID,
        },
    },
    "ExtendRequest": {
        "type": "object",
        "required": ["guest", "volume", "size_gib"],
        "additionalProperties": False,
        "properties": {
            "guest": text("A libvirt domain: its name or its UUID."),
            "volume": text("A Cinder volume: its name or its UUID."),
            "size_gib": {
                "type": "integer",
                "minimum": 1,
                "maximum": LARGEST_SIZE,
                "description": "The new size in GiB. The volume's own, where somebody extended it "
                "in Cinder, tells its guest.",
            },
            "request_id": REQUEST_ID,
        },
    },
    "Attachment": _object(
        {
            "attachment_id": {
                **_STRING_OR_NULL,
                "description": "Cinder's id of it; null until Cinder has given one.",
            },
            "volume_id": _STRING,
            "volume_name": {
                **_STRING,
                "description": "As it was called when it was attached; may be empty.",
            },
            "guest_id": _STRING,
            "guest_name": _STRING,
            "device": _STRING,
            "serial": {**_STRING_OR_NULL, "description": "Null: an adopted disk may have none."},
            "guest_path": {
                **_STRING_OR_NULL,
                "description": "Where udev in the guest names the disk; `device` is a hint. Null "
                "where the disk has no serial.",
            },
            "persistent": {
                "type": "boolean",
                "description": "False: the guest has no persistent XML, and loses it at its end.",
            },
            "bus": _choice(Bus),
            "mode": _choice(Mode),
            "size_gib": {
                "type": "integer",
                "description": "The volume's size in GiB, as it was handed on to the guest.",
            },
            "host_path": _STRING_OR_NULL,
            "wwn": _STRING_OR_NULL,
            "state": _choice(AttachmentState),
            "operation_id": _STRING,
            "adopted": {"type": "boolean", "description": "Another hand plugged its disk."},
        }
    ),
    "Attachments": {
        "type": "object",
        "required": ["attachments"],
        "properties": {
            "attachments": {"type": "array", "items": ref("Attachment")},
            "next": {
                **_STRING_OR_NULL,
                "description": "Where there is a `limit`: what leads to the next page, as `after`; "
                "null: there is none.",
            },
        },
    },
    "Guest": _object(
        {
            "guest_id": _STRING,
            "guest_name": _STRING,
            "state": _choice(GuestState),
            "persistent": {"type": "boolean", "description": "False: it is gone at its end."},
            "nova_owned": {"type": "boolean", "description": "An attach to it is refused."},
        }
    ),
    "Guests": _object({"guests": {"type": "array", "items": ref("Guest")}}),
    "Volume": _object(
        {
            "volume_id": _STRING,
            "volume_name": {**_STRING, "description": "May be empty."},
            "status": {**_STRING, "description": "In Cinder's own words."},
            "size_gib": {"type": "integer"},
            "encrypted": {"type": "boolean", "description": "An attach of it is refused."},
            "multiattach": {"type": "boolean"},
        }
    ),
    "Volumes": _object({"volumes": {"type": "array", "items": ref("Volume")}}),
    "Step": _object(
        {
            "name": _STRING,
            "world": {"type": "string", "examples": [str(world) for world in World]},
            "direction": {"type": "string", "enum": ["do", "undo"]},
            "state": {
                "type": "string",
                "enum": ["running", "done", "failed", "untouched", "unknown"],
            },
            "reason": _STRING,
            "started_at": _TIME,
            "finished_at": _TIME_OR_NULL,
            "offset": {
                "type": ["number", "null"],
                "description": "Seconds after the operation was accepted; null behind a reboot.",
            },
            "seconds": {"type": ["number", "null"]},
            "problem": _nullable(ref("Problem")),
        }
    ),
    "Operation": _object(
        {
            "operation_id": _STRING,
            "kind": _choice(OperationKind),
            "state": _choice(OperationState),
            "guest": {**_STRING, "description": "The guest in the caller's words."},
            "volume": {**_STRING, "description": "The volume in the caller's words."},
            "guest_id": _STRING_OR_NULL,
            "guest_name": _STRING_OR_NULL,
            "volume_id": _STRING_OR_NULL,
            "volume_name": _STRING_OR_NULL,
            "request_id": _STRING,
            "global_request_id": {
                **_STRING,
                "description": "Cinder logs it with every call of this operation.",
            },
            "created_at": _TIME,
            "started_at": _TIME_OR_NULL,
            "finished_at": _TIME_OR_NULL,
            "attachment": _nullable(ref("Attachment")),
            "problem": _nullable(ref("Problem")),
            "steps": {"type": "array", "items": ref("Step")},
            "calls": {"type": "array", "items": ref("Call")},
        }
    ),
    "Call": _object(
        {
            "library": {"type": "string", "enum": ["cinder", "os_brick", "libvirt"]},
            "name": _STRING,
            "started": {"type": "number"},
            "ended": {"type": "number"},
            "outcome": {**_STRING_OR_NULL, "description": "null: it went well."},
            "request": _nullable(ref("Exchange")),
        }
    ),
    "Exchange": _object(
        {
            "method": _STRING,
            "url": _STRING,
            "body": {"description": "Secrets are masked, and large bodies left out."},
            "status": {"type": ["integer", "null"]},
            "request_id": _STRING_OR_NULL,
            "answer": {},
        }
    ),
    "Operations": _object({"operations": {"type": "array", "items": ref("Operation")}}),
    "Event": _object(
        {
            "seq": {"type": "integer", "minimum": 1},
            "step": _STRING_OR_NULL,
            "direction": {"type": ["string", "null"], "enum": ["do", "undo", None]},
            "phase": {"type": "string", "enum": ["intent", "outcome", "state"]},
            "state": _STRING,
            "reason": _STRING,
            "at": _TIME,
        }
    ),
    "Events": _object(
        {
            "operation_id": _STRING,
            "state": {
                **_choice(OperationState),
                "description": "As it was before the events were read.",
            },
            "resting": {
                "type": "boolean",
                "description": "The operation won't go on by itself, and no event is missing.",
            },
            "events": {"type": "array", "items": ref("Event")},
        }
    ),
    "Finding": _object(
        {
            "code": {
                "type": "string",
                "description": "Permanent, for scripts; later versions may have more.",
                "examples": [str(code) for code in FindingCode],
            },
            "brief": _STRING,
            "says": {
                "type": "object",
                "additionalProperties": _STRING,
                "description": "What each world that was asked says of it, by its name.",
            },
            "resolution": _STRING,
            "attachment_id": _STRING_OR_NULL,
            "volume_id": _STRING_OR_NULL,
            "guest_id": _STRING_OR_NULL,
            "guest_name": _STRING_OR_NULL,
            "operation_id": _STRING_OR_NULL,
            "repair": {
                "type": ["string", "null"],
                "enum": [*(str(repair) for repair in Repair), None],
                "description": "What is safe to do about it; null: only an operator can decide.",
            },
        }
    ),
    "Audit": _object({"findings": {"type": "array", "items": ref("Finding")}}),
    "Diagnosis": _object(
        {
            "fit": {
                "type": "boolean",
                "description": "Nothing is a failure, and nothing is unknown.",
            },
            "findings": {
                "type": "array",
                "items": ref("HealthFinding"),
                "description": "At least one of each check.",
            },
        }
    ),
    "HealthFinding": _object(
        {
            "severity": {"type": "string", "enum": [str(severity) for severity in Severity]},
            "check": {
                "type": "string",
                "description": "What was looked at; later versions may have more.",
                "examples": [str(check) for check in Check],
            },
            "code": {
                "type": "string",
                "description": "Permanent, for scripts: the fault's, or the check's where there is "
                "none or nothing could be seen; later versions may have more.",
                "examples": [str(fault) for fault in Fault],
            },
            "found": _STRING,
            "remedy": {**_STRING, "description": "Empty where nothing is wrong."},
        }
    ),
    "Connector": {
        "type": "object",
        "required": ["initiator"],
        "properties": {
            "initiator": {**_STRING, "description": "This host's iSCSI name."},
            "ip": _STRING,
            "host": _STRING,
        },
        "description": "os-brick's connector properties; which ones is os-brick's affair.",
    },
    "Health": {
        "type": "object",
        "required": ["status", "version"],
        "properties": {"status": _STRING, "version": _STRING},
    },
    "Metrics": {"type": "string"},
    "OpenAPI": {
        "type": "object",
        "required": ["openapi", "info", "paths"],
        "properties": {"openapi": _STRING},
    },
    "Problem": _object(_PROBLEM_FIELDS),
    "ProblemDocument": _object(
        {"type": _STRING, "title": _STRING, "status": {"type": "integer"}, **_PROBLEM_FIELDS}
    ),
}
