"""HTTP over the daemon's Unix socket: a document comes back, or a Failure is raised."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode

from attachd.cli.failure import DaemonGone, Failure, status_of_refusal
from attachd.errors import Code, Exit

ANSWER_SECONDS = 30.0
"""How long the daemon may take for an answer, beyond what it was asked to wait."""

_FIRST_ERROR = 400


@dataclass(frozen=True)
class Reply:
    """A document, and the seconds that the daemon asks to pause before the next request."""

    document: dict[str, Any]
    pause: float = 0.0


class Client:
    """One connection to the daemon at ``socket_path``, made anew whenever it broke."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._connection: _UnixConnection | None = None

    def get(
        self,
        target: str,
        query: Mapping[str, object] | None = None,
        *,
        timeout: float = ANSWER_SECONDS,
    ) -> Reply:
        """Read something."""
        return self._ask("GET", target, query=query, timeout=timeout)

    def post(
        self,
        target: str,
        body: Mapping[str, object] | None = None,
        *,
        timeout: float = ANSWER_SECONDS,
    ) -> Reply:
        """Ask for something to be done."""
        return self._ask("POST", target, body=body, timeout=timeout)

    def delete(
        self, target: str, query: Mapping[str, object], *, timeout: float = ANSWER_SECONDS
    ) -> Reply:
        """Ask for something to be undone."""
        return self._ask("DELETE", target, query=query, timeout=timeout)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(
        self,
        method: str,
        target: str,
        *,
        timeout: float,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Reply:
        # What argv held that is no UTF-8 travels as it was.
        encoded = f"?{urlencode(query, errors='surrogateescape')}" if query else ""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection = self._connected(timeout)
        try:
            connection.request(
                method,
                target + encoded,
                body=json.dumps(body).encode() if body is not None else None,
                headers=headers,
            )
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as exc:
            self.close()
            raise DaemonGone(self._path, reason=_words(exc), sent=True) from exc
        except BaseException:
            self.close()  # an interrupt left half an answer in it
            raise
        return self._reply(response, content)

    def _connected(self, timeout: float) -> _UnixConnection:
        connection = self._connection or _UnixConnection(self._path)
        connection.timeout = timeout
        try:
            if connection.sock is None:
                connection.connect()
            else:
                connection.sock.settimeout(timeout)
        except PermissionError as exc:
            raise Failure(
                Code.PERMISSION_DENIED,
                "You may not use attachd.",
                status=Exit.REFUSED,
                details=f"{self._path}: {_words(exc)}",
                resolution=f"Run it as root, or as a member of the group that owns {self._path}.",
            ) from exc
        except (OSError, ValueError) as exc:  # ValueError: a path with a NUL
            raise DaemonGone(self._path, reason=_words(exc), sent=False) from exc
        self._connection = connection
        return connection

    def _reply(self, response: HTTPResponse, content: bytes) -> Reply:
        try:
            document = json.loads(content)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._stranger(response.status)
        if response.status >= _FIRST_ERROR:
            raise _refusal(document)
        pause = response.headers.get("Retry-After", "")
        return Reply(document, float(pause) if pause.isdecimal() else 0.0)

    def _stranger(self, status: int) -> Failure:
        return Failure(
            Code.DAEMON_UNREACHABLE,
            "What answers is not attachd.",
            status=Exit.UNREACHABLE,
            details=f"{self._path} answered with HTTP status {status} and no JSON object.",
            resolution="Give the right socket: --socket, or ATTACHD_SOCKET.",
        )


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def segment(value: str) -> str:
    """A caller's word as one segment of a path."""
    return quote(value, safe="", errors="surrogateescape")


def _refusal(document: Mapping[str, Any]) -> Failure:
    code = str(document.get("code", Code.INTERNAL_ERROR))
    return Failure(
        code,
        str(document.get("brief", "")),
        status=status_of_refusal(code),
        details=str(document.get("details", "")),
        resolution=str(document.get("resolution", "")),
    )


def _words(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "it doesn't answer"
    return getattr(exc, "strerror", None) or str(exc)
