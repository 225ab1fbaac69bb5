"""Is iscsid there, or will it be when iscsiadm asks for it?

iscsiadm talks to iscsid through an abstract socket. A stopped iscsid comes back: systemd listens on
that socket, or iscsiadm has its socket unit started (``iscsid.startup``). A masked one doesn't,
although systemd may still listen for it; only systemd knows, so it is asked. Where there are no
such units (a container, another init), somebody must listen.

Nothing connects to the socket here: that alone would start iscsid.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attachd.errors import Code, Unreachable, World

SOCKET = "@ISCSIADM_ABSTRACT_NAMESPACE"
UNIX_SOCKETS = Path("/proc/net/unix")
INITIATOR_NAME = Path("/etc/iscsi/initiatorname.iscsi")
SERVICE, SOCKET_UNIT = "iscsid.service", "iscsid.socket"
_ACCEPTS = 0x10000
_COLUMNS = 8
_SYSTEMCTL_SECONDS = 30


@dataclass(frozen=True)
class Unit:
    """What systemd says of a unit."""

    load: str = "not-found"
    active: str = "inactive"

    @property
    def running(self) -> bool:
        """Is it there, or about to be?"""
        return self.active in ("active", "activating", "reloading")


def check_initiator(
    *, unix_sockets: Path = UNIX_SOCKETS, initiator_name: Path = INITIATOR_NAME
) -> None:
    """Raise Unreachable iscsi-unavailable where no login could succeed."""
    if not initiator_name.exists():
        raise _unavailable(
            f"{initiator_name} is missing.", resolution="Install open-iscsi and start iscsid."
        )
    units = _units()
    hindrance = hindrance_of(units[SERVICE], units[SOCKET_UNIT], listening=_listening(unix_sockets))
    if hindrance:
        raise _unavailable(
            hindrance,
            resolution=f"systemctl unmask {SERVICE} {SOCKET_UNIT} && systemctl start {SERVICE}",
        )


def hindrance_of(service: Unit, socket: Unit, *, listening: bool) -> str | None:
    """What keeps iscsid away for good; None: it runs, or comes when it is asked for."""
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


def parse_units(shown: str) -> list[Unit]:
    """systemd's answer: a block of KEY=VALUE for each unit, in the order asked."""
    blocks = (
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in shown.split("\n\n")
        if block.strip()
    )
    return [Unit(load=b.get("LoadState", ""), active=b.get("ActiveState", "")) for b in blocks]


def _units() -> dict[str, Unit]:
    asked = (SERVICE, SOCKET_UNIT)
    try:
        answer = subprocess.run(
            ("systemctl", "show", "--property=LoadState,ActiveState", *asked),
            capture_output=True,
            text=True,
            timeout=_SYSTEMCTL_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return {unit: Unit() for unit in asked}
    except subprocess.TimeoutExpired as exc:
        raise _unavailable("systemctl does not answer.", resolution="Look after systemd.") from exc
    units = parse_units(answer.stdout) if answer.returncode == 0 else []
    return dict(zip(asked, units + [Unit()] * len(asked), strict=False))


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
