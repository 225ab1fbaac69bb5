"""Every route of the API in one table, from which Flask's rules and the OpenAPI document are made.

A handler is a plain function of the context and a checked call; it knows nothing of HTTP beyond
the status and the headers of its reply.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from attachd.api import documents, schemas
from attachd.api.ports import Auditor, Doctor, Engine, Metrics, Repairer
from attachd.engine.views import OperationView
from attachd.errors import Code, Refused
from attachd.model import (
    AttachmentRecord,
    Bus,
    Mode,
    OperationKind,
    Request,
)

LONGEST_WAIT = 5.0
"""Seconds that a long poll may hold its thread, whatever the caller asks for."""

USUAL_LIMIT = 100
LARGEST_LIMIT = 1000
"""How many things a list has: unless the caller asks for another number, and at most."""


class LongPolls:
    """How many callers may wait at once, so that threads are always left for the others."""

    def __init__(self, limit: int) -> None:
        self._places = threading.BoundedSemaphore(limit)

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Was a place free? It never blocks."""
        granted = self._places.acquire(blocking=False)
        try:
            yield granted
        finally:
            if granted:
                self._places.release()


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the handlers work with."""

    engine: Engine
    auditor: Auditor
    repairer: Repairer
    doctor: Doctor
    metrics: Metrics
    long_polls: LongPolls


@dataclass(frozen=True, kw_only=True)
class Call:
    """A checked request: the values of its path, its query and its body."""

    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A document, or a text, and how it is sent."""

    document: Mapping[str, Any] | str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of the query."""

    name: str
    schema: schemas.Schema
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Route:
    """A method on a path. ``body`` and ``answer`` name components of the schemas.

    ``media_type``: the answer's.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Callable[[Context, Call], Reply]
    answer: str
    status: HTTPStatus = HTTPStatus.OK
    query: tuple[Parameter, ...] = ()
    body: str | None = None
    media_type: str = "application/json"


def _attach(context: Context, call: Call) -> Reply:
    body = call.body
    return _submit(
        context,
        Request(
            kind=OperationKind.ATTACH,
            guest=body["guest"],
            volume=body["volume"],
            request_id=body.get("request_id") or _new_request_id(),
            device=body.get("device"),
            bus=Bus(body.get("bus", Bus.VIRTIO)),
            mode=Mode(body.get("mode", Mode.RW)),
            override_nova=body.get("override_nova", False),
        ),
    )


def _detach(context: Context, call: Call) -> Reply:
    return _submit(context, _detach_request(call, call.query["guest"], call.query["volume"]))


def _detach_by_id(context: Context, call: Call) -> Reply:
    record = context.engine.attachment(call.path["attachment_id"])
    request = _detach_request(call, record.guest_id, record.volume_id)
    if not record.state.live and not context.engine.accepted(request.request_id):
        # The guest may have the volume again, by a later attachment: that one isn't meant.
        raise Refused(
            Code.NOT_ATTACHED,
            f"This attachment is {record.state} already.",
            resolution="List what is attached: GET /v1/attachments",
        )
    return _submit(context, request)


def _extend(context: Context, call: Call) -> Reply:
    body = call.body
    return _submit(
        context,
        Request(
            kind=OperationKind.EXTEND,
            guest=body["guest"],
            volume=body["volume"],
            request_id=body.get("request_id") or _new_request_id(),
            size_gib=int(body["size_gib"]),  # JSON's 2.0 is an integer, too
        ),
    )


def _detach_request(call: Call, guest: str, volume: str) -> Request:
    return Request(
        kind=OperationKind.DETACH,
        guest=guest,
        volume=volume,
        request_id=call.query.get("request_id") or _new_request_id(),
    )


def _adopt(context: Context, call: Call) -> Reply:
    return _submit(context, _request_about(call, OperationKind.ADOPT))


def _release(context: Context, call: Call) -> Reply:
    return _submit(context, _request_about(call, OperationKind.RELEASE))


