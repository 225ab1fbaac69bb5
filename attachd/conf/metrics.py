"""[metrics]: the numbers, beside the API's socket, where they always are (/metrics)."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "metrics"

OPTS = [
    cfg.StrOpt(
        "listen",
        regex=r"^(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/]+):[0-9]{1,5}$",
        sample_default="127.0.0.1:9776",
        help="Address and port at which /metrics, and nothing else, is served over TCP, too: "
        "Prometheus can't scrape a Unix socket. Whoever reaches it reads the names of guests and "
        "the ids of volumes, unasked who they are: keep it to loopback or a network of your own. "
        "Unset: not over TCP.",
    ),
]
