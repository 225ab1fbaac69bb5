"""What systemd is told: ready, alive, stopping. A datagram a message (sd_notify(3)).

Written here since it is one system call, and the libraries for it are unkept or need a compiler.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Talks to the service manager; does nothing where there is none."""

    def __init__(self, *, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        watched_pid = environment.get("WATCHDOG_PID", str(os.getpid()))
        watched = watched_pid == str(os.getpid())
        self._watchdog = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if watched else 0.0

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two signs of life, half of what systemd allows; None: it doesn't ask."""
        return self._watchdog / 2 or None

    def ready(self) -> None:
        """The daemon serves."""
        self._send("READY=1")

    def alive(self) -> None:
        """The daemon works as it should."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The daemon winds up."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # the abstract namespace
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(message.encode(), address)
