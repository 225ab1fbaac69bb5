"""Where a collector sends traces on to: OTLP by its official definitions, remembered."""

from __future__ import annotations

import gzip
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Received:
    """A span as it arrived; ids in hexadecimal, no parent: empty."""

    name: str
    trace: str
    span: str
    parent: str
    started: int
    ended: int
    kind: int
    failed: bool
    problem: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Backend:
    """Listens inside of a ``with``. ``refuse`` answers so many requests with 503."""

    def __init__(self) -> None:
        self.refuse = 0
        self.answers = threading.Event()
        self.answers.set()
        self._spans: list[Received] = []
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Backend:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                backend.answers.wait(PATIENCE)
                status = backend._take(self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.answers.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self, count: int) -> list[Received]:
        """All that came, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._spans) >= count, PATIENCE), self._spans
            return list(self._spans)

    def _take(self, path: str, body: bytes) -> int:
        assert path == "/v1/traces", path
        with self._changed:
            if self.refuse:
                self.refuse -= 1
                return 503
            request = ExportTraceServiceRequest.FromString(body)
            for group in request.resource_spans:
                resource = _attributes(group.resource.attributes)
                for scope in group.scope_spans:
                    self._spans += [_received(span, resource) for span in scope.spans]
            self._changed.notify_all()
            return 200


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        started=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        kind=span.kind,
        failed=span.status.code == 2,
        problem=span.status.message,
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_attributes(span.attributes),
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


def until(what: str, holds: Any) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"it never came true that {what}"
        time.sleep(0.01)
