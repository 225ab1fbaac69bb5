"""What ends a command badly: a problem, and the exit status that goes with it.

A code is a plain string here: the daemon may be newer than this client, and know more of them.
"""

from __future__ import annotations

from attachd.errors import NOT_FOUND_CODES, Code, Exit


class Failure(Exception):
    """See the module."""

    def __init__(
        self, code: str, brief: str, *, status: Exit, details: str = "", resolution: str = ""
    ) -> None:
        super().__init__(f"{code}: {brief}")
        self.code = code
        self.brief = brief
        self.details = details
        self.resolution = resolution
        self.status = status


class DaemonGone(Failure):
    """No answer. ``sent``: the daemon may have had the request all the same."""

    def __init__(self, socket_path: str, *, reason: str, sent: bool) -> None:
        super().__init__(
            Code.DAEMON_UNREACHABLE,
            "The daemon can't be reached.",
            status=Exit.UNREACHABLE,
            details=f"{socket_path}: {reason}",
            resolution="Look how it is: systemctl status attachd.socket attachd.service",
        )
        self.sent = sent


def status_of_refusal(code: str) -> Exit:
    """The exit status where the daemon said no."""
    if code in NOT_FOUND_CODES:
        return Exit.NOT_FOUND
    if code == Code.INTERNAL_ERROR:
        return Exit.NEEDS_ATTENTION  # nobody knows what it left behind
    return Exit.REFUSED
