"""Problems on the wire: application/problem+json (RFC 9457), and the HTTP status of each code."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from attachd.errors import NOT_FOUND_CODES, Code, Problem, Refused

MEDIA_TYPE = "application/problem+json"

_STATUS = {
    **dict.fromkeys(NOT_FOUND_CODES, HTTPStatus.NOT_FOUND),
    Code.VOLUME_AMBIGUOUS: HTTPStatus.CONFLICT,
    Code.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
    Code.DEVICE_NAME_INVALID: HTTPStatus.BAD_REQUEST,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Code.REQUEST_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.REQUEST_ID_REUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.SHUTTING_DOWN: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.TOO_MANY_REQUESTS: HTTPStatus.TOO_MANY_REQUESTS,
    Code.CINDER_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.LIBVIRT_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.ISCSI_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.JOURNAL_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.JOURNAL_FULL: HTTPStatus.INSUFFICIENT_STORAGE,
    Code.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
}

_CODE_OF_STATUS = {
    HTTPStatus.NOT_FOUND: Code.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: Code.METHOD_NOT_ALLOWED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Code.REQUEST_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR: Code.INTERNAL_ERROR,
}


class BadRequest(Refused):
    """A request that HTTP or its schema refuses; ``status`` says it to HTTP's own tools."""

    def __init__(
        self, brief: str, *, details: str = "", status: HTTPStatus = HTTPStatus.BAD_REQUEST
    ) -> None:
        super().__init__(
            code_of(status),
            brief,
            details=details,
            resolution="See what is allowed in /v1/openapi.json.",
        )
        self.status = status


def status_of(code: Code) -> HTTPStatus:
    """The HTTP status of an error code; a refusal that isn't listed is a conflict of states."""
    return _STATUS.get(code, HTTPStatus.CONFLICT)


def code_of(status: HTTPStatus) -> Code:
    """The error code for a status that HTTP's own machinery chose."""
    return _CODE_OF_STATUS.get(status, Code.BAD_REQUEST)


def fields(problem: Problem) -> dict[str, Any]:
    """The problem as it stands inside other documents."""
    return {
        "code": str(problem.code),
        "brief": problem.brief,
        "details": problem.details,
        "resolution": problem.resolution,
    }


def document(problem: Problem, status: HTTPStatus) -> dict[str, Any]:
    """The body of an application/problem+json answer."""
    return {
        "type": f"urn:attachd:problem:{problem.code}",
        "title": problem.code.replace("-", " ").capitalize(),
        "status": int(status),
        **fields(problem),
    }
