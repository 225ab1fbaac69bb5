"""[DEFAULT]: where attachd keeps its things, and how it works."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "DEFAULT"

OPTS = [
    cfg.StrOpt(
        "state_path",
        default="/var/lib/attachd",
        help="Directory of the journal and the lock files; owned by the daemon's user.",
    ),
    cfg.StrOpt(
        "user",
        default="attachd",
        help="The user that the daemon becomes once the privileged helper is forked. "
        "It must be in libvirt's group.",
    ),
    cfg.IntOpt(
        "workers",
        default=8,
        min=1,
        max=64,
        help="How many operations run at once. Each guest and each volume has one at a time.",
    ),
    cfg.IntOpt(
        "lock_timeout",
        default=600,
        min=1,
        help="Seconds that an operation waits for an earlier one on the same guest before it is "
        "refused with guest-busy.",
    ),
    cfg.IntOpt(
        "resume_interval",
        default=30,
        min=1,
        help="Seconds between two tries to go on with operations that wait for Cinder, libvirt or "
        "the host's storage to answer again. libvirt's return is noticed at once.",
    ),
    cfg.IntOpt(
        "audit_interval",
        default=45,
        min=1,
        help="Seconds between two audits: looks at all attachments in Cinder, on the host and in "
        "the guests. What others changed is then in the log (and in attachctl audit at any time), "
        "and what is dangerous is fenced. Longer, up to 300, where audits of many attachments "
        "would take more than 0.7 percent of a processor.",
    ),
    cfg.IntOpt(
        "keep_days",
        default=365,
        min=1,
        help="Days that an operation is kept in the journal when it is over; the newest hundred "
        "always are. Kept longer is what belongs to a volume that an operation or an audit's "
        "finding is open about, and the latest operation of each attachment.",
    ),
    cfg.IntOpt(
        "keep_operations",
        default=10000,
        min=1,
        help="How many operations are kept at most, with the same exceptions. Each takes some 10 "
        "KiB of the journal's file.",
    ),
    cfg.IntOpt(
        "shutdown_timeout",
        default=120,
        min=1,
        help="Seconds that a stopping daemon waits for what is under way. "
        "What isn't finished by then is journalled and goes on at the next start. Keep it below "
        "the unit's TimeoutStopSec (180).",
    ),
]
