"""What goes wrong between attachd and Cinder, in attachd's own errors.

The question that each of them answers is ``touched``: may Cinder have begun to work? Certainly not
while Keystone is asked or the endpoint looked up, nor when no connection came about, nor when
Cinder refused with a 4xx. After a broken connection, a read timeout or a 5xx nobody can know.

Cinder's own message goes into the details as safe text: one printable line, bounded, with whatever
looks like a secret masked (drivers have been seen to put command lines into their errors).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import requests
import urllib3.exceptions
from keystoneauth1 import exceptions as ks_exceptions

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.trace.masking import without_secrets

TRANSIENT_STATUSES = frozenset(
    {
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
LONGEST_TEXT = 500

_CREDENTIALS_HINT = (
    "Check auth_url, username, password, project_name and the domains in [cinder] of attachd.conf."
)


class Transient(Unreachable):
    """A fault that may be gone at the next try. ``status``: what Cinder answered, if it did."""

    status: int | None = None


# --- before Cinder was reached --------------------------------------------------------------


def not_reached(exc: Exception) -> Unreachable:
    """Translate what Keystone, its catalogue or the look-up of the endpoint raised."""
    if isinstance(exc, ks_exceptions.EndpointNotFound):
        return _unreached(
            "Keystone's catalogue has no endpoint of Cinder.",
            details=safe_text(str(exc)),
            resolution="Check region_name and interface in [cinder] of attachd.conf, and the "
            "catalogue: openstack catalog show block-storage.",
        )
    if isinstance(exc, ks_exceptions.HttpError) and not _server_fault(exc.http_status):
        return _unreached(
            "Keystone refuses attachd's credentials.",
            details=safe_text(str(exc)),
            resolution=_CREDENTIALS_HINT,
        )
    if isinstance(exc, ks_exceptions.AuthPluginException | ks_exceptions.AuthorizationFailure):
        return _unreached(
            "attachd's credentials can't be used.",
            details=safe_text(str(exc)),
            resolution=_CREDENTIALS_HINT,
        )
    return Transient(
        Code.CINDER_UNAVAILABLE,
        "Keystone or Cinder can't be reached.",
        world=World.CINDER,
        touched=False,
        details=safe_text(str(exc)),
        resolution="Check that both are up, and auth_url in [cinder] of attachd.conf.",
    )


def unreadable(exc: Exception) -> Unreachable:
    """Keystone's token or catalogue, or a version document, isn't of the promised form."""
    return _unreached(
        "What Keystone or Cinder says of itself can't be read.",
        details=safe_text(f"{type(exc).__name__}: {exc}"),
        resolution="Check that auth_url in [cinder] of attachd.conf is Keystone's, and what "
        "proxies stand before it and Cinder.",
    )


def no_microversion(minimum: str, offered: str | None) -> Unreachable:
    """Cinder's version document offers less than attachd needs, or could not be read at all."""
    if offered is None:
        return Transient(
            Code.CINDER_UNAVAILABLE,
            "Cinder doesn't say which microversions it speaks.",
            world=World.CINDER,
            touched=False,
            resolution="Check that Cinder's API is up.",
        )
    return _unreached(
        f"Cinder speaks microversion {offered} at most; attachd needs {minimum}.",
        resolution="Upgrade Cinder, or name a newer one's region_name in [cinder].",
    )


def short_sighted() -> Unreachable:
    """attachd's user isn't shown everything: what it isn't shown may be there all the same."""
    return _unreached(
        "attachd's user lacks the role admin: Cinder may hide from it what is there.",
        resolution="Give the user in [cinder] of attachd.conf the roles admin and service.",
    )


def _unreached(brief: str, *, details: str = "", resolution: str = "") -> Unreachable:
    return Unreachable(
        Code.CINDER_UNAVAILABLE,
        brief,
        world=World.CINDER,
        touched=False,
        details=details,
        resolution=resolution,
    )


def _server_fault(status: int | None) -> bool:
    return status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR


# --- the exchange itself ----------------------------------------------------------------------


