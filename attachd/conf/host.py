"""[host]: this host's side of the storage: iSCSI, os-brick, its locks and deadlines."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "host"

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "lock_path",
        default="$state_path/locks",
        help="Directory of os-brick's lock files. Where Nova or Cinder connect volumes on this "
        "host too, give all of them the same directory, so that their work excludes each other. "
        "The daemon's user must be able to write it and the files in it: share it by a group "
        "(chmod 2770) that the users of all of them are in, and their umask 002.",
    ),
    cfg.HostAddressOpt(
        "my_ip",
        help="This host's address as Cinder's drivers shall know it. "
        "Unset, it is the address that the default route uses.",
    ),
    cfg.FloatOpt(
        "portal_timeout",
        default=5,
        min=0.1,
        help="Seconds that a target's portal may take to accept a TCP connection. It is asked "
        "before os-brick takes its host-wide lock, so that a dead portal holds up one volume only.",
    ),
    cfg.IntOpt(
        "connect_timeout",
        default=180,
        min=10,
        help="Seconds that connecting a volume may take, the wait for os-brick's lock included. "
        "At the deadline it is stopped and undone.",
    ),
    cfg.IntOpt(
        "disconnect_timeout",
        default=300,
        min=10,
        help="Seconds that disconnecting a volume may take, the flush included. iscsid fails the "
        "requests of a target that doesn't answer only after its own replacement_timeout (120).",
    ),
    cfg.IntOpt(
        "grace",
        default=60,
        min=55,
        help="Seconds that the last command has to end once a deadline has passed. It covers a "
        "login under way, which must not be cut off: iscsid would finish it unseen. What doesn't "
        "end even then keeps its operation open.",
    ),
    cfg.IntOpt(
        "guard_timeout",
        default=300,
        min=1,
        help="Seconds that an operation waits for another one of the same storage backend, where "
        "the backend's volumes share targets.",
    ),
    cfg.FloatOpt(
        "release_timeout",
        default=15,
        min=0,
        help="Seconds that a process may still hold a device open when it is to be disconnected; "
        "after them it is refused as still in use.",
    ),
    cfg.FloatOpt(
        "udev_timeout",
        default=30,
        min=1,
        help="Seconds that udev has to make the identity path of a new device.",
    ),
    cfg.IntOpt(
        "scan_attempts",
        default=2,
        min=1,
        max=5,
        help="How often a session is scanned again for a LUN that isn't there at once, after 4, "
        "9, 16 ... seconds. os-brick goes through it three times: 2 attempts take some 90 seconds, "
        "3 take 170, and must fit into connect_timeout.",
    ),
]
