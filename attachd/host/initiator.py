"""Is iscsid there, or will it be when iscsiadm asks for it?

iscsiadm talks to iscsid through an abstract socket. A stopped iscsid comes back: systemd listens on
that socket, or iscsiadm has its socket unit started (``iscsid.startup``). A masked one doesn't,
although systemd may still listen for it; only systemd knows, so it is asked. Where there are no
such units (a container, another init), somebody must listen. Where the service has processes by
its cgroup, systemd isn't asked: systemctl takes longer than all else that an attach looks at first.

Nothing connects to the socket here: that alone would start iscsid.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from attachd.errors import Code, Unreachable, World
from attachd.host.units import Unit, ask_systemd

SOCKET = "@ISCSIADM_ABSTRACT_NAMESPACE"
UNIX_SOCKETS = Path("/proc/net/unix")
INITIATOR_NAME = Path("/etc/iscsi/initiatorname.iscsi")
CGROUP_EVENTS = Path("/sys/fs/cgroup/system.slice/iscsid.service/cgroup.events")
SERVICE, SOCKET_UNIT = "iscsid.service", "iscsid.socket"
_ACCEPTS = 0x10000
_COLUMNS = 8
_NAME = "InitiatorName="


def check_initiator(
    *,
    unix_sockets: Path = UNIX_SOCKETS,
    initiator_name: Path = INITIATOR_NAME,
    cgroup_events: Path = CGROUP_EVENTS,
) -> None:
    """Raise Unreachable iscsi-unavailable where no login could succeed."""
    if not initiator_name.exists():
        raise _unavailable(
            f"{initiator_name} is missing.", resolution="Install open-iscsi and start iscsid."
        )
    if _has_processes(cgroup_events):
        return
    if hindrance := iscsid_hindrance(unix_sockets=unix_sockets):
        raise _unavailable(
            hindrance,
            resolution=f"systemctl unmask {SERVICE} {SOCKET_UNIT} && systemctl start {SERVICE}",
        )


def iscsid_hindrance(*, unix_sockets: Path = UNIX_SOCKETS) -> str | None:
    """What keeps iscsid away for good; None: it runs, or comes when it is asked for.

    Raises Unreachable iscsi-unavailable where systemd doesn't answer.
    """
    service, socket = _ask_systemd(SERVICE, SOCKET_UNIT)
    return hindrance_of(service, socket, listening=_listening(unix_sockets))


def iscsid_since() -> float | None:
    """When the iscsid that runs was started; None: systemd runs none.

    In seconds of the wall clock as it goes now. Raises Unreachable iscsi-unavailable where systemd
    doesn't answer.
    """
    (service,) = _ask_systemd(SERVICE)
    return None if service.since is None else time.time() - time.monotonic() + service.since


def _ask_systemd(*units: str) -> list[Unit]:
    try:
        return ask_systemd(units)
    except TimeoutError as exc:
        raise _unavailable(str(exc), resolution="Look after systemd.") from exc


def hindrance_of(service: Unit, socket: Unit, *, listening: bool) -> str | None:
    """As :func:`iscsid_hindrance`, from what was seen."""
    if service.running:
        return None
    if service.load == "masked":
        return f"{SERVICE} is masked, and not running."
    if listening:
        return None
    if socket.load == "masked":
        return f"{SERVICE} is not running, and {SOCKET_UNIT} is masked."
    if service.load == "not-found":
        return "iscsid is not running, and systemd doesn't know it."
    return None


def initiator_name_in(text: str) -> str | None:
    """The name in the file's text, read as os-brick does; None: it has none."""
    lines = (line for line in text.splitlines() if line.startswith(_NAME))
    return next((line.removeprefix(_NAME).strip() for line in lines), None) or None


def _has_processes(cgroup_events: Path) -> bool:
    """No: it may have some all the same, in another slice or without systemd."""
    try:
        return "populated 1" in cgroup_events.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return False


def _listening(unix_sockets: Path) -> bool:
    """Does anybody listen on iscsid's socket? Columns: ... flags(3) ... path(7)."""
    # Anybody may give an abstract socket any bytes for its name, ends of lines among them.
    for line in unix_sockets.read_bytes().split(b"\n"):
        columns = line.split()
        if len(columns) == _COLUMNS and columns[-1] == SOCKET.encode():
            with suppress(ValueError):
                if int(columns[3], 16) & _ACCEPTS:
                    return True
    return False


def _unavailable(details: str, *, resolution: str) -> Unreachable:
    return Unreachable(
        Code.ISCSI_UNAVAILABLE,
        "iscsid can't be used on this host.",
        details=details,
        resolution=resolution,
        world=World.HOST,
        touched=False,
    )
