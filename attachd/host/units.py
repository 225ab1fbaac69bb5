"""What systemd says of its units."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SECONDS = 30
_PROPERTIES = "LoadState,ActiveState,Result,MainPID,ExecMainStartTimestampMonotonic"
_NOBODY = "0"


@dataclass(frozen=True)
class Unit:
    """What systemd says of a unit; ``result``: how it ended the last time.

    ``since``: when its main process was started, in seconds of the monotonic clock; None: it
    doesn't run.
    """

    load: str = "not-found"
    active: str = "inactive"
    result: str = ""
    since: float | None = None

    @property
    def running(self) -> bool:
        """Is it there, or about to be?"""
        return self.active in ("active", "activating", "reloading")


def ask_systemd(units: Sequence[str]) -> list[Unit]:
    """Each unit; where there is no systemd, none is known. Raises TimeoutError."""
    unknown = [Unit() for _ in units]
    try:
        answer = subprocess.run(
            ("systemctl", "show", f"--property={_PROPERTIES}", *units),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return unknown
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError("systemctl does not answer.") from exc
    found = parse_units(answer.stdout) if answer.returncode == 0 else []
    return [*found, *unknown[len(found) :]]


def parse_units(shown: str) -> list[Unit]:
    """systemd's answer: a block of KEY=VALUE for each unit, in the order asked."""
    blocks = (
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in shown.split("\n\n")
        if block.strip()
    )
    return [
        Unit(
            load=block.get("LoadState", ""),
            active=block.get("ActiveState", ""),
            result=block.get("Result", ""),
            since=_since(block),
        )
        for block in blocks
    ]


def _since(block: Mapping[str, str]) -> float | None:
    """systemd tells the last start of one that has ended, too, in microseconds."""
    started = block.get("ExecMainStartTimestampMonotonic", "")
    if block.get("MainPID", _NOBODY) == _NOBODY or not started.isdecimal():
        return None
    return int(started) / 1_000_000
