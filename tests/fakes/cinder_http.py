"""Keystone and Cinder as a small real HTTP server on 127.0.0.1, with faults on order.

Behind it stand the same rules as behind FakeCinder. It speaks what attachd's client needs: version
documents, Keystone's password tokens with a catalogue, volumes and attachments. Like the real one
it wants a valid token (else 401), the microversion at which a call appeared (else 404), and a
service token for the delete of an attachment in use (else 500).

Faults are queued by verb, and each request of that verb takes one: a status, a connection dropped
before or after the work, an answer that is late, garbled or rewritten.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.cinder_rules import AttachmentRow, CinderFaultError, CinderRules, VolumeRow

FAULT_NAMES = {
    HTTPStatus.BAD_REQUEST: "badRequest",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.NOT_FOUND: "itemNotFound",
    HTTPStatus.CONFLICT: "conflictingRequest",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "overLimit",
    HTTPStatus.SERVICE_UNAVAILABLE: "serviceUnavailable",
}
LONGEST_WAIT = 60.0

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request."""

    status: HTTPStatus | None = None
    message: str = "out of order"
    as_html: bool = False
    drops: bool = False
    after_work: bool = False
    waits: threading.Event | None = None
    body: bytes | None = None
    rewrite: Callable[[Document], object] | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that arrived; header names in lower case."""

    verb: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: HTTPStatus
    document: Document | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class _DroppedError(Exception):
    """The connection shall end here."""


class CinderServer:
    """The server; a context manager, since it holds a socket and a thread.

    ``rules`` has the rows; ``requests`` what arrived; ``region``, ``microversion`` and
    ``in_catalogue`` are what it says of itself; ``password`` is the one Keystone accepts.
    ``clock``: seconds by which both are ahead of this host; ``dated``: Cinder's answers have a
    date (a bare uWSGI gives them none).
    """

    def __init__(self, *, microversion: str = "3.71") -> None:
        self.rules = CinderRules()
        self.microversion = microversion
        self.region = "RegionOne"
        self.in_catalogue = True
        self.password = "right"
        self.clock = 0.0
        self.dated = False
        self.roles = ("admin", "service")
        self.requests: list[Request] = []
        self._tokens: set[str] = set()
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._waiting: list[threading.Event] = []
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    # --- for tests --------------------------------------------------------------------------

    @property
    def auth_url(self) -> str:
        """Keystone's URL."""
        return f"http://127.0.0.1:{self._port}/identity"

    def fail(
        self, verb: str, status: int, *, message: str = "out of order", times: int = 1
    ) -> None:
        """Answer with a status, nothing done."""
        self._add(verb, Fault(status=HTTPStatus(status), message=message), times)

    def fail_after_work(self, verb: str, status: int) -> None:
        """Do the work, and answer with a status all the same."""
        self._add(verb, Fault(status=HTTPStatus(status), after_work=True))

    def answer_html(self, verb: str, status: int, *, times: int = 1) -> None:
        """Answer as a proxy would that knows nothing of Cinder."""
        self._add(verb, Fault(status=HTTPStatus(status), as_html=True), times)

    def drop(self, verb: str, *, after_work: bool, times: int = 1) -> None:
        """End the connection without an answer, before or after the work."""
        self._add(verb, Fault(drops=True, after_work=after_work), times)

    def delay(self, verb: str) -> threading.Event:
        """Do the work, and answer only when the event is set (or the server stops)."""
        event = threading.Event()
        self._waiting.append(event)
        self._add(verb, Fault(waits=event, after_work=True))
        return event

    def garble(self, verb: str, body: bytes) -> None:
        """Do the work, and answer with this body."""
        self._add(verb, Fault(body=body, after_work=True))

    def rewrite(self, verb: str, change: Callable[[Document], object]) -> None:
        """Do the work, and let ``change`` alter the answer's document in place."""
        self._add(verb, Fault(rewrite=change, after_work=True))

    def expire_tokens(self) -> None:
        """Every token issued so far is worth nothing any more."""
        with self._lock:
            self._tokens.clear()

    def seen(self, verb: str) -> list[Request]:
        """The requests of a verb."""
        with self._lock:
            return [request for request in self.requests if request.verb == verb]

    def stop(self) -> None:
        """Close the port; ``start`` opens the same one again."""
        if self._server is None or self._thread is None:
            return
        for event in self._waiting:
            event.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def start(self) -> None:
        """Listen on a free port of 127.0.0.1, the second time on the same."""
        server = _Server(("127.0.0.1", self._port), _Handler)
        server.cinder = self
        self._server, self._port = server, server.server_address[1]
        self._thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="cinder-http"
        )
        self._thread.start()

    def __enter__(self) -> CinderServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _add(self, verb: str, fault: Fault, times: int = 1) -> None:
        if verb not in {route.verb for route in ROUTES}:
            raise ValueError(f"{verb!r} is no verb of this server")
        with self._lock:
            self._faults[verb].extend([fault] * times)

    # --- one request ------------------------------------------------------------------------

    def handle(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Return the bytes of the whole answer; raise _DroppedError to end the connection."""
        parts = urlsplit(url)
        route, found = _route(method, parts.path, body)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        request = Request(
            verb=route.verb, method=method, path=parts.path, query=query, headers=headers
        )
        with self._lock:
            self.requests.append(request)
            faults = self._faults[route.verb]
            fault = faults.popleft() if faults else Fault()
        if not fault.after_work:
            _strike(fault)
            if fault.status:
                return _render(_plain_fault(fault), fault, date=self._date())
        answer = self._work(route, request, found, body)
        if fault.after_work:
            _strike(fault)
        if fault.status:
            answer = _plain_fault(fault)
        if fault.rewrite and answer.document is not None:
            fault.rewrite(answer.document)
        return _render(answer, fault, date=self._date())

    def _date(self) -> str | None:
        return formatdate(time.time() + self.clock, usegmt=True) if self.dated else None

    def _work(self, route: Route, request: Request, found: re.Match[str], body: bytes) -> _Answer:
        try:
            if route.since:
                self._admit(route, request)
            document = json.loads(body) if body else {}
            return route.work(self, request, found, document)
        except CinderFaultError as exc:
            return _fault_answer(exc.status, exc.message)

    def _admit(self, route: Route, request: Request) -> None:
        with self._lock:
            known = request.headers.get("x-auth-token") in self._tokens
        if not known:
            raise CinderFaultError(HTTPStatus.UNAUTHORIZED, "Authentication required")
        service, _, wanted = request.headers.get("openstack-api-version", "volume 3.0").partition(
            " "
        )
        if service != "volume" or _number(wanted) > _number(self.microversion):
            raise CinderFaultError(HTTPStatus.NOT_ACCEPTABLE, f"Version {wanted} is not supported.")
        if _number(wanted) < _number(route.since):
            raise CinderFaultError(HTTPStatus.NOT_FOUND, "The resource could not be found.")

    # --- Keystone ---------------------------------------------------------------------------

    def identity_versions(self, *_: object) -> _Answer:
        """GET /identity"""
        version = {
            "id": "v3.14",
            "status": "stable",
            "links": [{"rel": "self", "href": f"{self.auth_url}/v3/"}],
        }
        return _Answer(
            status=HTTPStatus.MULTIPLE_CHOICES, document={"versions": {"values": [version]}}
        )

    def token(self, _: Request, __: re.Match[str], document: Document) -> _Answer:
        """POST /identity/v3/auth/tokens"""
        user = document["auth"]["identity"]["password"]["user"]
        if user["password"] != self.password:
            return _Answer(
                status=HTTPStatus.UNAUTHORIZED,
                document={
                    "error": {
                        "code": 401,
                        "message": "The request you have made requires authentication.",
                        "title": "Unauthorized",
                    }
                },
            )
        token = f"token-{uuid.uuid4().hex}"
        with self._lock:
            self._tokens.add(token)
        return _Answer(
            status=HTTPStatus.CREATED,
            document={"token": self._token_document(user)},
            headers={"X-Subject-Token": token},
        )

    def _token_document(self, user: Document) -> Document:
        endpoint = {
            "id": "e1",
            "interface": "public",
            "region": self.region,
            "region_id": self.region,
            "url": f"http://127.0.0.1:{self._port}/volume/v3/{PROJECT}",
        }
        cinder = {"id": "s1", "type": "block-storage", "name": "cinder", "endpoints": [endpoint]}
        return {
            "methods": ["password"],
            "user": {"id": "u1", "name": user["name"], "domain": user["domain"]},
            "project": {"id": PROJECT, "name": "service", "domain": {"id": "default"}},
            "roles": [{"id": name, "name": name} for name in self.roles],
            "catalog": [cinder] if self.in_catalogue else [],
            "issued_at": f"{datetime.fromtimestamp(time.time() + self.clock, UTC):%FT%T.000000Z}",
            "expires_at": "2126-01-01T00:00:00.000000Z",
        }

    # --- Cinder -----------------------------------------------------------------------------

    def volume_versions(self, *_: object) -> _Answer:
        """GET /volume/ and /volume/v3/"""
        version = {
            "id": "v3.0",
            "status": "CURRENT",
            "version": self.microversion,
            "min_version": "3.0",
            "links": [{"rel": "self", "href": f"http://127.0.0.1:{self._port}/volume/v3/"}],
        }
        return _Answer(status=HTTPStatus.OK, document={"versions": [version]})

    def get_volume(self, request: Request, found: re.Match[str], _: Document) -> _Answer:
        """GET /volumes/{id}"""
        row = self.rules.volume(found["id"])
        return _Answer(status=HTTPStatus.OK, document={"volume": self._volume(row, request)})

    def list_volumes(self, request: Request, _: re.Match[str], __: Document) -> _Answer:
        """GET /volumes/detail, by name or by status (the newest first, where that is asked for).

        Every volume is in another project than the caller's.
        """
        query = request.query
        rows = []
        if _all_tenants(request) and "name" in query:
            rows = self.rules.volumes_named(query["name"])
        elif _all_tenants(request) and query["sort"] == "created_at:desc":
            rows = self.rules.volumes_in(query["status"], limit=int(query["limit"]))
        volumes = [self._volume(row, request) for row in rows]
        return _Answer(status=HTTPStatus.OK, document={"volumes": volumes})

    def volume_action(self, request: Request, found: re.Match[str], document: Document) -> _Answer:
        """POST /volumes/{id}/action"""
        rules, volume_id = self.rules, found["id"]
        ((action, arguments),) = document.items()
        match action:
            case "os-begin_detaching":
                rules.begin_detaching(volume_id)
            case "os-roll_detaching":
                rules.roll_detaching(volume_id)
            case "os-reserve":
                rules.reserve(volume_id)
            case "os-unreserve":
                rules.unreserve(volume_id)
            case "os-terminate_connection":
                rules.terminate_connection(volume_id, arguments["connector"])
            case "os-detach":
                rules.detach(volume_id, arguments["attachment_id"])
            case "os-attach":
                self._attach(volume_id, arguments)
            case "os-initialize_connection":
                info = rules.initialize_connection(volume_id, arguments["connector"])
                return _Answer(status=HTTPStatus.OK, document={"connection_info": info})
            case "os-extend":
                in_use = _number(_microversion(request)) >= _number("3.42")
                rules.extend(volume_id, arguments["new_size"], in_use=in_use)
        return _Answer(status=HTTPStatus.ACCEPTED)

    def _attach(self, volume_id: str, arguments: Document) -> None:
        """What its schema wants, and nothing else."""
        known = {"instance_uuid", "mountpoint", "mode"}
        if set(arguments) - known or not arguments["mountpoint"]:
            raise CinderFaultError(HTTPStatus.BAD_REQUEST, "Invalid input for os-attach")
        self.rules.attach(volume_id, arguments["instance_uuid"], arguments["mode"])

    def list_attachments(self, request: Request, _: re.Match[str], __: Document) -> _Answer:
        """GET /attachments?volume_id="""
        volume_id = request.query["volume_id"]
        rows = self.rules.attachments_of(volume_id) if _all_tenants(request) else []
        return _Answer(
            status=HTTPStatus.OK, document={"attachments": [_summary(row) for row in rows]}
        )

    def get_attachment(self, _: Request, found: re.Match[str], __: Document) -> _Answer:
        """GET /attachments/{id}"""
        return _detail(self.rules.attachment(found["id"]))

    def create(self, _: Request, __: re.Match[str], document: Document) -> _Answer:
        """POST /attachments"""
        asked = document["attachment"]
        return _detail(self.rules.create(asked["volume_uuid"], asked["instance_uuid"]))

    def update(self, _: Request, found: re.Match[str], document: Document) -> _Answer:
        """PUT /attachments/{id}"""
        return _detail(self.rules.update(found["id"], document["attachment"]["connector"]))

    def complete(self, _: Request, found: re.Match[str], __: Document) -> _Answer:
        """POST /attachments/{id}/action"""
        self.rules.complete(found["id"])
        return _Answer(status=HTTPStatus.NO_CONTENT)

    def delete(self, request: Request, found: re.Match[str], _: Document) -> _Answer:
        """DELETE /attachments/{id}"""
        with self._lock:
            by_service = request.headers.get("x-service-token") in self._tokens
        row = self.rules.attachment(found["id"])
        self.rules.delete(found["id"], by_service=by_service)
        left = [_summary(other) for other in self.rules.attachments_of(row.volume_id)]
        return _Answer(status=HTTPStatus.OK, document={"attachments": left})

    def nothing(self, *_: object) -> _Answer:
        """Any other path."""
        return _fault_answer(HTTPStatus.NOT_FOUND, "The resource could not be found.")

    def _volume(self, row: VolumeRow, request: Request) -> Document:
        attachments = [
            {
                "id": row.id,
                "attachment_id": a.id,
                "volume_id": row.id,
                "server_id": a.instance,
                "host_name": (a.connector or {}).get("host"),  # shown to administrators only
            }
            for a in self.rules.attachments_of(row.id)
            if a.status == "attached"
        ]
        document: Document = {
            "id": row.id,
            "name": row.name,
            "status": row.status,
            "size": row.size,
            "encrypted": row.encrypted,
            "multiattach": row.multiattach,
            "attachments": attachments,
        }
        wanted = _microversion(request)
        if _number(wanted) >= _number("3.48"):
            tristate = _number(wanted) >= _number("3.69")
            unknown = row.shared_targets is None and not tristate
            document["shared_targets"] = True if unknown else row.shared_targets
            document["service_uuid"] = row.service_uuid
        return document


PROJECT = "9d1c3ac6f0d84f9fb2b1f4f0c2a4f111"
ID = r"(?P<id>[^/]+)"
CINDER = rf"/volume/v3/{PROJECT}"


@dataclass(frozen=True, kw_only=True)
class Route:
    """A verb, how it is recognised, the microversion since which it exists ("" = no token)."""

    verb: str
    method: str
    path: str
    work: Callable[[CinderServer, Request, re.Match[str], Document], _Answer]
    since: str = ""
    action: str = ""


_S = CinderServer
ROUTES = (
    Route(verb="identity", method="GET", path="/identity(/v3)?/?", work=_S.identity_versions),
    Route(verb="token", method="POST", path="/identity/v3/auth/tokens", work=_S.token),
    Route(verb="versions", method="GET", path="/volume/(v3/)?", work=_S.volume_versions),
    Route(
        verb="list_volumes",
        method="GET",
        path=rf"{CINDER}/volumes/detail",
        work=_S.list_volumes,
        since="3.0",
    ),
    Route(
        verb="get_volume",
        method="GET",
        path=rf"{CINDER}/volumes/{ID}",
        work=_S.get_volume,
        since="3.0",
    ),
    Route(
        verb="begin_detaching",
        method="POST",
        path=rf"{CINDER}/volumes/{ID}/action",
        action="os-begin_detaching",
        work=_S.volume_action,
        since="3.0",
    ),
    Route(
        verb="roll_detaching",
        method="POST",
        path=rf"{CINDER}/volumes/{ID}/action",
        action="os-roll_detaching",
        work=_S.volume_action,
        since="3.0",
    ),
    Route(
        verb="extend",
        method="POST",
        path=rf"{CINDER}/volumes/{ID}/action",
        action="os-extend",
        work=_S.volume_action,
        since="3.0",
    ),
    *(
        Route(
            verb=action.removeprefix("os-"),
            method="POST",
            path=rf"{CINDER}/volumes/{ID}/action",
            action=f'"{action}"',
            work=_S.volume_action,
            since="3.0",
        )
        for action in (
            *("os-reserve", "os-unreserve", "os-initialize_connection"),
            *("os-terminate_connection", "os-attach", "os-detach"),
        )
    ),
    Route(
        verb="list_attachments",
        method="GET",
        path=rf"{CINDER}/attachments",
        work=_S.list_attachments,
        since="3.27",
    ),
    Route(
        verb="get_attachment",
        method="GET",
        path=rf"{CINDER}/attachments/{ID}",
        work=_S.get_attachment,
        since="3.27",
    ),
    Route(
        verb="create",
        method="POST",
        path=rf"{CINDER}/attachments",
        work=_S.create,
        since="3.27",
    ),
    Route(
        verb="update",
        method="PUT",
        path=rf"{CINDER}/attachments/{ID}",
        work=_S.update,
        since="3.27",
    ),
    Route(
        verb="complete",
        method="POST",
        path=rf"{CINDER}/attachments/{ID}/action",
        action="os-complete",
        work=_S.complete,
        since="3.44",
    ),
    Route(
        verb="delete",
        method="DELETE",
        path=rf"{CINDER}/attachments/{ID}",
        work=_S.delete,
        since="3.27",
    ),
    Route(verb="nothing", method="", path=".*", work=_S.nothing),
)


def _route(method: str, path: str, body: bytes) -> tuple[Route, re.Match[str]]:
    for route in ROUTES:
        found = re.fullmatch(route.path, path)
        if found and route.method in ("", method) and route.action.encode() in body:
            return route, found
    raise AssertionError("the last route takes everything")


def _strike(fault: Fault) -> None:
    if fault.waits:
        fault.waits.wait(LONGEST_WAIT)
    if fault.drops:
        raise _DroppedError


def _plain_fault(fault: Fault) -> _Answer:
    return _fault_answer(fault.status or HTTPStatus.OK, fault.message)


def _fault_answer(status: HTTPStatus, message: str) -> _Answer:
    name = FAULT_NAMES.get(status, "computeFault")
    return _Answer(status=status, document={name: {"code": status.value, "message": message}})


def _render(answer: _Answer, fault: Fault, *, date: str | None) -> bytes:
    content = b"" if answer.document is None else json.dumps(answer.document).encode()
    kind = "application/json"
    if fault.as_html:
        content, kind = b"<html><body>no such page</body></html>", "text/html"
    if fault.body is not None:
        content = fault.body
    headers = {
        "Content-Type": kind,
        "Content-Length": str(len(content)),
        "x-openstack-request-id": f"req-{uuid.uuid4()}",
        **({"Date": date} if date else {}),
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def _microversion(request: Request) -> str:
    return request.headers.get("openstack-api-version", "volume 3.0").removeprefix("volume ")


def _all_tenants(request: Request) -> bool:
    return request.query.get("all_tenants") == "1"


def _summary(row: AttachmentRow) -> Document:
    return {
        "id": row.id,
        "status": row.status,
        "instance": row.instance,
        "volume_id": row.volume_id,
    }


def _detail(row: AttachmentRow) -> _Answer:
    document = {**_summary(row), "attach_mode": "null", "connection_info": row.connection_info}
    return _Answer(status=HTTPStatus.OK, document={"attachment": document})


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


class _Server(ThreadingHTTPServer):
    """Joins its threads when it is closed, so what they read from has to end before that."""

    daemon_threads = False
    cinder: CinderServer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection while it lasts."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection came to its end."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """End those that a client keeps alive."""
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, lets the CinderServer answer it."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            answer = self.server.cinder.handle(self.command, self.path, headers, body)
            self.wfile.write(answer)
        except (_DroppedError, ConnectionError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""