def _request_about(call: Call, kind: OperationKind) -> Request:
    """Of what a GuestAndVolume says."""
    return Request(
        kind=kind,
        guest=call.body["guest"],
        volume=call.body["volume"],
        request_id=call.body.get("request_id") or _new_request_id(),
    )


def _new_request_id() -> str:
    return str(uuid.uuid4())


def _submit(context: Context, request: Request) -> Reply:
    return _accepted(context.engine.submit(request))


def _resume(context: Context, call: Call) -> Reply:
    return _accepted(context.engine.resume(call.path["operation_id"]))


def _reconnect(context: Context, call: Call) -> Reply:
    return _all_accepted(context.engine.reconnect(call.path["guest"]))


def _disconnect(context: Context, call: Call) -> Reply:
    return _all_accepted(context.engine.disconnect(call.path["guest"]))


def _repair(context: Context, call: Call) -> Reply:  # noqa: ARG001 - nothing is said of what
    return _all_accepted(context.repairer.repair())


def _all_accepted(views: Sequence[OperationView]) -> Reply:
    return Reply(
        document={"operations": [documents.operation(view) for view in views]},
        status=HTTPStatus.ACCEPTED,
    )


def _accepted(view: OperationView) -> Reply:
    return Reply(
        document=documents.operation(view),
        status=HTTPStatus.ACCEPTED,
        headers={"Location": f"/v1/operations/{view.operation_id}"},
    )


def _attachments(context: Context, call: Call) -> Reply:
    limit: int | None = call.query.get("limit")
    records: tuple[AttachmentRecord, ...] = context.engine.attachments(
        guest=call.query.get("guest"),
        limit=None if limit is None else limit + 1,  # is there one more?
        after=call.query.get("after"),
    )
    page = records[:limit]
    document: dict[str, object] = {"attachments": [documents.attachment(each) for each in page]}
    if limit is not None:
        document["next"] = page[-1].record_id if len(page) < len(records) else None
    return Reply(document=document)


def _attachment(context: Context, call: Call) -> Reply:
    return Reply(
        document=documents.attachment(context.engine.attachment(call.path["attachment_id"]))
    )


def _operations(context: Context, call: Call) -> Reply:
    views = context.engine.operations(
        open_only=call.query.get("open", False),
        limit=call.query.get("limit", USUAL_LIMIT),
        before=call.query.get("before"),
    )
    return Reply(document={"operations": [documents.operation(view) for view in views]})


def _operation(context: Context, call: Call) -> Reply:
    return Reply(document=documents.operation(context.engine.operation(call.path["operation_id"])))


def _events(context: Context, call: Call) -> Reply:
    """A caller who finds no place to wait gets what there is, and is asked to pause."""
    operation_id = call.path["operation_id"]
    # Read before the events: once it rests here, no event can be missing from them.
    state = context.engine.operation(operation_id).state
    asked = min(call.query.get("wait", 0.0), LONGEST_WAIT)
    with context.long_polls.place() as granted:
        events = context.engine.wait(
            operation_id, after=call.query.get("after", 0), timeout=asked if granted else 0.0
        )
    return Reply(
        document={
            "operation_id": operation_id,
            "state": str(state),
            "resting": state.resting,
            "events": [documents.event(event) for event in events],
        },
        headers={} if granted else {"Retry-After": "1"},
    )


def _guests(context: Context, call: Call) -> Reply:
    with _another_world(context):
        found = context.engine.list_guests()[: call.query.get("limit", USUAL_LIMIT)]
    return Reply(document={"guests": [documents.guest(each) for each in found]})


def _volumes(context: Context, call: Call) -> Reply:
    with _another_world(context):
        found = context.engine.list_volumes(
            status=call.query.get("status", "available"),
            limit=call.query.get("limit", USUAL_LIMIT),
        )
    return Reply(document={"volumes": [documents.volume(each) for each in found]})


