"""[trace]: operations as traces for OpenTelemetry."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "trace"

OPTS = [
    cfg.URIOpt(
        "otlp_endpoint",
        schemes=["http", "https"],
        sample_default="http://127.0.0.1:4318",
        help="URL of a collector that takes OTLP over HTTP: each operation that came to rest is "
        "sent there as a trace of the operation's own id. No operation waits for the collector. "
        "Needs attachd[otlp]; headers, certificates and resource attributes come from "
        "OpenTelemetry's own environment variables. Unset: nothing is sent.",
    ),
]
