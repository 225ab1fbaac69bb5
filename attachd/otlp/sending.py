"""OpenTelemetry's SDK: spans with given ids and times, and their way to a collector by OTLP/HTTP.

The SDK makes spans of what happens now; here they are made behind it, by its own means: an id
generator that hands out the ids that a span shall have, and given times. Its environment variables
hold, too: OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_CERTIFICATE ...
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from importlib.metadata import version
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from attachd.otlp.spans import Span

LOG = logging.getLogger(__name__)

SECONDS = 5.0
"""That the collector has for a trace, tries and pauses together."""
_PATH = "/v1/traces"


class OtlpCollector:
    """Fulfils :class:`attachd.otlp.exporter.Collector`. For one thread at a time.

    ``endpoint``: the collector's URL, with or without the path of traces.
    """

    def __init__(self, *, endpoint: str, timeout: float = SECONDS) -> None:
        self._ids = _GivenIds()
        self._ended = _Gathering()
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(
                {
                    "service.name": "attachd",
                    "service.version": version("attachd"),
                    "host.name": socket.gethostname(),
                }
            ),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("attachd", version("attachd"))
        self._exporter = OTLPSpanExporter(endpoint=url_of_traces(endpoint), timeout=timeout)

    def send(self, trace: int, spans: Sequence[Span]) -> bool:
        """Tell the spans of a trace; False where the collector didn't take them."""
        for span in spans:
            self._make(trace, span)
        try:
            result = self._exporter.export(self._ended.take())
        except Exception as exc:  # noqa: BLE001 - older SDKs hand on what requests raises
            LOG.warning("A trace could not be sent: %s", exc)
            return False
        return result is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Nothing more is sent, and nothing waited for."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _make(self, trace: int, span: Span) -> None:
        self._ids.trace, self._ids.span = trace, span.span_id
        parent = Context()
        if span.parent_id is not None:
            parent = set_span_in_context(NonRecordingSpan(_named(trace, span.parent_id)), parent)
        made = self._tracer.start_span(
            span.name,
            context=parent,
            kind=SpanKind.CLIENT if span.outgoing else SpanKind.INTERNAL,
            attributes=span.attributes,
            links=[Link(_named(trace, earlier)) for earlier in span.links],
            start_time=span.started,
        )
        if span.problem is not None:
            made.set_status(Status(StatusCode.ERROR, span.problem))
        made.end(span.ended)


class _GivenIds(IdGenerator):
    """The ids of the span that is made next."""

    trace = 0
    span = 0

    def generate_span_id(self) -> int:
        return self.span

    def generate_trace_id(self) -> int:
        return self.trace


class _Gathering(SpanProcessor):
    """The spans that have ended, for one request."""

    def __init__(self) -> None:
        self._ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._ended.append(span)

    def take(self) -> list[ReadableSpan]:
        taken, self._ended = self._ended, []
        return taken


def url_of_traces(endpoint: str) -> str:
    """As OpenTelemetry has it of a base URL: with the path of traces behind it."""
    if urlsplit(endpoint).path.endswith(_PATH):
        return endpoint
    return endpoint.rstrip("/") + _PATH


def _named(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