@contextmanager
def _another_world(context: Context) -> Iterator[None]:
    """Room to ask a world that may be slow to answer, as for a long poll.

    Raises too-many-requests where no thread can be spared for it.
    """
    with context.long_polls.place() as granted:
        if not granted:
            raise Refused(
                Code.TOO_MANY_REQUESTS,
                "Too many callers wait for an answer already.",
                resolution="Ask again in a while.",
            )
        yield


def _audit(context: Context, _call: Call) -> Reply:
    return Reply(
        document={"findings": [documents.finding(found) for found in context.auditor.audit()]}
    )


def _doctor(context: Context, _call: Call) -> Reply:
    return Reply(document=documents.diagnosis(context.doctor.examine()))


def _connector(context: Context, _call: Call) -> Reply:
    return Reply(document=dict(context.engine.connector()))


def _health(context: Context, _call: Call) -> Reply:
    return Reply(document=context.engine.health())


def _metrics(context: Context, _call: Call) -> Reply:
    return Reply(document=context.metrics.text())


_REQUEST_ID = Parameter(name="request_id", schema=schemas.REQUEST_ID)
_LIMIT = Parameter(
    name="limit",
    schema={
        "type": "integer",
        "minimum": 1,
        "maximum": LARGEST_LIMIT,
        "default": USUAL_LIMIT,
        "description": "So many at most.",
    },
)

