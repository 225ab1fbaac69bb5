"""The WSGI application: Flask around the route table.

Its one rule: every answer is JSON (but for /metrics, which Prometheus wants as text), and every
failure is a problem+json document. An exception that nobody foresaw is logged here and becomes
internal-error; the caller never sees a traceback.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from attachd.api import problems, validation
from attachd.api.openapi import ALL_ROUTES
from attachd.api.peers import Peer, peer_of
from attachd.api.ports import Auditor, Doctor, Engine, Metrics, Repairer
from attachd.api.problems import BadRequest
from attachd.api.routes import Call, Context, LongPolls, Route
from attachd.api.schemas import ref
from attachd.errors import AttachdError, Code, Problem

LOG = logging.getLogger(__name__)

Authorise = Callable[[Peer | None], bool]
"""May this peer use the API? None: the kernel gave no credentials."""

_READING = frozenset({"GET", "HEAD"})

_DENIED = Problem(
    code=Code.PERMISSION_DENIED,
    brief="You may not use attachd.",
    resolution="Use it as root, or as a member of its group.",
)
_INTERNAL = Problem(
    code=Code.INTERNAL_ERROR,
    brief="attachd failed in a way that was not foreseen.",
    resolution="The daemon's log has the details: journalctl -u attachd",
)


def create_app(
    *,
    engine: Engine,
    auditor: Auditor,
    repairer: Repairer,
    doctor: Doctor,
    metrics: Metrics,
    authorise: Authorise,
    body_limit: int = 65536,
    long_polls: int = 8,
) -> Flask:
    """The API of ``engine``, ``auditor``, ``repairer``, ``doctor`` and ``metrics``.

    ``body_limit`` is the largest body in bytes; ``long_polls`` is how many callers may wait for
    events at once, and must stay below the server's number of threads.
    """
    app = Flask("attachd", static_folder=None)
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = body_limit
    app.before_request(_gate(authorise))
    context = Context(
        engine=engine,
        auditor=auditor,
        repairer=repairer,
        doctor=doctor,
        metrics=metrics,
        long_polls=LongPolls(long_polls),
    )
    for route in ALL_ROUTES:
        app.add_url_rule(
            route.path.replace("{", "<").replace("}", ">"),
            endpoint=route.name,
            view_func=_View(route, context, body_limit=body_limit),
            methods=[route.method],
            provide_automatic_options=False,
        )
    app.register_error_handler(AttachdError, _on_attachd_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_unforeseen)
    app.after_request(_log)
    return app


def _gate(authorise: Authorise) -> Callable[[], Response | None]:
    """Before anything else of a request is looked at: who asks? Doubt means no."""

    def gate() -> Response | None:
        g.arrived = time.monotonic()
        peer = peer_of(request.environ)
        try:
            allowed = authorise(peer)
        except Exception:  # whatever went wrong: the door stays shut
            LOG.exception("The peer's rights could not be checked: refused.")
            allowed = False
        if allowed is True:
            return None
        LOG.warning("Refused: %s", peer or "a peer without credentials")
        return _problem(_DENIED, HTTPStatus.FORBIDDEN)

    return gate


class _View:
    """Checks a request against its route's schemas, calls the handler, writes the reply."""

    def __init__(self, route: Route, context: Context, *, body_limit: int) -> None:
        self._route = route
        self._context = context
        self._limit = body_limit
        self._parameters = {parameter.name: parameter.schema for parameter in route.query}
        self._query = validation.Checker(
            {
                "type": "object",
                "required": [parameter.name for parameter in route.query if parameter.required],
                "additionalProperties": False,
                "properties": self._parameters,
            }
        )
        self._body = validation.Checker(ref(route.body)) if route.body else None
        self.__name__ = route.name

    def __call__(self, **path: str) -> Response:
        query = validation.read_query(request.args.to_dict(flat=False), self._parameters)
        self._query.check(query, brief="The query isn't what this path takes.")
        call = Call(path=path, query=query, body=self._read_body())
        reply = self._route.handler(self._context, call)
        if isinstance(reply.document, str):
            return Response(reply.document, reply.status, content_type=self._route.media_type)
        return _json(reply.document, reply.status, headers=reply.headers)

    def _read_body(self) -> dict[str, Any]:
        if self._body is None:
            return {}
        if request.mimetype != "application/json":
            raise BadRequest(
                "The request's body must be application/json.",
                status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            )
        body = validation.parse_object(
            validation.read_body(
                request.environ["wsgi.input"], length=request.content_length, limit=self._limit
            )
        )
        self._body.check(body, brief="The request's body isn't what this path takes.")
        return body


def _on_attachd_error(error: AttachdError) -> Response:
    status = error.status if isinstance(error, BadRequest) else problems.status_of(error.code)
    return _problem(error.problem, status)


def _on_http_error(error: HTTPException) -> Response:
    """What Flask itself refuses: no such path, no such method on it."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    problem = Problem(
        code=problems.code_of(status),
        brief=f"{status.phrase}.",
        resolution="See what there is in /v1/openapi.json.",
    )
    allowed = dict(error.get_headers()).get("Allow")
    return _problem(problem, status, headers={"Allow": allowed} if allowed else {})


def _on_unforeseen(error: Exception) -> Response:
    LOG.error("%s %s failed", request.method, _shown_path(), exc_info=error)
    return _problem(_INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR)


def _problem(
    problem: Problem, status: HTTPStatus, *, headers: Mapping[str, str] | None = None
) -> Response:
    return _json(
        problems.document(problem, status), status, headers=headers, mimetype=problems.MEDIA_TYPE
    )


def _json(
    document: Mapping[str, Any],
    status: HTTPStatus,
    *,
    headers: Mapping[str, str] | None = None,
    mimetype: str = "application/json",
) -> Response:
    return Response(
        json.dumps(document) + "\n", status=status, headers=dict(headers or {}), mimetype=mimetype
    )


def _log(response: Response) -> Response:
    """One line a request, without its body; reading is told only to those who debug."""
    level = logging.DEBUG if request.method in _READING else logging.INFO
    LOG.log(
        level,
        "%s %s -> %d for %s in %.3f s",
        request.method,
        _shown_path(),
        response.status_code,
        peer_of(request.environ) or "a peer without credentials",
        time.monotonic() - g.arrived,
    )
    return response


def _shown_path() -> str:
    """The path as it may stand in a log: a caller can't forge a line with it."""
    return ascii(request.path)[1:-1]
