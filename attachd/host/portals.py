"""Are the portals there? Asked before os-brick takes its host-wide lock (law 7).

os-brick holds that lock while iscsid tries a dead portal for minutes, and every other volume of the
host waits. A TCP connection tells within seconds.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from attachd.errors import AttachdError, Code
from attachd.model import Target
from attachd.portal import split_portal


def answering(targets: Iterable[Target], *, timeout: float) -> tuple[Target, ...]:
    """The targets whose portal takes a TCP connection within ``timeout`` seconds each.

    Raises connect-failed, nothing touched, where none does.
    """
    alive = []
    silent = []
    for target in targets:
        error = _probe(target.portal, timeout=timeout)
        if error is None:
            alive.append(target)
        else:
            silent.append(f"{target.portal}: {error}")
    if not alive:
        raise AttachdError(
            Code.CONNECT_FAILED,
            "No portal of the volume's target answers.",
            details="; ".join(silent),
            resolution="See that the storage backend is up and that this host can reach it.",
            touched=False,
        )
    return tuple(alive)


def _probe(portal: str, *, timeout: float) -> str | None:
    try:
        with socket.create_connection(split_portal(portal), timeout=timeout):
            return None
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except (OSError, ValueError) as exc:
        return str(exc)