ROUTES = (
    Route(
        method="POST",
        path="/v1/attachments",
        name="attach",
        summary="Attach a volume to a guest; answers with the operation that does it.",
        handler=_attach,
        body="AttachRequest",
        answer="Operation",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="DELETE",
        path="/v1/attachments",
        name="detach",
        summary="Detach a volume from a guest; answers with the operation that does it.",
        handler=_detach,
        query=(
            Parameter(name="guest", schema=schemas.text("Name or UUID."), required=True),
            Parameter(name="volume", schema=schemas.text("Name or UUID."), required=True),
            _REQUEST_ID,
        ),
        answer="Operation",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="DELETE",
        path="/v1/attachments/{attachment_id}",
        name="detachById",
        summary="Detach this attachment, and no later one of the same volume and guest.",
        handler=_detach_by_id,
        query=(_REQUEST_ID,),
        answer="Operation",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="POST",
        path="/v1/attachments/adopt",
        name="adopt",
        summary="Take over a disk that another hand plugged; nothing but the journal changes.",
        handler=_adopt,
        body="GuestAndVolume",
        answer="Operation",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="POST",
        path="/v1/attachments/release",
        name="release",
        summary="Forget an attachment, and leave it as it is everywhere but in the journal.",
        handler=_release,
        body="GuestAndVolume",
        answer="Operation",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="GET",
        path="/v1/attachments",
        name="listAttachments",
        summary="The live attachments, by guest and device.",
        handler=_attachments,
        query=(
            Parameter(name="guest", schema=schemas.text("Only this guest's.")),
            Parameter(
                name="limit",
                schema={
                    "type": "integer",
                    "minimum": 1,
                    "maximum": LARGEST_LIMIT,
                    "description": "So many at most; else all.",
                },
            ),
            Parameter(
                name="after",
                schema=schemas.text(
                    "Only those behind this attachment: what an answer has in `next`."
                ),
            ),
        ),
        answer="Attachments",
    ),
    Route(
        method="GET",
        path="/v1/attachments/{attachment_id}",
        name="showAttachment",
        summary="One attachment.",
        handler=_attachment,
        answer="Attachment",
    ),
    Route(
        method="POST",
        path="/v1/attachments/extend",
        name="extend",
        summary="Extend an attached volume; answers with the operation that does it.",
        handler=_extend,
        body="ExtendRequest",
        answer="Operation",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="GET",
        path="/v1/guests",
        name="listGuests",
        summary="The guests that libvirt knows, by name.",
        handler=_guests,
        query=(_LIMIT,),
        answer="Guests",
    ),
    Route(
        method="GET",
        path="/v1/volumes",
        name="listVolumes",
        summary="The volumes of Cinder's that are in a status, the newest first.",
        handler=_volumes,
        query=(
            Parameter(
                name="status",
                schema={
                    **schemas.text("In Cinder's own words; those to attach are `available`."),
                    "default": "available",
                },
            ),
            _LIMIT,
        ),
        answer="Volumes",
    ),
    Route(
        method="POST",
        path="/v1/guests/{guest}/reconnect",
        name="reconnectGuest",
        summary="Bring back the devices of what is attached to a guest, before it starts.",
        handler=_reconnect,
        answer="Operations",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="POST",
        path="/v1/guests/{guest}/disconnect",
        name="disconnectGuest",
        summary="Take a guest's devices off the host, behind its end; they come back at its start.",
        handler=_disconnect,
        answer="Operations",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="GET",
        path="/v1/operations",
        name="listOperations",
        summary="The operations, newest first, so many at a time.",
        handler=_operations,
        query=(
            Parameter(
                name="open",
                schema={
                    "type": "boolean",
                    "default": False,
                    "description": "Only those that haven't come to their end.",
                },
            ),
            _LIMIT,
            Parameter(
                name="before",
                schema=schemas.text(
                    "Only those accepted before this operation: the last one's id leads to the "
                    "next page. Where fewer come than `limit`, there are no more."
                ),
            ),
        ),
        answer="Operations",
    ),
    Route(
        method="GET",
        path="/v1/operations/{operation_id}",
        name="showOperation",
        summary="One operation with its steps.",
        handler=_operation,
        answer="Operation",
    ),
    Route(
        method="POST",
        path="/v1/operations/{operation_id}/resume",
        name="resumeOperation",
        summary="Go on with an operation that needs attention; any other stays as it is.",
        handler=_resume,
        answer="Operation",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="GET",
        path="/v1/operations/{operation_id}/events",
        name="followOperation",
        summary="What an operation recorded, and (long poll) what it records next.",
        handler=_events,
        query=(
            Parameter(
                name="after",
                schema={
                    "type": "integer",
                    "minimum": 0,
                    "default": 0,
                    "description": "Only events with a higher seq.",
                },
            ),
            Parameter(
                name="wait",
                schema={
                    "type": "number",
                    "minimum": 0,
                    "default": 0,
                    "description": "Seconds to wait for an event; at most "
                    f"{LONGEST_WAIT:g} are waited. An answer with Retry-After came at once, "
                    "because too many callers wait already.",
                },
            ),
        ),
        answer="Events",
    ),
    Route(
        method="GET",
        path="/v1/audit",
        name="audit",
        summary="Where the four worlds disagree; no finding means that they agree.",
        handler=_audit,
        answer="Audit",
    ),
    Route(
        method="POST",
        path="/v1/audit/repair",
        name="repair",
        summary="Do what is safe about what an audit finds now: one operation an attachment.",
        handler=_repair,
        answer="Operations",
        status=HTTPStatus.ACCEPTED,
    ),
    Route(
        method="GET",
        path="/v1/doctor",
        name="doctor",
        summary="Whether this host is fit, and what keeps it from being so.",
        handler=_doctor,
        answer="Diagnosis",
    ),
    Route(
        method="GET",
        path="/v1/connector",
        name="showConnector",
        summary="What Cinder is told of this host with each attachment, as os-brick says it.",
        handler=_connector,
        answer="Connector",
    ),
    Route(
        method="GET",
        path="/v1/health",
        name="health",
        summary="The daemon's version, and whether the worlds can be reached.",
        handler=_health,
        answer="Health",
    ),
    Route(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Every number of the daemon, in Prometheus' text form.",
        handler=_metrics,
        answer="Metrics",
        media_type="text/plain; version=0.0.4; charset=utf-8",
    ),
)
