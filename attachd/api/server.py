"""The HTTP server: cheroot on a socket that is listening already, a Unix one or TCP's.

What this adds to cheroot:

* the socket is ours, so a Unix peer's credentials are there (cheroot's own activation loses them);
* a connection costs a thread only while it says something: silent ones wait in the selector;
* connections are bounded, and a body's length is believed only where it is a plain number;
* what cheroot itself refuses is a problem+json document, too;
* stopping takes a bounded time, whatever the clients do;
* where nobody asks it looks for silent connections every few seconds, not twice a second.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from wsgiref.types import WSGIApplication

from cheroot import wsgi
from cheroot.server import HTTPConnection, HTTPRequest, SizeCheckWrapper

from attachd.api import problems
from attachd.errors import Problem

LOG = logging.getLogger(__name__)

_MOST_CONNECTIONS = 256
_LARGEST_HEAD = 16384
_SILENCE_SECONDS = 10
_LINGER_SECONDS = 2.0
_KNOCK_SECONDS = 0.02
_BLOCK = 65536


class Server:
    """Serves a WSGI application on ``sock``, which it owns from here on.

    ``threads`` answer at once; ``body_limit`` is in bytes; ``stop_timeout`` is how many seconds a
    stop leaves to requests under way before it cuts their connections; ``name`` is its thread's.
    """

    def __init__(
        self,
        app: WSGIApplication,
        sock: socket.socket,
        *,
        threads: int,
        body_limit: int,
        stop_timeout: float = 6.0,
        name: str = "api",
    ) -> None:
        self._server = _Server(app, sock, threads=threads, body_limit=body_limit)
        self._sock = sock
        self._stop_timeout = stop_timeout
        self._thread = threading.Thread(target=self._server.serve, name=name)

    def start(self) -> None:
        """Serve in threads of its own; returns when requests are answered."""
        self._server.prepare()
        self._thread.start()

    def stop(self) -> None:
        """Take no new request, let those under way finish or cut them off; idle ones are closed.

        The socket's file stays where it is: the next daemon replaces it.
        """
        cutter = threading.Timer(self._stop_timeout, self._server.cut_all)
        stopped = threading.Event()
        knocker = threading.Thread(target=self._knock_until, args=(stopped,), name="knocker")
        cutter.start()
        knocker.start()
        try:
            self._server.stop()
            if self._thread.ident is not None:
                self._thread.join()
        finally:
            stopped.set()
            cutter.cancel()
            knocker.join()
            cutter.join()
            self._sock.close()

    def _knock_until(self, stopped: threading.Event) -> None:
        """Who waits for clients sees that it shall stop when one comes, or at its next look.

        This process's own user may not be let in: the socket is its group's.
        """
        while not stopped.wait(_KNOCK_SECONDS):
            with suppress(OSError), socket.socket(self._sock.family) as knock:
                knock.settimeout(_KNOCK_SECONDS)
                knock.connect(self._sock.getsockname())


class _Server(wsgi.Server):
    def __init__(
        self, app: WSGIApplication, sock: socket.socket, *, threads: int, body_limit: int
    ) -> None:
        super().__init__(
            # A string keeps cheroot from making a socket of its own; ours may have no name at all.
            bind_addr=str(sock.getsockname()),
            wsgi_app=app,
            numthreads=threads,
            max=threads,
            server_name="attachd",
            request_queue_size=_MOST_CONNECTIONS,
            timeout=_SILENCE_SECONDS,
            peercreds_enabled=sock.family == socket.AF_UNIX,
        )
        self.expiration_interval = _SILENCE_SECONDS / 5
        # Not cheroot's own time-out: it shuts one direction, and then waits without a bound.
        self.shutdown_timeout: Any = None
        self.max_request_header_size = _LARGEST_HEAD
        self.max_request_body_size = body_limit
        self.ConnectionClass = _Connection
        self.open: set[_Connection] = set()
        self._listening = sock

    def bind_unix_socket(self, bind_addr: str) -> socket.socket:  # noqa: ARG002 - cheroot's own
        """Called by prepare(): the socket is bound already."""
        self.socket = self._listening
        return self._listening

    def process_conn(self, conn: _Connection) -> None:
        """A new connection waits among the idle ones until it says something."""
        if conn.last_used is not None:
            super().process_conn(conn)
        elif len(self.open) > _MOST_CONNECTIONS:
            conn.close()
        else:
            self.put_conn(conn)

    def cut_all(self) -> None:
        """End every connection that is still open, in both directions."""
        for conn in tuple(self.open):
            conn.cut()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """cheroot would write it to standard error."""
        LOG.log(level, "%s", msg, exc_info=traceback)


class _Request(HTTPRequest):
    def read_request_headers(self) -> bool:
        """cheroot takes a negative length for "until the end", and ``1_0`` for ten."""
        if not super().read_request_headers():  # type: ignore[no-untyped-call]
            return False
        length = self.inheaders.get(b"Content-Length")
        if length is not None and (self.chunked_read or not length.isdigit()):
            self.simple_response("400 Bad Request", "Malformed Content-Length Header.")
            return False
        if self.chunked_read:
            # The line before each chunk has no bound in cheroot.
            limit = 2 * self.server.max_request_body_size
            self.conn.rfile = SizeCheckWrapper(self.conn.rfile, limit)
        return True

    def simple_response(self, status: str, msg: str = "") -> None:
        """What cheroot itself refuses, in our form. The connection ends with it."""
        chosen = HTTPStatus(int(str(status)[:3]))
        problem = Problem(code=problems.code_of(chosen), brief=f"{chosen.phrase}.", details=msg)
        body = json.dumps(problems.document(problem, chosen)).encode()
        head = (
            f"HTTP/1.1 {chosen.value} {chosen.phrase}\r\n"
            f"Content-Type: {problems.MEDIA_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.close_connection = True
        self.conn.lingers = chosen == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        with suppress(OSError):
            self.conn.wfile.write(head.encode() + body)

    def send_headers(self) -> None:
        """A body that nobody read is not waited for before the answer, as cheroot would."""
        if self.chunked_read or getattr(self.rfile, "remaining", 0) > 0:
            self.close_connection = True
            self.conn.lingers = True
        super().send_headers()


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request

    def __init__(self, server: _Server, sock: socket.socket, makefile: Callable[..., Any]) -> None:
        super().__init__(server, sock, makefile)
        self.lingers = False
        server.open.add(self)

    def close(self) -> None:
        if self.lingers:
            self._linger()
        self.server.open.discard(self)
        super().close()
        # What a vanished client didn't take must not be tried again when this is collected.
        with suppress(OSError):
            self.wfile.close()

    def cut(self) -> None:
        """Whoever reads from it or writes to it, returns."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def _linger(self) -> None:
        """Throw away what still comes (RFC 9112, 9.6): else a client that is busy sending sees a
        broken pipe instead of its answer.
        """
        deadline = time.monotonic() + _LINGER_SECONDS
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(_LINGER_SECONDS)
            while time.monotonic() < deadline and self.socket.recv(_BLOCK):
                pass
