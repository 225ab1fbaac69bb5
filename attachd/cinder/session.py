"""The way to Cinder: credentials, endpoint, microversion, and one HTTP exchange at a time.

openstacksdk finds Cinder in Keystone's catalogue, reads its version document and carries requests;
each of them has the user's token and, for Cinder's check before it deletes an attachment in use,
the same one as service token. The SDK's resource classes are left out on purpose: they turn an
attribute that is missing or of a wrong type into None, and they log bodies, with CHAP passwords.

An exchange has two phases. Opening (a token, the endpoint, the microversion) never touches
Cinder's volumes; the request itself may. They are kept apart so that an error knows which it was:
that is why a 401, with which Cinder says that the token expired, is answered with a new token here
and not inside keystoneauth.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

import requests
from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import loading, service_token
from keystoneauth1.access import AccessInfo
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.session import Session
from openstack import exceptions as sdk_exceptions
from openstack.connection import Connection
from openstack.proxy import Proxy
from openstack.utils import maximum_supported_microversion
from oslo_config import cfg

from attachd.cinder import faults
from attachd.errors import AttachdError, Code
from attachd.logs.subject import about
from attachd.trace import Exchange, Library, call
from attachd.trace.masking import kept

T = TypeVar("T")
LOG = logging.getLogger(__name__)

MICROVERSION_MIN = "3.0"  # the old style needs no more
ATTACHMENTS_SINCE = "3.44"  # os-complete
MICROVERSION_MAX = "3.69"  # the last one that changes what is read here (shared_targets)

_REQUEST_ID = "x-openstack-request-id"

# What escapes keystoneauth when a token, catalogue or version document isn't of the promised form.
_MISREAD = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
_DOLLAR = "a value has a $ that stands for no other option; a $ of its own is written $$"


@dataclass(frozen=True, kw_only=True)
class Token:
    """What Keystone says of a token: its roles in small letters, and by its clock when it began."""

    roles: frozenset[str]
    issued_at: float | None


def load_auth(config: Any, group: str) -> BaseAuthPlugin:  # noqa: ANN401  (oslo.config's ConfigOpts)
    """The credentials in a group of an oslo.config ConfigOpts, as keystoneauth reads them.

    Raises AttachdError config-invalid.
    """
    try:
        auth = loading.load_auth_from_conf_options(config, group)
    except ks_exceptions.AuthPluginException as exc:
        raise _invalid(config, group, faults.safe_text(str(exc))) from exc
    except (cfg.Error, ValueError):  # it names what follows the $: part of a password, perhaps
        raise _invalid(config, group, _DOLLAR) from None
    if auth is None:
        raise _invalid(config, group, "auth_type is not set")
    return auth


def _invalid(config: Any, group: str, problem: str) -> AttachdError:  # noqa: ANN401
    files = ", ".join(config.config_file or ["no file"])
    return AttachdError(
        Code.CONFIG_INVALID,
        f"The credentials in [{group}] can't be used.",
        details=f"[{group}] in {files}: {problem}",
        resolution=f"Set auth_type, auth_url, username, password, project_name and the domains in "
        f"[{group}] of attachd.conf.",
        touched=False,
    )


def new_session(
    *,
    auth: BaseAuthPlugin,
    timeout: float,
    cafile: str | None = None,
    insecure: bool = False,
) -> Session:
    """A keystoneauth session whose requests carry X-Auth-Token and X-Service-Token.

    ``timeout``: seconds that Keystone, or Cinder's version document, has for one answer.
    """
    return Session(
        auth=service_token.ServiceTokenAuthWrapper(user_auth=auth, service_auth=auth),
        timeout=timeout,
        verify=not insecure and (cafile or True),
    )


class CinderSession:
    """One HTTP exchange with Cinder at a time; any number of threads may share it.

    Seconds: ``connect_timeout`` for a connection to come about, ``query_timeout`` for the answer to
    a question, ``request_timeout`` for the answer to a change; an update's comes after the backend
    made its export: minutes. ``microversion_min``: below it Cinder counts as out of reach.
    """

    def __init__(
        self,
        *,
        session: Session,
        region_name: str | None,
        interface: str,
        connect_timeout: float,
        request_timeout: float,
        query_timeout: float = 60,
        microversion_min: str = ATTACHMENTS_SINCE,
    ) -> None:
        self._session = session
        self._connection = Connection(
            session=session,
            region_name=region_name,
            interface=interface,
            app_name="attachd",
            strict_proxies=True,
        )
        self._connect_timeout = connect_timeout
        self._request_timeout = request_timeout
        self._query_timeout = query_timeout
        self._microversion_min = microversion_min
        self._microversion: str | None = None

    def exchange(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        global_request_id: str | None = None,
    ) -> requests.Response:
        """Send one request; return Cinder's answer if it is a success or Cinder's own 404.

        Raises Unreachable cinder-unavailable (Transient where another try makes sense), Refused
        cinder-refused.
        """
        request = {
            "json": body,
            "params": query,
            "global_request_id": global_request_id,
        }
        response = self._send(method, path, request)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            self._session.invalidate()
            response = self._send(method, path, request)
        return _checked(response, changing=_is_changing(method))

    def require_full_sight(self) -> None:
        """Raise Unreachable unless the token has the role ``admin``.

        To others Cinder answers 404, or an empty list, for what is there and isn't their project's:
        from their token "there is none" would be no answer.
        """
        roles = self._asked_of_token(_roles)
        if roles is not None and "admin" not in roles:
            raise faults.short_sighted()

    def token(self) -> Token | None:
        """What Keystone says of the token in use; a first one is asked for.

        None: there is no Keystone. Raises Unreachable cinder-unavailable.
        """
        return self._asked_of_token(_token)

    def _asked_of_token(self, question: Callable[[AccessInfo], T]) -> T | None:
        """None: without Keystone there is no token."""
        wrapper = self._session.auth
        get_access = getattr(getattr(wrapper, "user_auth", wrapper), "get_access", None)
        if get_access is None:
            return None
        try:
            return question(get_access(self._session))
        except (ks_exceptions.ClientException, *_MISREAD) as exc:
            raise faults.not_reached(exc) from exc

    def microversion(self) -> str:
        """The highest that both sides know. Raises Unreachable cinder-unavailable."""
        return self._open()[1]

    def offers(self, microversion: str) -> bool:
        """Is that what Cinder speaks, or less? Raises Unreachable where it can't be asked."""
        return speaks(self.microversion(), microversion)

    def require(self, microversion: str) -> None:
        """Raise Unreachable where Cinder speaks less: its 404 for a verb says nothing of things."""
        negotiated = self.microversion()
        if not speaks(negotiated, microversion):
            raise faults.no_microversion(microversion, negotiated)

    def _send(self, method: str, path: str, request: dict[str, Any]) -> requests.Response:
        proxy, microversion = self._open()
        changing = _is_changing(method)
        began = time.monotonic()
        try:
            with call(Library.CINDER, f"{method} {path}") as note:
                if note.collected:
                    note.exchange = Exchange(method=method, url=path, body=kept(request["json"]))
                response: requests.Response = proxy.request(
                    path,
                    method,
                    **request,
                    microversion=microversion,
                    timeout=(
                        self._connect_timeout,
                        self._request_timeout if changing else self._query_timeout,
                    ),
                    allow_reauth=False,
                    connect_retries=0,
                    status_code_retries=0,
                    log=False,
                    # keystoneauth's own goes by the wall clock: set back, it sleeps for as long.
                    rate_semaphore=nullcontext(),
                )
                if note.exchange is not None:
                    note.exchange = _answered(note.exchange, response)
                if not response.ok:
                    note.outcome = f"HTTP {response.status_code}"
                _log(method, path, response, seconds=time.monotonic() - began)
                return response
        except ks_exceptions.ClientException as exc:
            raise faults.broken(exc, changing=changing) from exc

    def _open(self) -> tuple[Proxy, str]:
        """A valid token, the endpoint, the microversion: all kept until they are stale."""
        try:
            with call(Library.CINDER, "token"):
                self._session.get_auth_headers()
            proxy = self._connection.block_storage
            if self._microversion is None:
                with call(Library.CINDER, "versions"):
                    self._microversion = _negotiate(proxy, self._microversion_min)
        except (ks_exceptions.ClientException, sdk_exceptions.SDKException) as exc:
            raise faults.not_reached(exc) from exc
        except _MISREAD as exc:
            raise faults.unreadable(exc) from exc
        return proxy, self._microversion


