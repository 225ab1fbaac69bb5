"""[guest]: the libvirt daemon, and how long it and its guests may take."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "guest"

OPTS = [
    cfg.StrOpt(
        "uri",
        default="qemu:///system",
        help="Connection URI of the libvirt daemon whose guests get volumes. "
        "It must be this host's own: the devices are attached here.",
    ),
    cfg.FloatOpt(
        "open_timeout",
        default=30.0,
        min=1.0,
        help="Seconds that a request waits for a connection to libvirt. A daemon that systemd "
        "starts on demand needs some of them; one that is stopped refuses at once.",
    ),
    cfg.FloatOpt(
        "call_timeout",
        default=60.0,
        min=1.0,
        help="Seconds that a single call to libvirt may take before it counts as unanswered. "
        "libvirt itself waits up to 30 seconds for a busy guest and then says so: "
        "stay above that.",
    ),
    cfg.IntOpt(
        "keepalive_interval",
        default=5,
        min=1,
        help="Seconds between two probes of the connection to libvirt.",
    ),
    cfg.IntOpt(
        "keepalive_count",
        default=5,
        min=1,
        help="How many probes may stay unanswered before libvirt counts as hung and the "
        "connection is opened anew.",
    ),
    cfg.FloatOpt(
        "unplug_timeout",
        default=100.0,
        min=1.0,
        help="Seconds that a running guest has to let go of a disk. A guest that takes longer "
        "keeps it, and the detach is rolled back; when it lets go later after all, "
        "the detach is finished then.",
    ),
    cfg.FloatOpt(
        "unplug_retry_interval",
        default=20.0,
        min=6.0,
        help="Seconds after which a guest that hasn't let go of a disk is asked again. "
        "PCI Express takes a second request within 5 seconds for the first one's withdrawal.",
    ),
]
