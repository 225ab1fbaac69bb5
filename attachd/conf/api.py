"""[api]: the HTTP API on the Unix socket."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "api"

OPTS = [
    cfg.StrOpt(
        "socket",
        default="/run/attachd/attachd.sock",
        help="The Unix socket that attachctl talks to. systemd's attachd.socket goes before it: "
        "where systemd hands a socket over, this one is not made.",
    ),
    cfg.StrOpt(
        "group",
        default="attachd",
        help="The group whose members may use the API, beside root. They can attach any volume "
        "that attachd's user in Keystone may attach to any guest of this host.",
    ),
    cfg.IntOpt(
        "threads",
        default=16,
        min=4,
        max=256,
        help="How many requests are answered at once. Half of them may wait for an operation's "
        "events at a time; more callers than that have to ask again.",
    ),
    cfg.IntOpt(
        "body_limit",
        default=65536,
        min=4096,
        max=16 * 1024 * 1024,
        help="The largest body of a request, in bytes. A larger one is refused unread.",
    ),
]