def _answered(exchange: Exchange, response: requests.Response) -> Exchange:
    try:
        answer = kept(response.json())
    except (ValueError, RecursionError):
        answer = None
    return replace(
        exchange,
        url=response.url or exchange.url,
        status=response.status_code,
        request_id=response.headers.get(_REQUEST_ID),
        answer=answer,
    )


def _log(method: str, path: str, response: requests.Response, *, seconds: float) -> None:
    """By its request id Cinder's own log tells the rest. What only reads, and could, is debug."""
    missing = response.status_code == HTTPStatus.NOT_FOUND  # a question's answer like any other
    quiet = not _is_changing(method) and (response.ok or missing)
    with about(request_id=response.headers.get(_REQUEST_ID)):
        LOG.log(
            logging.DEBUG if quiet else logging.INFO,
            "Cinder: %s %s -> %d in %.3f s",
            method,
            path,
            response.status_code,
            seconds,
        )


def _negotiate(proxy: Proxy, minimum: str) -> str:
    """The highest microversion that both sides know."""
    offered = maximum_supported_microversion(proxy, MICROVERSION_MAX)
    if offered is None or not speaks(offered, minimum):
        raise faults.no_microversion(minimum, offered)
    return offered


def _token(access: AccessInfo) -> Token:
    issued = access.issued
    return Token(roles=_roles(access), issued_at=None if issued is None else issued.timestamp())


def _roles(access: AccessInfo) -> frozenset[str]:
    return frozenset(role.lower() for role in access.role_names or ())


def speaks(offered: str, wanted: str) -> bool:
    """Is a microversion the other one, or a later one?"""
    return _number(offered) >= _number(wanted)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _is_changing(method: str) -> bool:
    return method != "GET"


def _checked(response: requests.Response, *, changing: bool) -> requests.Response:
    status = response.status_code
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise faults.failed(response, changing=changing)
    if status == HTTPStatus.NOT_FOUND:
        if not faults.is_cinders_not_found(response):
            raise faults.not_cinders(response)
    elif not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise faults.refused(response)
    return response