def broken(exc: Exception, *, changing: bool) -> Unreachable:
    """Translate an exchange that ended without an answer."""
    sent = _was_sent(exc.__context__)
    return Transient(
        Code.CINDER_UNAVAILABLE,
        "Cinder's answer was lost." if sent else "Cinder can't be reached.",
        world=World.CINDER,
        touched=changing and sent,
        details=safe_text(str(exc)),
        resolution="Check that Cinder's API is up.",
    )


def _was_sent(cause: BaseException | None) -> bool:
    """May the request have left? keystoneauth hides what it met in the exception's context."""
    if isinstance(cause, requests.exceptions.ConnectTimeout):
        return False
    if isinstance(cause, requests.exceptions.ConnectionError) and cause.args:
        reason = getattr(cause.args[0], "reason", None)
        return not isinstance(
            reason,
            urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError,
        )
    return True


def failed(response: requests.Response, *, changing: bool) -> Unreachable:
    """Translate an answer with a 5xx status."""
    kind = Transient if response.status_code in TRANSIENT_STATUSES else Unreachable
    fault = kind(
        Code.CINDER_UNAVAILABLE,
        f"Cinder failed with status {response.status_code}.",
        world=World.CINDER,
        touched=changing,
        details=details_of(response),
        resolution="See the logs of cinder-api and cinder-volume for the request id.",
    )
    if isinstance(fault, Transient):
        fault.status = response.status_code
    return fault


def not_cinders(response: requests.Response) -> Unreachable:
    """A 404 that isn't Cinder's own: something before it answers, and nothing can be concluded."""
    return Transient(
        Code.CINDER_UNAVAILABLE,
        "Something other than Cinder answers at its endpoint.",
        world=World.CINDER,
        touched=False,
        details=details_of(response),
        resolution="Check Cinder's endpoint and the proxies before it.",
    )


def refused(response: requests.Response) -> Refused:
    """Translate any other answer that isn't a success: Cinder said no, and did nothing."""
    return Refused(
        Code.CINDER_REFUSED,
        f"Cinder refuses the request with status {response.status_code}.",
        details=details_of(response),
        resolution=_RESOLUTIONS.get(response.status_code, _LOOK_AT_CINDER),
    )


_LOOK_AT_CINDER = "Cinder's log says more: look there for the request id of this operation."

_RESOLUTIONS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "Check that Cinder validates tokens with the Keystone that "
    "auth_url in [cinder] of attachd.conf names.",
    HTTPStatus.FORBIDDEN: "Give the user in [cinder] of attachd.conf the roles admin and service.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "See the quota of the volume's project: "
    "openstack quota show PROJECT.",
    HTTPStatus.CONFLICT: "Give the user in [cinder] of attachd.conf the role service, which "
    "Cinder asks for before it deletes an attachment in use.",
}


def malformed(path: str, problem: str, *, touched: bool) -> AttachdError:
    """Cinder answered, but not in the form it promises; ``path`` is the attribute's."""
    return AttachdError(
        Code.CINDER_REFUSED,
        f"Cinder's answer can't be used: {path} {problem}.",
        resolution="See cinder-volume's log; the driver, or a proxy before Cinder, is at fault.",
        touched=touched,
    )


# --- text -------------------------------------------------------------------------------------


def details_of(response: requests.Response) -> str:
    """Cinder's own message and request id, as far as it gave them."""
    parts = [_message(response)]
    if request_id := response.headers.get("x-openstack-request-id"):
        parts.append(f"Cinder's request id: {safe_text(request_id)}")
    return " ".join(part for part in parts if part)


def _message(response: requests.Response) -> str:
    for fault in _faults(response).values():
        message = fault.get("message") if isinstance(fault, dict) else None
        if isinstance(message, str):
            return safe_text(message)
    return ""


def is_cinders_not_found(response: requests.Response) -> bool:
    """Is this 404 Cinder's own word that there is no such thing?"""
    return "itemNotFound" in _faults(response)


def _faults(response: requests.Response) -> dict[str, Any]:
    """Cinder's ``{"badRequest": {"code": 400, "message": ...}}``, or nothing."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def safe_text(text: str) -> str:
    """One printable line of at most 500 characters, secrets masked."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    masked = without_secrets(" ".join(printable.split()))
    return masked if len(masked) <= LONGEST_TEXT else masked[: LONGEST_TEXT - 1] + "…"
