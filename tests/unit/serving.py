"""The real API server on a real Unix socket, around an engine that remembers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from attachd.api.app import Authorise, create_app
from attachd.api.peers import GroupRule
from attachd.api.server import Server
from attachd.api.sockets import bind
from tests.fakes.engine import FakeEngine

BODY_LIMIT = 65536


@contextmanager
def serving(
    engine: FakeEngine,
    path: Path,
    *,
    authorise: Authorise | None = None,
    threads: int = 6,
    long_polls: int = 2,
) -> Iterator[Server]:
    """Serve until the block ends."""
    app = create_app(
        engine=engine,
        auditor=engine,
        repairer=engine,
        doctor=engine,
        metrics=engine,
        authorise=authorise or GroupRule(gid=None),
        body_limit=BODY_LIMIT,
        long_polls=long_polls,
    )
    server = Server(
        app, bind(path, gid=None), threads=threads, body_limit=BODY_LIMIT, stop_timeout=1
    )
    server._server.expiration_interval = 0.05  # how long cheroot's stop takes at the most
    server.start()
    try:
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class Answer:
    """What came back, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


class Connection(HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = connected(self._path)

    def answer(self) -> Answer:
        return _whole(self.getresponse())


def connected(path: Path) -> socket.socket:
    """A plain socket to the server."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(60)
    sock.connect(str(path))
    return sock


def ask(
    path: Path,
    method: str,
    target: str,
    body: object = None,
    *,
    content_type: str = "application/json",
) -> Answer:
    """One request on a connection of its own; ``body`` is JSON, or bytes as they are."""
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {} if raw is None else {"Content-Type": content_type}
    connection = Connection(path)
    try:
        connection.request(method, target, raw, headers)
        return connection.answer()
    finally:
        connection.close()


def ask_raw(path: Path, request: bytes) -> Answer:
    """Bytes that no decent client would send."""
    with connected(path) as sock:
        sock.sendall(request)
        response = HTTPResponse(sock)
        response.begin()
        return _whole(response)


def _whole(response: HTTPResponse) -> Answer:
    return Answer(response.status, dict(response.getheaders()), response.read())
